"""PBTReplay: a recorded schedule, trained once more."""

from __future__ import annotations

import pytest

from daskhpo.core.events import RolledBack
from daskhpo.core.types import (
    CheckpointRef,
    Discard,
    Exploit,
    Pause,
    Resume,
    ScheduleSegment,
    Start,
    Status,
    Stop,
)
from daskhpo.schedulers import PBTReplay
from daskhpo.space import Real, Space
from daskhpo.testing.driver import Mishaps, a_report, a_trial
from daskhpo.testing.scheduler import SchedulerContract, drive

FIRST, SECOND, THIRD = ({"lr": lr, "width": 8} for lr in (0.1, 0.02, 0.004))
SCHEDULE = [
    ScheduleSegment(0, 2, FIRST, trial=4),
    ScheduleSegment(2, 4, FIRST, trial=1),
    ScheduleSegment(4, 8, SECOND, trial=1),
    ScheduleSegment(8, 9, THIRD, trial=1),
]


class TestContract(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: PBTReplay(SCHEDULE)

    def test_no_trial_reports_twice_at_a_resource(self, make):
        # A state that is lost before it was saved is trained again, on purpose.
        for mishaps in (Mishaps(fails=0.1, lost=0.15), Mishaps(fails=0.1, slow_saves=0.5)):
            study = drive(make(), mishaps=mishaps)
            assert len(study.reports) == len(set(study.reports))

    def test_a_lost_trial_changes_no_outcome_on_one_worker(self, make):
        calm = drive(make(), n_workers=1)
        stormy = drive(make(), n_workers=1, mishaps=Mishaps(lost=0.3, forgotten=0.04))
        assert any(isinstance(record, RolledBack) for record in stormy.records)
        assert stormy.ended == calm.ended


def paused(resource, config, **options):
    """A paused trial whose newest state holds so many units."""
    state = CheckpointRef(0, 0, resource) if resource else None
    trial = a_trial(0, resource=resource, status=Status.PAUSED)
    return trial._replace(config=config, held=state, **options)


def wish(replay, trial):
    return replay.next_action({trial.id: trial}, can_start=True)


def test_it_trains_until_a_value_changes_though_another_member_trained_there():
    replay = PBTReplay(SCHEDULE)
    assert replay.next_action({}, can_start=True) == Start(until=4)
    assert replay.on_report(a_trial(0, until=4), a_report(4, 1.0)) == Pause()


def test_where_a_value_changes_it_goes_on_from_its_own_state_with_the_next_one():
    replay = PBTReplay(SCHEDULE)
    assert wish(replay, paused(4, FIRST)) == Exploit(0, 0, SECOND)
    assert wish(replay, paused(4, SECOND)) == Resume(0, until=8)
    assert wish(replay, paused(8, SECOND)) == Exploit(0, 0, THIRD)
    assert wish(replay, paused(8, THIRD)) == Resume(0, until=9)


def test_it_stops_at_the_schedules_end():
    assert PBTReplay(SCHEDULE).max_t == 9
    assert PBTReplay(SCHEDULE).on_report(a_trial(0, until=9), a_report(9, 1.0)) == Stop(
        "fully trained"
    )


def test_other_hyperparameters_are_left_as_they_are():
    replay = PBTReplay(SCHEDULE)
    assert wish(replay, paused(4, FIRST | {"width": 99})) == Exploit(0, 0, SECOND | {"width": 99})


def test_a_trial_that_was_set_back_gets_the_values_of_that_time():
    replay = PBTReplay(SCHEDULE)
    trial = paused(4, THIRD, since=8)
    assert replay.on_rollback(trial)
    assert wish(replay, trial) == Exploit(0, 0, SECOND)
    assert wish(replay, paused(0, THIRD, since=8)) == Exploit(0, 0, FIRST)


def test_one_whose_state_is_never_there_is_given_up_with_the_reason():
    replay = PBTReplay(SCHEDULE)
    replay.on_report(a_trial(0, until=4), a_report(4, 1.0))
    for _ in range(3):
        assert wish(replay, paused(0, FIRST, decided_at=4)) == Exploit(0, 0, FIRST)
        replay.on_exploit(paused(0, FIRST), 0)
        assert wish(replay, paused(0, FIRST)) == Resume(0, until=4)
        replay.on_report(a_trial(0, until=4), a_report(4, 1.0))
    replay.on_exploit(paused(0, FIRST), 0)
    action = wish(replay, paused(0, FIRST))
    assert isinstance(action, Discard)
    assert "checkpoint policy but 'never'" in action.reason


def test_setbacks_count_only_as_long_as_it_comes_no_further():
    replay = PBTReplay(SCHEDULE)
    for resource in (4, 8):
        for _ in range(3):
            replay.on_exploit(paused(0, FIRST), 0)
        replay.on_report(a_trial(0), a_report(resource, 1.0))
    assert wish(replay, paused(8, THIRD)) == Resume(0, until=9)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lr": Real(0.001, 0.1), "width": 8}, r"lr is Real\(.*schedule.initial"),
        ({"lr": 0.05}, "lr is 0.05 in the space, but the schedule begins with 0.1"),
        ({"width": 8}, "lr is missing"),
    ],
)
def test_a_space_that_begins_otherwise_is_refused(space, message):
    with pytest.raises(ValueError, match=message):
        PBTReplay(SCHEDULE).setup(Space(space), seed=0)


def test_other_names_of_the_space_may_be_searched():
    PBTReplay(SCHEDULE).setup(Space({"lr": 0.1, "width": Real(1, 2)}), seed=0)


@pytest.mark.parametrize(
    ("schedule", "error"),
    [
        ([], TypeError),
        ([{"lr": 0.1}], TypeError),
        ([ScheduleSegment(1, 2, FIRST)], ValueError),
        ([ScheduleSegment(0, 2, FIRST), ScheduleSegment(3, 4, FIRST)], ValueError),
        ([ScheduleSegment(0, 2, FIRST), ScheduleSegment(2, 2, FIRST)], ValueError),
    ],
)
def test_what_is_no_schedule_is_refused(schedule, error):
    with pytest.raises(error, match="schedule"):
        PBTReplay(schedule)


def test_a_schedule_that_changes_nothing_is_one_segment():
    replay = PBTReplay(SCHEDULE[:2])
    assert replay.next_action({}, can_start=True) == Start(until=4)
    assert replay.max_t == 4
