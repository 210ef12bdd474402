"""The coordinator and states: which are taken, what becomes of them, who goes on from which."""

from __future__ import annotations

import pytest

from daskhpo.core.commands import Delete, Flush, Release, Save, Train, Write
from daskhpo.core.events import Deleted, Held, Saved, SaveFailed
from daskhpo.core.types import (
    CheckpointPolicy,
    Continue,
    Discard,
    Pause,
    Resume,
    ReuseProbability,
    Status,
    Stop,
)
from daskhpo.engine.coordinator import BUDGET_REACHED
from daskhpo.schedulers import FIFO

PAUSED = Status.PAUSED
SURE, REAL, POOR = ReuseProbability.CERTAIN, ReuseProbability.LIKELY, ReuseProbability.UNLIKELY


def chance(commands):
    """With which chance a state is asked for; None: none is."""
    saves = commands.of(Save)
    return saves[0].probability if saves else None


def end(study, trial, loss):
    """A trial of one segment reports, and its state is stored if that is asked for."""
    commands = study.report(trial, until=1, loss=loss)
    return study.stored(commands.only(Save)) if Save in commands.kinds else commands


def rows_of(commands):
    """Rows that are deleted."""
    return [delete.ref.id for delete in commands.of(Delete)]


def reasons(study):
    """Why committed rows were deleted, by row."""
    return {record.checkpoint_id: record.reason for record in study.recorded(Deleted)}


# -- what is taken -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "real_pause", "poor_pause", "goes_on", "best_ends", "worse_ends", "hands_over"),
    [
        ("auto", REAL, POOR, None, SURE, None, SURE),
        ("every:5", SURE, SURE, None, SURE, None, SURE),
        ("rung", SURE, SURE, SURE, SURE, SURE, SURE),
        ("end", SURE, SURE, None, SURE, SURE, SURE),
        ("never", None, None, None, None, None, None),
    ],
)
def test_what_is_taken_follows_the_policy(
    desk, policy, real_pause, poor_pause, goes_on, best_ends, worse_ends, hands_over
):
    answers = {
        (0, 1): Stop("x"),
        (1, 1): Stop("x"),
        (2, 1): Pause(keep=True),
        (3, 1): Pause(keep=False),
    }
    study = desk(answers=answers, num_trials=5, policy=policy)
    study.slots(5)
    commands = study.report(0, until=1, loss=0.1)
    assert chance(commands) is best_ends
    if best_ends:
        study.held(commands.only(Save))
    assert chance(study.report(1, until=1)) is worse_ends
    assert chance(study.report(2, until=1)) is real_pause
    assert chance(study.report(3, until=1)) is poor_pause
    commands = study.report(4, until=1)
    assert chance(commands) is goes_on
    if goes_on:
        study.held(commands.only(Save))
    study.stop()
    assert chance(study.report(4, until=2, preempted=True)) is hands_over


def test_every_so_many_units_a_state_is_taken_and_the_trial_goes_on(desk):
    study = desk(FIFO(5), num_trials=1, policy="every:2")
    (train,) = study.slots(1)
    stops = []
    while train is not None:
        stops.append(train.until)
        save = study.report(0, until=train.until).only(Save)
        assert (save.probability, save.ref.resource) == (SURE, train.until)
        trains = study.stored(save).of(Train)
        train = trains[0] if trains else None
    assert stops == [2, 4, 5]
    assert study.ends() == {0: Status.COMPLETED}


def test_a_point_of_every_that_is_a_segments_end_is_one_too(desk):
    study = desk(num_trials=1, policy="every:3")
    study.slots(1)
    assert study.report(0, until=1).only(Train).until == 3
    save = study.report(0, until=3).only(Save)  # here it is decided, too, and it goes on
    assert (save.probability, save.ref.resource) == (SURE, 3)
    train = study.held(save).only(Train)
    assert (train.resource, train.until, train.launch) == (3, 6, False)


def test_a_study_that_stops_at_a_point_of_every_takes_the_state_and_lets_the_trial_leave(desk):
    study = desk(FIFO(9), num_trials=1, policy="every:2")
    study.slots(1)
    save = study.report(0, until=2).only(Save)
    study.stop()
    assert study.held(save)[0] == Release(0, 1)
    assert (study.status(0), study.ledger.trials[0].until) == (Status.QUEUED, 9)


def test_a_trial_that_hands_over_while_the_study_goes_on_goes_on_elsewhere(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    save = study.report(0, until=4, preempted=True).only(Save)
    assert study.held(save).kinds == [Release, Train]
    trial = study.ledger.trials[0]
    assert (trial.attempt, trial.resource, trial.until, trial.preempting) == (2, 4, 9, False)
    assert trial.newest == save.ref


def test_a_trial_that_is_lost_as_it_hands_over_waits_for_a_slot_and_leaves_no_more(desk):
    study = desk(FIFO(9), num_trials=1)
    study.slots(1)
    study.report(0, until=4, preempted=True)
    train = study.lost(0, blame=False).only(Train)
    assert (train.attempt, train.resource) == (2, 0)
    assert not study.ledger.trials[0].preempting


def test_a_trial_that_fails_as_it_hands_over_and_is_paused_leaves_no_more(desk):
    wishes = [Resume(0, until=9)]
    study = desk(wishes=wishes, keeps_failed=True, num_trials=1, max_failures=0)
    study.slots(1)
    study.report(0, until=1)
    study.report(0, until=2, preempted=True)
    train = study.failed(0, "OSError: no room for its state").only(Train)  # paused, and resumed
    assert (train.attempt, study.status(0)) == (2, Status.RUNNING)
    assert not study.ledger.trials[0].preempting


def test_a_trial_resumed_between_two_points_stops_at_the_next_one(desk):
    study = desk(FIFO(9), num_trials=1, policy="every:4")
    study.slots(1)
    study.stop()
    study.stored(study.report(0, until=3, preempted=True).only(Save))
    study.begin("every:4", num_trials=1)
    (train,) = study.slots(1)
    assert (train.resource, train.until) == (3, 4)


def test_under_never_a_trial_hands_over_without_its_state(desk):
    study = desk(num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=1)
    study.stop()
    assert study.report(0, until=2, preempted=True) == [Release(0, 1)]
    assert study.status(0) is Status.QUEUED
    assert study.coordinator.is_drained


def test_a_trial_that_ends_with_nothing_kept_is_not_asked_for_its_state(desk):
    study = desk(FIFO(1), num_trials=2, policy=CheckpointPolicy("end", keep_best=0))
    study.slots(1)
    assert study.report(0, until=1).kinds == [Release, Train]


# -- held, then saved, or not --------------------------------------------------------------------


@pytest.fixture
def paused(desk):
    """A study, and the save of its trial 0, which is paused and held; trial 1 runs."""

    def make(wishes=(), answers=None, **options):
        study = desk(answers={(0, 1): Pause()} | (answers or {}), wishes=wishes, num_trials=2)
        study.slots(2)
        save = study.report(0, until=1).only(Save)
        study.held(save)
        assert study.ledger.refs.n_unsaved == 1
        return study, save

    return make


def lose_all(study, trial):
    """The trial's worker dies; what it is launched from next."""
    return study.lost(trial, blame=False).only(Train)


def test_a_state_that_is_saved_while_its_trial_is_paused_is_its_checkpoint(paused):
    study, save = paused()
    assert study.saved(save) == []
    trial = study.ledger.trials[0]
    assert trial.checkpoint == trial.held == trial.newest
    assert (trial.checkpoint.id, trial.checkpoint.n_bytes) == (0, 100)
    assert study.ledger.refs.n_unsaved == 0


def test_a_state_that_is_saved_when_its_trial_runs_again_serves_the_next_launch(paused):
    study, save = paused([Resume(0, until=3)])
    assert study.ledger.trials[0].attempt == 2
    study.saved(save)
    study.report(0, until=2)
    study.dropped(save)
    train = lose_all(study, 0)
    assert (train.attempt, train.resource, train.checkpoint.id) == (3, 1, 0)
    assert train.checkpoint.array


def test_a_state_that_is_dropped_unsaved_is_gone(paused):
    study, save = paused([Resume(0, until=3)])
    study.dropped(save)
    assert study.ledger.trials[0].newest is None
    assert study.ledger.refs.ids == []
    train = lose_all(study, 0)
    assert (train.resource, train.until, train.checkpoint) == (0, 3, None)


def test_a_paused_trial_whose_state_is_gone_stays_paused(paused):
    study, save = paused()
    assert study.dropped(save) == []
    assert study.status(0) is PAUSED
    assert study.ledger.refs.n_unsaved == 0


def test_a_state_that_is_dropped_after_it_was_saved_is_read_from_the_store(paused):
    study, save = paused()
    study.saved(save)
    study.dropped(save)
    trial = study.ledger.trials[0]
    assert (trial.held, trial.newest) == (None, trial.checkpoint)
    assert trial.checkpoint.id == 0


def test_a_state_that_was_dropped_and_is_saved_after_all_is_a_checkpoint(paused):
    study, save = paused()
    study.dropped(save)
    assert study.saved(save) == []
    assert study.ledger.trials[0].newest.id == 0


def test_a_state_that_is_saved_twice_is_recorded_once(paused):
    study, save = paused()
    study.saved(save)
    n = len(study.journal.records)
    assert study.saved(save) == []
    assert len(study.journal.records) == n
    assert study.ledger.refs.n_files == 1


def test_a_state_that_is_saved_before_it_is_held_is_a_checkpoint_too(desk):
    study = desk(answers={(0, 1): Pause()}, num_trials=2)
    study.slots(2)
    save = study.report(0, until=1).only(Save)
    study.saved(save)
    assert study.status(0) is Status.RUNNING
    study.held(save)
    assert study.status(0) is PAUSED
    assert study.ledger.trials[0].newest.array
    assert study.ledger.refs.n_unsaved == 0


def test_a_state_that_is_saved_before_it_is_held_is_newer_than_the_one_held(desk):
    study = desk(num_trials=1, policy="rung")
    study.slots(1)
    study.held(study.report(0, until=1).only(Save))
    study.saved(study.report(0, until=3).only(Save))
    train = lose_all(study, 0)  # before it could say that the state is held
    assert (train.resource, train.until, train.checkpoint.id) == (3, 9, 1)


def test_a_state_that_cannot_be_written_is_still_held_and_the_journal_says_why(paused):
    study, save = paused()
    assert study.unsaved(save) == []
    assert study.recorded(SaveFailed)[0].error == "no space"
    assert study.ledger.trials[0].held == save.ref
    assert study.ledger.refs.n_unsaved == 1
    study.saved(save)  # it is tried again
    assert study.ledger.trials[0].checkpoint.id == 0


def test_a_state_that_is_saved_after_its_trial_ended_is_deleted(paused):
    study, save = paused([Resume(0, until=3)], {(0, 3): Stop("poor"), (1, 1): Stop("x")})
    study.stored(study.report(1, until=1, loss=0.1).only(Save))
    assert study.report(0, until=3, loss=9.0).only(Delete).ref == save.ref
    n = len(study.journal.records)
    assert study.saved(save).only(Delete).ref.array  # it was being written
    assert len(study.journal.records) == n
    assert sorted(study.store) == [1]


def test_a_state_of_the_best_that_is_saved_after_its_end_is_kept(desk):
    study = desk(FIFO(1), num_trials=2)
    study.slots(1)
    save = study.report(0, until=1).only(Save)
    study.held(save)
    assert study.ends() == {0: Status.COMPLETED}
    assert study.saved(save) == []
    assert study.ledger.retained[0].checkpoint.array


def test_a_trial_that_has_ended_keeps_one_checkpoint_and_none_to_fall_back_on(desk):
    study = desk(FIFO(3), num_trials=2, policy="every:1")
    study.slots(1)
    for resource in (1, 2):
        study.stored(study.report(0, until=resource).only(Save))
    save = study.report(0, until=3).only(Save)
    assert rows_of(study.held(save)) == [0]  # the newest that is committed stays till then
    assert rows_of(study.saved(save)) == [1]
    assert sorted(study.store) == [2]


def test_an_ended_trial_whose_state_is_gone_makes_place_for_the_next_best(desk):
    study = desk(FIFO(1), num_trials=3)
    study.slots(1)
    save = study.report(0, until=1, loss=1.0).only(Save)
    study.held(save)
    study.dropped(save)
    assert study.ledger.refs.ids == []
    end(study, 1, loss=2.0)
    assert set(study.ledger.retained) == {1}
    assert [ref.trial for ref in study.store.values()] == [1]


def test_a_state_that_a_newer_one_replaced_is_let_go_of_but_serves_if_it_is_saved(desk):
    study = desk(num_trials=1, policy="rung")
    study.slots(1)
    first = study.report(0, until=1).only(Save)
    study.held(first)
    second = study.report(0, until=3).only(Save)
    assert study.held(second).only(Delete).ref == first.ref  # from memory: it is not committed
    assert study.saved(first) == []  # it was being written then
    trial = study.ledger.trials[0]
    assert (trial.checkpoint.id, trial.newest) == (first.ref.id, second.ref)
    study.dropped(second)
    assert lose_all(study, 0).checkpoint.id == first.ref.id


def test_an_old_state_that_is_saved_after_a_newer_one_is_deleted(desk):
    study = desk(num_trials=1, policy="rung")
    study.slots(1)
    first = study.report(0, until=1).only(Save)
    study.held(first)
    study.stored(study.report(0, until=3).only(Save))
    assert rows_of(study.saved(first)) == [first.ref.id]
    assert len(study.recorded(Saved)) == 1


def test_states_that_were_held_are_gone_in_the_next_session(paused):
    study, _ = paused()
    study.begin(num_trials=2)
    assert study.ledger.trials[0].newest is None
    assert study.ledger.refs.ids == []


def test_checkpoints_are_there_in_the_next_session(paused):
    study, save = paused()
    study.saved(save)
    study.begin(num_trials=2)
    trial = study.ledger.trials[0]
    assert (trial.held, trial.checkpoint.id) == (None, 0)


# -- from which state a trial goes on ------------------------------------------------------------


def test_a_trial_keeps_its_two_newest_checkpoints(desk):
    study = desk(FIFO(9), num_trials=1, policy="every:1")
    study.slots(1)
    deleted = [rows_of(study.stored(study.report(0, until=r).only(Save))) for r in (1, 2, 3, 4)]
    assert deleted == [[], [], [0], [1]]
    trial = study.ledger.trials[0]
    assert (trial.checkpoint.id, trial.previous.id) == (3, 2)
    assert reasons(study) == {0: "", 1: ""}


def test_a_state_that_cannot_be_read_is_deleted_and_the_one_before_takes_its_place(desk):
    study = desk(FIFO(9), num_trials=1, policy="every:1")
    study.slots(1)
    for resource in (1, 2):
        study.stored(study.report(0, until=resource).only(Save))
    study.held(study.report(0, until=3).only(Save))
    train = lose_all(study, 0)
    assert (train.resource, train.checkpoint.id, train.checkpoint.array) == (3, 2, "")
    for row, resource, fallback in [(2, 2, 1), (1, 1, 0)]:
        commands = study.lost(0, blame=False, bad_checkpoint=True)
        assert rows_of(commands) == [row]
        train = commands.only(Train)
        assert (train.resource, train.checkpoint.id) == (resource, fallback)
    (_, delete, train) = study.lost(0, blame=False, bad_checkpoint=True)
    assert (delete.ref.id, delete.reason) == (0, "it could not be read")
    assert (train.resource, train.until, train.checkpoint) == (0, 1, None)
    assert study.lost(0, blame=False, bad_checkpoint=True).only(Train).checkpoint is None
    assert reasons(study) == dict.fromkeys((1, 0), "it could not be read")


def test_what_is_trained_again_from_an_older_state_is_not_judged_again(desk):
    study = desk(num_trials=1, policy="rung")
    study.slots(1)
    study.stored(study.report(0, until=1, loss=5.0).only(Save))
    second = study.report(0, until=3, loss=4.0).only(Save)
    study.held(second)
    study.dropped(second)
    train = lose_all(study, 0)
    assert (train.resource, train.until) == (1, 9)
    study.report(0, until=9, loss=3.0, since=1)
    assert study.scheduler.asked == [(0, 1), (0, 3), (0, 9)]
    assert study.scheduler.reports[-1].losses == (3.0,) * 6


# -- which are kept of trials that ended ---------------------------------------------------------


def test_the_best_trials_checkpoint_is_kept_and_the_superseded_one_deleted(desk):
    study = desk(FIFO(1), num_trials=9)
    study.slots(1)
    assert rows_of(end(study, 0, loss=3.0)) == []
    assert set(study.ledger.retained) == {0}
    assert rows_of(end(study, 1, loss=4.0)) == []
    assert rows_of(end(study, 2, loss=2.0)) == [0]
    assert set(study.ledger.retained) == {2}


def test_a_trial_that_ends_worse_than_the_best_leaves_no_checkpoint(desk):
    answers = {(0, 1): Stop("x"), (1, 1): Pause(), (1, 3): Stop("poor")}
    study = desk(answers=answers, wishes=[Resume(1, until=3)], num_trials=2)
    study.slots(2)
    study.stored(study.report(0, until=1, loss=0.1).only(Save))
    save = study.report(1, until=1, loss=5.0).only(Save)
    study.stored(save)
    assert rows_of(study.report(1, until=3, loss=5.0)) == [save.ref.id]
    assert set(study.ledger.retained) == {0}


def test_who_was_overtaken_while_its_state_was_taken_leaves_none(desk):
    study = desk(FIFO(1), num_trials=9)
    study.slots(2)
    first = study.report(0, until=1, loss=2.0).only(Save)
    study.stored(study.report(1, until=1, loss=1.0).only(Save))
    assert study.held(first).only(Delete).ref == first.ref
    assert set(study.ledger.retained) == {1}


def test_of_the_k_best_checkpoints_are_kept(desk):
    study = desk(FIFO(1), num_trials=9, policy=CheckpointPolicy(keep_best=2))
    study.slots(1)
    kept = []
    for trial, loss in enumerate([3.0, 4.0, 2.0, 5.0, 1.0, 2.0]):
        end(study, trial, loss)
        kept.append(sorted(study.ledger.retained))
        assert {ref.trial for ref in study.store.values()} == set(kept[-1])
    assert kept == [[0], [0, 1], [0, 2], [0, 2], [2, 4], [2, 4]]


def test_a_trial_that_failed_may_be_among_the_best(desk):
    study = desk(FIFO(9), num_trials=2, policy="every:1")
    study.slots(1)
    study.stored(study.report(0, until=1).only(Save))
    assert rows_of(study.failed(0)) == []
    assert set(study.ledger.retained) == {0}


@pytest.mark.parametrize("policy", ["end", "rung"])
def test_every_trials_checkpoint_stays_unless_told_otherwise(desk, policy):
    study = desk(FIFO(1), num_trials=3, policy=policy)
    study.slots(1)
    for trial in range(3):
        assert rows_of(end(study, trial, loss=1.0 + trial)) == []
    assert len(study.store) == 3


def test_a_paused_trial_that_is_discarded_and_kept_is_written_at_once(desk):
    study = desk(answers={(0, 1): Pause()}, wishes=[Discard(0, "x")], num_trials=2)
    study.slots(2)
    save = study.report(0, until=1).only(Save)
    assert study.held(save).only(Write) == Write(save.ref)
    assert set(study.ledger.retained) == {0}


def test_a_paused_trial_that_is_discarded_and_not_kept_is_forgotten(desk):
    answers = {(0, 1): Stop("x"), (1, 1): Pause()}
    study = desk(answers=answers, wishes=[Discard(1, "x")], num_trials=3)
    study.slots(3)
    study.stored(study.report(0, until=1, loss=0.1).only(Save))
    save = study.report(1, until=1, loss=1.0).only(Save)
    commands = study.held(save)
    assert commands.only(Delete).ref == save.ref
    assert commands.of(Write) == []


def test_a_session_that_keeps_fewer_lets_go_of_the_others_with_the_next_end(desk):
    study = desk(FIFO(1), num_trials=3, policy=CheckpointPolicy(keep_best=3))
    study.slots(1)
    for trial in range(3):
        end(study, trial, loss=3.0 - trial)
    assert set(study.ledger.retained) == {0, 1, 2}
    study.begin(CheckpointPolicy(keep_best=1), num_trials=4)
    study.slots(1)
    end(study, 3, loss=0.5)
    assert set(study.ledger.retained) == {3}


# -- the end of a study --------------------------------------------------------------------------


@pytest.fixture
def over(desk):
    """A study of three trials that have all paused, and their saves; the last is the best."""

    def make(**options):
        answers = {(trial, 1): Pause() for trial in range(4)}
        study = desk(answers=answers, num_trials=3, **options)
        study.slots(3)
        saves = [study.report(n, until=1, loss=3.0 - n).only(Save) for n in range(3)]
        for save in saves[:2]:
            study.held(save)
        return study, saves, study.held(saves[2])

    return make


@pytest.mark.parametrize(("keep_best", "rows"), [(None, [2]), (0, []), (1, [2]), (2, [2, 1])])
def test_at_the_end_the_best_states_are_written_and_the_others_let_go_of(over, keep_best, rows):
    study, saves, commands = over(policy=CheckpointPolicy(keep_best=keep_best))
    assert commands == [Release(2, 1), Flush(tuple(rows), write=False)]
    for row in rows:
        assert study.saved(saves[row]) == []
    for save in saves:
        assert not study.coordinator.is_drained or save.ref.id in rows
        study.dropped(save)
    assert study.coordinator.is_drained
    assert sorted(study.store) == sorted(rows)


def test_the_end_comes_once(over):
    study, saves, commands = over()
    assert Flush in commands.kinds
    assert study.unsaved(saves[2]) == []  # the store may have room again later
    assert study.dropped(saves[0]) == study.slots(5) == []
    assert not study.coordinator.is_drained


def test_a_study_that_was_stopped_has_all_written_that_may_be_needed_again(paused):
    study, save = paused()
    study.stop()
    last = study.report(1, until=0, preempted=True)
    assert last == [Release(1, 1), Flush((save.ref.id,), write=True)]
    study.saved(save)
    assert study.coordinator.is_drained


def test_a_study_that_goes_on_comes_to_an_end_again(over):
    study, saves, _ = over()
    for save in saves:
        study.dropped(save)
    study.begin(num_trials=4)
    study.slots(1)
    save = study.report(3, until=1).only(Save)
    assert study.held(save) == [Release(3, 1), Flush((save.ref.id,), write=False)]


def test_a_study_whose_states_are_all_saved_has_nothing_to_write(desk):
    study = desk(FIFO(1), num_trials=1)
    study.slots(1)
    save = study.report(0, until=1).only(Save)
    study.saved(save)
    assert study.held(save) == [Release(0, 1)]
    assert study.coordinator.is_drained


# -- budgets -------------------------------------------------------------------------------------


def test_when_files_are_full_the_worst_that_ended_goes_first_and_the_journal_says_why(desk):
    study = desk(FIFO(1), num_trials=9, policy=CheckpointPolicy("end", max_files=4))
    study.slots(1)
    deleted = [end(study, n, loss).of(Delete) for n, loss in enumerate([3.0, 5.0, 2.0, 4.0, 9.0])]
    # 3 are above nine tenths of 4; of the last five the fourth and then the fifth are too many.
    assert [[delete.ref.trial for delete in each] for each in deleted] == [[], [], [], [1], [4]]

    assert [delete.reason for delete in deleted[3]] == [BUDGET_REACHED]
    assert reasons(study) == dict.fromkeys((1, 4), BUDGET_REACHED)
    assert sorted(study.store) == [0, 2, 3]
    assert set(study.ledger.retained) == {
        0,
        2,
        3,
    }  # memory is for those of which there is something


def test_bytes_are_counted_as_they_come(desk):
    study = desk(FIFO(1), num_trials=9, policy=CheckpointPolicy("end", max_bytes=1000))
    study.slots(1)
    for trial, (loss, n_bytes) in enumerate([(1.0, 300), (3.0, 300), (2.0, 299)]):
        study.stored(study.report(trial, until=1, loss=loss).only(Save), n_bytes)
    assert len(study.store) == 3
    study.stored(study.report(3, until=1, loss=0.5).only(Save), n_bytes=600)
    assert sorted(study.store) == [0, 3]
    assert study.ledger.refs.n_bytes == 900


def test_living_trials_lose_their_spare_checkpoints_first(desk):
    study = desk(FIFO(9), num_trials=2, policy=CheckpointPolicy("every", 1, max_files=4))
    study.slots(2)
    for resource in (1, 2):
        study.stored(study.report(0, until=resource).only(Save))
    study.stored(study.report(1, until=1).only(Save))
    assert sorted(study.store) == [0, 1, 2]
    study.stored(study.report(1, until=2).only(Save))
    # Trial 0 is as far and as good; of equals the one that began last gives its spare one.
    assert sorted(study.store) == [0, 1, 3]
    assert study.ledger.trials[1].previous is None
    assert study.ledger.trials[0].previous.id == 0


def test_then_the_shortest_trained_and_worst_of_them_trains_again_if_it_is_resumed(desk):
    answers = {(0, 3): Pause(), (1, 1): Pause(), (2, 1): Pause()}
    policy = CheckpointPolicy("end", max_files=3)
    study = desk(answers=answers, wishes=[Resume(2, until=3)], num_trials=3, policy=policy)
    study.slots(3)
    study.report(0, until=1)
    study.stored(study.report(0, until=3, loss=9.0).only(Save))
    study.stored(study.report(1, until=1, loss=1.0).only(Save))
    save = study.report(2, until=1, loss=2.0).only(Save)
    commands = study.stored(save)  # held, it is resumed at once; then it is one too many
    assert [delete.ref.trial for delete in commands.of(Delete)] == [2]
    assert study.ledger.trials[2].newest is None
    train = lose_all(study, 2)
    assert (train.resource, train.checkpoint) == (0, None)


def test_a_checkpoint_that_is_larger_than_the_whole_budget_is_given_up_and_nobody_fails(desk):
    policy = CheckpointPolicy("end", max_bytes=1000)
    study = desk(answers={(0, 1): Pause()}, num_trials=2, policy=policy)
    study.slots(2)
    save = study.report(0, until=1).only(Save)
    study.held(save)
    assert rows_of(study.saved(save, n_bytes=5000)) == [0]
    assert study.status(0) is PAUSED
    assert study.ledger.trials[0].newest is None
    assert study.ends() == {}


def test_a_budget_of_one_file_keeps_the_best_that_ended(desk):
    study = desk(FIFO(1), num_trials=9, policy=CheckpointPolicy("end", max_files=1))
    study.slots(1)
    for trial, loss in enumerate([3.0, 1.0, 2.0]):
        end(study, trial, loss)
        assert len(study.store) == 1
    assert [ref.trial for ref in study.store.values()] == [1]


def test_a_decision_that_waits_for_its_state_is_no_matter_of_budgets(desk):
    """A state that is only held takes no room in the store."""
    policy = CheckpointPolicy("end", max_files=1)
    answers = {(trial, 1): Pause() for trial in range(4)}
    study = desk(answers=answers, num_trials=5, policy=policy)
    study.slots(5)
    for trial in range(4):
        study.held(study.report(trial, until=1).only(Save))
    assert len(study.recorded(Held)) == study.ledger.refs.n_unsaved == 4
    assert study.recorded(Deleted) == []
    assert study.status(3) is PAUSED


def test_going_on_at_a_rung_waits_until_its_state_is_held_and_no_longer(desk):
    study = desk(answers={(0, 1): Continue(3)}, num_trials=1, policy="rung")
    study.slots(1)
    save = study.report(0, until=1).only(Save)
    assert study.held(save).kinds == [Train]
    assert study.ledger.refs.n_unsaved == 1


def test_where_trials_have_no_state_only_a_better_one_is_asked_for_it(desk):
    study = desk(FIFO(1), num_trials=9)
    study.slots(1)
    asked = []
    for trial, loss in enumerate([3.0, 5.0, 2.0, 2.5, 1.0]):
        for save in study.report(trial, until=1, loss=loss).of(Save):
            asked.append(trial)
            study.say(Held, trial, save.attempt, None)
    assert asked == [0, 2, 4]
    assert study.ledger.retained == {}
