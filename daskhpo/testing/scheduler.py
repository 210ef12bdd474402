"""Contract tests of schedulers, to inherit.

::

    class TestMyScheduler(SchedulerContract):
        @pytest.fixture
        def make(self):
            return lambda: MyScheduler(max_t=27)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import Start, Status, Wait
from daskhpo.testing.driver import EVERYTHING_GOES_WRONG, Driver, Mishaps, noisy_curve

MakeScheduler = Callable[[], Scheduler]


def drive(scheduler: Scheduler, seed: int = 0, **options: Any) -> Driver:
    """Run a study of 30 trials on 4 workers, unless ``options`` say otherwise."""
    settings: dict[str, Any] = {"num_trials": 30, "n_workers": 4, **options}
    return Driver(scheduler, noisy_curve(seed), seed=seed, **settings).run()


class SchedulerContract:
    """Contract of schedulers, to inherit by a test class with a fixture ``make``.

    ``make`` is a function without arguments that returns a new scheduler, set up if it needs that.
    In each test the coordinator of a real study drives it. Actions on trials that have ended or
    are not paused are rejected, and segments that lead backwards or past ``max_t``, and more trials
    than may start.
    """

    @pytest.fixture
    def make(self) -> MakeScheduler:
        """Return a function without arguments that returns a new scheduler."""
        raise NotImplementedError("define a fixture `make` in the test class")

    def test_a_new_study_begins_with_a_start(self, make: MakeScheduler) -> None:
        action = make().next_action({}, can_start=True)
        assert isinstance(action, Start)
        assert 0 < action.until <= make().max_t

    def test_it_waits_when_nothing_can_start_and_nothing_is_paused(
        self, make: MakeScheduler
    ) -> None:
        assert make().next_action({}, can_start=False) == Wait()

    @pytest.mark.parametrize("seed", range(3))
    def test_asking_changes_nothing(self, make: MakeScheduler, seed: int) -> None:
        options = {"num_trials": 15, "mishaps": EVERYTHING_GOES_WRONG}
        asked = drive(make(), seed, suspicious=True, **options)
        assert asked.records == drive(make(), seed, **options).records

    @pytest.mark.parametrize("n_workers", [1, 3, 40])
    def test_every_trial_ends_or_is_paused(self, make: MakeScheduler, n_workers: int) -> None:
        study = drive(make(), n_workers=n_workers)
        assert all(trial.status is Status.PAUSED for trial in study.trials.values())
        assert sorted([*study.trials, *study.ended]) == list(range(30))

    def test_at_least_one_trial_is_fully_trained(self, make: MakeScheduler) -> None:
        scheduler = make()
        study = drive(scheduler, num_trials=100)
        assert (Status.COMPLETED, scheduler.max_t) in study.ended.values()

    @pytest.mark.parametrize("num_trials", [1, 2, 5, 13])
    def test_any_number_of_trials_comes_to_an_end(
        self, make: MakeScheduler, num_trials: int
    ) -> None:
        study = drive(make(), num_trials=num_trials)
        assert sorted([*study.trials, *study.ended]) == list(range(num_trials))

    def test_no_trial_reports_twice_at_a_resource(self, make: MakeScheduler) -> None:
        study = drive(make(), mishaps=EVERYTHING_GOES_WRONG)
        assert len(study.reports) == len(set(study.reports))

    @pytest.mark.parametrize("seed", range(10))
    def test_nothing_is_lost_when_everything_goes_wrong(
        self, make: MakeScheduler, seed: int
    ) -> None:
        study = drive(make(), seed, mishaps=EVERYTHING_GOES_WRONG)
        assert sorted([*study.trials, *study.ended]) == list(range(30))
        assert all(trial.status is Status.PAUSED for trial in study.trials.values())

    def test_it_goes_on_when_every_trial_fails(self, make: MakeScheduler) -> None:
        study = drive(make(), mishaps=Mishaps(fails=1.0))
        assert [status for status, _ in study.ended.values()] == [Status.FAILED] * 30

    def test_a_lost_trial_changes_no_outcome_on_one_worker(self, make: MakeScheduler) -> None:
        calm = drive(make(), n_workers=1)
        stormy = drive(make(), n_workers=1, mishaps=Mishaps(lost=0.3, forgotten=0.5))
        assert stormy.reached == calm.reached
        assert stormy.ended == calm.ended

    def test_more_trials_may_be_allowed_later(self, make: MakeScheduler) -> None:
        study = drive(make(), num_trials=7, mishaps=EVERYTHING_GOES_WRONG)
        study.extend(30).run()
        assert sorted([*study.trials, *study.ended]) == list(range(30))

    @pytest.mark.parametrize("seed", range(5))
    def test_failed_trials_can_run_again(self, make: MakeScheduler, seed: int) -> None:
        study = drive(make(), seed, num_trials=15, mishaps=EVERYTHING_GOES_WRONG)
        study.retry(15, EVERYTHING_GOES_WRONG).run()
        study.retry(30).run()
        assert sorted([*study.trials, *study.ended]) == list(range(30))
        assert Status.FAILED not in {status for status, _ in study.ended.values()}

    def test_all_trials_can_run_again_if_all_failed(self, make: MakeScheduler) -> None:
        study = drive(make(), mishaps=Mishaps(fails=1.0)).retry(30).run()
        assert sorted([*study.trials, *study.ended]) == list(range(30))
        assert Status.FAILED not in {status for status, _ in study.ended.values()}

    def test_the_same_events_give_the_same_decisions(self, make: MakeScheduler) -> None:
        first, second = (drive(make(), 5, mishaps=EVERYTHING_GOES_WRONG) for _ in range(2))
        assert first.records == second.records

    def test_a_copy_goes_on_like_the_original(self, make: MakeScheduler) -> None:
        study = Driver(make(), noisy_curve(0), num_trials=20, n_workers=3)
        for _ in range(15):
            study.step()
        twin = copy.deepcopy(study)
        assert twin.run().records == study.run().records

    def test_the_original_is_untouched_by_its_copies(self, make: MakeScheduler) -> None:
        scheduler = make()
        first = drive(scheduler)
        assert drive(scheduler).records == first.records

    def test_its_repr_names_its_parameters(self, make: MakeScheduler) -> None:
        scheduler = make()
        assert f"{scheduler.max_t}" in repr(scheduler)
        assert " at 0x" not in repr(scheduler)
        assert repr(scheduler) == repr(make())
