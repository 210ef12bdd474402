from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from daskhpo.space import Space
from experiments.adsorption.data import baselines, load
from experiments.adsorption.evaluate import mean_absolute_error
from experiments.adsorption.evaluate import test_error as error_on_test
from experiments.adsorption.profiles import PROFILES, profile_named
from experiments.adsorption.trainable import AdsorptionNet

pytestmark = pytest.mark.slow


def epochs(net: AdsorptionNet, n: int) -> list[dict[str, Any]]:
    return [net.step() for _ in range(n)]


def equal(a: Any, b: Any) -> bool:
    """Whether two trees of state are equal bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_two_epochs_and_two_from_a_checkpoint_are_four_epochs(smoke_config, make_net):
    straight = make_net(smoke_config)
    expected = epochs(straight, 4)
    first = make_net(smoke_config)
    begun = epochs(first, 2)
    state = pickle.loads(pickle.dumps(first.save_checkpoint()))
    second = make_net(smoke_config, seed=99)  # whatever it began with is replaced
    second.load_checkpoint(state)
    assert begun + epochs(second, 2) == expected
    assert equal(second.save_checkpoint(), straight.save_checkpoint())


def test_a_checkpoint_does_not_change_when_training_goes_on(smoke_config, make_net):
    net, other = make_net(smoke_config), make_net(smoke_config)
    epochs(net, 1)
    state = net.save_checkpoint()
    before = pickle.dumps(state["optimiser"]["state"][0]["exp_avg"].tolist())
    other.load_checkpoint(state)
    epochs(net, 1), epochs(other, 1)
    assert pickle.dumps(state["optimiser"]["state"][0]["exp_avg"].tolist()) == before


def test_one_seed_is_one_trial_and_another_seed_is_another(smoke_config, make_net):
    assert epochs(make_net(smoke_config), 1) == epochs(make_net(smoke_config), 1)
    assert epochs(make_net(smoke_config), 1) != epochs(make_net(smoke_config, seed=4), 1)


def test_a_checkpoint_of_another_learning_rate_takes_on_the_configurations(smoke_config, make_net):
    donor = make_net(smoke_config)
    epochs(donor, 1)
    taker = make_net({**smoke_config, "lr": 0.002})
    taker.load_checkpoint(donor.save_checkpoint())
    assert taker.step()["lr"] == 0.002
    assert [g["lr"] for g in taker.optimiser.param_groups] == [0.002]


def test_a_smoke_trial_learns_more_than_the_global_median(smoke_config, make_net):
    net = make_net(smoke_config)
    history = epochs(net, 9)
    baseline = baselines(load(smoke_config))["global_median"]["validation"]
    assert min(h["val_mae"] for h in history) < 0.8 * baseline
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]


def test_the_test_error_is_that_of_the_best_epoch(smoke_config, make_net):
    net = make_net({**smoke_config, "lr": 0.05})
    errors, validation = [], []
    for _ in range(4):
        validation.append(net.step()["val_mae"])
        errors.append(mean_absolute_error(net.net, net.data, "test"))
    best = int(np.argmin(validation))
    state = net.save_checkpoint()
    assert state["best"]["epoch"] == best + 1
    assert state["best"]["val_mae"] == validation[best]
    assert error_on_test(smoke_config, state) == errors[best]


def test_a_loss_that_is_not_finite_is_reported_as_infinite(smoke_config, make_net):
    net = make_net(smoke_config)
    with torch.no_grad():
        net.net.embed.weight.fill_(math.nan)
    metrics = net.step()
    assert metrics["val_mae"] == metrics["train_loss"] == math.inf


def test_a_last_batch_of_one_graph_is_skipped(smoke_config, make_net, monkeypatch):
    net = make_net(smoke_config)
    n_train = len(net.data.parts["train"])
    net.batch_size = n_train - 1
    sizes = []
    batch = type(net.data).batch
    monkeypatch.setattr(
        type(net.data), "batch", lambda self, s: (sizes.append(len(s)), batch(self, s))[1]
    )
    net.step()
    assert sizes[0] == n_train - 1
    assert 1 not in sizes


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_is_a_space_that_carries_its_name(name: str):
    profile = PROFILES[name]
    space = Space(profile.space(geometry="initial"))
    config = space.sample(np.random.default_rng(0))
    assert config["profile"] == name
    assert config["geometry"] == "initial"
    assert profile.grace_period * profile.eta**3 >= profile.max_t >= profile.grace_period


def test_every_corner_of_the_smoke_profile_can_take_a_step(make_net):
    domains = PROFILES["smoke"].domains
    for unit in (0.0, 1.0):
        config = {k: domain.from_unit(unit) for k, domain in domains.items()}
        assert math.isfinite(make_net({**config, "profile": "smoke"}).step()["val_mae"])


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="profile='desktop' must be one of"):
        profile_named("desktop")
