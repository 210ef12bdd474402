"""Trials that were fully trained go on when a session trains further; a journal replays it."""

from __future__ import annotations

import pytest

from daskhpo.core.commands import Save, Train
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.events import Extended, SessionStarted
from daskhpo.core.types import Limits, ScheduleSegment, Start, Status, Stop
from daskhpo.engine.checkpoint_policy import check_policy
from daskhpo.engine.journal import decode_record, encode_record
from daskhpo.engine.replay import replay
from daskhpo.results.result import Result
from daskhpo.schedulers import (
    ASHA,
    FIFO,
    PASHA,
    PB2,
    PBT,
    AsyncHyperband,
    GuardedASHA,
    Hyperband,
    MedianStopping,
    PBTReplay,
    SuccessiveHalving,
)

COMPLETED, STOPPED, PAUSED = Status.COMPLETED, Status.STOPPED, Status.PAUSED

SCHEDULERS = [
    FIFO(9),
    ASHA(max_t=9),
    ASHA(max_t=9, brackets=2, compare="best"),
    ASHA(max_t=9, variant="promotion"),
    AsyncHyperband(max_t=9),
    AsyncHyperband(max_t=9, variant="promotion"),
    SuccessiveHalving(max_t=9),
    Hyperband(max_t=9),
    GuardedASHA(max_t=9),
    PBT(9, 3, ["x"]),
    PBT(9, 3, ["x"], synchronous=True),
    PB2(9, 3, ["x"]),
    MedianStopping(FIFO(9), grace_period=3, min_samples=2),
    MedianStopping(ASHA(max_t=9, variant="promotion"), min_samples=100),
]


def extend(study, max_t, policy="end", slots=2, **limits):
    """A new session that trains further; what it commands first."""
    study.coordinator = replay(study.problem, list(study.journal.records), study.journal)
    study.say(SessionStarted, Limits(**limits), check_policy(policy), max_t=max_t)
    study.coordinator.forget_trained()
    return study.slots(slots)


def play(study, commands):
    """Carry out all that is commanded, and all that follows; trial 0 is the best."""
    waiting = list(commands)
    while waiting:
        match waiting.pop(0):
            case Train(trial) as train:
                loss = (1 + trial) / train.until
                waiting += study.report(trial, train.until, loss, since=train.resource)
            case Save() as save:
                waiting += study.stored(save)


def shown(study, trial):
    """A trial as people read it."""
    return Result(study.journal.records, study.problem.objective).trial(trial)


def furthest(study):
    """How far each trial was trained."""
    return {trial: shown(study, trial).furthest for trial in range(study.ledger.n_trials)}


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=repr)
def test_a_finished_study_trains_further(desk, scheduler):
    study = desk(scheduler, num_trials=27, policy="end")
    play(study, study.slots(2))
    before = furthest(study)
    assert before[0] == max(before.values()) == 9
    play(study, extend(study, 27, num_trials=27))
    after = furthest(study)
    assert max(after.values()) == 27
    assert study.coordinator.is_over
    assert all(after[trial] >= before[trial] for trial in before)
    assert study.ledger.n_trials == 27


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, PASHA(max_t=9)], ids=repr)
def test_it_may_be_extended_again_with_new_trials(desk, scheduler):
    study = desk(scheduler, num_trials=9, policy="end")
    play(study, study.slots(2))
    play(study, extend(study, 12, num_trials=9))
    before = furthest(study)
    play(study, extend(study, 30, num_trials=12))
    after = furthest(study)
    assert all(before[trial] <= after[trial] <= 30 for trial in before)
    assert study.ledger.n_trials == 12
    assert study.scheduler.max_t == 30
    assert study.coordinator.is_over


def test_pasha_trains_further_only_if_the_order_at_its_end_is_not_settled(desk):
    def ends(losses_at_3):
        study = desk(PASHA(max_t=3), num_trials=9, policy="end")
        study.slots(9)
        for trial in range(9):
            study.stored(study.report(trial, until=1, loss=float(trial)).only(Save))
        for trial, loss in enumerate(losses_at_3):
            study.stored(study.report(trial, until=3, loss=loss).only(Save))
        assert study.coordinator.is_over
        return {command.trial: command.until for command in extend(study, 9, num_trials=9)}

    assert ends([0.0, 1.0, 2.0]) == {}
    assert ends([2.0, 1.0, 0.0]) == {2: 9}


def test_a_trial_goes_on_from_its_state(desk):
    study = desk(FIFO(9), num_trials=1, policy="end")
    study.slots(1)
    study.stored(study.report(0, until=9).only(Save))
    train = extend(study, 12, num_trials=1).only(Train)
    assert (train.resource, train.until, train.attempt) == (9, 12, 2)
    assert train.checkpoint.resource == 9
    assert study.ledger.retained == {}
    study.held(study.report(0, until=12).only(Save))
    assert study.ends() == {0: COMPLETED}


def test_a_trial_whose_state_is_gone_trains_again_from_its_start(desk):
    study = desk(FIFO(9), num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=9, loss=0.5)
    train = extend(study, 12, "never", num_trials=1).only(Train)
    assert (train.resource, train.until, train.checkpoint) == (0, 12, None)
    study.report(0, until=12, loss=0.75, since=0)
    result = Result(study.journal.records, study.problem.objective)
    assert (result.best_value, len(result.history())) == (0.5, 12)  # each unit counts once
    assert study.coordinator.is_over


def test_it_waits_meanwhile_as_people_read(desk):
    study = desk(FIFO(9), num_trials=1, policy="end")
    study.slots(1)
    study.stored(study.report(0, until=9).only(Save))
    extend(study, 12, slots=0, num_trials=1)
    trial = shown(study, 0)
    assert (trial.status, trial.reason, trial.ended) == (Status.QUEUED, "", None)
    assert study.status(0) is Status.QUEUED


def test_the_survivors_of_the_old_end_go_on(desk):
    """Two of six are the best third of those that reached the old end."""
    study = desk(ASHA(max_t=3, grace_period=3), num_trials=6, policy="end")
    study.slots(1)
    for trial, loss in enumerate([0.6, 0.2, 0.5, 0.1, 0.4, 0.3]):
        study.stored(study.report(trial, until=3, loss=loss).only(Save))
    extend(study, 9, slots=6, num_trials=6)
    assert [(r.trial, r.until) for r in study.recorded(Extended)] == [(1, 9), (3, 9)]
    assert study.ends() == dict.fromkeys(range(6), COMPLETED)
    assert sorted(study.ledger.trials) == [1, 3]


def test_what_ended_for_another_reason_has_ended(desk):
    class Picky(FIFO):
        def on_report(self, trial, report):
            return Stop("enough")

        def next_action(self, trials, can_start):
            return Start(until=3 if trials else 9) if can_start else super().next_action({}, False)

    study = desk(Picky(9), num_trials=4, policy="never")
    study.slots(4)
    study.report(0, until=9)  # fully trained
    study.report(1, until=2, ended=True)  # its code returned
    study.report(2, until=3)  # stopped by the scheduler
    study.failed(3)
    extend(study, 12, "never", num_trials=4)
    assert [r.trial for r in study.recorded(Extended)] == [0]


def test_a_trial_that_ran_when_the_study_was_killed_goes_on_to_the_new_end(desk):
    study = desk(FIFO(9), num_trials=1, policy="never")
    study.slots(1)
    study.report(0, until=4)
    assert extend(study, 12, "never", num_trials=1).only(Train).until == 9
    train = study.report(0, until=9, since=0).only(Train)
    assert train.until == 12


def test_brackets_that_were_over_are_judged_again_with_new_ones_like_those_of_the_new_end(desk):
    study = desk(SuccessiveHalving(max_t=3), num_trials=3, policy="end")
    play(study, study.slots(1))
    assert furthest(study) == {0: 3, 1: 1, 2: 1}
    play(study, extend(study, 9, num_trials=12))
    assert sorted(furthest(study).values()) == [1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 9, 9]


def test_a_population_needs_the_state_of_a_member_that_exploited(desk):
    study = desk(PBT(9, 3, ["x"]), num_trials=4, policy="never")
    study.slots(4)
    scheduler, broken = (
        study.scheduler,
        study.ledger.trials[3]._replace(
            resource=9, since=6, losses=(1.0,), held=None, checkpoint=None
        ),
    )
    with pytest.raises(InvalidArgument, match="checkpoint='end'"):
        scheduler.on_extend(12, [broken])
    assert scheduler.max_t == 9


def test_a_scheduler_that_cannot_mean_it_refuses():
    schedule = PBTReplay([ScheduleSegment(0, 9, {"x": 0.5})])
    with pytest.raises(InvalidArgument, match="says nothing of later units"):
        schedule.on_extend(12, [])
    with pytest.raises(InvalidArgument, match="says nothing of later units"):
        MedianStopping(schedule).on_extend(12, [])


def test_a_scheduler_without_on_extend_refuses(desk):
    study = desk()
    with pytest.raises(InvalidArgument, match="Scripted cannot let trials train further"):
        study.scheduler.on_extend(12, [])


def test_it_is_in_the_journal_only_if_it_is_asked_for():
    plain = SessionStarted(Limits(), check_policy("auto"), 1.0)
    assert "max_t" not in encode_record(plain)
    further = SessionStarted(Limits(), check_policy("auto"), 1.0, max_t=12)
    assert decode_record(encode_record(further)) == further
    record = Extended(3, None, {"x": 0.5}, 1, 9, 2.0)
    assert decode_record(encode_record(record)) == record
