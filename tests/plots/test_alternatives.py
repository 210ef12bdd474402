"""A study's own curves under other schedulers: what is replayed, said, and left unsaid."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from daskhpo import Result
from daskhpo.core.objective import Objective
from daskhpo.core.scheduler import Scheduler
from daskhpo.plots import alternatives as module
from daskhpo.plots.advice import advice
from daskhpo.plots.advice_page import advice_data
from daskhpo.plots.alternatives import (
    Alternatives,
    _curves,
    alternatives,
    alternatives_html,
    replays,
)
from daskhpo.plots.tables import StudyTables
from daskhpo.schedulers import ASHA, FIFO, GuardedASHA, MedianStopping
from daskhpo.searchers import RandomSearch
from daskhpo.simulation import ClusterModel, Simulation
from daskhpo.simulation.curves import CurveTable
from daskhpo.virtual.replay import Replayed
from tests.plots.made import SPACE, Landscape, asha_result, population_result


@cache
def result(scheduler: str, num_trials: int = 60, max_t: int = 27, **cluster: Any) -> Result:
    """A finished study; do not change it."""
    made: Scheduler = {
        "FIFO": FIFO(max_t),
        "ASHA": ASHA(max_t),
        "promotion": ASHA(max_t, variant="promotion"),
        "median": MedianStopping(FIFO(max_t), grace_period=min(3, max_t)),
        "guarded": GuardedASHA(max_t),
    }[scheduler]
    model = ClusterModel(**cluster)
    simulation = Simulation(
        Landscape, SPACE, "error", "min", made, RandomSearch(), num_workers=8, cluster=model
    )
    return simulation.run(num_trials=num_trials)


def test_curves_are_those_of_the_result() -> None:
    """Also of trials that were paused, preempted by the end of a job, or failed."""
    for made in (
        result("FIFO"),
        result("promotion"),
        result("ASHA", walltime=3000.0, requeue_seconds=500.0, launch_seconds=20.0),
    ):
        table = CurveTable.of(made.curves(), "error")
        tables = made.tables()
        numbers = made.curves()["trial"].unique()
        reported = [n for n in numbers.tolist() if math.isfinite(tables.best[n])]
        by_trial = dict(zip(numbers.tolist(), table.curves, strict=True))
        for number, own in zip(reported, _curves(tables, np.array(reported)), strict=True):
            known = by_trial[number]
            assert own.n_units == known.n_units
            for unit in range(1, known.n_units + 4):
                assert own.metric(unit) == pytest.approx(known.metric(unit), nan_ok=True)
                assert own.seconds(unit) == pytest.approx(known.seconds(unit))


def test_each_step_is_one_replay_and_all_schedulers_see_the_same_orders() -> None:
    steps = list(replays(result("FIFO").tables()))
    assert len(steps) == 1 + module.N_ORDERS * len(steps[-1].replayed)
    assert steps[0].n_orders == 0
    assert not steps[-2].is_whole
    for step in steps[1:]:  # also while some have seen more
        assert {len(step.times(name)) for name in step.replayed} == {step.n_orders}
    assert steps[-1].is_whole
    for before, after in pairwise(steps):
        assert sum(map(len, after.replayed.values())) == 1 + sum(map(len, before.replayed.values()))


def test_the_own_scheduler_stands_first_and_once() -> None:
    def names(scheduler: str) -> tuple[str, list[str]]:
        *_, found = replays(result(scheduler, 12).tables())
        return found.own, list(found.replayed)

    usual = ["FIFO(max_t=27)", "ASHA(max_t=27)", "AsyncHyperband(max_t=27)", "Hyperband(max_t=27)"]
    assert names("ASHA") == ("ASHA(max_t=27)", usual)
    own, found = names("median")
    assert own == repr(MedianStopping(FIFO(27), grace_period=3))
    assert found == [own, *usual]
    assert names("guarded") == ("", usual), "its model is not in the curves"


def test_of_many_curves_an_even_part_is_replayed_with_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables = result("FIFO").tables()
    everything = next(replays(tables))
    assert everything.n_curves == everything.n_recorded
    monkeypatch.setattr(module, "LEAST_SAMPLE", 20)
    monkeypatch.setattr(module, "MAX_REPLAYED", 20)
    part = next(replays(tables))
    assert (part.n_curves, part.n_recorded) == (20, everything.n_recorded)
    assert part.target == tables.objective.value(min(tables.best))
    assert "20 of" in alternatives_html(alternatives(tables), tables.objective)


def test_what_cannot_be_replayed_says_why() -> None:
    def why(tables: StudyTables) -> str:
        found = list(replays(tables))
        assert len(found) == 1
        assert found[0].problem in alternatives_html(found[0], tables.objective).replace(
            "<code>", "`"
        ).replace("</code>", "`")
        return found[0].problem

    assert "from 10 trials" in why(StudyTables(Objective("error")))
    assert "from 10 trials" in why(result("FIFO", 5).tables())
    assert "took over states" in why(population_result().tables())
    assert "one unit" in why(result("FIFO", 20, max_t=1).tables())
    tables = result("FIFO", 20).tables()
    tables.facts.scheduler = "FIFO(max_t=2000)"
    assert "daskhpo replay" in why(tables)
    tables.n_dropped = 1
    assert "Too many units" in why(tables)


def sooner(tables: StudyTables, found: Alternatives) -> list[str]:
    own = {a.finding for a in advice(tables)}
    return [a.finding for a in advice(tables, found) if a.finding not in own]


def test_a_study_without_early_stopping_is_told_what_would_be_sooner() -> None:
    tables = result("FIFO", 150).tables()
    *_, before, found = replays(tables)
    assert sooner(tables, before) == [], "an order is missing"
    (finding,) = sooner(tables, found)
    assert "times sooner" in finding
    best = min(found.replayed, key=lambda name: sorted(found.times(name))[5])
    assert finding.startswith(best.split("(")[0])
    text = advice_data(tables, found).texts["advice"]
    assert f"<code>scheduler={best}</code>" in text
    assert "FIFO(max_t=27) (this study&#x27;s)" in text
    assert "in 10 orders of the trials" in text


def test_short_curves_give_a_table_but_no_advice() -> None:
    tables = asha_result().tables()
    found = alternatives(tables)
    assert found.beyond(found.own) > 0.05
    assert sooner(tables, found) == []
    assert "keeps its last value" in advice_data(tables, found).texts["advice"]


@pytest.mark.parametrize(
    ("own", "other", "says"),
    [
        ([100.0] * 10, [50.0] * 10, "2.0 times sooner"),
        ([100.0] * 10, [80.0] * 10, ""),  # hardly worth it
        ([100.0] * 10, [50.0] * 6 + [150.0] * 4, ""),  # by chance
        ([math.inf] * 10, [50.0] * 10, "more often"),
        ([math.inf] * 10, [math.inf] * 10, ""),
    ],
)
def test_advice_needs_a_clear_difference(own: list[float], other: list[float], says: str) -> None:
    def done(times: list[float]) -> tuple[Replayed, ...]:
        return tuple(Replayed(at, 1.0, 0.0) for at in times)

    tables = StudyTables(Objective("error"))
    tables.add_trial(0, 0.0)
    found = Alternatives({"FIFO(9)": done(own), "ASHA(9)": done(other)}, "FIFO(9)", 20, 20, 4, 0.1)
    given = sooner(tables, found)
    assert len(given) == bool(says)
    assert all(says in finding for finding in given)


def test_names_of_users_are_text() -> None:
    tables = result("FIFO", 12).tables()
    found = alternatives(tables)
    assert "<b>" not in alternatives_html(found, Objective("<b>"))
