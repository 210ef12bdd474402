"""What people ask of a running study: a trial ends, a trial is added; each exactly once."""

from __future__ import annotations

import json

import pytest

from daskhpo.core.commands import Flush, Interrupt, Release, Save, Train
from daskhpo.core.events import (
    Ended,
    Enqueued,
    OutOfTime,
    SessionStarted,
    Suggested,
    TrialPauseRequested,
    TrialStopRequested,
    Withheld,
)
from daskhpo.core.types import Limits, Pause, Resume, Status, Stop
from daskhpo.engine import requests as requests_module
from daskhpo.engine.checkpoint_policy import check_policy
from daskhpo.engine.coordinator import OUT_OF_TIME
from daskhpo.engine.requests import (
    StopRequestWatcher,
    request_edit,
    request_stop,
    requested_edits,
    requested_stop,
)
from daskhpo.results.result import Result
from daskhpo.schedulers import ASHA, FIFO, GuardedASHA, Hyperband
from tests.engine.conftest import Scripted

GIVEN = {"x": 0.125, "kind": "b"}


def end(study, trial, name="one"):
    return study.say(TrialStopRequested, trial, "by hand", name)


def add(study, config=GIVEN, name="one"):
    return study.say(Enqueued, config, name)


def ends(study):
    return {r.trial: (r.status, r.reason) for r in study.journal.records if isinstance(r, Ended)}


def again(study, **limits):
    """Another session."""
    study.say(SessionStarted, Limits(**limits), check_policy("never"))
    return study.slots(1)


def test_a_trial_in_its_slot_ends_at_its_next_report_which_counts(desk):
    study = desk(FIFO(9), num_trials=2, policy="never")
    study.slots(1)
    assert end(study, 0).only(Interrupt).trial == 0
    assert study.status(0) is Status.RUNNING
    commands = study.report(0, until=4, loss=0.5, preempted=True)
    assert commands.kinds == [Release, Train]
    assert commands.only(Train).trial == 1  # its slot is free at once
    assert ends(study) == {0: (Status.STOPPED, "by hand")}
    trial = Result(study.journal.records, study.problem.objective).trial(0)
    assert (trial.resource, trial.best_loss, trial.status) == (4, 0.5, Status.STOPPED)


def test_its_state_is_kept_if_it_is_the_best(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    end(study, 0)
    save = study.report(0, until=4, preempted=True).only(Save)
    study.stored(save)
    assert ends(study) == {0: (Status.STOPPED, "by hand")}
    assert study.ledger.retained[0].checkpoint.resource == 4


def test_a_trial_that_waits_for_a_slot_ends_at_once(desk):
    study = desk(FIFO(9), num_trials=2, policy="never")
    study.slots(2)
    study.lost(1)
    study.slots(1)
    study.lost(0)
    study.slots(0)
    study.lost(1, blame=False)
    for number in (0, 1):
        end(study, number, f"request {number}")
    assert ends(study) == dict.fromkeys((0, 1), (Status.STOPPED, "by hand"))
    assert study.coordinator.n_slots_wanted == 0 or study.coordinator.is_over


def test_a_paused_trial_ends_at_once_and_is_not_resumed(desk):
    study = desk(Scripted({(0, 1): Pause()}, [Resume(0, 3)]), num_trials=2, policy="never")
    study.slots(1)
    study.report(0, until=1)
    if study.status(0) is Status.RUNNING:  # it was resumed already
        study.report(0, until=2, preempted=True)
    end(study, 0)
    if 0 in study.ledger.trials:
        study.report(0, until=2, preempted=True)
    assert ends(study) == {0: (Status.STOPPED, "by hand")}
    assert study.scheduler.ended == {0: Status.FAILED}  # gone, for a reason it does not know


@pytest.mark.parametrize("policy", ["auto", "never", "rung", "end"])
def test_a_trial_whose_segment_ends_first_does_not_train_the_next_one(desk, policy):
    study = desk(policy=policy, num_trials=1)
    study.slots(1)
    end(study, 0)
    commands = study.report(0, until=1)
    if policy != "never":  # it is the best so far
        save = commands.only(Save)
        commands = study.held(save) + study.saved(save)
    assert not [command for command in commands if isinstance(command, Train)]
    assert ends(study) == {0: (Status.STOPPED, "by hand")}
    assert study.scheduler.asked == [(0, 1)]  # its report counts
    assert (0 in study.ledger.retained) == (policy != "never")


def test_its_state_is_not_taken_if_a_better_one_is_kept(desk):
    study = desk(answers={(0, 1): Stop("done")}, num_trials=2)
    study.slots(1)
    study.stored(study.report(0, until=1, loss=0.5).only(Save))
    end(study, 1)
    assert study.report(1, until=1, loss=1.5).kinds == [Release]
    assert ends(study)[1] == (Status.STOPPED, "by hand")


@pytest.mark.parametrize("answer", [Pause(), Stop("done")])
def test_a_trial_that_is_pausing_or_stopping_does_so_and_ends_once(desk, answer):
    study = desk(answers={(0, 1): answer}, num_trials=1)
    study.slots(1)
    save = study.report(0, until=1).only(Save)
    end(study, 0)
    assert study.held(save).of(Release)
    reason = "by hand" if isinstance(answer, Pause) else "done"
    assert ends(study) == {0: (Status.STOPPED, reason)}
    assert len(study.recorded(Ended)) == 1


def test_a_trial_that_is_handing_over_ends_when_its_state_is_held(desk):
    study = desk(num_trials=1)
    study.slots(1)
    study.report(0, until=1)
    save = study.report(0, until=2, preempted=True).only(Save)
    end(study, 0)
    assert not study.held(save).of(Train)
    assert ends(study) == {0: (Status.STOPPED, "by hand")}


@pytest.mark.parametrize("first", ["late", "by hand"])
def test_a_trial_may_be_both_late_and_unwanted(desk, first):
    study = desk(num_trials=1, policy="never", trial_time_limit=50)
    study.slots(1)
    study.report(0, until=1)
    study.seconds += 100.0
    (late,) = study.coordinator.overdue(study.seconds)
    acts = [lambda: study.say(OutOfTime, late.trial, late.attempt), lambda: end(study, 0)]
    for act in acts if first == "late" else acts[::-1]:
        assert act().only(Interrupt) == Interrupt(0, 1, alone=True)
    study.report(0, until=2, preempted=True)
    assert ends(study) == {0: (Status.STOPPED, OUT_OF_TIME)}
    assert study.scheduler.ended == {0: Status.FAILED}
    assert study.coordinator.is_over


def test_a_trial_that_waits_to_start_again_ends_at_once(desk):
    study = desk(num_trials=1, policy="never")
    study.slots(1)
    study.failed(0)
    again = SessionStarted(Limits(num_trials=1), check_policy("never"), study.seconds, True)
    study.coordinator.handle(again)
    end(study, 0)
    study.slots(1)
    assert ends(study) == {0: (Status.STOPPED, "by hand")}
    assert study.coordinator.is_over


@pytest.mark.parametrize("happens", ["lost", "failed"])
def test_a_trial_whose_worker_or_code_fails_first_does_not_come_back(desk, happens):
    study = desk(FIFO(9), num_trials=2, policy="never", max_failures=3)
    study.slots(1)
    end(study, 0)
    getattr(study, happens)(0)
    assert ends(study) == {0: (Status.STOPPED, "by hand")}
    assert study.status(1) is Status.RUNNING


def test_a_trial_of_an_interrupted_session_does_not_come_back(desk):
    study = desk(FIFO(9), num_trials=2, policy="never")
    study.slots(1)
    end(study, 0)
    assert again(study, num_trials=2).only(Train).trial == 1
    assert ends(study) == {0: (Status.STOPPED, "by hand")}


def test_a_request_that_comes_again_does_nothing(desk):
    study = desk(FIFO(9), num_trials=3, policy="never")
    study.slots(1)
    add(study)
    end(study, 5, "two")  # no such trial: it is not meant for a later one
    n = len(study.journal.records)
    for _ in range(3):
        assert not add(study)
        assert not end(study, 5, "two")
    assert len(study.journal.records) == n


def test_a_trial_that_has_ended_may_run_again_after_a_late_request(desk):
    study = desk(FIFO(9), num_trials=1, policy="never")
    study.slots(1)
    study.failed(0)
    end(study, 0)
    study.say(SessionStarted, Limits(num_trials=1), check_policy("never"), retry_failed=True)
    study.slots(1)
    end(study, 0)  # delivered again
    assert study.status(0) is Status.RUNNING
    assert ends(study)[0][0] is Status.FAILED


@pytest.mark.parametrize(
    "scheduler", [FIFO(9), ASHA(9), GuardedASHA(9), Hyperband(9)], ids=lambda s: repr(s)[:6]
)
def test_an_added_configuration_is_the_next_new_trial(desk, scheduler):
    study = desk(scheduler, num_trials=3, policy="never")
    add(study)
    assert study.slots(1).only(Train).config == GIVEN
    assert study.coordinator.searcher is not None
    starts = [r for r in study.journal.records if isinstance(r, Suggested)]
    assert [r.config for r in starts] == [GIVEN]
    assert not study.coordinator.edits.configs


def test_it_comes_on_top_if_the_study_has_all_its_trials(desk):
    study = desk(FIFO(1), num_trials=2, policy="never")
    study.slots(1)
    study.report(0, until=1)
    add(study)
    assert study.coordinator.n_slots_wanted == 2
    assert study.report(1, until=1).only(Train).config == GIVEN
    study.report(2, until=1)
    assert study.coordinator.is_over
    assert study.ledger.n_trials == 3


def test_what_a_stopped_study_did_not_start_starts_in_the_next_session(desk):
    study = desk(FIFO(9), num_trials=1, policy="never")
    study.slots(1)
    study.stop()
    add(study)
    study.report(0, until=2, preempted=True)
    assert study.coordinator.is_over
    assert again(study, num_trials=1).only(Train).trial == 0
    assert study.report(0, until=9, since=0).only(Train).config == GIVEN


def test_a_trial_added_while_the_last_states_are_written_comes_to_an_end(desk):
    study = desk(FIFO(1), num_trials=1)
    study.slots(1)
    first = study.report(0, until=1).only(Save)
    assert study.held(first).only(Flush).checkpoint_ids == (first.ref.id,)
    assert add(study).only(Train).trial == 1
    second = study.report(1, until=1, loss=0.5).only(Save)
    assert study.held(second).only(Flush).checkpoint_ids == (second.ref.id,)
    study.saved(second)
    assert study.coordinator.is_drained


# -- the file of requests ------------------------------------------------------------------------

EDITS = [
    Enqueued({"x": 0.5, "sizes": (1, (2, "a")), "none": None}, "a", 0.0),
    TrialStopRequested(7, "too slow", "b", 0.0),
    TrialPauseRequested(7, True, "c", 0.0),
    TrialPauseRequested(7, False, "d", 0.0),
]


def test_requests_come_back_equal_and_in_order(tmp_path):
    assert requested_edits(tmp_path) == []
    for edit in EDITS:
        request_edit(tmp_path, edit)
    request_stop(tmp_path, "token", "enough")
    assert requested_edits(tmp_path) == EDITS
    assert requested_stop(tmp_path, "token") == "enough"
    assert requested_stop(tmp_path, "other") is None


def test_damaged_requests_are_none(tmp_path):
    good = [{"whom": "study", "request": "a", "stop trial": 3}]
    bad = [
        {"whom": "study", "request": 3, "stop trial": 3},
        {"whom": "study", "request": "b", "stop trial": "3"},
        {"whom": "study", "request": "c", "stop trial": True},
        {"whom": "token", "request": "d", "stop trial": 3},
        {"whom": "study", "request": "e", "enqueue": [1]},
        {"whom": "study", "stop trial": 3},
        ["whom"],
        3,
    ]
    lines = [json.dumps(line) for line in [*bad, *good]]
    (tmp_path / "requests.jsonl").write_text("\n".join([*lines, "{", lines[-1][:-3]]))
    assert requested_edits(tmp_path) == [TrialStopRequested(3, "stopped by hand", "a", 0.0)]


def test_a_watcher_tells_each_request_once_those_before_it_too(tmp_path, monkeypatch):
    monkeypatch.setattr(requests_module, "REQUEST_POLL_SECONDS", 0.01)
    request_edit(tmp_path, EDITS[0])
    told, stopped = [], []
    watcher = StopRequestWatcher(tmp_path, "token", stopped.append, told.append)
    request_edit(tmp_path, EDITS[1])
    request_edit(tmp_path, EDITS[1])
    request_stop(tmp_path, "token", "enough")
    watcher._thread.join(10)
    assert told == EDITS[:2]
    assert stopped == ["enough"]
    watcher.close()


def result(study):
    return Result(study.journal.records, study.problem.objective)


def pause(study, trial, name="one", paused=True):
    return study.say(TrialPauseRequested, trial, paused, name)


def test_a_trial_leaves_its_slot_until_it_is_resumed(desk):
    study = desk(FIFO(9), num_trials=2, policy="auto")
    study.slots(1)
    assert pause(study, 0).only(Interrupt).trial == 0
    save = study.report(0, until=4, preempted=True).only(Save)
    train = study.held(save).only(Train)
    assert (train.trial, study.status(0)) == (1, Status.QUEUED)
    assert pause(study, 0, "two", paused=False).kinds == []  # the slot is taken
    study.held(study.report(1, until=9).only(Save))
    assert (study.status(0), study.ledger.trials[0].attempt) == (Status.RUNNING, 2)


def test_the_study_ends_without_a_paused_trial_which_a_later_session_continues(desk):
    study = desk(FIFO(9), num_trials=1, policy="never")
    study.slots(1)
    pause(study, 0)
    study.report(0, until=4, preempted=True)
    assert study.coordinator.is_over
    assert again(study, num_trials=1).of(Train) == []
    assert study.coordinator.is_over
    assert pause(study, 0, "two", paused=False).only(Train).trial == 0


def test_what_a_scheduler_decides_on_a_paused_trial_is_done_once_it_is_resumed(desk):
    study = desk(wishes=[Resume(0, 3)], answers={(0, 1): Pause()}, num_trials=1, policy="never")
    study.slots(1)
    pause(study, 0)
    assert study.report(0, until=1).of(Train) == []
    assert [(r.trial, r.until) for r in study.recorded(Withheld)] == [(0, 3)]
    assert (study.status(0), result(study).trial(0).status) == (Status.QUEUED, Status.QUEUED)
    assert result(study).paused_by_hand == {0}
    train = pause(study, 0, "two", paused=False).only(Train)
    assert (train.trial, train.until) == (0, 3)
    assert result(study).paused_by_hand == frozenset()


def test_a_decision_to_continue_does_not_keep_a_paused_trial_in_its_slot(desk):
    study = desk(num_trials=2, policy="auto")
    study.slots(1)
    pause(study, 0)
    save = study.report(0, until=1).only(Save)  # it was at its next report anyway
    assert study.held(save).only(Train).trial == 1
    assert study.ledger.trials[0].until == 3


def test_a_paused_trial_may_be_stopped(desk):
    study = desk(FIFO(9), num_trials=1, policy="never")
    study.slots(1)
    pause(study, 0)
    study.report(0, until=4, preempted=True)
    end(study, 0, "two")
    assert ends(study) == {0: (Status.STOPPED, "by hand")}
    assert study.coordinator.edits.paused == set()


def test_a_failed_trial_that_a_person_pauses_before_it_runs_again_waits(desk):
    study = desk(num_trials=1, policy="never")
    study.slots(1)
    study.failed(0)
    study.say(SessionStarted, Limits(num_trials=1), check_policy("never"), retry_failed=True)
    pause(study, 0)
    assert study.slots(1).of(Train) == []
    assert pause(study, 0, "two", paused=False).only(Train).trial == 0


def test_pausing_what_has_ended_or_never_began_changes_nothing(desk):
    study = desk(FIFO(1), num_trials=2, policy="never")
    study.slots(1)
    study.report(0, until=1)
    pause(study, 0)
    pause(study, 7, "two")
    assert study.coordinator.edits.paused == set()
    pause(study, 0)  # delivered again
    assert len(study.recorded(TrialPauseRequested)) == 2
