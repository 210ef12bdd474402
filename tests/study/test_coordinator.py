"""The coordinator: scripts of events in, commands and the ledger out."""

from __future__ import annotations

import copy

import pytest

from daskhpo.core.objective import Objective
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.space import Categorical, Real, Space
from daskhpo.core.types import (
    Began,
    CheckpointRef,
    Continue,
    Delete,
    Discard,
    Ended,
    Failed,
    Interrupt,
    Launched,
    Limits,
    Lost,
    Pause,
    Release,
    Reported,
    Resume,
    Save,
    Saved,
    SlotsChanged,
    Start,
    Status,
    Step,
    Stop,
    StopRequested,
    Train,
    Wait,
)
from daskhpo.schedulers import ASHA, FIFO, MedianStopping
from daskhpo.searchers import GridSearch, RandomSearch
from daskhpo.study.coordinator import MAX_LOST, RETURNED, Coordinator, Problem
from daskhpo.study.replay import replay
from daskhpo.testing.journal import MemoryJournal

QUEUED, RUNNING, PAUSED = Status.QUEUED, Status.RUNNING, Status.PAUSED


class Scripted(Scheduler):
    """Segments end at 1, 3 and 9; there it answers as it was told to, else goes on.

    ``answers`` are those at (trial, resource); ``wishes`` what it wants to do with a trial once
    that is paused, or about to be; ``action`` is what it insists on.
    """

    max_t = 9

    def __init__(self, answers=None, wishes=(), action=None):
        self.answers, self.wishes, self.action = answers or {}, list(wishes), action
        self.asked = []
        self.ended = {}

    def next_action(self, trials, can_start):
        for wish in self.wishes:
            trial = trials.get(wish.trial)
            if trial and (trial.status is PAUSED or isinstance(trial.decision, Pause)):
                return wish
        if trials and self.action:
            return self.action
        return Start(until=1) if can_start else Wait()

    def on_launch(self, trial):
        self.wishes = [wish for wish in self.wishes if wish.trial != trial.id or trial.until == 1]

    def on_report(self, trial, report):
        assert (trial.id, report.resource) not in self.asked, "asked twice"
        assert report.resource == trial.until
        assert report.losses, "a report of nothing"
        self.asked.append((trial.id, report.resource))
        onward = Continue(report.resource * 3) if report.resource < 9 else Stop("fully trained")
        answer = self.answers.get((trial.id, report.resource), onward)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def on_end(self, trial):
        self.ended[trial.id] = trial.status


class Desk:
    """A coordinator with a script's words for events; every one is checked."""

    def __init__(self, scheduler, *, policy="auto", searcher=None, mode="min", **limits):
        space = Space({"x": Real(0.0, 1.0), "kind": Categorical(["a", "b"])})
        objective = Objective("loss", mode)
        searcher = RandomSearch() if searcher is None else searcher
        self.problem = Problem(space, objective, scheduler, searcher, 0)
        self.journal = MemoryJournal()
        self.coordinator = Coordinator(self.problem, self.journal)
        self.seconds = 0.0
        self.begin(policy, **limits)

    def begin(self, policy="auto", **limits):
        return self.say(Began, Limits(**limits), policy)

    def say(self, event, *args, **options):
        self.seconds += 1.0
        if event in (SlotsChanged, StopRequested, Began):
            made = event(*args, seconds=self.seconds)
        else:
            made = event(*args, seconds=self.seconds, **options)
        commands = self.coordinator.handle(made)
        self.ledger.validate()
        return commands

    @property
    def ledger(self):
        return self.coordinator.ledger

    @property
    def scheduler(self):
        return self.coordinator.scheduler

    def attempt(self, trial):
        found = self.ledger.trials.get(trial)
        return found.attempt if found else 1

    def slots(self, n):
        return self.say(SlotsChanged, n)

    def report(self, trial, until, loss=1.0, since=None, attempt=None, **options):
        """Units since the trial's last report, all with one loss."""
        since = self.ledger.trials[trial].resource if since is None else since
        steps = tuple(Step(r, {"loss": loss}, self.seconds) for r in range(since + 1, until + 1))
        attempt = attempt or self.attempt(trial)
        return self.say(Reported, trial, attempt, steps, **options)

    def saved(self, save, ok=True):
        """The answer to a command to save."""
        ref = CheckpointRef(save.ref.row, save.trial, save.ref.resource, "a", 100) if ok else None
        return self.say(Saved, save.trial, save.attempt, ref)

    def lost(self, trial, attempt=None, **options):
        return self.say(Lost, trial, attempt or self.attempt(trial), "gone", **options)

    def failed(self, trial, error="ValueError: no", attempt=None, **options):
        return self.say(Failed, trial, attempt or self.attempt(trial), error, **options)

    def stop(self, reason="enough"):
        return self.say(StopRequested, reason)

    def status(self, trial):
        return self.ledger.trials[trial].status

    def ends(self):
        """How trials ended, by the journal."""
        return {r.trial: r.status for r in self.journal.records if isinstance(r, Ended)}


@pytest.fixture
def desk():
    """Makes coordinators; at the end each is replayed from its journal and compared."""
    made = []

    def make(scheduler, **options):
        made.append(Desk(scheduler, **options))
        return made[-1]

    yield make
    for each in made:
        tail = MemoryJournal()
        again = replay(each.problem, list(each.journal.records), tail)
        assert tail.records == []
        again.ledger.validate()
        for name in ("trials", "queue", "n_trials", "n_running", "n_ended", "n_rows", "kept"):
            assert getattr(again.ledger, name) == getattr(each.ledger, name), name
        assert again.ledger.best_loss == each.ledger.best_loss
        assert again.ledger.best_trial == each.ledger.best_trial
        assert (again.stop_reason, again.done) == (
            each.coordinator.stop_reason,
            each.coordinator.done,
        )


def kinds(commands):
    return [type(command) for command in commands]


def only(kind, commands):
    """The one command of a kind."""
    (found,) = [command for command in commands if isinstance(command, kind)]
    return found


# -- decisions -----------------------------------------------------------------------------------


def test_a_slot_gets_a_new_trial(desk):
    study = desk(FIFO(3), num_trials=5)
    (train,) = study.slots(1)
    config = study.problem.searcher
    config.setup(study.problem.space, 0)
    assert train == Train(0, 1, config.suggest(0), 0, 3, None, True)


def test_a_trial_that_goes_on_keeps_its_slot_and_writes_nothing(desk):
    study = desk(Scripted(), num_trials=1)
    study.slots(1)
    (train,) = study.report(0, until=1)
    assert (train.resource, train.until, train.launch, train.attempt) == (1, 3, False, 1)
    assert study.status(0) is RUNNING


def test_a_fully_trained_trial_completes_and_a_new_one_takes_its_slot(desk):
    study = desk(FIFO(2), num_trials=5, policy="never")
    study.slots(1)
    release, train = study.report(0, until=2)
    assert release == Release(0, 1)
    assert (train.trial, train.launch) == (1, True)
    assert study.ends() == {0: Status.COMPLETED}
    assert 0 not in study.ledger.trials


def test_a_trial_stopped_early_is_told_from_a_complete_one(desk):
    study = desk(Scripted({(0, 1): Stop("poor")}), num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=1)
    assert study.ends() == {0: Status.STOPPED}
    assert study.journal.records[-1].reason == "poor"
    assert study.scheduler.ended == {0: Status.STOPPED}


def test_a_report_in_mid_segment_is_recorded_and_asks_for_no_decision(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    assert study.report(0, until=4) == []
    assert study.journal.records[-1].decision is None
    assert study.ledger.trials[0].resource == 4


def test_the_scheduler_sees_every_loss_since_the_last_decision(desk):
    seen = []

    class Watching(Scripted):
        def on_report(self, trial, report):
            seen.append(report)
            return super().on_report(trial, report)

    study = desk(Watching(), num_trials=1)
    study.slots(1)
    study.report(0, until=1, loss=5.0)
    study.report(0, until=2, loss=4.0)
    study.report(0, until=3, loss=6.0, since=1)  # the segment's report repeats what went ahead
    assert [report.losses for report in seen] == [(5.0,), (4.0, 6.0)]
    assert [report.best_loss for report in seen] == [5.0, 4.0]


def test_units_that_were_reported_ahead_are_recorded_once(desk):
    study = desk(FIFO(3), num_trials=1)
    study.slots(1)
    study.report(0, until=2)
    study.report(0, until=3, since=0)
    reported = [r for r in study.journal.records if isinstance(r, Reported)]
    assert [[s.resource for s in r.steps] for r in reported] == [[1, 2], [3]]


def test_a_maximised_metric_becomes_a_loss(desk):
    study = desk(FIFO(1), num_trials=2, mode="max", policy="never")
    study.slots(1)
    study.report(0, until=1, loss=0.5)
    study.report(1, until=1, loss=0.9)
    assert (study.ledger.best_trial, study.ledger.best_loss) == (1, -0.9)


# -- pauses --------------------------------------------------------------------------------------


def test_a_pause_is_one_only_when_its_checkpoint_is_committed(desk):
    study = desk(Scripted({(0, 1): Pause()}), num_trials=1)
    study.slots(1)
    (save,) = study.report(0, until=1)
    assert save == Save(0, 1, CheckpointRef(0, 0, 1))
    assert study.status(0) is RUNNING
    assert study.saved(save) == [Release(0, 1)]
    assert study.status(0) is PAUSED
    assert study.ledger.trials[0].checkpoint.n_bytes == 100


def test_a_pause_not_worth_keeping_writes_nothing(desk):
    study = desk(Scripted({(0, 1): Pause(keep=False)}), num_trials=1)
    study.slots(1)
    assert study.report(0, until=1) == [Release(0, 1)]
    assert study.status(0) is PAUSED


def test_a_trial_whose_state_could_not_be_written_pauses_without_it(desk):
    study = desk(Scripted({(0, 1): Pause()}), num_trials=1)
    study.slots(1)
    study.saved(only(Save, study.report(0, until=1)), ok=False)
    assert study.status(0) is PAUSED
    assert study.ledger.trials[0].checkpoint is None


def test_a_resumed_trial_begins_at_its_checkpoint(desk):
    study = desk(Scripted({(0, 1): Pause()}, [Resume(0, until=3)]), num_trials=1)
    study.slots(1)
    save = only(Save, study.report(0, until=1))
    train = only(Train, study.saved(save))
    assert (train.attempt, train.resource, train.until, train.launch) == (2, 1, 3, True)
    assert train.checkpoint.row == 0


def test_a_trial_resumed_without_a_checkpoint_trains_again_and_is_not_judged_again(desk):
    study = desk(Scripted({(0, 1): Pause(keep=False)}, [Resume(0, until=3)]), num_trials=1)
    study.slots(1)
    train = only(Train, study.report(0, until=1))
    assert (train.resource, train.until, train.checkpoint) == (0, 3, None)
    study.report(0, until=3, since=0)
    assert study.scheduler.asked == [(0, 1), (0, 3)]


def test_a_slot_waits_for_a_trial_that_is_about_to_pause(desk):
    study = desk(Scripted({(0, 1): Pause()}, [Resume(0, until=3)]), num_trials=1)
    study.slots(2)
    save = only(Save, study.report(0, until=1))
    assert kinds(study.saved(save)) == [Release, Train]


def test_a_paused_trial_can_be_discarded_and_the_slot_asks_again(desk):
    study = desk(Scripted({(0, 1): Pause()}, [Discard(0, "lost its rung")]), num_trials=2)
    study.slots(1)
    save = only(Save, study.report(0, until=1))
    commands = study.saved(save)
    assert study.ends() == {0: Status.STOPPED}
    assert only(Train, commands).trial == 1


def test_a_study_whose_trials_all_pause_is_done(desk):
    study = desk(Scripted({(0, 1): Pause()}), num_trials=1)
    study.slots(1)
    save = only(Save, study.report(0, until=1))
    assert not study.coordinator.done
    study.saved(save)
    assert study.coordinator.done


# -- losses --------------------------------------------------------------------------------------


def test_a_lost_trial_runs_again_before_a_new_one_starts(desk):
    study = desk(FIFO(9), num_trials=5)
    study.slots(2)
    study.report(0, until=4)
    (train,) = study.lost(0)
    assert (train.trial, train.attempt, train.resource, train.until) == (0, 2, 0, 9)
    assert study.ledger.n_trials == 2


def test_a_lost_trial_begins_at_its_newest_checkpoint(desk):
    study = desk(Scripted(), num_trials=1, policy="rung")
    study.slots(1)
    study.saved(only(Save, study.report(0, until=1)))
    study.report(0, until=2)
    train = only(Train, study.lost(0))
    assert (train.resource, train.until, train.checkpoint.resource) == (1, 3, 1)
    assert study.ledger.trials[0].losses == ()


@pytest.mark.parametrize(
    ("decision", "status", "until"),
    [(Continue(3), QUEUED, 3), (Pause(), PAUSED, 1)],
)
def test_a_decision_stands_if_its_checkpoint_is_lost(desk, decision, status, until):
    study = desk(Scripted({(0, 1): decision}), num_trials=1, policy="rung")
    study.slots(1)
    study.report(0, until=1)
    study.slots(0)
    study.lost(0)
    assert (study.status(0), study.ledger.trials[0].until) == (status, until)
    assert study.ledger.trials[0].checkpoint is None


def test_a_stop_stands_if_its_checkpoint_is_lost(desk):
    study = desk(Scripted({(0, 1): Stop("poor")}), num_trials=1, policy="end")
    study.slots(1)
    study.report(0, until=1)
    assert study.ends() == {}
    study.lost(0)
    assert study.ends() == {0: Status.STOPPED}


def test_what_a_lost_trial_trains_again_is_not_judged_again(desk):
    study = desk(Scripted(), num_trials=1)
    study.slots(1)
    study.report(0, until=1)
    study.lost(0)
    assert study.report(0, until=1, since=0) == []  # ahead of the report at 3
    study.report(0, until=3)
    assert study.scheduler.asked == [(0, 1), (0, 3)]


def test_losses_that_were_lost_with_their_state_are_replaced(desk):
    seen = []

    class Watching(Scripted):
        def on_report(self, trial, report):
            seen.append(report.losses)
            return super().on_report(trial, report)

    study = desk(Watching(), num_trials=1)
    study.slots(1)
    study.report(0, until=1, loss=9.0)
    study.report(0, until=2, loss=8.0)
    study.lost(0)
    study.report(0, until=3, loss=7.0, since=0)
    assert seen == [(9.0,), (7.0, 7.0)]


@pytest.mark.parametrize("say", ["report", "saved", "lost", "failed"])
def test_answers_of_a_dead_attempt_leave_no_trace(desk, say):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    study.lost(0)
    before = copy.deepcopy((study.ledger.trials, study.journal.records))
    match say:
        case "report":
            commands = study.report(0, until=9, since=0, attempt=1)
        case "saved":
            commands = study.saved(Save(0, 1, CheckpointRef(7, 0, 5)))
        case "lost":
            commands = study.lost(0, attempt=1)
        case "failed":
            commands = study.failed(0, attempt=1)
    assert (study.ledger.trials, study.journal.records) == before
    assert kinds(commands) == ([Delete] if say == "saved" else [])


def test_answers_of_a_trial_that_ended_leave_no_trace(desk):
    study = desk(FIFO(1), num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=1)
    n = len(study.journal.records)
    assert study.report(0, until=1, since=0, attempt=1) == []
    assert study.lost(0) == study.failed(0) == []
    assert len(study.journal.records) == n


def test_metrics_that_arrive_after_the_decision_ask_for_no_second_one(desk):
    study = desk(Scripted({(0, 1): Pause()}), num_trials=1)
    study.slots(1)
    save = only(Save, study.report(0, until=1))
    n = len(study.journal.records)
    assert study.report(0, until=1, since=0) == []
    assert len(study.journal.records) == n
    study.saved(save)
    assert study.scheduler.asked == [(0, 1)]


def test_a_trial_lost_too_often_fails(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    for _ in range(MAX_LOST - 1):
        assert kinds(study.lost(0)) == [Train]
    study.lost(0)
    assert study.ends() == {0: Status.FAILED}
    assert f"lost {MAX_LOST} times in a row" in study.journal.records[-1].reason


def test_a_report_between_losses_begins_the_count_again(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    for _ in range(3 * MAX_LOST):
        study.report(0, until=1, since=0)
        study.lost(0)
    assert study.status(0) is RUNNING


def test_a_loss_without_blame_never_counts(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    for _ in range(3 * MAX_LOST):
        study.lost(0, blame=False)
    assert study.ledger.trials[0].n_lost == 0


def test_a_checkpoint_that_cannot_be_read_is_deleted_and_not_used_again(desk):
    study = desk(Scripted({(0, 1): Pause()}, [Resume(0, until=3)]), num_trials=1)
    study.slots(1)
    save = only(Save, study.report(0, until=1))
    study.saved(save)
    delete, train = study.lost(0, blame=False, bad_checkpoint=True)
    assert delete.ref.row == save.ref.row
    assert (train.resource, train.until, train.checkpoint) == (0, 3, None)


# -- failures ------------------------------------------------------------------------------------


def test_a_trial_whose_code_raises_fails_and_the_study_goes_on(desk):
    study = desk(FIFO(9), num_trials=5)
    study.slots(1)
    commands = study.failed(0, error="Traceback ...\nZeroDivisionError: division by zero\n")
    assert kinds(commands) == [Release, Train]
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
    assert kinds(study.failed(0)) == [Release, Train]
    assert kinds(study.failed(0)) == [Release, Train]
    assert kinds(study.failed(0)) == [Release]
    assert study.ends() == {0: Status.FAILED}


@pytest.mark.parametrize("options", [{"retry": False}, {"fatal": True}])
def test_a_failure_that_would_repeat_itself_is_not_tried_again(desk, options):
    study = desk(FIFO(9), num_trials=1, max_failures=5)
    study.slots(1)
    study.failed(0, **options)
    assert study.ends() == {0: Status.FAILED}


@pytest.mark.parametrize(("decision", "status"), [(Continue(3), RUNNING), (Pause(), PAUSED)])
def test_a_decision_stands_if_saving_raised_and_may_be_tried_again(desk, decision, status):
    study = desk(Scripted({(0, 1): decision}), num_trials=1, policy="rung", max_failures=1)
    study.slots(1)
    study.report(0, until=1)
    assert study.failed(0)[0] == Release(0, 1)
    assert study.status(0) is status
    assert study.ledger.trials[0].n_failed == 1
    if status is RUNNING:
        study.report(0, until=3, since=0)
        assert study.scheduler.asked == [(0, 1), (0, 3)]


def test_a_trial_whose_saving_raised_fails_if_it_may_not_be_tried_again(desk):
    study = desk(Scripted({(0, 1): Pause()}), num_trials=1)
    study.slots(1)
    study.report(0, until=1)
    study.failed(0)
    assert study.ends() == {0: Status.FAILED}


def test_fail_fast_stops_the_study_at_the_first_failure(desk):
    study = desk(FIFO(9), num_trials=9, fail_fast=True)
    study.slots(2)
    commands = study.failed(0)
    assert kinds(commands) == [Release, Interrupt]
    assert study.coordinator.stop_reason == "trial 0 failed"
    assert study.journal.records[-1] == StopRequested("trial 0 failed", study.seconds)


def test_a_fatal_failure_stops_the_study_and_is_kept_until_the_next_session(desk):
    study = desk(FIFO(9), num_trials=9)
    study.slots(1)
    study.failed(0, error="MetricError: no loss", fatal=True)
    assert study.coordinator.done
    assert study.coordinator.fatal_error == "MetricError: no loss"
    study.begin(num_trials=9)
    assert study.coordinator.fatal_error is None


# -- the end of a study --------------------------------------------------------------------------


def test_a_stop_request_asks_running_trials_to_hand_over_and_starts_nothing(desk):
    study = desk(FIFO(9), num_trials=9)
    study.slots(2)
    assert study.stop() == [Interrupt(0, 1), Interrupt(1, 1)]
    (save,) = study.report(0, until=4, yielded=True)
    assert save.ref.resource == 4
    assert study.status(0) is RUNNING
    assert study.saved(save) == [Release(0, 1)]
    assert study.status(0) is QUEUED
    assert not study.coordinator.done
    assert study.report(1, until=0, yielded=True) == [Release(1, 1)]  # there is no state yet
    assert study.coordinator.done


def test_a_study_that_stopped_goes_on_where_its_trials_handed_over(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    study.stop()
    study.saved(only(Save, study.report(0, until=4, yielded=True)))
    study.begin(num_trials=1)
    (train,) = study.slots(1)
    assert (train.resource, train.until, train.attempt) == (4, 9, 2)
    study.report(0, until=9)
    assert study.ledger.trials[0].decision == Stop("fully trained")


def test_a_trial_that_would_go_on_hands_over_when_the_study_stops(desk):
    study = desk(Scripted(), num_trials=1)
    study.slots(1)
    study.stop()
    save = only(Save, study.report(0, until=1))
    assert study.saved(save) == [Release(0, 1)]
    assert (study.status(0), study.ledger.trials[0].until) == (QUEUED, 3)


def test_a_stop_while_a_checkpoint_is_written_is_heeded(desk):
    study = desk(Scripted(), num_trials=1, policy="rung")
    study.slots(1)
    save = only(Save, study.report(0, until=1))
    study.stop()
    assert study.saved(save) == [Release(0, 1)]
    assert study.status(0) is QUEUED


def test_a_lost_trial_stays_queued_when_the_study_stops(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    study.stop()
    assert study.lost(0, blame=False) == []
    assert study.status(0) is QUEUED
    assert study.coordinator.done


def test_a_second_stop_changes_nothing(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    study.stop("first")
    assert study.stop("second") == []
    assert study.coordinator.stop_reason == "first"


def test_the_study_stops_when_its_target_is_reached_even_in_mid_segment(desk):
    study = desk(FIFO(9), target=0.5)
    study.slots(2)
    study.report(0, until=4, loss=0.6)
    assert study.coordinator.stop_reason is None
    assert study.report(0, until=5, loss=0.5) == [Interrupt(0, 1), Interrupt(1, 1)]
    assert study.coordinator.stop_reason == "the target of 0.5 was reached"
    assert isinstance(study.journal.records[-1], StopRequested)


def test_a_session_whose_target_was_reached_before_is_over_at_once(desk):
    study = desk(FIFO(9), num_trials=9)
    study.slots(1)
    study.report(0, until=4, loss=0.1)
    study.begin(target=0.5)
    assert study.coordinator.done


def test_no_more_than_num_trials_start(desk):
    study = desk(FIFO(9), num_trials=3)
    assert len(study.slots(10)) == 3


def test_a_grid_that_is_exhausted_ends_the_study(desk):
    study = desk(FIFO(1), searcher=GridSearch(num_points=2), policy="never")
    assert len(study.slots(3)) == 3
    assert kinds(study.report(0, until=1)) == [Release, Train]
    for trial in (1, 2, 3):
        assert not study.coordinator.done
        study.report(trial, until=1)
    assert study.coordinator.done
    assert study.ledger.n_trials == 4


def test_an_ended_function_completes_its_trial(desk):
    study = desk(Scripted(), num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=1)
    study.report(0, until=2, ended=True)
    assert study.ends() == {0: Status.COMPLETED}
    assert study.journal.records[-1].reason == RETURNED
    assert study.scheduler.asked == [(0, 1)]


def test_a_function_that_returns_without_another_report_completes_its_trial(desk):
    study = desk(Scripted(), num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=1)
    study.report(0, until=1, ended=True)
    assert study.ends() == {0: Status.COMPLETED}


# -- slots ---------------------------------------------------------------------------------------


def test_no_slot_is_no_end(desk):
    study = desk(FIFO(9), num_trials=2)
    assert study.slots(0) == []
    assert not study.coordinator.done


def test_slots_may_go_and_come_back(desk):
    study = desk(FIFO(9), num_trials=9)
    assert len(study.slots(3)) == 3
    assert study.slots(0) == []
    for trial in range(3):
        assert study.lost(trial, blame=False) == []
    assert [study.status(trial) for trial in range(3)] == [QUEUED] * 3
    assert [train.trial for train in study.slots(2)] == [0, 1]
    assert [train.trial for train in study.slots(4)] == [2, 3]


def test_fewer_slots_take_nothing_from_those_who_run(desk):
    study = desk(Scripted(), num_trials=9)
    study.slots(2)
    assert study.slots(1) == []
    assert kinds(study.report(0, until=1)) == [Train]


# -- checkpoints ---------------------------------------------------------------------------------


def end(study, trial, loss):
    """A trial of one segment reports, and is saved if that is asked for."""
    commands = study.report(trial, until=1, loss=loss)
    if Save in kinds(commands):
        commands = study.saved(only(Save, commands))
    return commands


def test_the_best_trials_checkpoint_is_kept_and_the_superseded_one_deleted(desk):
    study = desk(FIFO(1), num_trials=9)
    study.slots(1)
    assert Delete not in kinds(end(study, 0, loss=3.0))
    assert study.ledger.kept.trial == 0
    assert Delete not in kinds(end(study, 1, loss=4.0))
    assert only(Delete, end(study, 2, loss=2.0)).ref.trial == 0
    assert study.ledger.kept.trial == 2


def test_a_trial_that_ends_worse_than_the_best_leaves_no_checkpoint(desk):
    study = desk(
        Scripted({(1, 1): Pause(), (1, 3): Stop("poor")}, [Resume(1, until=3)]), num_trials=2
    )
    study.slots(2)
    study.report(0, until=1, loss=0.1)
    save = only(Save, study.report(1, until=1, loss=5.0))
    study.saved(save)
    assert only(Delete, study.report(1, until=3, loss=5.0)).ref.row == save.ref.row


def test_a_newer_checkpoint_replaces_the_trials_older_one(desk):
    study = desk(Scripted(), num_trials=1, policy="rung")
    study.slots(1)
    first = only(Save, study.report(0, until=1))
    study.saved(first)
    second = only(Save, study.report(0, until=3))
    delete, train = study.saved(second)
    assert delete.ref.row == first.ref.row != second.ref.row
    assert (train.until, train.launch) == (9, False)


@pytest.mark.parametrize(
    ("policy", "at_pause", "at_continue", "at_end"),
    [
        ("auto", True, False, False),
        ("end", True, False, True),
        ("rung", True, True, True),
        ("never", False, False, False),
    ],
)
def test_what_is_written_follows_the_policy(desk, policy, at_pause, at_continue, at_end):
    answers = {(1, 1): Pause(), (2, 1): Continue(3), (3, 1): Stop("poor")}
    study = desk(Scripted(answers), num_trials=4, policy=policy)
    study.slots(4)
    study.report(0, until=1, loss=0.1)
    written = [Save in kinds(study.report(trial, until=1, loss=1.0)) for trial in (1, 2, 3)]
    assert written == [at_pause, at_continue, at_end]


def test_under_never_a_trial_hands_over_without_its_state(desk):
    study = desk(Scripted(), num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=1)
    study.stop()
    assert study.report(0, until=2, yielded=True) == [Release(0, 1)]
    assert study.status(0) is QUEUED


def test_every_trials_checkpoint_stays_under_end(desk):
    study = desk(FIFO(1), num_trials=3, policy="end")
    study.slots(1)
    for trial in range(3):
        assert Delete not in kinds(end(study, trial, loss=1.0 + trial))


# -- sessions ------------------------------------------------------------------------------------


def test_what_ran_when_the_coordinator_died_runs_again_in_the_next_session(desk):
    study = desk(Scripted({(1, 1): Pause()}), num_trials=3)
    study.slots(3)
    study.report(0, until=1)
    study.report(1, until=1)  # its checkpoint is never heard of
    assert study.begin(num_trials=3)[-1] == Release(1, 1)
    assert [study.status(trial) for trial in range(3)] == [QUEUED, PAUSED, QUEUED]
    assert [(train.trial, train.until) for train in study.slots(2)] == [(0, 3), (2, 1)]


def test_a_session_may_allow_more_trials(desk):
    study = desk(FIFO(1), num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=1)
    assert study.coordinator.done
    study.begin("never", num_trials=2)
    assert not study.coordinator.done
    assert [train.trial for train in study.slots(1)] == [1]


# -- bad plug-ins --------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [Resume(0, until=3), Discard(0, "why"), Resume(7, until=3)])
def test_an_action_on_a_trial_that_is_not_paused_is_refused_with_its_story(action):
    study = Desk(Scripted(action=action), num_trials=9)
    study.slots(1)
    with pytest.raises(RuntimeError, match=r"not paused: trial \d of 1: (Trial\(|it has ended)"):
        study.slots(2)


def test_a_scheduler_that_raises_stops_the_study_and_the_report_is_not_recorded():
    study = Desk(Scripted({(0, 1): ZeroDivisionError("mine")}), num_trials=1)
    study.slots(1)
    n = len(study.journal.records)
    with pytest.raises(ZeroDivisionError, match="mine"):
        study.report(0, until=1)
    assert len(study.journal.records) == n  # a corrected scheduler can go on from here


def test_the_users_scheduler_and_searcher_stay_as_they_are(desk):
    scheduler, searcher = ASHA(max_t=9), RandomSearch()
    before = copy.deepcopy((vars(scheduler)["_n_started"], vars(searcher)))
    study = desk(scheduler, searcher=searcher, num_trials=3)
    study.slots(3)
    assert (vars(scheduler)["_n_started"], vars(searcher)) == before


def test_the_searcher_observes_each_report_once_and_each_end(desk):
    class Watching(RandomSearch):
        def setup(self, space, seed):
            super().setup(space, seed)
            self.seen = []

        def observe(self, trial, report):
            self.seen.append((trial.id, report.resource, report.loss))

        def on_end(self, trial):
            self.seen.append((trial.id, trial.status))

    study = desk(Scripted({(0, 3): Stop("poor")}), searcher=Watching(), num_trials=1)
    study.slots(1)
    study.report(0, until=1, loss=2.0)
    study.lost(0)
    study.report(0, until=1, loss=2.0, since=0)
    study.saved(only(Save, study.report(0, until=3, loss=1.0)))
    assert study.coordinator.searcher.seen == [(0, 1, 2.0), (0, 3, 1.0), (0, Status.STOPPED)]


def test_the_median_rule_around_another_scheduler_hears_of_every_launch(desk):
    study = desk(MedianStopping(ASHA(max_t=4, reduction_factor=2)), num_trials=2)
    study.slots(2)
    assert only(Train, study.report(0, until=1)).until == 2
    launched = [r for r in study.journal.records if isinstance(r, Launched)]
    assert [(r.trial, r.until) for r in launched] == [(0, 1), (1, 1)]
