"""Tables for plots: they hold what the results hold, in every way of reading a journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo import Result
from daskhpo.core.events import (
    AttemptLost,
    Failed,
    Launched,
    Reported,
    SessionStarted,
    SlotsChanged,
    Step,
    Suggested,
)
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointPolicy, Limits, Pause
from daskhpo.plots.data import best, counts
from daskhpo.plots.tables import StudyTables
from daskhpo.results.progress import StudyProgress
from daskhpo.results.recorder import Recorder
from tests.plots.made import asha_result, population, population_result, records_of, write_study

OBJECTIVE = Objective("error")


def tables_of(records: Any, *, keep_ended: bool) -> StudyTables:
    progress = StudyProgress(OBJECTIVE, keep_ended=keep_ended)
    recorder = Recorder(progress)
    for record in records:
        progress.apply(record)
        recorder.apply(record)
    return recorder.tables


def began(seconds: float = 0.0, **more: Any) -> SessionStarted:
    return SessionStarted(Limits(), CheckpointPolicy(), seconds, **more)


def report(trial: int, attempt: int, resource: int, error: float, seconds: float) -> Reported:
    step = Step(resource, {"error": error}, seconds)
    return Reported(trial, attempt, (step,), seconds)


@pytest.mark.parametrize("result", [asha_result, population_result])
def test_units_are_those_of_the_history(result: Callable[[], Result]) -> None:
    tables, history = result().tables(), result().history()
    assert len(tables.unit_trial) == len(history)
    assert sorted(zip(tables.unit_trial, tables.unit_resource, strict=True)) == sorted(
        zip(history["trial"].tolist(), history["resource"].tolist(), strict=True)
    )


@pytest.mark.parametrize("result", [asha_result, population_result])
def test_time_is_that_of_the_cost(result: Callable[[], Result]) -> None:
    facts, cost = result().tables().facts, result().cost()
    assert facts.useful_seconds == pytest.approx(cost["useful_seconds"])
    assert facts.lost_seconds == pytest.approx(cost["lost_seconds"])
    assert facts.slot_seconds == pytest.approx(cost["device_seconds"])


@pytest.mark.parametrize("make", [lambda: None, population])
def test_a_reader_that_forgets_ended_trials_sees_the_same(make: Any, tmp_path: Path) -> None:
    write_study(tmp_path, make(), num_trials=12 if make() else 60)
    forgetful, complete = (
        tables_of(records_of(tmp_path), keep_ended=keep) for keep in (False, True)
    )
    for name, column in vars(complete).items():
        if hasattr(column, "typecode"):
            np.testing.assert_array_equal(getattr(forgetful, name), column, err_msg=name)
    assert forgetful.reasons == complete.reasons
    assert forgetful.facts == complete.facts


@pytest.mark.parametrize("result", [asha_result, population_result])
def test_no_two_launches_share_a_slot(result: Callable[[], Result]) -> None:
    tables = result().tables()
    lanes, start, end = map(np.array, (tables.run_lane, tables.run_start, tables.run_end))
    assert lanes.max() < 8
    for lane in np.unique(lanes):
        mine = np.flatnonzero(lanes == lane)
        assert (start[mine][1:] >= end[mine][:-1]).all()


def test_states_are_those_of_the_result() -> None:
    result = asha_result()
    found: dict[str, int] = result.trials()["status"].value_counts().to_dict()
    assert counts(result.tables()) == found


def test_time_after_the_last_report_of_a_lost_attempt_is_lost() -> None:
    records = [began(), SlotsChanged(1, 0.0), Suggested(0, {"x": 1}, 0, 0.0)]
    records += [Launched(0, 1, 0, 9, 1.0), report(0, 1, 1, 0.5, 3.0)]
    records += [AttemptLost(0, 1, "its worker was lost", 7.0), Launched(0, 2, 0, 9, 8.0)]
    tables = tables_of(records, keep_ended=True)
    assert [*tables.run_start] == [1.0, 8.0]
    assert tables.run_worked[0] == 3.0
    assert (tables.run_end[0], tables.run_lost[0]) == (7.0, 1)
    assert np.isnan(tables.run_end[1])


def test_a_new_session_ends_all_launches_of_the_one_before() -> None:
    records = [began(), SlotsChanged(2, 0.0)]
    for trial in (0, 1):
        records += [Suggested(trial, {"x": trial}, 0, 0.0), Launched(trial, 1, 0, 9, 0.0)]
    records += [report(0, 1, 1, 0.5, 2.0), began(5.0)]
    tables = tables_of(records, keep_ended=False)
    assert [*tables.run_lost] == [1, 1]
    assert counts(tables) == {"queued": 2}


def test_a_trial_that_failed_and_paused_keeps_its_traceback() -> None:
    records = [began(), Suggested(0, {"x": 1}, 0, 0.0), Launched(0, 1, 0, 9, 0.0)]
    records.append(Failed(0, 1, "Traceback\nValueError: no", 1.0, paused=True))
    tables = tables_of(records, keep_ended=True)
    assert "ValueError: no" in tables.errors[0]


def test_a_changed_type_of_value_becomes_levels() -> None:
    records = [began()]
    records += [
        Suggested(n, {"x": value}, 0, 0.0) for n, value in enumerate([1.5, True, "a", None])
    ]
    tables = tables_of(records, keep_ended=True)
    assert [tables.setting("x", n) for n in range(4)] == ["1.5", "True", "a", "None"]


def test_pauses_are_judged() -> None:
    records = [began(), Suggested(0, {"x": 1}, 0, 0.0), Launched(0, 1, 0, 3, 0.0)]
    step = Step(3, {"error": 0.25}, 2.0)
    records.append(Reported(0, 1, (step,), 2.0, decision=Pause()))
    tables = tables_of(records, keep_ended=True)
    assert (*tables.judged_resource, *tables.judged_loss) == (3, 0.25)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_the_best_so_far_is_that_of_all_units_until_then(units: list[tuple[int, int]]) -> None:
    """Units of a report may be older than those of reports before it."""
    tables = StudyTables(OBJECTIVE)
    for seconds, loss in units:
        tables.add_best(float(seconds), float(loss))
    assert [*tables.best_seconds] == sorted(tables.best_seconds)
    for now in range(10):
        place = int(np.searchsorted(np.array(tables.best_seconds), now, side="right")) - 1
        until_then = [loss for seconds, loss in units if seconds <= now]
        assert (place < 0) == (not until_then)
        if until_then:
            assert tables.best_loss[place] == min(until_then)


def test_a_late_report_of_an_early_unit_does_not_turn_the_line_back() -> None:
    records = [began(), SlotsChanged(2, 0.0)]
    for trial in (0, 1):
        records += [Suggested(trial, {"x": trial}, 0, 0.0), Launched(trial, 1, 0, 9, 0.0)]
    records.append(report(0, 1, 1, 0.5, 10.0))
    steps = (Step(1, {"error": 0.8}, 4.0), Step(2, {"error": 0.4}, 8.0))
    records.append(Reported(1, 1, steps, 12.0))
    columns = best(tables_of(records, keep_ended=True))
    assert (3600 * columns["hours"]).round(6).tolist() == [4.0, 8.0, 12.0]
    assert columns["value"].tolist() == [0.8, 0.4, 0.4]
    assert (3600 * columns["slot_hours"]).round(6).tolist() == [8.0, 16.0, 24.0]
    assert columns["n_trials"].tolist() == [2, 2, 2]


def test_a_job_lasts_from_its_first_slot_to_its_last() -> None:
    changes = [(1, 1.0, "7"), (2, 2.0, "8"), (3, 3.0, "7"), (2, 5.0, "7"), (1, 6.0, "7")]
    records = [began(), *(SlotsChanged(*change) for change in changes)]
    spans = tables_of(records, keep_ended=True).jobs
    assert [(span.job, span.began, span.most_slots) for span in spans] == [
        ("7", 1.0, 2),
        ("8", 2.0, 1),
    ]
    assert spans[0].ended == 6.0
    assert np.isnan(spans[1].ended)


def test_jobs_end_with_their_session() -> None:
    records = [began(), SlotsChanged(1, 0.0, "7"), began(5.0), SlotsChanged(1, 6.0, "7")]
    spans = tables_of(records, keep_ended=True).jobs
    assert [(span.began, span.ended) for span in spans[:1]] == [(0.0, 5.0)]
    assert spans[1].began == 6.0
