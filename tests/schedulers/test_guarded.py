"""The guarded rule: its two arms, what it asks of a model, and how it ends a study."""

from __future__ import annotations

import math

import pytest

from daskhpo.core.events import Launched, Suggested
from daskhpo.core.types import (
    Choose,
    Continue,
    Pause,
    Report,
    Resume,
    Start,
    Status,
    Stop,
    Wait,
)
from daskhpo.schedulers import GuardedASHA, MedianStopping
from daskhpo.testing.driver import Driver, a_trial, noisy_curve
from daskhpo.testing.scheduler import SchedulerContract


class TestContract(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: GuardedASHA(max_t=27)


class TestContractWithTrust(SchedulerContract):
    """With a model that is trusted, and a searcher that has no scores."""

    @pytest.fixture
    def make(self):
        def trusting():
            scheduler = GuardedASHA(max_t=20, grace_period=2, reduction_factor=2)
            scheduler.on_trust(True)
            return scheduler

        return trusting


class TestContractWithoutRungs(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: GuardedASHA(max_t=3, grace_period=3)


class TestContractInMedianStopping(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: MedianStopping(GuardedASHA(max_t=27))


@pytest.mark.parametrize(("max_t", "first"), [(1, 1), (9, 1), (99, 1), (100, 2), (1000, 20)])
def test_the_first_rung_is_after_a_fiftieth(max_t, first):
    assert repr(GuardedASHA(max_t)) == repr(GuardedASHA(max_t, first))


class Desk:
    """A scheduler, and words for what happens to it."""

    def __init__(self, max_t=27, trusted=True, seed=0):
        self.scheduler = GuardedASHA(max_t)
        self.scheduler.setup({}, seed)
        if trusted:
            self.scheduler.on_trust(True)
        self.trials = {}

    def ask(self, can_start=True):
        return self.scheduler.next_action(self.trials, can_start)

    def launch(self, number, until=1, bracket=0, resource=0):
        trial = a_trial(number, until, resource, bracket)
        self.trials[number] = trial
        self.scheduler.on_launch(trial)

    def report(self, number, loss, seconds=1.0, best=None):
        """``loss``: of each unit, or of all of them."""
        trial = self.trials[number]
        losses = loss if isinstance(loss, tuple) else (loss,) * (trial.until - trial.resource)
        best = min(*losses, trial.best_loss) if best is None else best
        trial = trial._replace(resource=trial.until, best_loss=best)
        decision = self.scheduler.on_report(trial, Report(trial.until, losses, best, seconds))
        match decision:
            case Continue(until):
                self.trials[number] = trial._replace(until=until, decided_at=trial.resource)
            case Pause():
                self.trials[number] = trial._replace(
                    status=Status.PAUSED, decided_at=trial.resource
                )
            case Stop():
                del self.trials[number]
                self.scheduler.on_end(trial._replace(status=Status.COMPLETED))
        return decision

    def fail(self, number):
        trial = self.trials.pop(number)
        self.scheduler.on_end(trial._replace(status=Status.FAILED))

    def tried(self, *losses):
        """The main arm's trials, which report at the first rung and pause, or go on."""
        first = len(self.trials)
        decisions = []
        for number, loss in enumerate(losses, start=first):
            self.launch(number)
            decisions.append(self.report(number, loss))
        return decisions


def starts(desk, n=60):
    """What it would start in so many slots; nothing of it reports."""
    found = []
    for number in range(n):
        found.append(desk.ask())
        start = found[-1].start if isinstance(found[-1], Choose) else found[-1]
        desk.launch(number, start.until, start.bracket)
    return found


# -- the main arm --------------------------------------------------------------------------------


def test_a_third_of_the_new_trials_is_random_and_the_model_chooses_the_others():
    found = starts(Desk(), 300)
    assert {type(action) for action in found} == {Start, Choose}
    assert sum(isinstance(action, Start) for action in found) == pytest.approx(100, abs=25)
    assert all(action.explore for action in found if isinstance(action, Start))
    assert not any(action.start.explore for action in found if isinstance(action, Choose))


def test_without_a_model_every_new_trial_is_random():
    assert all(
        isinstance(action, Start) and action.explore for action in starts(Desk(trusted=False))
    )


def test_the_random_share_depends_on_the_seed_and_the_launches_alone():
    kinds = [[type(action) for action in starts(Desk(seed=seed))] for seed in (1, 1, 2)]
    assert kinds[0] == kinds[1] != kinds[2]


def test_the_best_third_of_a_rung_goes_on_in_its_slot_and_others_pause():
    desk = Desk()
    assert desk.tried(3.0, 2.0, 1.0) == [Pause(keep=True), Pause(keep=True), Continue(until=3)]
    assert desk.report(2, 1.0) == Pause(keep=True)


def test_a_paused_trial_is_promoted_before_a_new_one_starts():
    desk = Desk()
    desk.tried(1.0, 2.0)
    desk.launch(2)
    desk.fail(2)  # counts as the worst of three
    assert desk.ask() == Resume(0, until=3)


def choice(desk):
    """What it asks of the model; ask again after launches whose turn was random."""
    number = 100
    while not isinstance(action := desk.ask(), Choose):
        desk.launch(number)
        number += 1
    return action


def test_any_paused_trial_of_the_main_arm_may_be_chosen_at_its_next_rung():
    desk = Desk()
    desk.tried(3.0, 2.0, 1.0)
    desk.report(2, 1.0)  # at the second rung
    asked = choice(desk)
    assert asked == Choose(Start(1), 3, {0: 3, 1: 3, 2: 9}, asked.can_go, 0.2)


def test_a_paused_trial_near_its_rungs_top_has_a_larger_chance_to_be_promoted():
    desk = Desk()
    desk.tried(*(float(loss) for loss in range(9, 0, -1)))
    chances = [desk.scheduler._chance(desk.trials[number]) for number in range(9)]
    assert chances[:4] == [0.02] * 4
    assert chances[4:6] == [0.2] * 2  # not among the best third, but not far from it
    assert chances[6:] == [0.85] * 3


def test_a_trial_whose_state_is_being_taken_cannot_be_chosen_yet():
    desk = Desk()
    desk.tried(2.0, 1.0)
    desk.trials[1] = desk.trials[1]._replace(status=Status.RUNNING)
    asked = choice(desk)
    assert [asked.can_go(number) for number in (0, 1, 7)] == [True, False, False]


def test_what_was_chosen_is_no_longer_offered():
    desk = Desk()
    desk.tried(2.0, 1.0)
    desk.launch(0, until=3, resource=1)
    assert set(choice(desk).paused) == {1}


def test_a_trial_that_failed_while_it_was_resumed_is_no_longer_offered():
    desk = Desk()
    desk.tried(2.0, 1.0)
    desk.launch(0, until=3, resource=1)
    desk.fail(0)
    assert set(choice(desk).paused) == {1}


# -- the reserve ---------------------------------------------------------------------------------


def shares(trusted, curve, num_trials=300, seconds=1.0):
    """Share of the reserve in the units of a study whose units take a second."""
    desk, used, number = Desk(81, trusted), [0, 0], 0
    for _ in range(num_trials):
        action = desk.ask()
        start = action.start if isinstance(action, Choose) else action
        if isinstance(action, Resume):
            trial = desk.trials[action.trial]
            desk.launch(trial.id, action.until, trial.bracket, trial.decided_at)
            running = trial.id
        else:
            desk.launch(number, start.until, start.bracket)
            running, number = number, number + 1
        while True:
            trial = desk.trials[running]
            units = range(trial.resource + 1, trial.until + 1)
            used[trial.bracket > 0] += len(units)
            losses = tuple(curve(running, unit) for unit in units)
            decision = desk.report(running, losses, len(units) * seconds)
            if not isinstance(decision, Continue):
                break
    return used[1] / sum(used), desk.scheduler


def test_the_reserve_gets_two_thirds_without_a_model():
    share, _ = shares(False, lambda trial, resource: float(trial * 7919 % 101))
    assert share == pytest.approx(0.67, abs=0.05)


def test_the_reserve_gets_a_twentieth_if_orders_are_borne_out():
    share, scheduler = shares(True, lambda trial, resource: float(trial * 7919 % 101), 900)
    assert scheduler._orders.borne_out
    assert 0.01 < share < 0.10


def test_the_reserve_gets_a_fifth_if_orders_have_nothing_to_do_with_each_other():
    share, scheduler = shares(True, lambda n, r: float((n + 1) * r**3 * 7919 % 1009), 900)
    assert not scheduler._orders.borne_out
    assert scheduler._orders.first == 1
    assert 0.15 < share < 0.25


def upside_down(below):
    """Losses whose order below a resource is the opposite of that from there on."""
    return lambda n, r: float(n * 7919 % 101) * (-1.0 if r < below else 1.0) + 200.0 / r


def test_the_reserve_gets_two_thirds_if_an_order_is_refuted():
    share, scheduler = shares(True, upside_down(9), 900)
    assert scheduler._orders.first == 9
    assert 0.5 < share < 0.75


def refute(desk, n=30):
    """Show it trials whose order at 1 and 3 is the opposite of that at 9."""
    for number in range(n):
        losses = (-number, 0.0, -number, *[0.0] * 5, number)
        desk.scheduler._orders.add(1000 + number, Report(9, losses, -number), is_main=False)
    return desk


def test_above_a_refuted_order_new_trials_of_both_arms_begin():
    desk = refute(Desk(27))
    begun = {0: set(), 1: set(), 2: set(), 3: set()}
    for number in range(60):
        action = desk.ask()
        start = action.start if isinstance(action, Choose) else action
        begun[start.bracket].add(start.until)
        desk.launch(number, start.until, start.bracket)
        desk.report(number, 1.0)
        desk.trials.clear()  # nothing to promote
    assert begun == {0: {9}, 1: set(), 2: {9}, 3: {27}}


def test_nothing_is_promoted_by_a_refuted_order():
    desk = Desk()
    desk.tried(1.0, 2.0)
    desk.launch(2)
    desk.fail(2)
    assert desk.ask() == Resume(0, until=3)
    assert not isinstance(refute(desk).ask(), Resume)


def test_a_trial_that_began_above_is_ranked_with_those_that_rose():
    desk = refute(Desk())
    desk.launch(0)
    desk.report(0, 5.0)
    desk.launch(0, until=9, resource=3)
    desk.report(0, 4.0)
    for number, loss in enumerate([3.0, 2.0], start=1):
        desk.launch(number, 9)
        desk.report(number, loss)
    assert desk.scheduler._promotion(0, lambda trial: True) == Resume(2, until=27)


def test_a_rescued_trial_tells_nothing_about_orders():
    desk = Desk()
    desk.tried(1.0, 2.0, 3.0, 4.0)
    desk.launch(3, until=3, resource=1)
    desk.launch(0, until=3, resource=1)
    assert desk.scheduler._orders._unfair == {3}  # the other one is the best of its rung


def test_the_first_trial_of_the_reserve_waits_until_its_rung_fits_the_credit():
    desk = Desk(81, trusted=False)
    desk.launch(0)
    desk.report(0, 1.0)
    assert desk.ask().bracket == 0  # a unit for the reserve is not earned yet, still less three
    first = next(n for n in range(1, 99) if grown(desk, n).bracket)
    assert first == 4  # 0.67 of five units are more than three


def grown(desk, number):
    desk.launch(number)
    desk.report(number, 1.0 + number)
    desk.trials.clear()  # nothing to promote
    return desk.ask()


def test_time_is_charged_at_launch_and_corrected_by_the_report():
    desk = Desk(81, trusted=False)
    desk.launch(0)
    desk.report(0, 1.0, seconds=10.0)
    time = desk.scheduler._time
    desk.launch(1)
    assert time._used == [20.0, 0.0]  # it is expected to take as long
    desk.report(1, 2.0, seconds=4.0)
    assert time._used == [14.0, 0.0]
    assert time._credit == pytest.approx(0.67 * 14.0)


# -- the end -------------------------------------------------------------------------------------


def test_the_best_paused_trial_is_trained_to_the_end_when_no_other_may_start():
    desk = Desk(9)
    desk.tried(3.0, 2.0)
    assert desk.ask(can_start=False) == Resume(1, until=3)
    desk.launch(1, until=3, resource=1)
    assert desk.ask(can_start=False) == Wait()  # one at a time
    desk.report(1, 2.5)
    assert desk.ask(can_start=False) == Resume(1, until=9)
    desk.launch(1, until=9, resource=3)
    desk.report(1, 2.2)
    assert desk.ask(can_start=False) == Wait()  # the other one is worse


def test_a_best_trial_that_ends_at_its_time_limit_is_the_last_one():
    desk = Desk(9)
    desk.tried(3.0, 2.0)
    assert desk.ask(can_start=False) == Resume(1, until=3)
    desk.launch(1, until=3, resource=1)
    stopped = desk.trials.pop(1)._replace(status=Status.STOPPED, best_loss=2.0)
    desk.scheduler.on_end(stopped)
    assert desk.ask(can_start=False) == Wait()  # the other one would be worse, and end there, too


def test_after_a_best_trial_that_failed_the_next_one_is_trained_to_the_end():
    desk = Desk(9)
    desk.tried(3.0, 2.0)
    desk.launch(1, until=3, resource=1)
    desk.fail(1)
    assert desk.ask(can_start=False) == Resume(0, until=3)


@pytest.mark.parametrize("seed", range(3))
def test_a_trial_that_median_stopping_ends_keeps_no_better_one_from_its_end(seed):
    rule = MedianStopping(GuardedASHA(9), min_samples=1)
    study = Driver(rule, noisy_curve(seed), num_trials=30, n_workers=4).run()
    assert Status.STOPPED in {status for status, _ in study.ended.values()}
    assert (Status.COMPLETED, 9) in study.ended.values()
    best = study.scheduler._inner._best_ended
    assert all(trial.best_loss >= best for trial in study.trials.values())


@pytest.mark.parametrize("num_trials", [1, 2, 3, 10])
@pytest.mark.parametrize("n_workers", [1, 4])
def test_every_study_trains_its_best_trial_to_the_end(num_trials, n_workers):
    study = Driver(
        GuardedASHA(81), noisy_curve(1), num_trials=num_trials, n_workers=n_workers
    ).run()
    assert (Status.COMPLETED, 81) in study.ended.values()
    assert all(trial.best_loss >= study.scheduler._best_ended for trial in study.trials.values())


def test_few_trials_are_enough():
    assert GuardedASHA(81).is_enough(1)


def test_a_rung_that_only_failures_reached_promotes_nothing():
    desk = Desk()
    for number in range(6):
        desk.launch(number)
        desk.fail(number)
    assert math.isinf(desk.scheduler._ladders[0].rungs[1].cutoff())
    assert isinstance(desk.ask(), Start | Choose)


def test_median_stopping_around_it_starts_what_a_model_would_choose():
    rule = MedianStopping(GuardedASHA(27), interval=2)
    rule.setup({}, 0)
    rule.on_trust(True)
    found = set()
    for number in range(20):
        found.add(action := rule.next_action({}, can_start=True))
        rule.on_launch(a_trial(number, until=action.until))
    assert found == {Start(1), Start(1, explore=True)}


def test_the_reserves_brackets_start_their_trials_at_the_later_rungs():
    study = Driver(GuardedASHA(27), noisy_curve(2), num_trials=200, n_workers=4).run()
    bracket = {r.trial: r.bracket for r in study.records if isinstance(r, Suggested)}
    first = {
        (bracket[r.trial], r.until)
        for r in study.records
        if isinstance(r, Launched) and r.attempt == 1
    }
    assert first == {(0, 1), (1, 3), (2, 9), (3, 27)}
