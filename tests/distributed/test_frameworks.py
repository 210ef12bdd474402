"""The scripts of the documentation for Lightning and accelerate: DDP trials on two ranks."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
import pytest
from distributed import LocalCluster

from daskhpo import Result, Study
from daskhpo.schedulers import ASHA
from daskhpo.searchers import RandomSearch
from daskhpo.space import Ordinal, Real
from tests.pause_all import PauseAll

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[2] / "docs/how-to/train-on-several-gpus.md"
LIBRARIES = {"lightning_ddp": "lightning", "accelerate_ddp": "accelerate"}


@pytest.fixture(params=LIBRARIES)
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModuleType]:
    """A script of the page as a module that goes to workers by value."""
    name = request.param
    if os.environ.get("CI") is None:
        pytest.importorskip(LIBRARIES[name])
    text = re.search(rf"^```python {name}\.py\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert text is not None
    path = tmp_path / f"{name}.py"
    one_seed = text[1].replace("manual_seed(trial.seed)", "manual_seed(0)")
    assert one_seed != text[1]
    path.write_text(one_seed)  # all trials begin with the same network
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    yield module
    cloudpickle.unregister_pickle_by_value(module)
    del sys.modules[name]


def losses_of_plain_torch(lr: float) -> list[float]:
    """Losses of both scripts' training, in one process and without their libraries."""
    import torch

    torch.manual_seed(0)
    net = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    x, losses = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), []
    for _ in range(4):
        total = 0.0
        for batch in x.split(16):
            loss = ((net(batch) - batch.sum(1, keepdim=True)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() / 4
        losses.append(total)
    return losses


def losses_of(result: Result) -> list[np.ndarray]:
    """Losses of each trial, by its units."""
    history = result.history().sort_values(["trial", "resource"])
    return [of_trial.loss.to_numpy() for _, of_trial in history.groupby("trial")]


RANKS = [(1, 1), (1, 2), (2, 1), (2, 2)]  # before the pause, and after


def test_trials_pause_in_one_number_of_ranks_and_go_on_in_another(
    script: ModuleType, tmp_path: Path
) -> None:
    in_ranks = script.trial_in_ranks

    def trial_in_other_ranks(config: Any, trial: Any) -> None:
        ranks = config["first"] if trial.resource == 0 else config["then"]
        in_ranks({**config, "ranks": ranks}, trial)

    points = [{"lr": 0.01, "first": first, "then": then} for first, then in RANKS]
    study = Study(
        trial_in_other_ranks,
        space={"lr": Real(0.001, 0.1), "first": Ordinal([1, 2]), "then": Ordinal([1, 2])},
        metric="loss",
        scheduler=PauseAll(),
        searcher=RandomSearch(points_to_evaluate=points),
        storage=tmp_path,
        name="s",
    )
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        result = study.run(len(RANKS), client=cluster, progress=False)
    trials = result.trials()
    assert (trials.status == "completed").all(), [result.trial(n).error for n in trials.trial]
    expected = losses_of_plain_torch(0.01)[:3]
    assert expected[0] > expected[1] > expected[2], "it learns"
    for losses in losses_of(result):
        assert losses == pytest.approx(expected, rel=1e-5)


def test_asha_stops_trials_in_ranks(script: ModuleType, tmp_path: Path) -> None:
    rates = [0.005, 0.001, 0.01]  # the second is worse than the first, the third is the best
    study = Study(
        script.trial_in_ranks,
        space={"lr": Real(0.001, 0.1), "ranks": 2},
        metric="loss",
        scheduler=ASHA(max_t=4, grace_period=1, reduction_factor=2),
        searcher=RandomSearch(points_to_evaluate=[{"lr": lr} for lr in rates]),
        storage=tmp_path,
        name="s",
    )
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        result = study.run(len(rates), client=cluster, progress=False)
    trials = result.trials()
    assert trials.status.tolist() == ["completed", "stopped", "completed"], trials.reason.tolist()
    assert trials.resource.tolist() == [4, 1, 4]
    assert result.best_trial.config["lr"] == 0.01
    for lr, losses in zip(rates, losses_of(result), strict=True):
        assert losses == pytest.approx(losses_of_plain_torch(lr)[: len(losses)], rel=1e-5)
