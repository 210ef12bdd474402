"""What every external optimiser must do, beyond the searchers' contract."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from daskhpo.core.events import Suggested
from daskhpo.core.random import rng
from daskhpo.core.searcher import Searcher
from daskhpo.core.types import Report, Status, Trial
from daskhpo.engine.journal import read_journal
from daskhpo.schedulers import ASHA, FIFO
from daskhpo.simulation import Simulation
from daskhpo.space import Categorical, Integer, Ordinal, Real, Space
from daskhpo.testing.searcher import SearcherContract, a_point
from experiments.adsorption.profiles import PROFILES

EVERY_KIND = Space(
    {
        "lr": Real(1e-6, 1e-1, log=True),
        "shift": Real(-3.0, 5.0),
        "fc size (α)": Integer(-2, 3),
        "layers": Integer(1, 1000, log=True),
        "momentum": Ordinal([0.0, 0.5, 0.9, 0.99]),
        "batch_size": Ordinal([16, 64, 1024]),
        "norm": Categorical([None, True, 1, 1.0, "True", (1, "a")]),
        "none": None,
        "pair": (2.5, 1),
    }
)


def unless(there: bool, reason: str) -> pytest.MarkDecorator:
    """Mark for tests that need what may be missing; in CI they run all the same, and fail."""
    return pytest.mark.skipif(not there and os.environ.get("CI") != "true", reason=reason)


def needs(module: str, extra: str) -> pytest.MarkDecorator:
    """Mark for tests of a library that may not be installed."""
    there = importlib.util.find_spec(module) is not None
    return unless(there, f"{module} is not installed: pip install 'daskhpo[{extra}]'")


AX_WARNINGS = [
    # Ax uses what pandas, torch and Ax itself no longer like.
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ax\."),
    pytest.mark.filterwarnings(r"ignore:.torch.jit.script. is deprecated:DeprecationWarning"),
    # Flat surfaces and equal points, of which tests have many; BoTorch goes on with what it has.
    pytest.mark.filterwarnings(r"ignore:Optimization failed:RuntimeWarning:botorch\."),
    pytest.mark.filterwarnings(r"ignore:A not p.d.:RuntimeWarning:linear_operator\."),
]


def typed(config: Any) -> list[tuple[str, type, Any]]:
    return [(name, type(value), value) for name, value in config.items()]


def loss_of(config: Any) -> float:
    """A bowl over the adsorption study's hyperparameters, its bottom in the inside."""
    space = Space(PROFILES["gpu"].domains)
    places = space.to_unit({name: config[name] for name in space})
    return sum((place - 0.3) ** 2 for place in places)


class Curve:
    """A loss that falls by a tenth of what is left, a unit a second."""

    def __init__(self, config: Any) -> None:
        self.floor = loss_of(config)

    def metric(self, resource: int) -> float:
        return self.floor + 0.9**resource

    def seconds(self, resource: int) -> float:
        return float(resource)


def start(searcher: Searcher, number: int) -> dict[str, Any]:
    config = searcher.suggest(number)
    assert config is not None
    searcher.on_start(number, config)
    return dict(config)


def report(searcher: Searcher, number: int, config: Any, loss: float, resource: int = 1) -> Trial:
    """The end of a segment; the trial as it is after that."""
    trial = Trial(number, config, Status.RUNNING, resource, resource=resource, best_loss=loss)
    searcher.observe(trial, Report(resource, (loss,), loss))
    return trial


class ExternalContract(SearcherContract):
    """Inherit, and give the fixture ``make``; ``n_study`` trials are enough to have a model."""

    n_study = 20
    n_first, tolerance = 20, 0.25  # proposals without any result; how even they must be

    def test_first_proposals_are_even_on_each_domains_scale(self, ready):
        searcher = ready(space=EVERY_KIND)
        configs = [start(searcher, number) for number in range(self.n_first)]
        for name, domain in EVERY_KIND.domains.items():
            places = [domain.to_unit(config[name]) for config in configs]
            assert abs(fmean(places) - 0.5) < self.tolerance, name

    def test_values_of_every_kind_come_back_as_the_spaces_own(self, ready):
        searcher = ready(space=EVERY_KIND)
        for number in range(self.n):
            config = start(searcher, number)
            assert typed(EVERY_KIND.complete(config)) == typed(config)
            searcher.on_end(report(searcher, number, config, loss=float(number)))
        assert searcher.error is None

    def test_trials_that_it_did_not_propose_are_taken_in(self, ready):
        searcher = ready(space=EVERY_KIND)
        start(searcher, self.n + 1)  # it is made, so that they are told one by one
        for number in range(self.n):
            config = EVERY_KIND.from_unit([(number + 0.5) / self.n] * len(EVERY_KIND.domains))
            searcher.on_start(number, config)
            trial = report(searcher, number, config, loss=float(number))
            if number % 2:
                searcher.on_end(trial._replace(status=Status.COMPLETED))
        start(searcher, self.n)
        assert searcher.error is None

    def test_a_trial_may_fail_with_or_without_a_report(self, ready):
        searcher = ready()
        for number in range(self.n):
            config = start(searcher, number)
            trial = Trial(number, config, Status.FAILED, until=1)
            if number % 2:
                trial = report(searcher, number, config, loss=1.0 + number)
            searcher.on_end(trial._replace(status=Status.FAILED))
        start(searcher, self.n)
        assert searcher.error is None

    def test_a_trial_may_change_its_configuration_in_mid_life(self, ready):
        searcher = ready()
        for number in range(self.n):
            config = start(searcher, number)
            if number % 3:
                report(searcher, number, config, loss=2.0, resource=1)
            changed = a_point(lr=1e-3 * (number + 1))
            report(searcher, number, changed, loss=1.5, resource=2)
            trial = report(searcher, number, changed, loss=1.0, resource=3)
            searcher.on_end(trial._replace(status=Status.COMPLETED))
        start(searcher, self.n)
        assert searcher.error is None

    def test_many_trials_may_run_at_a_time(self, ready):
        searcher = ready()
        configs = [start(searcher, number) for number in range(self.n)]
        for number, config in reversed([*enumerate(configs)]):
            searcher.on_end(report(searcher, number, config, loss=float(number)))
        start(searcher, self.n)
        assert searcher.error is None

    def test_a_space_of_constants_has_one_configuration(self, ready):
        space = Space({"x": 3, "y": "a"})
        assert ready(space=space).suggest(0) == {"x": 3, "y": "a"}

    def test_the_adsorption_study_runs_unchanged_in_meaning(self, make, caplog):
        caplog.set_level(logging.ERROR)
        profile = PROFILES["gpu"]
        space = profile.space(geometry="initial")
        scheduler = ASHA(profile.max_t, profile.grace_period, profile.eta)
        simulation = Simulation(Curve, space, "mae", "min", scheduler, make(), num_workers=4)
        trials = simulation.run(num_trials=self.n_study).trials()
        assert not caplog.records
        assert len(trials) == self.n_study
        for name, domain in profile.domains.items():
            column = trials[f"config/{name}"].tolist()
            assert all(domain.contains(value) for value in column)
            assert len(set(column)) > 1
        assert set(trials["config/geometry"]) == {"initial"}

    def test_it_learns_from_trials_that_wait_in_a_pause(self, make, caplog):
        caplog.set_level(logging.ERROR)
        scheduler = ASHA(9, 1, 3, variant="promotion")
        space = dict(PROFILES["gpu"].domains)
        simulation = Simulation(Curve, space, "mae", "min", scheduler, make(), num_workers=3)
        result = simulation.run(num_trials=self.n_study)
        assert not caplog.records
        assert result.best_value < 1.0 + 6 * 0.7**2


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 90.0) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.01)


def n_own(directory: Path) -> int:
    """Suggestions of a study that came in time; for the others random ones were taken."""
    path = directory / "journal.jsonl"
    records = read_journal(path) if path.exists() else ()
    return sum(isinstance(record, Suggested) and not record.fallback for record in records)


def taught(searcher: Searcher, n: int, n_proposals: int = 1) -> float:
    """Mean loss of the searcher's first proposals after ``n`` trials of an earlier session."""
    space = Space(PROFILES["gpu"].domains)
    searcher.setup(space, 0)
    for number in range(n):
        config = space.sample(rng(5, "earlier", number))
        searcher.on_start(number, config)
        trial = report(searcher, number, config, loss_of(config))
        searcher.on_end(trial._replace(status=Status.COMPLETED))
    return fmean(loss_of(start(searcher, n + number)) for number in range(n_proposals))


def regret(searcher: Searcher, n: int) -> list[float]:
    """Losses above the least possible one of a study's trials, in the order of their start."""
    space = dict(PROFILES["gpu"].domains)
    simulation = Simulation(Curve, space, "mae", "min", FIFO(1), searcher, num_workers=1)
    return [float(value) - 0.9 for value in simulation.run(num_trials=n).trials()["mae"]]
