"""Failed trials run again when a session says so; a journal replays it."""

from __future__ import annotations

import pytest

from daskhpo.core.commands import Save, Train
from daskhpo.core.events import SessionStarted
from daskhpo.core.types import Continue, Limits, Pause, Resume, Status, Stop
from daskhpo.engine.checkpoint_policy import check_policy
from daskhpo.engine.journal import decode_record, encode_record
from daskhpo.results.result import Result
from daskhpo.schedulers import FIFO, SuccessiveHalving

QUEUED, RUNNING, PAUSED = Status.QUEUED, Status.RUNNING, Status.PAUSED


def retry(study, policy="never", slots=1, **limits):
    """A new session that runs failed trials again; what it commands first."""
    study.say(SessionStarted, Limits(**limits), check_policy(policy), retry_failed=True)
    return study.slots(slots)


def result_of(study):
    return Result(study.journal.records, study.problem.objective)


def test_a_failed_trial_runs_again_with_its_number_and_configuration(desk):
    study = desk(FIFO(9), num_trials=2, policy="never")
    study.slots(1)
    study.report(0, until=4)
    study.failed(0)
    config = result_of(study).trial(0).config
    study.report(1, until=9)
    train = retry(study, num_trials=2).only(Train)
    assert (train.trial, train.attempt, train.resource, train.until) == (0, 2, 0, 9)
    assert train.config == config
    study.report(0, until=9, since=0)
    assert set(study.ends().values()) == {Status.COMPLETED}


def test_it_is_waiting_until_it_runs_and_keeps_its_reports(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    study.report(0, until=4, loss=0.25)
    study.failed(0)
    retry(study, slots=0, num_trials=1)
    result = result_of(study)
    trial = result.trial(0)
    assert (study.status(0), trial.status) == (QUEUED, QUEUED)
    assert (trial.reason, trial.ended, trial.error) == ("", None, "ValueError: no")
    assert result.best_value == 0.25
    assert len(result.history()) == 4


def test_it_continues_from_its_newest_checkpoint_if_that_is_kept(desk):
    study = desk(FIFO(9), num_trials=1, policy="every:3")
    study.slots(1)
    study.stored(study.report(0, until=3).only(Save))
    study.report(0, until=4)
    study.failed(0)
    train = retry(study, "every:3", num_trials=1).only(Train)
    assert (train.resource, train.checkpoint.resource) == (3, 3)


def test_the_number_of_trials_counts_it_once(desk):
    study = desk(FIFO(1), num_trials=3)
    study.slots(1)
    for trial in range(3):
        study.failed(trial)
    retry(study, num_trials=3)
    for trial in range(3):
        assert study.status(trial) is RUNNING
        study.report(trial, until=1)
    assert study.coordinator.is_over
    assert study.ledger.n_trials == 3
    assert study.ledger.n_ended[Status.COMPLETED] == study.ledger.n_ended.total() == 3


def test_a_scheduler_that_cannot_continue_it_gets_it_as_a_new_start(desk):
    study = desk(SuccessiveHalving(9, 1, 3), num_trials=9)
    study.slots(9)
    for trial in range(9):
        study.failed(trial)
    assert {*study.ends().values()} == {Status.FAILED}
    trains = retry(study, slots=9, num_trials=9).of(Train)
    assert [(train.trial, train.resource, train.until) for train in trains] == [
        (trial, 0, 1) for trial in range(9)
    ]
    for trial in range(9):
        study.report(trial, until=1, loss=float(trial))
    assert {number for number, t in study.ledger.trials.items() if t.until == 3} == {0, 1, 2}


def test_a_second_failure_is_a_failure(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    study.failed(0)
    retry(study, num_trials=1)
    study.failed(0, "KeyError: 1")
    assert study.coordinator.is_over
    trial = result_of(study).trial(0)
    assert (trial.status, trial.reason) == (Status.FAILED, "KeyError: 1")


def test_a_session_without_retry_leaves_failed_trials_alone(desk):
    study = desk(FIFO(9), num_trials=2)
    study.slots(1)
    study.failed(0)
    study.begin(num_trials=2)
    study.slots(1)
    assert study.ends() == {0: Status.FAILED}
    assert study.status(1) is RUNNING


@pytest.mark.parametrize(
    ("decision", "outcome"),
    [(Continue(3), RUNNING), (Pause(), PAUSED), (Stop("poor"), None)],
)
def test_a_decision_after_which_it_could_not_be_saved_stands(desk, decision, outcome):
    class Onward(FIFO):
        asked = 0

        def next_action(self, trials, can_start):
            action = super().next_action(trials, can_start)
            return type(action)(1) if can_start else action

        def on_report(self, trial, report):
            self.asked += 1
            return decision

        def on_retry(self, trial):
            assert trial.decision == decision
            return True

    study = desk(Onward(9), num_trials=1, policy="rung", checked=False)
    study.slots(1)
    study.report(0, until=1)
    study.failed(0, "OSError: cannot save")
    retry(study, "rung", num_trials=1)
    study.held(study.report(0, until=1, since=0).only(Save))
    assert study.scheduler.asked == 1
    found = study.ledger.trials.get(0)
    assert (found and found.status) == outcome


def test_the_state_of_a_trial_that_starts_again_is_deleted(desk):
    study = desk(num_trials=1, policy="rung", wishes=[Resume(0, 9)])
    study.slots(1)
    study.stored(study.report(0, until=1).only(Save))
    study.failed(0)
    assert len(study.store) == 1
    retry(study, "rung", num_trials=1)
    assert study.store == {}


def test_it_is_in_the_journal_only_if_it_is_asked_for():
    plain = SessionStarted(Limits(), check_policy("auto"), 1.0)
    assert "retry" not in encode_record(plain)
    again = SessionStarted(Limits(), check_policy("auto"), 1.0, retry_failed=True)
    assert decode_record(encode_record(again)) == again
