"""The coordinator: scripts of events in, commands and the ledger out."""

from __future__ import annotations

import copy

import pytest

from daskhpo.core.commands import Flush, Interrupt, Release, Save, Train
from daskhpo.core.events import Launched, Reported, StopRequested
from daskhpo.core.types import (
    CheckpointRef,
    Discard,
    Exploit,
    Pause,
    Resume,
    ReuseProbability,
    Status,
    Stop,
)
from daskhpo.engine.coordinator import RETURNED
from daskhpo.schedulers import ASHA, FIFO, MedianStopping
from daskhpo.searchers import GridSearch, RandomSearch

QUEUED, RUNNING, PAUSED = Status.QUEUED, Status.RUNNING, Status.PAUSED

# -- decisions -----------------------------------------------------------------------------------


def test_a_slot_gets_a_new_trial(desk):
    study = desk(FIFO(3), num_trials=5)
    (train,) = study.slots(1)
    config = study.problem.searcher
    config.setup(study.problem.space, 0)
    assert train == Train(0, 1, config.suggest(0), 0, 3, None, True)


def test_a_trial_that_goes_on_keeps_its_slot_and_writes_nothing(desk):
    study = desk(num_trials=1)
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
    study = desk(answers={(0, 1): Stop("poor")}, num_trials=1, policy="never")
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
    study = desk(num_trials=1)
    study.slots(1)
    study.report(0, until=1, loss=5.0)
    study.report(0, until=2, loss=4.0)
    study.report(0, until=3, loss=6.0, since=1)  # the segment's report repeats what went ahead
    reports = study.scheduler.reports
    assert [report.losses for report in reports] == [(5.0,), (4.0, 6.0)]
    assert [report.best_loss for report in reports] == [5.0, 4.0]


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


def test_a_pause_is_one_only_when_its_state_is_held(desk):
    study = desk(answers={(0, 1): Pause()}, num_trials=1)
    study.slots(1)
    (save,) = study.report(0, until=1)
    assert save == Save(0, 1, CheckpointRef(0, 0, 1), ReuseProbability.LIKELY)
    assert study.status(0) is RUNNING
    assert study.held(save)[0] == Release(0, 1)
    assert study.status(0) is PAUSED
    trial = study.ledger.trials[0]
    assert (trial.held, trial.checkpoint, trial.newest) == (save.ref, None, save.ref)


def test_a_trial_without_a_state_to_give_pauses_without_it(desk):
    study = desk(answers={(0, 1): Pause()}, num_trials=1)
    study.slots(1)
    study.held(study.report(0, until=1).only(Save), ok=False)
    assert study.status(0) is PAUSED
    assert study.ledger.trials[0].newest is None
    assert study.coordinator.is_drained


def test_a_resumed_trial_begins_at_its_state_though_that_is_not_committed(desk):
    study = desk(answers={(0, 1): Pause()}, wishes=[Resume(0, until=3)], num_trials=1)
    study.slots(1)
    save = study.report(0, until=1).only(Save)
    train = study.held(save).only(Train)
    assert (train.attempt, train.resource, train.until, train.launch) == (2, 1, 3, True)
    assert train.checkpoint == save.ref


def test_a_trial_resumed_without_a_state_trains_again_and_is_not_judged_again(desk):
    study = desk(
        answers={(0, 1): Pause()}, wishes=[Resume(0, until=3)], num_trials=1, policy="never"
    )
    study.slots(1)
    train = study.report(0, until=1).only(Train)
    assert (train.resource, train.until, train.checkpoint) == (0, 3, None)
    study.report(0, until=3, since=0)
    assert study.scheduler.asked == [(0, 1), (0, 3)]


def test_a_slot_waits_for_a_trial_that_is_about_to_pause(desk):
    study = desk(answers={(0, 1): Pause()}, wishes=[Resume(0, until=3)], num_trials=1)
    study.slots(2)
    save = study.report(0, until=1).only(Save)
    assert study.held(save).kinds == [Release, Train]


def test_a_paused_trial_can_be_discarded_and_the_slot_asks_again(desk):
    study = desk(answers={(0, 1): Pause()}, wishes=[Discard(0, "lost its rung")], num_trials=2)
    study.slots(1)
    save = study.report(0, until=1).only(Save)
    commands = study.held(save)
    assert study.ends() == {0: Status.STOPPED}
    assert commands.only(Train).trial == 1


def test_a_study_whose_trials_all_pause_is_done_when_no_state_is_unsaved(desk):
    study = desk(answers={(0, 1): Pause(), (1, 1): Pause()}, num_trials=2)
    study.slots(2)
    first = study.report(0, until=1).only(Save)
    second = study.report(1, until=1).only(Save)
    assert study.held(first).kinds == [Release]
    assert study.held(second).kinds == [Release, Flush]
    study.dropped(second)
    assert not study.coordinator.is_drained
    assert study.saved(first) == []
    assert study.coordinator.is_drained


def test_a_study_is_done_at_once_if_its_states_are_saved(desk):
    study = desk(answers={(0, 1): Pause()}, num_trials=1, policy="end")
    study.slots(1)
    save = study.report(0, until=1).only(Save)
    study.saved(save)  # which may come first
    assert study.held(save) == [Release(0, 1)]
    assert study.coordinator.is_drained


# -- the end of a study --------------------------------------------------------------------------


def test_a_stop_request_asks_running_trials_to_hand_over_and_starts_nothing(desk):
    study = desk(FIFO(9), num_trials=9)
    study.slots(2)
    assert study.stop() == [Interrupt(0, 1), Interrupt(1, 1)]
    (save,) = study.report(0, until=4, preempted=True)
    assert save.ref.resource == 4
    assert study.status(0) is RUNNING
    assert save.probability is ReuseProbability.CERTAIN
    assert study.held(save) == [Release(0, 1)]
    assert study.status(0) is QUEUED
    # There is no state of the other one yet. Then all is over but for the first one's state.
    assert study.report(1, until=0, preempted=True) == [Release(1, 1), Flush((0,), write=True)]
    assert not study.coordinator.is_drained
    study.saved(save)
    assert study.coordinator.is_drained


def test_a_study_that_stopped_goes_on_where_its_trials_handed_over(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    study.stop()
    study.stored(study.report(0, until=4, preempted=True).only(Save))
    study.begin(num_trials=1)
    (train,) = study.slots(1)
    assert (train.resource, train.until, train.attempt) == (4, 9, 2)
    study.report(0, until=9)
    assert study.ledger.trials[0].decision == Stop("fully trained")


def test_a_trial_that_would_go_on_hands_over_when_the_study_stops(desk):
    study = desk(num_trials=1)
    study.slots(1)
    study.stop()
    save = study.report(0, until=1).only(Save)
    assert study.held(save)[0] == Release(0, 1)
    assert (study.status(0), study.ledger.trials[0].until) == (QUEUED, 3)


def test_a_stop_while_a_state_is_taken_is_heeded(desk):
    study = desk(num_trials=1, policy="rung")
    study.slots(1)
    save = study.report(0, until=1).only(Save)
    study.stop()
    assert study.held(save)[0] == Release(0, 1)
    assert (study.status(0), study.ledger.trials[0].until) == (QUEUED, 3)


def test_a_lost_trial_stays_queued_when_the_study_stops(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    study.stop()
    assert study.lost(0, blame=False) == []
    assert study.status(0) is QUEUED
    assert study.coordinator.is_drained


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
    assert study.coordinator.is_drained


def test_no_more_than_num_trials_start(desk):
    study = desk(FIFO(9), num_trials=3)
    assert len(study.slots(10)) == 3


def test_a_grid_that_is_exhausted_ends_the_study(desk):
    study = desk(FIFO(1), searcher=GridSearch(num_points=2), policy="never")
    assert len(study.slots(3)) == 3
    assert study.report(0, until=1).kinds == [Release, Train]
    for trial in (1, 2, 3):
        assert not study.coordinator.is_drained
        study.report(trial, until=1)
    assert study.coordinator.is_drained
    assert study.ledger.n_trials == 4


def test_an_ended_function_completes_its_trial(desk):
    study = desk(num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=1)
    study.report(0, until=2, ended=True)
    assert study.ends() == {0: Status.COMPLETED}
    assert study.journal.records[-1].reason == RETURNED
    assert study.scheduler.asked == [(0, 1)]


def test_a_function_that_returns_without_another_report_completes_its_trial(desk):
    study = desk(num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=1)
    study.report(0, until=1, ended=True)
    assert study.ends() == {0: Status.COMPLETED}


# -- slots ---------------------------------------------------------------------------------------


def test_no_slot_is_no_end(desk):
    study = desk(FIFO(9), num_trials=2)
    assert study.slots(0) == []
    assert not study.coordinator.is_drained


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
    study = desk(num_trials=9)
    study.slots(2)
    assert study.slots(1) == []
    assert study.report(0, until=1).kinds == [Train]


# -- bad plug-ins --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action", [Resume(0, until=3), Discard(0, "why"), Exploit(0, 0, {}), Resume(7, until=3)]
)
def test_an_action_on_a_trial_that_is_not_paused_is_refused_with_its_story(desk, action):
    study = desk(action=action, num_trials=9, checked=False)
    study.slots(1)
    with pytest.raises(RuntimeError, match=r"not paused: trial \d of 1: (Trial\(|it has ended)"):
        study.slots(2)


def test_a_scheduler_that_raises_stops_the_study_and_the_report_is_not_recorded(desk):
    study = desk(checked=False, answers={(0, 1): ZeroDivisionError("mine")}, num_trials=1)
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

    study = desk(answers={(0, 3): Stop("poor")}, searcher=Watching(), num_trials=1)
    study.slots(1)
    study.report(0, until=1, loss=2.0)
    study.lost(0)
    study.report(0, until=1, loss=2.0, since=0)
    study.held(study.report(0, until=3, loss=1.0).only(Save))
    assert study.coordinator.searcher.seen == [(0, 1, 2.0), (0, 3, 1.0), (0, Status.STOPPED)]


def test_the_median_rule_around_another_scheduler_hears_of_every_launch(desk):
    study = desk(MedianStopping(ASHA(max_t=4, reduction_factor=2)), num_trials=2)
    study.slots(2)
    assert study.report(0, until=1).only(Train).until == 2
    launched = [r for r in study.journal.records if isinstance(r, Launched)]
    assert [(r.trial, r.until) for r in launched] == [(0, 1), (1, 1)]


# -- planned hand-overs --------------------------------------------------------------------------


def test_a_trial_whose_slot_ends_goes_on_in_another_one_and_nothing_is_lost(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(2)
    study.report(0, until=3)
    study.slots(1)
    (save,) = study.report(0, until=4, preempted=True)
    assert (save.ref.resource, save.probability) == (4, ReuseProbability.CERTAIN)
    release, train = study.held(save)
    assert release == Release(0, 1)
    assert (train.attempt, train.resource, train.until) == (2, 4, 9)
    assert train.checkpoint == save.ref
    assert (study.ledger.trials[0].n_lost, study.ledger.trials[0].n_failed) == (0, 0)
    study.report(0, until=9)
    told = [step.resource for r in study.recorded(Reported) for step in r.steps]
    assert told == list(range(1, 10))


def test_a_trial_that_hands_over_waits_first_of_all_if_no_slot_is_free(desk):
    study = desk(FIFO(9), num_trials=9)
    study.slots(2)
    study.slots(1)
    save = study.report(0, until=4, preempted=True).only(Save)
    assert study.held(save) == [Release(0, 1)]
    assert study.status(0) is QUEUED
    assert study.slots(2).only(Train).trial == 0


def test_a_trial_that_would_not_get_another_unit_done_hands_over_with_none(desk):
    study = desk(num_trials=1)
    study.slots(1)
    study.report(0, until=1)
    study.slots(0)
    save = study.report(0, until=1, preempted=True).only(Save)
    study.held(save)
    train = study.slots(1).only(Train)
    assert (train.resource, train.until) == (1, 3)
    assert study.scheduler.asked == [(0, 1)]


def test_a_trial_that_has_done_nothing_yet_hands_over_without_a_state(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    study.slots(0)
    assert study.report(0, until=0, preempted=True) == [Release(0, 1)]
    assert study.slots(1).only(Train).checkpoint is None


def test_slots_are_wanted_without_limit_by_a_study_without_a_number_of_trials(desk):
    study = desk(FIFO(1), num_trials=None, policy="never")
    study.slots(2)
    assert study.coordinator.n_slots_wanted == float("inf")


def test_slots_are_not_wanted_for_trials_that_have_ended(desk):
    study = desk(FIFO(1), num_trials=9, policy="never")
    study.slots(1)
    for trial in range(5):
        study.report(trial, until=1)
    assert study.coordinator.n_slots_wanted == 4


def test_slots_are_wanted_for_all_there_is_until_the_scheduler_has_nothing_to_add(desk):
    study = desk(FIFO(1), num_trials=3, policy="never")
    study.slots(2)
    assert study.coordinator.n_slots_wanted == 3  # never more than trials that may run
    study.report(0, until=1)  # the third begins
    study.slots(3)
    assert study.coordinator.n_slots_wanted == 2
    study.report(1, until=1)
    study.slots(0)
    study.lost(2)
    assert study.coordinator.n_slots_wanted == 1
    study.stop()
    assert study.coordinator.n_slots_wanted == 0
