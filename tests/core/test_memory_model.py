"""The memory that configurations need, from what trials have used."""

from __future__ import annotations

import numpy as np
import pytest

from daskhpo.core.domains import Categorical, Integer, Real
from daskhpo.core.memory_model import FEWEST_PEAKS, MOST_PEAKS, MemoryModel
from daskhpo.core.random import rng
from daskhpo.core.space import Space

SPACE = Space(
    {
        "batch": Integer(8, 1024, log=True),
        "width": Integer(16, 512, log=True),
        "lr": Real(1e-5, 1e-1, log=True),
        "precision": Categorical(["half", "single"]),
    }
)
MIB = 2**20


def need(config) -> float:
    """As of a network: a constant, weights, and activations."""
    size = 2 if config["precision"] == "half" else 4
    weights = 16 * config["width"] ** 2
    return 300 * MIB + weights + 100 * size * config["batch"] * config["width"]


def configs(n: int, seed: int = 0):
    return [SPACE.sample(rng(seed, "memory", number)) for number in range(n)]


def model_of(n: int, noise: float = 0.0) -> MemoryModel:
    model, generator = MemoryModel(SPACE), np.random.default_rng(0)
    for number, config in enumerate(configs(n)):
        model.add(number, config, need(config) * np.exp(noise * generator.normal()))
    return model


def test_it_says_nothing_of_a_few_trials():
    model = model_of(FEWEST_PEAKS - 1)
    assert model.predict(configs(1)[0]) is None
    model.add(99, configs(9)[8], 1e9)
    assert model.predict(configs(1)[0]) is not None


@pytest.mark.parametrize("n", [10, 30, 100, 400])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
def test_nearly_all_new_configurations_need_what_is_predicted(n, noise):
    model, generator = model_of(n, noise), np.random.default_rng(1)
    inside = []
    for config in configs(300, seed=1):
        low, middle, high = model.predict(config)
        assert low < middle < high
        inside.append(low <= need(config) * np.exp(noise * generator.normal()) <= high)
    assert np.mean(inside) > 0.85


def test_with_more_trials_the_range_is_narrower():
    config = configs(1, seed=2)[0]
    few, many = model_of(12, 0.1).predict(config), model_of(400, 0.1).predict(config)
    assert many.high / many.low < few.high / few.low


def test_trials_that_use_the_same_leave_no_doubt():
    model = MemoryModel(SPACE)
    for number, config in enumerate(configs(20)):
        model.add(number, config, 1e9)
    low, middle, high = model.predict(configs(1, seed=3)[0])
    assert middle == pytest.approx(1e9, rel=1e-3)
    assert 0.9e9 < low < high < 1.1e9


def test_a_later_peak_of_a_trial_replaces_its_earlier_one():
    model = MemoryModel(SPACE)
    for n_bytes in (1.0, 1e9):
        for number, config in enumerate(configs(20)):
            model.add(number, config, n_bytes)
    assert model.predict(configs(1)[0]).low > 0.9e9


def test_only_the_newest_trials_are_kept():
    model = MemoryModel(SPACE)
    for number, config in enumerate(configs(2 * MOST_PEAKS)):
        model.add(number, config, 1.0 if number < MOST_PEAKS else 1e9)
    assert model.predict(configs(1)[0]).low > 0.9e9


def test_the_same_trials_give_the_same_prediction():
    config = configs(1, seed=4)[0]
    assert model_of(50, 0.1).predict(config) == model_of(50, 0.1).predict(config)
