"""Results: read from records alone, and compared with a naive reading."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.core.errors import CheckpointMissing
from daskhpo.core.events import (
    AttemptLost,
    Deleted,
    Ended,
    Exploited,
    Failed,
    Held,
    Launched,
    Reported,
    Saved,
    SaveFailed,
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
from daskhpo.results.result import Result, StudyProgress

BEGAN = SessionStarted(Limits(), CheckpointPolicy(), 0.0)


def start(trial, at=0.0, **config):
    return [Suggested(trial, config, 0, at), Launched(trial, 1, 0, 9, at)]


def reported(trial, at, *losses, since=0, attempt=1, decision=None, **options):
    steps = tuple(Step(since + i + 1, {"loss": loss}, at) for i, loss in enumerate(losses))
    return Reported(trial, attempt, steps, at, decision=decision, **options)


def result(*records, mode="min"):
    flat = [r for record in records for r in (record if isinstance(record, list) else [record])]
    return Result([BEGAN, *flat], Objective("loss", mode))


def a_ref(row, trial=0, resource=1, n_bytes=500):
    return CheckpointRef(row, trial, resource, "a", n_bytes, 1)


def row(found, trial):
    frame = found.trials()
    return frame[frame["trial"] == trial].iloc[0]


# -- the empty study -----------------------------------------------------------------------------


def test_an_empty_study_has_empty_tables():
    found = Result([], Objective("loss"))
    assert (found.num_trials, found.stop_reason) == (0, None)
    assert len(found.trials()) == len(found.history()) == len(found.top_k_curve()) == 0
    assert {"trial", "status", "best/loss"} <= set(found.trials().columns)
    assert {"trial", "attempt", "resource", "seconds"} <= set(found.history().columns)
    assert found.time_to_solution(0.5) is None
    assert found.cost()["device_seconds"] == 0
    assert repr(found) == "Result(0 trials, no report yet)"
    with pytest.raises(ValueError, match="none of 0 trials"):
        found.best_trial  # noqa: B018


def test_without_a_report_the_first_failure_is_shown():
    found = result(start(0), Failed(0, 1, "Traceback\nKeyError: 'lr'", 1.0))
    with pytest.raises(ValueError, match=r"none of 1 trials has reported a value(.|\n)*KeyError"):
        found.best_value  # noqa: B018


def test_a_trial_that_returned_without_a_report_is_not_the_best():
    over = Ended(0, Status.COMPLETED, "its code returned", 1.0)
    found = result(start(0), Reported(0, 1, (), 1.0, ended=True, decision=Stop("x")), over)
    with pytest.raises(ValueError, match="none of 1 trials"):
        found.best_trial  # noqa: B018
    assert math.isnan(row(found, 0)["best/loss"])


# -- the best ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "trial", "value"), [("min", 1, 0.2), ("max", 0, 0.9)])
def test_the_best_is_the_running_best(mode, trial, value):
    found = result(
        start(0, x=1),
        start(1, x=2),
        reported(0, 1.0, 0.9, 0.5),
        reported(1, 2.0, 0.2, 0.8),
        mode=mode,
    )
    assert (found.best_trial.id, found.best_value) == (trial, value)
    assert found.best_config == {"x": trial + 1}


def test_of_equal_trials_the_first_is_the_best():
    found = result(start(0), start(1), reported(1, 1.0, 0.5), reported(0, 2.0, 0.5))
    assert found.best_trial.id == 1


# -- tables --------------------------------------------------------------------------------------


def test_trials_has_one_row_a_trial():
    found = result(
        start(0, lr=0.1, shape=(2, ("a", None))),
        start(1, lr=0.2, shape=(3,)),
        reported(0, 5.0, 0.9, 0.4, 0.6),
        Ended(0, Status.STOPPED, "below the rung", 5.0),
    )
    frame = found.trials()
    assert list(frame["trial"]) == [0, 1]
    first = row(found, 0)
    assert (first["status"], first["resource"], first["reason"]) == ("stopped", 3, "below the rung")
    assert (first["loss"], first["best/loss"]) == (0.6, 0.4)
    assert first["config/shape"] == (2, ("a", None))
    assert row(found, 1)["status"] == "running"


def test_history_has_one_row_a_report_in_order_of_time():
    late = Reported(0, 1, (Step(1, {"loss": 0.9}, 1.0), Step(2, {"loss": 0.8}, 4.0)), 4.0)
    early = Reported(1, 1, (Step(1, {"loss": 0.7, "acc": 0.5}, 2.0),), 2.0)
    frame = result(start(0), start(1), early, late).history()
    assert list(frame["seconds"]) == [1.0, 2.0, 4.0]
    assert list(frame["trial"]) == [0, 1, 0]
    assert list(frame["loss"]) == [0.9, 0.7, 0.8]
    assert math.isnan(frame["acc"][0])


def test_a_unit_that_was_trained_again_appears_once_as_first_reported():
    found = result(
        start(0),
        reported(0, 1.0, 0.9, 0.8),
        AttemptLost(0, 1, "gone", 2.0),
        Launched(0, 2, 0, 9, 3.0),
        reported(0, 6.0, 0.95, 0.85, 0.7, attempt=2),
    )
    frame = found.history()
    assert list(frame["resource"]) == [1, 2, 3]
    assert list(frame["loss"]) == [0.9, 0.8, 0.7]
    assert list(frame["attempt"]) == [1, 1, 2]


def test_a_trials_seconds_are_those_in_a_slot():
    found = result(
        start(0, at=10.0),
        reported(0, 30.0, 0.9, decision=Pause()),
        Held(0, 1, CheckpointRef(0, 0, 1), 32.0),  # 22 seconds, until its state was held
        Saved(0, 1, a_ref(0), 40.0),  # and written later
        Launched(0, 2, 1, 3, 100.0),
        AttemptLost(0, 2, "gone", 105.0),  # 5 more
        Launched(0, 3, 1, 3, 200.0),
        reported(0, 210.0, 0.8, 0.7, since=1, attempt=3, decision=Stop("x")),
        Ended(0, Status.STOPPED, "x", 210.0),  # 10 more
    )
    assert row(found, 0)["seconds"] == 37.0
    assert found.cost()["device_seconds"] == 37.0


def test_what_ran_when_the_coordinator_died_held_its_slot_until_the_last_record():
    found = result(
        start(0, at=1.0), SlotsChanged(2, 9.0), SessionStarted(Limits(), CheckpointPolicy(), 9.0)
    )
    assert (row(found, 0)["seconds"], row(found, 0)["status"]) == (8.0, "queued")


def test_a_discarded_trial_is_not_charged_for_its_pause():
    found = result(
        start(0, at=0.0),
        reported(0, 5.0, 0.9, decision=Pause(keep=False)),
        Held(0, 1, CheckpointRef(0, 0, 1), 5.0),
        Ended(0, Status.STOPPED, "lost its rung", 99.0),
    )
    assert row(found, 0)["seconds"] == 5.0


@pytest.mark.parametrize(
    ("records", "status"),
    [
        ([], "running"),
        ([reported(0, 1.0, 0.9)], "running"),
        ([reported(0, 1.0, 0.9, decision=Pause())], "paused"),
        ([reported(0, 1.0, 0.9, decision=Continue(3))], "running"),
        ([reported(0, 1.0, 0.9, decision=Continue(3)), Held(0, 1, None, 2.0)], "running"),
        ([reported(0, 1.0, 0.9, preempted=True)], "queued"),
        ([StopRequested("x", 0.5), reported(0, 1.0, 0.9, decision=Continue(3))], "queued"),
        (
            [
                reported(0, 1.0, 0.9, decision=Continue(3)),
                StopRequested("x", 1.0),
                Held(0, 1, None, 2.0),
            ],
            "queued",
        ),
        ([reported(0, 1.0, 0.9), StopRequested("x", 1.0), Held(0, 1, None, 2.0)], "queued"),
        ([reported(0, 1.0, 0.9, preempted=True), Held(0, 1, a_ref(0), 2.0)], "queued"),
        ([reported(0, 1.0, 0.9, decision=Pause()), Held(0, 1, a_ref(0), 2.0)], "paused"),
        ([reported(0, 1.0, 0.9, decision=Pause()), Exploited(0, 0, {}, 1, 2.0)], "paused"),
        ([AttemptLost(0, 1, "gone", 1.0)], "queued"),
        ([AttemptLost(0, 1, "gone", 1.0), Launched(0, 2, 0, 9, 1.0)], "running"),
        ([Failed(0, 1, "E", 1.0)], "queued"),
        ([Failed(0, 1, "E", 1.0), Ended(0, Status.FAILED, "E", 1.0)], "failed"),
        ([reported(0, 1.0, 0.9, decision=Pause()), AttemptLost(0, 1, "gone", 2.0)], "paused"),
    ],
)
def test_the_status_follows_from_the_records(records, status):
    assert row(result(start(0), *records), 0)["status"] == status


def test_a_trial_whose_report_reaches_the_target_hands_over():
    began = SessionStarted(Limits(target=0.5), CheckpointPolicy("never"), 0.0)
    stop = StopRequested("the target of 0.5 was reached", 1.0)
    records = [began, *start(0), reported(0, 1.0, 0.4, decision=Continue(3)), stop]
    found = Result(records, Objective("loss"))
    assert row(found, 0)["status"] == "queued"
    assert found.stop_reason == "the target of 0.5 was reached"


def test_a_new_session_forgets_why_the_last_one_stopped():
    found = result(StopRequested("enough", 1.0), SessionStarted(Limits(), CheckpointPolicy(), 1.0))
    assert found.stop_reason is None


# -- checkpoints ---------------------------------------------------------------------------------


def test_what_was_written_is_told_from_what_is_stored_now():
    found = result(
        start(0),
        Saved(0, 1, a_ref(0, n_bytes=500), 1.0),
        Saved(0, 1, a_ref(1, resource=2, n_bytes=60), 2.0),
        Saved(0, 1, a_ref(2, resource=3, n_bytes=7), 3.0),
        Deleted(0, "", 4.0),
    )
    assert found.checkpoints() == [
        a_ref(1, resource=2, n_bytes=60),
        a_ref(2, resource=3, n_bytes=7),
    ]
    assert found.cost() == {
        "device_seconds": 4.0,
        "useful_seconds": 0.0,
        "lost_seconds": 0.0,
        "saving_seconds": 0.0,
        "unreported_seconds": 4.0,
        "idle_seconds": 0.0,
        "search_seconds": 0.0,
        "seconds": 4.0,
        "queue_seconds": 0.0,
        "checkpoint_bytes": 567,
        "checkpoint_files": 3,
        "stored_bytes": 67,
        "stored_files": 2,
        "retrained_units": 0,
        "fallback_trials": 0,
    }


def test_checkpoints_are_told_by_row_whatever_came_first():
    late, early = a_ref(3, trial=0), a_ref(1, trial=1)
    found = result(start(0), start(1), Saved(0, 1, late, 1.0), Saved(1, 1, early, 2.0))
    assert found.checkpoints() == [early, late]


def test_a_trials_checkpoint_is_its_newest_that_is_left():
    first, second, other = a_ref(0), a_ref(1, resource=3), a_ref(2, trial=1)
    story = StudyProgress(Objective("loss"))

    def after(*records):
        for record in records:
            story.apply(record)
        return story.trials[0].checkpoint

    assert after(BEGAN, *start(0), *start(1)) is None
    assert after(Saved(0, 1, first, 1.0)) == first
    assert after(Saved(0, 1, second, 2.0), Saved(1, 1, other, 2.0)) == second
    assert after(Deleted(1, "it could not be read", 3.0)) == first
    assert after(Deleted(0, "to make room", 3.0)) is None
    assert story.trials[1].checkpoint == other


def test_an_older_state_that_is_saved_later_is_not_the_newest():
    """Another trial shares it, so it is written though its own has gone on."""
    newer, older = a_ref(1, resource=3), a_ref(0, resource=1)
    found = result(start(0), Saved(0, 1, newer, 1.0), Saved(0, 1, older, 2.0))
    assert found.trial(0).checkpoint == newer


def test_a_state_that_is_only_held_is_no_checkpoint():
    found = result(start(0), Held(0, 1, CheckpointRef(0, 0, 1), 1.0))
    assert (found.trial(0).checkpoint, found.checkpoints()) == (None, [])
    assert found.cost()["checkpoint_files"] == found.cost()["stored_files"] == 0


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (SaveFailed(0, 1, 0, "OSError: no space left", 2.0), "OSError: no space left"),
        (AttemptLost(0, 1, "row 3 is damaged", 2.0, bad_checkpoint=True), "row 3 is damaged"),
        (AttemptLost(0, 1, "its worker died", 2.0), ""),
    ],
)
def test_what_was_wrong_with_a_checkpoint_is_shown_on_its_trial(record, error):
    assert result(start(0), start(1), record).trial(0).error == error


def test_an_error_that_comes_after_the_trial_was_forgotten_hurts_nobody():
    story = StudyProgress(Objective("loss"), keep_ended=False)
    over = Ended(0, Status.STOPPED, "x", 1.0)
    late = [Saved(0, 1, a_ref(0), 2.0), SaveFailed(0, 1, 1, "no space", 2.0), Deleted(0, "", 3.0)]
    for record in [BEGAN, *start(0), over, *late]:
        story.apply(record)
    assert story.trials == story.checkpoints.refs == {}
    assert story.checkpoints.n_written == 1


def test_units_that_were_trained_again_are_counted():
    found = result(
        start(0),
        start(1),
        reported(0, 1.0, 0.9, 0.8, 0.7),
        reported(1, 1.0, 0.9, 0.8),
        AttemptLost(0, 1, "gone", 2.0),
        Launched(0, 2, 1, 9, 2.0),
        reported(0, 3.0, 0.8, since=1, attempt=2),  # 2 again
        reported(0, 4.0, 0.7, 0.6, since=2, attempt=2),  # 3 again, and 4
        AttemptLost(0, 2, "gone", 5.0),
        Launched(0, 3, 0, 9, 5.0),
        reported(0, 6.0, 0.9, attempt=3),  # 1 again
        reported(1, 6.0, 0.7, since=2),
    )
    assert [found.trial(trial).n_retrained for trial in (0, 1)] == [3, 0]
    assert found.cost()["retrained_units"] == 3


def test_a_trial_that_exploits_another_one_goes_on_there_with_what_it_was_given():
    found = result(
        start(0, lr=0.1),
        start(1, lr=0.2),
        reported(0, 1.0, 0.9, decision=Pause()),
        reported(1, 1.0, 0.5, 0.4, 0.3, decision=Pause()),
        Exploited(0, 1, {"lr": 0.3}, 3, 2.0),
        Launched(0, 2, 3, 9, 2.0),
        reported(0, 3.0, 0.2, since=3, attempt=2),
    )
    first = row(found, 0)
    assert (first["config/lr"], first["resource"], first["status"]) == (0.3, 4, "running")
    assert found.best_config == {"lr": 0.3}
    assert found.cost()["retrained_units"] == 0


def test_a_trial_that_exploits_a_shorter_one_trains_nothing_again():
    """What it trains from there on is another training than its own was."""
    found = result(
        start(0, lr=0.1),
        start(1, lr=0.2),
        reported(0, 1.0, 0.9, 0.9, 0.9, decision=Pause()),
        Exploited(0, 1, {"lr": 0.3}, 1, 2.0),
        reported(0, 3.0, 0.2, 0.1, since=1, attempt=2),
    )
    assert found.cost()["retrained_units"] == 0


def test_a_checkpoint_that_was_not_written_is_missing(tmp_path):
    found = result(start(0), reported(0, 1.0, 0.9))
    with pytest.raises(CheckpointMissing, match="trial 0"):
        found.checkpoint()
    deleted = [*start(0), reported(0, 1.0, 0.9), Saved(0, 1, a_ref(0), 2.0), Deleted(0, "", 3.0)]
    with pytest.raises(CheckpointMissing, match=r"trial 0 \(running\) has no checkpoint"):
        Result([BEGAN, *deleted], Objective("loss"), tmp_path).checkpoint(0)


# -- curves --------------------------------------------------------------------------------------

reports = st.lists(
    st.tuples(
        st.integers(0, 7), st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8, 1.3]), st.integers(0, 9)
    ),
    max_size=40,
)


def curve_by_definition(reports, k, mode):
    """Mean of the k best trials' best values after each report that changes it."""
    sign = 1 if mode == "min" else -1
    points = []
    best = {}
    for trial, value, seconds in sorted(reports, key=lambda report: report[2]):
        best[trial] = min(best.get(trial, math.inf), sign * value)
        top = sorted(best.values())[:k]
        if len(top) == k:
            points.append((seconds, sign * statistics.fmean(top), statistics.pstdev(top)))
    return points


@given(reports=reports, k=st.integers(1, 5), mode=st.sampled_from(["min", "max"]))
def test_the_top_k_curve_is_what_its_definition_says(reports, k, mode):
    records = [record for trial in range(8) for record in start(trial)]
    counts = dict.fromkeys(range(8), 0)
    for trial, value, seconds in reports:
        records.append(reported(trial, float(seconds), value, since=counts[trial]))
        counts[trial] += 1
    frame = result(records, mode=mode).top_k_curve(k)
    expected = curve_by_definition(reports, k, mode)
    assert frame["seconds"].is_monotonic_increasing
    assert len(frame) <= len(expected)
    for seconds in {point[0] for point in expected}:  # its value after each moment
        mean, std = [point[1:] for point in expected if point[0] <= seconds][-1]
        row = frame[frame["seconds"] <= seconds].iloc[-1]
        assert row["mean"] == pytest.approx(mean)
        assert row["std"] == pytest.approx(std, abs=1e-12)
    changes = frame[["mean", "std"]].diff().abs().sum(axis=1)[1:]
    assert (changes >= 0).all()


@given(reports=reports, target=st.sampled_from([0.1, 0.25, 0.5, 2.0]))
def test_time_to_solution_is_the_first_time_that_the_target_was_met(reports, target):
    records = [record for trial in range(8) for record in start(trial)]
    records += [reported(trial, float(at), value) for trial, value, at in reports]
    times = [at for _, value, at in reports if value <= target]
    assert result(records).time_to_solution(target) == min(times, default=None)


def test_k_must_be_positive():
    with pytest.raises(ValueError, match="k=0 must be at least 1"):
        result().top_k_curve(0)


def test_a_story_counts_sessions_slots_and_checkpoints():
    story = StudyProgress(Objective("loss"))
    ref = a_ref(0)
    for record in [BEGAN, SlotsChanged(4, 0.0), *start(0), Saved(0, 1, ref, 1.0), BEGAN]:
        story.apply(record)
    assert (story.n_sessions, story.n_slots) == (2, 0)  # a session begins without any
    assert (story.checkpoints.n_written, story.checkpoints.n_bytes_written) == (1, 500)
