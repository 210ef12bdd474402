"""PASHA: when its ladder grows, what is noise, and the contract of schedulers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.core.types import Continue, Pause, Report, Resume, Start, Status, Stop, Wait
from daskhpo.schedulers import ASHA, PASHA
from daskhpo.schedulers.pasha import _Order, noise
from daskhpo.testing.driver import Driver, a_report, a_trial, noisy_curve
from daskhpo.testing.scheduler import SchedulerContract, drive


class Contract(SchedulerContract):
    def test_at_least_one_trial_is_fully_trained(self, make):
        scheduler = make()
        study = drive(scheduler, num_trials=100)
        longest = max(resource for _, resource in study.reports)
        ladder = [1, 3, 9, 27] if scheduler.max_t == 27 else [2, 4, 8, 16, 20]
        assert longest in ladder[1:]  # `max_t` is an upper bound


class TestContract(Contract):
    @pytest.fixture
    def make(self):
        return lambda: PASHA(max_t=27)


class TestContractOfTheBestSoFar(Contract):
    @pytest.fixture
    def make(self):
        return lambda: PASHA(max_t=20, grace_period=2, reduction_factor=2, compare="best")


class TestContractWithoutRungs(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: PASHA(max_t=3, grace_period=3)


class Desk:
    """A scheduler, and trials whose losses are told at each rung."""

    def __init__(self, **options):
        self.scheduler = PASHA(**{"max_t": 27, **options})
        self.trials = {}

    def report(self, number, losses):
        trial = self.trials.get(number)
        until = self.scheduler.next_action(self.trials, True).until if trial is None else None
        if trial is None:
            trial = a_trial(number, until)
            self.scheduler.on_launch(trial)
        elif trial.status is Status.PAUSED:
            assert self.scheduler.next_action(self.trials, True) == Resume(number, self.next(trial))
            trial = trial._replace(until=self.next(trial), status=Status.RUNNING)
            self.scheduler.on_launch(trial)
        best = min(*losses, trial.best_loss)
        trial = trial._replace(resource=trial.until, best_loss=best)
        decision = self.scheduler.on_report(trial, Report(trial.until, tuple(losses), best))
        match decision:
            case Continue(until):
                trial = trial._replace(until=until)
            case Pause():
                trial = trial._replace(status=Status.PAUSED)
        self.trials[number] = trial
        return decision

    def next(self, trial):
        return self.scheduler._ladder.next_of[trial.resource]


def with_two_at_the_top(first, second, **options):
    """Six trials, of which the best at 1 and the second best report at 3."""
    desk = Desk(**options)
    for number, loss in enumerate([9.0, 8.0, 1.0]):
        told = desk.report(number, [loss])
    assert told == Continue(until=3)
    assert desk.report(2, [5.0, first]) == Pause(keep=True)
    for number, loss in enumerate([7.0, 6.0, 2.0], start=3):
        told = desk.report(number, [loss])
    assert told == Continue(until=3)
    return desk, desk.report(5, [5.0, second])


# -- the ladder ----------------------------------------------------------------------------------


def test_it_begins_with_two_rungs_and_pauses_at_the_top():
    desk, decision = with_two_at_the_top(0.5, 0.6)
    assert desk.scheduler.highest == 3
    assert decision == Pause(keep=True)
    assert desk.scheduler.next_action(desk.trials, True) == Start(1)
    assert desk.scheduler.next_action(desk.trials, False) == Wait()


def test_it_grows_when_the_order_at_the_top_is_another_one():
    desk, _ = with_two_at_the_top(0.6, 0.5)
    assert desk.scheduler.highest == 9


def test_trials_that_waited_at_the_top_rise_when_it_has_grown():
    desk, _ = with_two_at_the_top(0.6, 0.5)
    for number, loss in enumerate([7.5, 6.5, 1.5], start=6):
        told = desk.report(number, [loss])
    assert told == Continue(until=3)
    assert desk.report(8, [5.0, 0.7]) == Pause(keep=True)  # the third at 3; the second is best
    assert desk.scheduler.next_action(desk.trials, True) == Resume(5, 9)


def test_one_trial_at_the_top_decides_nothing():
    desk = Desk()
    for number, loss in enumerate([9.0, 8.0, 1.0]):
        desk.report(number, [loss])
    desk.report(2, [5.0, 100.0])
    assert desk.scheduler.highest == 3


def test_ranks_by_the_best_so_far_ignore_a_late_jump():
    assert with_two_at_the_top(0.6, 0.5, compare="best")[0].scheduler.highest == 9
    assert with_two_at_the_top(3.0, 2.5, compare="best")[0].scheduler.highest == 3
    assert with_two_at_the_top(3.0, 2.5)[0].scheduler.highest == 9


def test_the_ladder_ends_at_max_t():
    scheduler = PASHA(max_t=3)
    for number in range(12):
        scheduler.on_launch(a_trial(number, 1))
        scheduler.on_report(a_trial(number, 1, 1), a_report(1, float(number)))
    for number in (0, 1, 2):  # in the opposite order
        scheduler.on_launch(a_trial(number, 3, 1))
        decision = scheduler.on_report(a_trial(number, 3, 3), a_report(3, 9.0 - number))
        assert decision == Stop("fully trained")
    assert scheduler.highest == 3


@pytest.mark.parametrize("seed", range(3))
def test_curves_that_never_cross_need_two_rungs_and_crossing_ones_more(seed):
    def parallel(trial, resource):
        return quality(trial) + 1 / resource

    def crossing_once(trial, resource):
        """The best quality rises with the resource; each pair crosses at most once."""
        return (quality(trial) - math.log2(resource) / 4) ** 2

    def quality(trial):
        return trial * 37 % 101 / 101

    def longest(curve):
        study = Driver(PASHA(16, 1, 2), curve, seed=seed, num_trials=200, n_workers=4).run()
        return max(resource for _, resource in study.reports)

    assert longest(parallel) == 2
    assert longest(crossing_once) >= 8


def test_it_trains_less_than_asha_and_never_more_than_its_ladder():
    def units(scheduler):
        study = Driver(scheduler, noisy_curve(1), seed=1, num_trials=300, n_workers=4).run()
        reached = {}
        for trial, resource in study.reports:
            reached[trial] = max(reached.get(trial, 0), resource)
        return sum(reached.values()), max(reached.values()), scheduler

    asha, _, _ = units(ASHA(81, variant="promotion"))
    pasha, longest, _ = units(PASHA(81))
    assert pasha <= asha
    assert longest in (3, 9, 27, 81)


# -- noise ---------------------------------------------------------------------------------------


def test_noise_is_the_last_difference_of_curves_that_cross_twice():
    a, b, far = [1.0, 3.0, 1.0], [2.0, 2.0, 1.5], [9.0, 9.0, 9.0]
    assert noise([a, b, far]) == pytest.approx(0.5)
    assert noise([a, far]) == 0.0
    once = [0.5, 3.0, 3.0]  # it crosses b only once
    assert noise([once, b]) == 0.0
    assert noise([a]) == 0.0


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=2, max_size=6),
)
def test_noise_is_that_of_a_search_for_all_triples(curves):
    curves = [[float(loss) for loss in curve] for curve in curves]
    found = []
    for i, first in enumerate(curves):
        for second in curves[i + 1 :]:
            sign = np.sign(np.subtract(first, second))
            end = sign[-1]
            triples = [
                (early, late)
                for late in range(4)
                for early in range(late)
                if end and sign[late] == -end and sign[early] == end
            ]
            if triples:
                found.append(abs(first[-1] - second[-1]))
    assert noise(curves) == pytest.approx(np.percentile(found, 90) if found else 0.0)


def test_trials_within_the_noise_may_have_either_order():
    order = _Order()
    order.add(1.0, 1.5, [2.5, 1.0, 1.5])
    order.add(1.2, 1.2, [2.0, 2.0, 1.2])  # they cross twice: 0.3 apart at the end
    assert order.is_settled()
    order.add(9.0, 1.0, [9.0, 9.0, 1.0])
    assert not order.is_settled()


def test_its_repr_makes_it_again():
    scheduler = PASHA(27, 3, compare="best")
    assert repr(eval(repr(scheduler), {"PASHA": PASHA})) == repr(scheduler)
