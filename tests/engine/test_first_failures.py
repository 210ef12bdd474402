"""A study whose first trials all fail by the same error stops, and says so."""

from __future__ import annotations

import pytest

from daskhpo.core.commands import Save
from daskhpo.core.events import StopRequested
from daskhpo.core.types import Pause, Status
from daskhpo.engine.coordinator import MAX_LOST
from daskhpo.schedulers import FIFO, PBT

TYPO = "Traceback (most recent call last):\n  File \"a.py\", line 3, in f\nKeyError: 'leraning'"


def fail(study, *trials, error=TYPO, **options):
    for trial in trials:
        study.failed(trial, error, **options)


def reason(study):
    return study.coordinator.stop_reason


def test_a_study_stops_when_its_first_trials_fail_by_the_same_error(desk):
    study = desk(max_failed_trials=3, num_trials=60)
    study.slots(1)
    fail(study, 0, 1)
    assert reason(study) is None
    fail(study, 2)
    assert reason(study) == "the first 3 trials failed with KeyError: 'leraning'"
    assert study.recorded(StopRequested)
    assert study.ledger.n_trials == 3
    assert study.coordinator.is_drained


def test_the_first_trial_may_be_enough(desk):
    study = desk(max_failed_trials=1)
    study.slots(2)
    fail(study, 0)
    assert reason(study) == "the first trial failed with KeyError: 'leraning'"


def test_without_a_limit_every_trial_is_tried(desk):
    study = desk(num_trials=9)
    study.slots(1)
    fail(study, *range(9))
    assert reason(study) is None
    assert len(study.ends()) == 9


def test_it_is_the_first_trials_that_count_not_those_that_fail_first(desk):
    study = desk(max_failed_trials=2, num_trials=60)
    study.slots(4)
    fail(study, 1, 2, 3, 4)
    assert reason(study) is None  # trial 0 still trains
    fail(study, 0)
    assert reason(study) is not None


def test_errors_that_differ_in_their_numbers_are_the_same(desk):
    study = desk(max_failed_trials=2)
    study.slots(1)
    study.failed(0, "RuntimeError: shapes (40x61) and (3x4)")
    study.failed(1, "RuntimeError: shapes (79x8) and (3x4)")
    assert reason(study) == "the first 2 trials failed with RuntimeError: shapes (40x61) and (3x4)"


def test_other_errors_do_not_stop_it(desk):
    study = desk(max_failed_trials=2, num_trials=6)
    study.slots(1)
    study.failed(0, "ValueError: a")
    fail(study, *range(1, 6))
    assert reason(study) is None


def test_a_trial_that_was_decided_on_shows_that_the_code_works(desk):
    study = desk(max_failed_trials=2, num_trials=6, answers={(2, 1): Pause()}, policy="never")
    study.slots(3)
    study.report(2, until=1)
    assert study.status(2) is Status.PAUSED
    fail(study, 0, 1)
    assert reason(study) is None


def test_a_trial_that_cannot_be_saved_shows_nothing(desk):
    study = desk(FIFO(3), max_failed_trials=2, policy="end")
    study.slots(1)
    for trial in (0, 1):
        study.report(trial, until=3).only(Save)
        fail(study, trial, error="TypeError: cannot save")
    assert reason(study) == "the first 2 trials failed with TypeError: cannot save"


def test_a_trial_that_trained_further_may_still_succeed(desk):
    study = desk(FIFO(9), max_failed_trials=2)
    study.slots(3)
    study.report(2, until=1)
    fail(study, 0, 1)
    assert reason(study) is None
    fail(study, 2)
    assert reason(study) is not None


def test_a_metric_that_is_not_finite_is_no_error(desk):
    study = desk(max_failed_trials=2, num_trials=4)
    study.slots(1)
    fail(study, *range(4), error="loss=nan at resource 1 is not finite", retry=False)
    assert reason(study) is None


def test_a_trial_that_reported_nothing_made_a_mistake(desk):
    study = desk(max_failed_trials=2, num_trials=4)
    study.slots(1)
    fail(study, 0, 1, error="the function returned without a report()", retry=False)
    assert reason(study) is not None


def test_a_trial_that_is_tried_again_has_not_failed_yet(desk):
    study = desk(max_failed_trials=2, max_failures=1, num_trials=9)
    study.slots(2)
    fail(study, 0, 1)
    assert reason(study) is None
    fail(study, 0, 1)
    assert reason(study) is not None


def test_trials_that_always_lose_their_worker_stop_it_too(desk):
    study = desk(max_failed_trials=2, num_trials=9)
    study.slots(1)
    for trial in (0, 1):
        for _ in range(MAX_LOST):
            study.lost(trial)
    assert reason(study).startswith("the first 2 trials failed with lost 3 times in a row")


def test_members_of_a_population_that_fail_stop_it_too(desk):
    study = desk(PBT(9, 3, ["x"]), max_failed_trials=2, num_trials=4)
    study.slots(4)
    fail(study, 0, 1)
    assert study.ends() == {}
    assert reason(study) is not None


def test_each_session_counts_for_itself(desk):
    study = desk(max_failed_trials=2, num_trials=9)
    study.slots(1)
    fail(study, 0, 1)
    study.begin(max_failed_trials=2, num_trials=9)
    assert reason(study) is None
    study.slots(1)
    fail(study, 2)
    assert reason(study) is None
    fail(study, 3)
    assert reason(study) is not None


@pytest.mark.parametrize("number", [-1, -5])
def test_a_negative_number_is_refused(number):
    from daskhpo import RunOptions

    with pytest.raises(ValueError, match=f"max_failed_trials={number} must be at least 0"):
        RunOptions(max_failed_trials=number)
