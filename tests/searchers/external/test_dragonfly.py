"""Dragonfly, in its own environment, which `make foreign` makes."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import fmean

import pytest

from daskhpo.core.errors import OptimiserLost
from daskhpo.core.types import Status, Trial
from daskhpo.searchers import DragonflySearch, RandomSearch
from daskhpo.searchers.external.dragonfly import CHILD
from daskhpo.searchers.external.process import ProcessOptimiser
from daskhpo.space import Integer, Ordinal, Real, Space
from daskhpo.testing.searcher import a_space
from tests.searchers.external.foreign import PYTHON, needs_foreign
from tests.searchers.external.shared import (
    EVERY_KIND,
    ExternalContract,
    regret,
    report,
    start,
    taught,
)

pytestmark = pytest.mark.slow

# By default it takes seconds to tens of seconds of CPU time to build a model.
QUICK = {"gpb_hp_tune_criterion": "ml", "hp_tune_max_evals": 30, "acq_opt_max_evals": 50}


def quick(**options):
    return DragonflySearch(PYTHON, options=QUICK, **options)


@needs_foreign
class TestContract(ExternalContract):
    n, n_study = 8, 14

    @pytest.fixture
    def make(self):
        return quick


def ask_child(space, *messages):
    """Answers of the child itself, without daskhpo at the near end."""
    lines = [{"do": "setup", "seed": 0, "space": space, "options": QUICK}, *messages]
    run = subprocess.run(
        [str(PYTHON), str(CHILD)],
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in run.stdout.splitlines()]


@needs_foreign
def test_it_gets_better_with_what_it_learns():
    losses = regret(quick(), 40)
    assert fmean(losses[-10:]) < 0.7 * fmean(losses[:10])


@needs_foreign
def test_it_learns_from_an_earlier_session():
    at_random = fmean(regret(RandomSearch(), 30))
    assert taught(quick(), 40, n_proposals=10) < 0.7 * at_random


@needs_foreign
def test_its_own_defaults_work_too():
    searcher = DragonflySearch(PYTHON)
    searcher.setup(Space({"x": Real(0.0, 1.0)}), 0)
    for number in range(7):
        report(searcher, number, start(searcher, number), loss=float(number))
    assert searcher.error is None


@needs_foreign
def test_a_loss_that_changed_is_what_the_next_model_knows():
    searcher = quick()
    searcher.setup(Space({"x": Real(0.0, 1.0)}), 0)
    configs = [start(searcher, number) for number in range(8)]
    for number, config in enumerate(configs):
        report(searcher, number, config, loss=config["x"], resource=1)
    before = [start(searcher, 8 + number)["x"] for number in range(3)]
    for resource in (2, 3, 4):  # when so many outcomes are new, the model is made anew
        for number, config in enumerate(configs):
            report(searcher, number, config, loss=(1.0 - config["x"]) / resource, resource=resource)
    after = [start(searcher, 11 + number)["x"] for number in range(3)]
    assert searcher.error is None
    assert fmean(before) < 0.4 < 0.6 < fmean(after)


@needs_foreign
def test_a_failed_trial_counts_as_the_worst_of_the_others():
    searcher = quick()
    searcher.setup(Space({"x": Real(0.0, 1.0)}), 0)
    for number in range(10):
        config = start(searcher, number)
        if config["x"] > 0.5:
            searcher.on_end(Trial(number, config, Status.FAILED, until=1))
        else:
            report(searcher, number, config, loss=1.0 - config["x"])
    found = [start(searcher, 10 + number)["x"] for number in range(5)]
    assert fmean(found) < 0.7
    assert searcher.error is None


@needs_foreign
def test_without_losses_it_goes_on_with_first_points():
    searcher = quick()
    searcher.setup(a_space(), 0)
    found = [start(searcher, number)["lr"] for number in range(30)]
    assert len(set(found)) == 30
    assert searcher.error is None


@needs_foreign
def test_dragonfly_is_asked_in_its_own_words():
    space = [
        {"name": "a", "kind": "real", "low": 1.0, "high": 10.0, "log": True},
        {"name": "b", "kind": "integer", "low": 1, "high": 3, "log": False},
        {"name": "c", "kind": "ordinal", "values": [8, 16, 64]},
        {"name": "d", "kind": "categorical", "n": 2},
    ]
    ready, asked, told, foreign = ask_child(
        space,
        {"do": "ask"},
        {"do": "tell", "handle": 0, "values": {"a": 2.0, "b": 1, "c": 16, "d": 1}, "loss": 1.0},
        {"do": "tell", "handle": None, "values": {"a": 2.0, "b": 1, "c": 16, "d": 1}, "loss": None},
    )
    assert ready == {}
    assert asked["handle"] == 0
    assert 1.0 <= asked["values"]["a"] <= 10.0
    assert (asked["values"]["b"], asked["values"]["c"], asked["values"]["d"]) in [
        (b, c, d) for b in (1, 2, 3) for c in (8, 16, 64) for d in (0, 1)
    ]
    assert told == {"handle": 0}
    assert foreign == {"handle": 1}


@needs_foreign
def test_an_unknown_option_is_named():
    searcher = DragonflySearch(PYTHON, options={"acquisition": "ei"})
    searcher.setup(a_space(), 0)
    with pytest.raises(OptimiserLost, match=r"has no \['acquisition'\]"):
        searcher.suggest(0)


def test_an_interpreter_that_is_not_there_gives_the_recipe(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)is not the path of a program.*numpy<1\.24"):
        DragonflySearch(tmp_path / "python")


def test_an_environment_without_dragonfly_gives_the_recipe():
    searcher = DragonflySearch(sys.executable)
    searcher.setup(EVERY_KIND, 0)
    with pytest.raises(OptimiserLost, match=r"(?s)No module named 'dragonfly'.*numpy<1\.24"):
        searcher.suggest(0)


def test_where_it_runs_is_no_part_of_the_study():
    assert repr(DragonflySearch(sys.executable, timeout=7)) == "DragonflySearch()"
    assert repr(DragonflySearch(sys.executable, options={"acq": "ei"})) == (
        "DragonflySearch(options={'acq': 'ei'})"
    )


@needs_foreign
def test_the_process_is_told_in_its_own_units():
    space = Space({"n": Integer(1, 1000, log=True), "batch": Ordinal([40, 61, 79])})
    optimiser = ProcessOptimiser([str(PYTHON), str(CHILD)], space, 0, QUICK, 60)
    found = [optimiser.ask()[1] for _ in range(20)]
    optimiser.close()
    assert all(space.complete(config) == config for config in found)
    assert sum(config["n"] < 32 for config in found) in range(5, 16)
