"""Advice: given when the study's data support it, with the evidence, and not otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from daskhpo.core.objective import Objective
from daskhpo.core.types import Status
from daskhpo.plots.advice import Advice, advice
from daskhpo.plots.tables import STATES, StudyTables
from daskhpo.space import Integer, Real

FAILED = STATES.index(Status.FAILED)


def study(n: int = 40) -> StudyTables:
    """A study whose best trials lie in the middle of x, and that has wasted nothing."""
    tables = StudyTables(Objective("error"))
    tables.facts.space = {"x": Real(0.0, 1.0)}
    for number in range(n):
        x = number / (n - 1)
        tables.add_trial(0, 0.0)
        tables.set_config(tables.n_trials - 1, {"x": x})
        tables.best[number] = tables.last[number] = (x - 0.5) ** 2
    return tables


def only(tables: StudyTables) -> Advice:
    (found,) = advice(tables)
    return found


def test_nothing_is_said_of_a_sound_study() -> None:
    assert advice(study()) == []
    assert advice(StudyTables(Objective("error"))) == []


@pytest.mark.parametrize(
    ("domain", "value", "pasted"),
    [
        (Real(0.0, 1.0), lambda x: x, '"x": Real(0, 1.5)'),
        (Real(1e-3, 1.0, log=True), lambda x: 1e-3 ** (1 - x), '"x": Real(0.001, 10, log=True)'),
        (Integer(0, 99), lambda x: round(99 * x), '"x": Integer(0, 149)'),
    ],
)
def test_good_values_at_a_bound(domain: Real, value: object, pasted: str) -> None:
    tables = study(100)
    tables.facts.space = {"x": domain}
    for number in range(100):
        x = number / 99
        tables.config["x"].put(number, value(x))  # type: ignore[operator]
        tables.best[number] = 1 - x
    found = only(tables)
    assert "upper bound" in found.finding
    assert pasted in found.action


def test_few_trials_say_nothing_of_bounds() -> None:
    tables = study(10)
    for number in range(10):
        tables.best[number] = -float(number)
    assert advice(tables) == []


def test_early_ranks_that_do_not_tell_the_end() -> None:
    tables, generator = study(), np.random.default_rng(0)
    early = generator.permutation(40)
    for rung, losses in ((1, early), (3, np.arange(40)), (9, np.arange(40))):
        for number in range(40):
            tables.judged_trial.append(number)
            tables.judged_resource.append(rung)
            tables.judged_loss.append(float(losses[number]))
    found = only(tables)
    assert found.finding == "Early ranks do not tell the end"
    assert "40 trials" in found.evidence
    assert "grace_period=3" in found.action


def test_idle_slots() -> None:
    tables = study()
    tables.facts.slot_seconds, tables.facts.idle_seconds, tables.facts.n_slots = 1000.0, 300.0, 8
    found = only(tables)
    assert "30%" in found.finding
    assert "fewer workers than 8" in found.action


def test_failures_by_kind() -> None:
    tables = study()
    for number in (3, 5, 7):
        tables.status[number] = FAILED
        tables.set_reason(number, "CUDA out of memory", "Traceback: CUDA out of memory")
    tables.facts.path = "runs/net"
    failures, memory = advice(tables)
    assert failures.finding == "3 of 40 trials failed"
    assert "daskhpo status runs/net 7" in failures.action
    assert "3 trials ran out of memory" in memory.finding


def test_failures_that_differ_in_their_numbers_are_of_one_kind() -> None:
    tables = study()
    told = {3: "NaN in epoch 2: lr=0.8", 5: "NaN in epoch 13: lr=1e-05", 7: "no file"}
    for number, reason in told.items():
        tables.status[number] = FAILED
        tables.set_reason(number, reason, f"Traceback: {reason}")
    failures = only(tables)
    assert failures.evidence == "2 as trial 5: NaN in epoch 13: lr=1e-05; 1 as trial 7: no file"


def test_a_slow_searcher() -> None:
    tables = study()
    tables.facts.slot_seconds, tables.facts.search_seconds = 1000.0, 50.0
    assert "5%" in only(tables).finding
