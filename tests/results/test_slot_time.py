"""Where the slots' time went: each second is in one place, and they add up."""

from __future__ import annotations

import pytest

from daskhpo.core.events import (
    AttemptLost,
    Ended,
    Exploited,
    Failed,
    Held,
    Launched,
    Reported,
    RolledBack,
    SessionStarted,
    SlotsChanged,
    Step,
    StopRequested,
    Suggested,
)
from daskhpo.core.objective import Objective
from daskhpo.core.types import (
    CheckpointPolicy,
    CheckpointRef,
    Continue,
    Limits,
    Pause,
    Status,
    Stop,
)
from daskhpo.results.result import Result

PARTS = ("useful", "lost", "saving", "unreported", "idle")


def began(at=0.0, policy="auto"):
    return SessionStarted(Limits(), CheckpointPolicy(policy), at)


def start(trial, at):
    return [Suggested(trial, {}, 0, at), Launched(trial, 1, 0, 9, at)]


def reported(trial, at, times, since=0, attempt=1, decision=None, **options):
    """Units that ended at these times, reported at ``at``."""
    steps = tuple(Step(since + i, {"loss": 1.0}, t) for i, t in enumerate(times, start=1))
    return Reported(trial, attempt, steps, at, decision=decision, **options)


def held(trial, at, attempt=1):
    return Held(trial, attempt, CheckpointRef(trial, trial, 1), at)


def costs(*records):
    """Seconds of each part, after it was checked that they add up."""
    flat = [r for record in records for r in (record if isinstance(record, list) else [record])]
    result = Result(flat, Objective("loss"))
    cost = result.cost()
    assert sum(cost[f"{part}_seconds"] for part in PARTS) == pytest.approx(cost["device_seconds"])
    trials = result.trials()
    in_slots = sum(cost[f"{part}_seconds"] for part in ("useful", "lost", "saving"))
    assert trials["seconds"].sum() == pytest.approx(in_slots)
    return {part: cost[f"{part}_seconds"] for part in PARTS if cost[f"{part}_seconds"]}, result


def test_training_until_a_report_is_useful_and_what_comes_then_is_not_reported_yet():
    parts, _ = costs(
        began(), SlotsChanged(1, 2.0), start(0, 2.0), reported(0, 12.0, [12.0]), SlotsChanged(1, 15)
    )
    assert parts == {"useful": 10.0, "unreported": 3.0}


def test_a_slot_without_a_trial_is_idle_and_a_study_without_a_slot_waits_for_the_queue():
    parts, result = costs(
        began(),
        SlotsChanged(2, 30.0),
        start(0, 30.0),
        reported(0, 40.0, [40.0], decision=Stop("x")),
        Ended(0, Status.STOPPED, "x", 40.0),
        SlotsChanged(0, 45.0),
        SlotsChanged(1, 60.0),
    )
    assert parts == {"useful": 10.0, "idle": 20.0}
    assert result.cost()["queue_seconds"] == 30.0 + 15.0


def test_units_that_are_trained_again_are_lost_one_by_one():
    parts, result = costs(
        began(),
        SlotsChanged(1, 0.0),
        start(0, 0.0),
        reported(0, 20.0, [10.0, 20.0]),
        AttemptLost(0, 1, "gone", 27.0),
        Launched(0, 2, 0, 9, 30.0),
        reported(0, 55.0, [40.0, 49.0, 55.0], attempt=2),
    )
    # Lost: 20 to 27, and both units again until 49. The third unit is new.
    assert parts == {"useful": 20.0 + 6.0, "lost": 7.0 + 19.0, "idle": 3.0}
    assert result.trials()["seconds/queued"][0] == 3.0
    assert result.trial(0).n_retrained == 2


def test_a_state_that_is_taken_takes_its_time_and_then_the_slot_is_free():
    parts, result = costs(
        began(),
        SlotsChanged(1, 0.0),
        start(0, 0.0),
        reported(0, 10.0, [10.0], decision=Pause()),
        held(0, 12.0),
        start(1, 13.0),
        reported(1, 14.0, [14.0]),
        held(1, 16.0),  # a point of "every": it goes on
        reported(1, 20.0, [20.0], since=1),
    )
    assert parts == {"useful": 10.0 + 1.0 + 4.0, "saving": 2.0 + 2.0, "idle": 1.0}
    assert list(result.trials()["seconds/queued"]) == [0.0, 0.0]  # paused is not queued


@pytest.mark.parametrize("decision", [Pause(), None])
def test_where_no_state_is_taken_the_slot_is_free_at_once(decision):
    parts, _ = costs(
        began(policy="never"),
        SlotsChanged(1, 0.0),
        start(0, 0.0),
        reported(0, 10.0, [10.0], decision=decision, preempted=decision is None),
        SlotsChanged(1, 15.0),
    )
    assert parts == {"useful": 10.0, "idle": 5.0}


@pytest.mark.parametrize(
    "end",
    [AttemptLost(0, 1, "gone", 13.0), Failed(0, 1, "E", 13.0), began(13.0)],
    ids=["lost", "failed", "died"],
)
def test_what_was_not_reported_is_lost(end):
    parts, _ = costs(began(), SlotsChanged(1, 0.0), start(0, 0.0), reported(0, 10.0, [10.0]), end)
    assert parts == {"useful": 10.0, "lost": 3.0}


def test_a_state_that_was_never_taken_is_lost_with_its_time():
    parts, result = costs(
        began(),
        SlotsChanged(1, 0.0),
        start(0, 0.0),
        reported(0, 10.0, [10.0], decision=Pause()),
        began(13.0),
    )
    assert parts == {"useful": 10.0, "lost": 3.0}
    assert result.trial(0).status is Status.PAUSED


def test_a_trial_that_hands_over_waits_until_it_is_launched_again_in_the_next_session_too():
    parts, result = costs(
        began(),
        SlotsChanged(1, 0.0),
        start(0, 0.0),
        StopRequested("enough", 5.0),
        reported(0, 10.0, [10.0], decision=Continue(3)),
        held(0, 11.0),
        began(12.0),
        SlotsChanged(1, 40.0),
        Launched(0, 2, 1, 3, 40.0),
    )
    assert parts == {"useful": 10.0, "saving": 1.0, "idle": 1.0}
    assert result.trials()["seconds/queued"][0] == 29.0


def test_a_trial_that_is_set_back_waits_no_more():
    _, result = costs(
        began(),
        SlotsChanged(1, 0.0),
        start(0, 0.0),
        AttemptLost(0, 1, "gone", 1.0),
        RolledBack(0, 4.0),
        SlotsChanged(1, 9.0),
    )
    assert result.trials()["seconds/queued"][0] == 3.0


def test_training_from_a_state_that_was_taken_over_is_useful():
    parts, _ = costs(
        began(policy="never"),
        SlotsChanged(2, 0.0),
        start(0, 0.0),
        start(1, 0.0),
        reported(1, 10.0, [10.0], decision=Pause()),
        SlotsChanged(1, 10.0),
        reported(0, 30.0, [10.0, 20.0, 30.0], decision=Pause()),
        Exploited(0, 1, {}, 1, 30.0),
        Launched(0, 2, 1, 9, 30.0),
        reported(0, 45.0, [40.0, 45.0], since=1, attempt=2),
    )
    assert parts == {"useful": 10.0 + 45.0}


def test_a_slot_that_is_given_back_counts_while_it_keeps_its_trial():
    parts, _ = costs(
        began(),
        SlotsChanged(1, 0.0),
        start(0, 0.0),
        SlotsChanged(0, 4.0),
        reported(0, 10.0, [10.0], decision=Stop("x")),
        Ended(0, Status.STOPPED, "x", 10.0),
        SlotsChanged(0, 20.0),
    )
    assert parts == {"useful": 10.0}


def test_a_message_that_is_handled_late_turns_no_clock_back():
    parts, _ = costs(
        began(),
        SlotsChanged(2, 0.0),
        start(0, 0.0),
        start(1, 0.0),
        reported(0, 10.0, [10.0]),
        reported(1, 9.0, [9.0]),
        SlotsChanged(2, 12.0),
    )
    assert parts == {"useful": 19.0, "unreported": 5.0}


def test_the_jobs_of_the_workers_are_told_once_each_in_their_order():
    result = Result(
        [began(), *(SlotsChanged(n, n, job) for n, job in enumerate(["7", "", "5", "7"], 1))],
        Objective("loss"),
    )
    assert result.jobs == ["7", "5"]
