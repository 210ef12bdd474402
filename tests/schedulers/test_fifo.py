"""FIFO: no early stopping."""

from __future__ import annotations

import pytest

from daskhpo.core.types import Start, Status, Stop, Wait
from daskhpo.schedulers import FIFO
from daskhpo.testing.driver import Driver, a_report, a_trial, noisy_curve
from daskhpo.testing.scheduler import SchedulerContract


class TestContract(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: FIFO(max_t=9)


def test_each_trial_is_one_segment_to_the_end():
    assert FIFO(max_t=9).next_action({}, can_start=True) == Start(until=9)


def test_a_trial_at_the_end_stops():
    decision = FIFO(max_t=9).on_report(a_trial(0, until=9), a_report(9, loss=5.0))
    assert decision == Stop("fully trained")


def test_it_waits_once_all_trials_started():
    assert FIFO(max_t=9).next_action({0: a_trial(0, until=9)}, can_start=False) == Wait()


def test_every_trial_is_fully_trained():
    study = Driver(FIFO(max_t=9), noisy_curve(0), num_trials=20, n_workers=3).run()
    assert set(study.ended.values()) == {(Status.COMPLETED, 9)}


@pytest.mark.parametrize(
    ("max_t", "error", "message"),
    [
        (0, ValueError, "max_t=0 must be at least 1"),
        (-3, ValueError, "max_t=-3"),
        (2.5, TypeError, "max_t=2.5 must be an int"),
        (True, TypeError, "max_t=True must be an int"),
        ("9", TypeError, "max_t='9' must be an int"),
    ],
)
def test_a_wrong_max_t_is_refused(max_t, error, message):
    with pytest.raises(error, match=message):
        FIFO(max_t)
