"""`trial_time_limit`: what a trial's time in slots is, and what follows when it is used up."""

import math

import pytest

from daskhpo.core.commands import Interrupt, Release, Save, Train
from daskhpo.core.domains import Real
from daskhpo.core.events import Ended, OutOfTime, Reported, SessionStarted, StopRequested
from daskhpo.core.objective import Objective
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits, Pause, Resume, Status, Stop
from daskhpo.engine.coordinator import OUT_OF_TIME, Coordinator, Problem
from daskhpo.engine.drive import drive
from daskhpo.engine.journal import decode_record, encode_record
from daskhpo.engine.options import RunOptions
from daskhpo.engine.replay import replay
from daskhpo.engine.trial_times import TrialTimes
from daskhpo.results.result import Result
from daskhpo.schedulers import ASHA, FIFO, PBT, GuardedASHA, Hyperband, MedianStopping
from daskhpo.searchers import RandomSearch
from daskhpo.testing.journal import MemoryJournal
from daskhpo.virtual.executor import SimulatedExecutor


@pytest.fixture
def times():
    made = TrialTimes()
    made.limit = 10.0
    return made


def test_time_in_slots_adds_up_over_attempts(times):
    times.launch(0, 5.0)
    times.leave(0, 9.0)  # four seconds; what passes without a slot does not count
    times.launch(0, 100.0)
    assert times.used(0, 103.0) == 7.0
    assert times.next_end == 106.0
    assert not times.is_up(0, 105.9)
    assert times.is_up(0, 106.0)


def test_the_next_end_is_that_of_the_launches_that_stand(times):
    times.launch(0, 0.0)
    times.launch(1, 1.0)
    times.leave(0, 2.0)
    assert times.next_end == 11.0
    times.launch(0, 2.0)
    assert times.next_end == 10.0
    assert times.pop_ended(9.9) == []
    assert times.pop_ended(11.0) == [0, 1]
    assert times.pop_ended(99.0) == [], "each launch comes once"
    times.forget(0)
    assert times.used(0, 99.0) == 0.0


def test_without_a_limit_nothing_ends():
    times = TrialTimes()
    times.launch(0, 0.0)
    assert times.next_end is None
    assert not times.is_up(0, 1e12)


def late(study, trial=0):
    """The trial's time is used up, says the loop that drives the study."""
    study.seconds += 100.0
    (event,) = study.coordinator.overdue(study.seconds)
    assert event == OutOfTime(trial, study.attempt(trial), study.seconds)
    return study.say(OutOfTime, event.trial, event.attempt)


def test_a_trial_ends_at_the_report_that_follows(desk):
    study = desk(trial_time_limit=50, num_trials=1)
    study.slots(1)
    study.report(0, 1)
    assert late(study).only(Interrupt) == Interrupt(0, 1, alone=True)
    study.stored(study.report(0, 2, preempted=True).only(Save))  # it is the best so far
    (ended,) = study.recorded(Ended)
    assert (ended.status, ended.reason) == (Status.STOPPED, OUT_OF_TIME)
    assert study.recorded(Reported)[-1].decision == Stop(OUT_OF_TIME)
    assert study.scheduler.asked == [(0, 1)], "its scheduler is told of the end alone"
    assert study.scheduler.ended == {0: Status.STOPPED}


def test_a_segment_that_ends_late_is_the_last(desk):
    study = desk(trial_time_limit=50, num_trials=1, policy="never")
    study.slots(1)
    late(study)
    assert study.report(0, 1).only(Release)
    assert study.ends() == {0: Status.STOPPED}


def test_full_training_is_complete_though_late(desk):
    study = desk(FIFO(3), trial_time_limit=50, num_trials=1, policy="never")
    study.slots(1)
    late(study)
    study.report(0, 3)
    assert study.ends() == {0: Status.COMPLETED}


def test_a_trial_that_never_reported_has_failed(desk):
    study = desk(trial_time_limit=50, num_trials=3, max_failed_trials=2)
    study.slots(1)
    for trial in (0, 1):
        late(study, trial)
        study.report(trial, 0, preempted=True)
    assert study.ends() == {0: Status.FAILED, 1: Status.FAILED}
    (stop,) = study.recorded(StopRequested)
    assert "first 2 trials failed with its trial_time_limit is used up, before its" in stop.reason


def test_fail_fast_heeds_it(desk):
    study = desk(trial_time_limit=50, num_trials=3, fail_fast=True)
    study.slots(1)
    late(study)
    study.report(0, 0, preempted=True)
    assert study.recorded(StopRequested)


def test_code_that_was_given_up_is_not_tried_again(desk):
    study = desk(trial_time_limit=50, num_trials=1, policy="never")
    study.slots(1)
    study.report(0, 1)
    late(study)
    study.lost(0, blame=False)
    assert study.ends() == {0: Status.STOPPED}


def test_an_error_after_the_time_is_not_retried(desk):
    study = desk(trial_time_limit=50, num_trials=1, max_failures=5)
    study.slots(1)
    late(study)
    study.failed(0)
    assert study.ends() == {0: Status.FAILED}


def test_time_of_lost_attempts_counts(desk):
    study = desk(trial_time_limit=50, num_trials=1)
    study.slots(1)
    launched = study.seconds
    study.seconds += 29.0
    study.lost(0)  # 30 s, and again
    assert study.status(0) is Status.RUNNING
    assert study.ledger.times.next_end == launched + 50.0


def test_a_pause_takes_no_time(desk):
    study = desk(
        trial_time_limit=50, num_trials=2, answers={(0, 1): Pause()}, wishes=[Resume(0, 3)]
    )
    study.slots(1)
    launched = study.seconds
    save = study.report(0, 1).only(Save)
    study.held(save)
    used = study.seconds - launched
    assert study.ledger.times.used(0, study.seconds) == used


def test_a_trial_whose_time_passes_while_it_is_saved_is_not_paused(desk):
    study = desk(trial_time_limit=50, num_trials=1, answers={(0, 1): Pause()})
    study.slots(1)
    save = study.report(0, 1).only(Save)
    study.seconds += 100.0
    study.held(save)
    assert study.ends() == {0: Status.STOPPED}


def test_a_trial_whose_time_passes_while_it_is_saved_does_not_go_on(desk):
    study = desk(trial_time_limit=50, num_trials=1, policy="rung")
    study.slots(1)
    save = study.report(0, 1).only(Save)
    study.seconds += 100.0
    assert not study.held(save).of(Train)
    assert study.ends() == {0: Status.STOPPED}


def test_a_shorter_limit_of_a_later_session_ends_trials_that_wait(desk):
    study = desk(num_trials=2, answers={(0, 1): Pause()}, wishes=[Resume(0, 3)], action=None)
    study.slots(2)
    study.seconds += 60.0
    study.stored(study.report(0, 1).only(Save))  # resumed, and runs with trial 1
    study.begin(trial_time_limit=50, num_trials=2)
    study.slots(1)
    assert study.ends() == {0: Status.STOPPED, 1: Status.FAILED}


def test_a_paused_trial_beyond_a_shorter_limit_ends_instead_of_being_resumed(desk):
    study = desk(num_trials=1, answers={(0, 1): Pause()}, checked=False)
    study.slots(1)
    study.seconds += 60.0
    study.stored(study.report(0, 1).only(Save))
    assert study.status(0) is Status.PAUSED
    study.scheduler.wishes = [Resume(0, 3)]
    study.begin(trial_time_limit=50, num_trials=1)
    study.slots(1)
    assert study.ends() == {0: Status.STOPPED}


def test_a_user_s_retry_begins_with_all_its_time(desk):
    study = desk(trial_time_limit=50, num_trials=1)
    study.slots(1)
    late(study)
    study.report(0, 0, preempted=True)
    assert study.ends() == {0: Status.FAILED}
    assert study.ledger.times.used(0, study.seconds) == 0.0


def test_the_journal_has_it_and_journals_without_it_are_as_before():

    for limit in (None, 7200.0):
        began = SessionStarted(Limits(trial_time_limit=limit), CheckpointPolicy(), 1.0)
        line = encode_record(began)
        assert decode_record(line) == began
        assert ("trial_time_limit" in line) == (limit is not None)
        options = RunOptions(num_trials=1, trial_time_limit=limit)
        assert RunOptions.from_json(options.to_json()) == options
        assert ("trial_time_limit" in str(options.to_json())) == (limit is not None)
    assert RunOptions(trial_time_limit="2h").trial_time_limit == 7200.0


class Line:
    def __init__(self, config):
        self.unit = 1.0 + 9.0 * config["x"]

    def metric(self, resource):
        return self.unit / resource

    def seconds(self, resource):
        return self.unit * resource


POPULATION = {"mutations": {"x": Real(0.0, 1.0)}, "perturbation_interval": 3}


@pytest.mark.parametrize(
    "scheduler",
    [
        *(FIFO(27), ASHA(27, 1, 3), ASHA(27, 1, 3, variant="promotion"), Hyperband(27, 3)),
        *(GuardedASHA(27, 1, 3), MedianStopping(FIFO(27)), PBT(27, **POPULATION)),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
@pytest.mark.parametrize("limit", [2.0, 30.0, 100.0])
def test_no_trial_of_any_scheduler_takes_more_than_its_limit_and_a_unit(scheduler, limit):
    space, objective = Space({"x": Real(0.0, 1.0)}), Objective("loss")
    problem = Problem(space, objective, scheduler, RandomSearch(), 0)
    journal = MemoryJournal()
    coordinator = Coordinator(problem, journal)
    limits = Limits(12, trial_time_limit=limit)
    coordinator.handle(SessionStarted(limits, CheckpointPolicy(), 0.0))
    drive(coordinator, SimulatedExecutor(Line, objective, 3), journal)
    coordinator.ledger.validate()
    result = Result(journal.records, objective)
    trials = result.trials()
    assert len(trials) == 12
    assert set(trials.status) <= {"stopped", "completed", "failed", "paused"}
    for trial in trials.trial:
        row = result.trial(trial)
        unit = 1.0 + 9.0 * row.config["x"]
        assert row.time.seconds <= limit + unit + 1e-6
        assert (row.status == "failed") == (math.isinf(row.best_loss))
    reasons = {result.trial(trial).reason for trial in trials.trial}
    if limit == 2.0:
        assert any(reason.startswith(OUT_OF_TIME) for reason in reasons)
    again = replay(problem, list(journal.records), MemoryJournal())
    assert again.ledger.n_ended == coordinator.ledger.n_ended
