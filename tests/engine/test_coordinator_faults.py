"""The coordinator when something goes wrong: what is lost, what fails, who is dead."""

from __future__ import annotations

import copy

import pytest

from daskhpo.core.commands import Delete, Interrupt, Release, Save, Train
from daskhpo.core.events import Ended, StopRequested
from daskhpo.core.types import CheckpointRef, Continue, Pause, Status, Stop
from daskhpo.engine.coordinator import MAX_LOST
from daskhpo.schedulers import FIFO, PBT
from daskhpo.schedulers.pbt import MAX_FAILURES

QUEUED, RUNNING, PAUSED = Status.QUEUED, Status.RUNNING, Status.PAUSED

# -- losses --------------------------------------------------------------------------------------


def test_a_lost_trial_runs_again_before_a_new_one_starts(desk):
    study = desk(FIFO(9), num_trials=5)
    study.slots(2)
    study.report(0, until=4)
    (train,) = study.lost(0)
    assert (train.trial, train.attempt, train.resource, train.until) == (0, 2, 0, 9)
    assert study.ledger.n_trials == 2


def test_a_lost_trial_begins_at_its_newest_state(desk):
    study = desk(num_trials=1, policy="rung")
    study.slots(1)
    study.held(study.report(0, until=1).only(Save))
    study.report(0, until=2)
    train = study.lost(0).only(Train)
    assert (train.resource, train.until, train.checkpoint.resource) == (1, 3, 1)
    assert study.ledger.trials[0].losses == ()


@pytest.mark.parametrize(
    ("decision", "status", "until"),
    [(Continue(3), QUEUED, 3), (Pause(), PAUSED, 1)],
)
def test_a_decision_stands_if_its_state_is_lost(desk, decision, status, until):
    study = desk(answers={(0, 1): decision}, num_trials=1, policy="rung")
    study.slots(1)
    study.report(0, until=1)
    study.slots(0)
    study.lost(0)
    assert (study.status(0), study.ledger.trials[0].until) == (status, until)
    assert study.ledger.trials[0].newest is None


def test_a_stop_stands_if_its_state_is_lost(desk):
    study = desk(answers={(0, 1): Stop("poor")}, num_trials=1, policy="end")
    study.slots(1)
    study.report(0, until=1)
    assert study.ends() == {}
    study.lost(0)
    assert study.ends() == {0: Status.STOPPED}


def test_what_a_lost_trial_trains_again_is_not_judged_again(desk):
    study = desk(num_trials=1)
    study.slots(1)
    study.report(0, until=1)
    study.lost(0)
    assert study.report(0, until=1, since=0) == []  # ahead of the report at 3
    study.report(0, until=3)
    assert study.scheduler.asked == [(0, 1), (0, 3)]


def test_losses_that_were_lost_with_their_state_are_replaced(desk):
    study = desk(num_trials=1)
    study.slots(1)
    study.report(0, until=1, loss=9.0)
    study.report(0, until=2, loss=8.0)
    study.lost(0)
    study.report(0, until=3, loss=7.0, since=0)
    assert [report.losses for report in study.scheduler.reports] == [(9.0,), (7.0, 7.0)]


@pytest.mark.parametrize("say", ["report", "held", "saved", "unsaved", "dropped", "lost", "failed"])
def test_answers_of_a_dead_attempt_leave_no_trace(desk, say, a_save):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    study.lost(0)
    before = copy.deepcopy((study.ledger.trials, study.journal.records))
    save = a_save(0, 1, CheckpointRef(7, 0, 5))
    match say:
        case "report":
            commands = study.report(0, until=9, since=0, attempt=1)
        case "held":
            commands = study.held(save)
        case "saved":
            commands = study.saved(save)
        case "unsaved":
            commands = study.unsaved(save)
        case "dropped":
            commands = study.dropped(save)
        case "lost":
            commands = study.lost(0, attempt=1)
        case "failed":
            commands = study.failed(0, attempt=1)
    assert (study.ledger.trials, study.journal.records) == before
    assert [delete.ref.id for delete in commands] == ([7] if say in ("held", "saved") else [])
    assert commands.of(Delete) == commands


def test_answers_of_a_trial_that_ended_leave_no_trace(desk):
    study = desk(FIFO(1), num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=1)
    n = len(study.journal.records)
    assert study.report(0, until=1, since=0, attempt=1) == []
    assert study.lost(0) == study.failed(0) == []
    assert len(study.journal.records) == n


def test_metrics_that_arrive_after_the_decision_ask_for_no_second_one(desk):
    study = desk(answers={(0, 1): Pause()}, num_trials=1)
    study.slots(1)
    save = study.report(0, until=1).only(Save)
    n = len(study.journal.records)
    assert study.report(0, until=1, since=0) == []
    assert len(study.journal.records) == n
    study.held(save)
    assert study.scheduler.asked == [(0, 1)]


def test_a_trial_lost_too_often_fails(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    for _ in range(MAX_LOST - 1):
        assert study.lost(0).kinds == [Train]
    study.lost(0)
    assert study.ends() == {0: Status.FAILED}
    assert f"lost {MAX_LOST} times in a row" in study.journal.records[-1].reason


def test_a_trial_that_comes_further_between_losses_begins_the_count_again(desk):
    study = desk(FIFO(2 * MAX_LOST + 1), num_trials=1)
    study.slots(1)
    for further in range(1, 2 * MAX_LOST + 1):
        study.report(0, until=further, since=0)
        study.lost(0)
    assert study.status(0) is RUNNING
    assert study.ledger.trials[0].n_lost == 1


def test_a_trial_that_kills_its_worker_at_the_same_place_each_time_fails(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    for _ in range(MAX_LOST):
        study.report(0, until=2, since=0)
        study.lost(0)
    assert study.ends() == {0: Status.FAILED}
    reason = study.journal.records[-1].reason
    assert "without coming further than resource 2: gone" in reason


def test_a_loss_without_blame_never_counts(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    for _ in range(3 * MAX_LOST):
        study.lost(0, blame=False)
    assert study.ledger.trials[0].n_lost == 0


# -- failures ------------------------------------------------------------------------------------


def test_a_trial_whose_code_raises_fails_and_the_study_goes_on(desk):
    study = desk(FIFO(9), num_trials=5)
    study.slots(1)
    commands = study.failed(0, error="Traceback ...\nZeroDivisionError: division by zero\n")
    assert commands.kinds == [Release, Train]
    assert study.ends() == {0: Status.FAILED}
    ended = [r for r in study.journal.records if isinstance(r, Ended)]
    assert ended[0].reason == "ZeroDivisionError: division by zero"


def test_a_failure_without_words_is_no_error_of_ours(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    study.failed(0, error="")
    assert study.ends() == {0: Status.FAILED}


def test_a_trial_is_tried_again_max_failures_times(desk):
    study = desk(FIFO(9), num_trials=1, max_failures=2)
    study.slots(1)
    assert study.failed(0).kinds == [Release, Train]
    assert study.failed(0).kinds == [Release, Train]
    assert study.failed(0).kinds == [Release]
    assert study.ends() == {0: Status.FAILED}


@pytest.mark.parametrize("options", [{"retry": False}, {"fatal": True}])
def test_a_failure_that_would_repeat_itself_is_not_tried_again(desk, options):
    study = desk(FIFO(9), num_trials=1, max_failures=5)
    study.slots(1)
    study.failed(0, **options)
    assert study.ends() == {0: Status.FAILED}


@pytest.mark.parametrize(("decision", "status"), [(Continue(3), RUNNING), (Pause(), PAUSED)])
def test_a_decision_stands_if_saving_raised_and_may_be_tried_again(desk, decision, status):
    study = desk(answers={(0, 1): decision}, num_trials=1, policy="rung", max_failures=1)
    study.slots(1)
    study.report(0, until=1)
    assert study.failed(0)[0] == Release(0, 1)
    assert study.status(0) is status
    assert study.ledger.trials[0].n_failed == 1
    if status is RUNNING:
        study.report(0, until=3, since=0)
        assert study.scheduler.asked == [(0, 1), (0, 3)]


def test_a_trial_whose_saving_raised_fails_if_it_may_not_be_tried_again(desk):
    study = desk(answers={(0, 1): Pause()}, num_trials=1)
    study.slots(1)
    study.report(0, until=1)
    study.failed(0)
    assert study.ends() == {0: Status.FAILED}


def test_a_trial_that_fails_while_it_trains_again_is_not_judged_again(desk):
    """Else a member that always fails there would be ranked, and rescued, without end."""
    study = desk(PBT(15, 5, ["x"]), num_trials=1)
    study.slots(1)
    study.held(study.report(0, until=5).only(Save))
    study.report(0, until=10)
    for _ in range(MAX_FAILURES):
        train = study.failed(0, retry=False).only(Train)
        assert (train.resource, train.until) == (5, 15)
    study.failed(0, retry=False)
    assert study.ends() == {0: Status.FAILED}


def test_fail_fast_stops_the_study_at_the_first_failure(desk):
    study = desk(FIFO(9), num_trials=9, fail_fast=True)
    study.slots(2)
    commands = study.failed(0)
    assert commands.kinds == [Release, Interrupt]
    assert study.coordinator.stop_reason == "trial 0 failed"
    assert study.journal.records[-1] == StopRequested("trial 0 failed", study.seconds)


def test_a_fatal_failure_stops_the_study_and_is_kept_until_the_next_session(desk):
    study = desk(FIFO(9), num_trials=9)
    study.slots(1)
    study.failed(0, error="MetricError: no loss", fatal=True)
    assert study.coordinator.is_drained
    assert study.coordinator.fatal_error == "MetricError: no loss"
    study.begin(num_trials=9)
    assert study.coordinator.fatal_error is None


# -- sessions ------------------------------------------------------------------------------------


def test_what_ran_when_the_coordinator_died_runs_again_in_the_next_session(desk):
    study = desk(answers={(1, 1): Pause()}, num_trials=3)
    study.slots(3)
    study.report(0, until=1)
    study.report(1, until=1)  # its state is never heard of
    assert study.begin(num_trials=3)[-1] == Release(1, 1)
    assert [study.status(trial) for trial in range(3)] == [QUEUED, PAUSED, QUEUED]
    assert [(train.trial, train.until) for train in study.slots(2)] == [(0, 3), (2, 1)]


def test_a_session_may_allow_more_trials(desk):
    study = desk(FIFO(1), num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=1)
    assert study.coordinator.is_drained
    study.begin("never", num_trials=2)
    assert not study.coordinator.is_drained
    assert [train.trial for train in study.slots(1)] == [1]
