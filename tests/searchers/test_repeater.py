"""Each configuration several times."""

from __future__ import annotations

import pytest

from daskhpo.core.searcher import Searcher
from daskhpo.core.types import Status, Trial
from daskhpo.schedulers import FIFO
from daskhpo.searchers import GridSearch, RandomSearch, Repeater
from daskhpo.simulation import Simulation
from daskhpo.space import Ordinal, Real, Space
from daskhpo.testing.searcher import SearcherContract, a_point, a_space, search


class TestContract(SearcherContract):
    n = 12

    @pytest.fixture
    def make(self):
        return lambda **options: Repeater(RandomSearch(**options), 2)

    def test_points_to_evaluate_come_first_and_in_order(self, ready):
        points = [a_point(0.02), a_point(0.01, layers=4)]
        found = search(ready(points_to_evaluate=points), 6)
        assert found[:4] == [points[0], points[0], points[1], points[1]]

    def test_a_suggestion_belongs_to_its_receiver(self, ready):
        spoilt, clean = ready(), ready()
        spoilt.suggest(0)["lr"] = "spoilt"
        assert spoilt.suggest(1) == [clean.suggest(0), clean.suggest(1)][1]


class Recording(Searcher):
    """Proposes its trial's number, and keeps what it is told."""

    def setup(self, space, seed):
        self.told = []

    def suggest(self, trial):
        self.told.append(("suggest", trial))
        return {"x": float(trial)}

    def on_start(self, trial, config):
        self.told.append(("start", trial, config["x"]))

    def observe(self, trial, report):
        self.told.append(("observe", trial.id, report.loss, report.resource))

    def on_end(self, trial):
        self.told.append(("end", trial.id, trial.status))


def ready(n=2):
    repeater = Repeater(Recording(), n)
    repeater.setup(Space({"x": Real(0.0, 100.0)}), 0)
    return repeater, repeater.searcher.told


def ended(number, x, loss, status=Status.COMPLETED, resource=3):
    return Trial(number, {"x": x}, status, until=3, resource=resource, best_loss=loss)


def start(repeater, number):
    config = repeater.suggest(number)
    repeater.on_start(number, config)
    return config["x"]


def test_the_other_searcher_sees_one_trial_with_the_mean():
    repeater, told = ready()
    assert [start(repeater, number) for number in range(4)] == [0.0, 0.0, 1.0, 1.0]
    del told[:]
    repeater.on_end(ended(1, 0.0, 2.0))
    repeater.on_end(ended(2, 1.0, 7.0))
    assert told == []
    repeater.on_end(ended(0, 0.0, 4.0))
    assert told == [("observe", 0, 3.0, 3), ("end", 0, Status.COMPLETED)]


def test_those_without_a_loss_are_left_out_of_the_mean():
    repeater, told = ready(n=3)
    for number in range(3):
        start(repeater, number)
    del told[:]
    repeater.on_end(ended(0, 0.0, 1.0, Status.FAILED))
    repeater.on_end(ended(1, 0.0, float("inf"), Status.STOPPED, resource=0))
    repeater.on_end(ended(2, 0.0, 4.0))
    assert told == [("observe", 0, 4.0, 3), ("end", 0, Status.COMPLETED)]


def test_if_none_has_a_loss_the_trial_failed():
    repeater, told = ready()
    for number in range(2):
        start(repeater, number)
    del told[:]
    repeater.on_end(ended(0, 0.0, 1.0, Status.FAILED))
    repeater.on_end(ended(1, 0.0, 1.0, Status.FAILED))
    assert told == [("end", 0, Status.FAILED)]


def test_a_resumed_study_completes_what_was_begun():
    repeater, told = ready(n=3)
    repeater.on_start(0, {"x": 50.0})
    repeater.on_start(1, {"x": 50.0})
    assert told == [("start", 0, 50.0)]
    assert [start(repeater, number) for number in (2, 3)] == [50.0, 1.0]


def test_a_configuration_that_came_from_elsewhere_is_repeated_too():
    repeater, _ = ready(n=2)
    assert repeater.suggest(0)["x"] == 0.0  # and is not ready in time:
    repeater.on_start(1, {"x": 33.0})
    repeater.on_start(0, {"x": 0.0})
    assert [start(repeater, number) for number in (2, 3, 4)] == [0.0, 33.0, 2.0]


def test_a_grid_is_walked_n_times_and_then_over():
    repeater = Repeater(GridSearch(), 3)
    repeater.setup(Space({"x": Ordinal([1, 2])}), 0)
    assert repeater.finite
    found = [repeater.suggest(number) for number in range(8)]
    assert [config and config["x"] for config in found] == [1, 1, 1, 2, 2, 2, None, None]


class Noisy:
    def __init__(self, config):
        self.loss = config["lr"]

    def metric(self, resource):
        return self.loss

    def seconds(self, resource):
        return 1.0 * resource


def test_a_study_repeats_each_configuration():
    repeater = Repeater(RandomSearch(), 3)
    result = Simulation(Noisy, a_space(), "loss", "min", FIFO(2), repeater, num_workers=4).run(12)
    assert sorted(result.trials()["config/lr"].value_counts().tolist()) == [3, 3, 3, 3]


@pytest.mark.parametrize("n", [1, 0, 2.0])
def test_once_is_no_repetition(n):
    with pytest.raises(ValueError, match=r"must be .*at least 2"):
        Repeater(RandomSearch(), n)


def test_it_takes_a_searcher():
    with pytest.raises(TypeError, match="must be a searcher"):
        Repeater(FIFO(3), 2)
