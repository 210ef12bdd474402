"""ASHA: tables of events, and Algorithm 2 of the paper written a second time."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskhpo.core.events import Launched, Reported, Suggested
from daskhpo.core.types import Continue, Pause, Resume, Start, Status, Stop, Wait
from daskhpo.schedulers import ASHA, AsyncHyperband
from daskhpo.testing.driver import Driver, Mishaps, a_report, a_trial, noisy_curve
from daskhpo.testing.scheduler import SchedulerContract

BELOW = Stop("below the rung")


class TestStoppingContract(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: ASHA(max_t=27, grace_period=1, reduction_factor=3)


class TestPromotionContract(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: ASHA(max_t=27, reduction_factor=3, variant="promotion")


class TestAllBracketsContract(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: AsyncHyperband(max_t=20, reduction_factor=2, compare="best")


class TestPromotionInBracketsContract(SchedulerContract):
    @pytest.fixture
    def make(self):
        return lambda: ASHA(max_t=20, reduction_factor=2, brackets=3, variant="promotion")


def decisions(asha, losses, resource=1, bracket=0):
    """What trials 0, 1, ... are told who report these losses at one rung, one after another."""
    told = []
    for number, loss in enumerate(losses):
        trial = a_trial(number, until=resource, resource=resource, bracket=bracket)
        if resource == 1:
            asha.on_launch(trial)
        told.append(asha.on_report(trial, a_report(resource, loss)))
    return told


def paused(*numbers, resource=1, status=Status.PAUSED):
    return {n: a_trial(n, until=resource, resource=resource, status=status) for n in numbers}


# -- stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "goes_on"),
    [
        ([5.0], [True]),  # the first to arrive goes on
        ([5.0, 6.0], [True, False]),  # the top is empty: only the best so far goes on
        ([5.0, 4.0], [True, True]),
        ([5.0, 5.0], [True, True]),  # as good as the best
        ([5.0, 6.0, 5.5], [True, False, False]),  # floor(3/3)=1: the best of three
        ([5.0, 6.0, 7.0, 4.0, 8.0, 4.5], [True, False, False, True, False, True]),  # best two
        ([1.0, 1.0, 1.0, 1.0, 2.0], [True, True, True, True, False]),  # ties with the last go on
        ([-1.0, -2.0, -1.5], [True, True, False]),
    ],
)
def test_a_trial_goes_on_while_it_is_in_the_best_third_of_its_rung(losses, goes_on):
    told = decisions(ASHA(max_t=9, reduction_factor=3), losses)
    assert told == [Continue(until=3) if yes else BELOW for yes in goes_on]


def test_the_stopping_variant_never_pauses():
    study = Driver(ASHA(max_t=27), noisy_curve(1), num_trials=100, n_workers=5).run()
    assert not study.trials
    assert len(study.ended) == 100


def test_rungs_are_compared_separately():
    asha = ASHA(max_t=9, reduction_factor=3)
    decisions(asha, [0.1, 0.2, 0.3])
    assert decisions(asha, [0.9], resource=3) == [Continue(until=9)]


def test_at_max_t_a_trial_stops_as_fully_trained_whatever_its_loss():
    assert decisions(ASHA(max_t=9), [1.0, 99.0], resource=9) == [Stop("fully trained")] * 2


def test_the_last_segment_leads_to_max_t_where_it_is_no_power():
    asha = ASHA(max_t=10, reduction_factor=3)
    assert decisions(asha, [1.0], resource=9) == [Continue(until=10)]


@pytest.mark.parametrize(("compare", "decision"), [("last", BELOW), ("best", Continue(until=3))])
def test_a_trial_is_compared_by_its_last_or_by_its_best_loss(compare, decision):
    asha = ASHA(max_t=9, compare=compare)
    asha.on_report(a_trial(0), a_report(1, loss=0.5))
    assert asha.on_report(a_trial(1), a_report(1, loss=0.9, best_loss=0.4)) == decision


# -- promotion -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "promotable"),
    [
        ([5.0], None),  # floor(1/3)=0: nobody, not even the first
        ([5.0, 6.0], None),
        ([5.0, 6.0, 7.0], 0),  # the top grows by one who came before
        ([7.0, 6.0, 5.0], None),  # the third is the best and went on at once
        ([5.0, 6.0, 7.0, 8.0, 8.0, 9.0], 0),
        ([5.0, 5.0, 5.0], 0),  # of equals the earlier trial
    ],
)
def test_a_free_slot_takes_the_best_promotable_trial(losses, promotable):
    asha = ASHA(max_t=9, reduction_factor=3, variant="promotion")
    decisions(asha, losses)
    action = asha.next_action(paused(*range(len(losses))), can_start=True)
    assert action == (Start(until=1) if promotable is None else Resume(promotable, until=3))


def test_who_reports_in_the_top_goes_on_and_the_others_pause():
    told = decisions(ASHA(max_t=9, reduction_factor=3, variant="promotion"), [3.0, 2.0, 1.0, 0.5])
    assert told == [Pause(), Pause(), Continue(until=3), Continue(until=3)]


def test_a_pause_says_whether_there_is_a_real_chance_to_be_promoted():
    """In a young rung (below 6 losses) anyone may rise, later the best ⌈n·(1/3 + 0.15)⌉."""
    asha = ASHA(max_t=9, reduction_factor=3, variant="promotion")
    told = decisions(asha, [1.0, 9.0, 8.0, 7.0, 6.0])
    assert told == [Pause(keep=True)] * 5
    later = [
        asha.on_report(a_trial(number), a_report(1, loss))
        for number, loss in enumerate([9.5, 5.0, 5.5, 5.8], start=5)
    ]
    # Ranks 6 of 6 (the best 3 may), 2 of 7 (who is in the top), 3 of 8 and 4 of 9 (the best 4, 5).
    assert later == [Pause(keep=False), Continue(until=3), Pause(keep=True), Pause(keep=True)]
    assert asha.on_report(a_trial(9), a_report(1, loss=7.5)) == Pause(keep=False)  # 7 of 10


def test_the_highest_rung_is_served_first():
    asha = ASHA(max_t=27, reduction_factor=3, variant="promotion")
    decisions(asha, [1.0, 2.0, 3.0])
    decisions(asha, [4.0, 5.0, 6.0], resource=3)
    action = asha.next_action(paused(0, 1, 2), can_start=True)
    assert action == Resume(0, until=9)


def test_a_promoted_trial_is_not_promoted_again():
    asha = ASHA(max_t=9, reduction_factor=3, variant="promotion")
    decisions(asha, [1.0, 2.0, 3.0])
    asha.on_launch(a_trial(0, until=3, resource=1))
    assert asha.next_action(paused(1, 2), can_start=False) == Wait()


def test_a_promoted_trial_may_have_lost_its_state():
    """It trains again from the start, so its resource is 0 when it is launched."""
    asha = ASHA(max_t=9, reduction_factor=3, variant="promotion")
    decisions(asha, [1.0, 2.0, 3.0])
    asha.on_launch(a_trial(0, until=3, resource=0))
    assert asha.next_action(paused(0, 1, 2), can_start=False) == Wait()


@pytest.mark.parametrize("status", [Status.RUNNING, Status.QUEUED])
def test_a_trial_whose_state_is_being_taken_is_not_resumed_yet(status):
    asha = ASHA(max_t=9, reduction_factor=3, variant="promotion")
    decisions(asha, [1.0, 2.0, 3.0, 1.5, 4.0, 5.0])
    leaving = paused(0, status=status)
    assert asha.next_action(leaving | paused(1, 2, 3, 4, 5), True) == Resume(3, until=3)
    assert asha.next_action(leaving, can_start=True) == Start(until=1)
    assert asha.next_action(paused(0, 3), can_start=True) == Resume(0, until=3)


def test_a_trial_that_failed_is_not_promoted_and_still_counts_in_its_rung():
    asha = ASHA(max_t=9, reduction_factor=3, variant="promotion")
    decisions(asha, [1.0, 2.0, 3.0])
    asha.on_end(a_trial(0, resource=1, status=Status.FAILED))
    assert asha.next_action(paused(1, 2), can_start=True) == Start(until=1)
    decisions_of_three_more = [
        asha.on_report(a_trial(n), a_report(1, loss)) for n, loss in [(3, 9.0), (4, 9.0), (5, 9.0)]
    ]
    assert decisions_of_three_more == [Pause(keep=True)] * 2 + [Pause(keep=False)]
    assert asha.next_action(paused(1, 2, 3, 4, 5), can_start=True) == Resume(1, until=3)


def test_an_ended_trial_is_no_candidate_even_if_it_is_still_shown():
    asha = ASHA(max_t=9, reduction_factor=3, variant="promotion")
    decisions(asha, [1.0, 2.0, 3.0])
    asha.on_end(a_trial(0, resource=1, status=Status.STOPPED))
    assert asha.next_action(paused(0, 1, 2), can_start=True) == Start(until=1)


def test_a_trial_that_left_the_top_is_not_promoted():
    asha = ASHA(max_t=9, reduction_factor=3, variant="promotion")
    decisions(asha, [3.0, 4.0, 5.0])  # trial 0 could be promoted, but no slot was free
    assert asha.on_report(a_trial(3), a_report(1, loss=1.0)) == Continue(until=3)
    assert asha.next_action(paused(0, 1, 2), can_start=True) == Start(until=1)


def test_promotion_may_go_on_when_no_trial_can_start():
    asha = ASHA(max_t=9, reduction_factor=3, variant="promotion")
    decisions(asha, [1.0, 2.0, 3.0])
    assert asha.next_action(paused(0, 1, 2), can_start=False) == Resume(0, until=3)


class PaperAsha:
    """Li et al. 2020, Algorithm 2, line by line, with plain sorting; rung k trains to r·η^k."""

    def __init__(self, n_rungs, eta):
        self.rungs = [{} for _ in range(n_rungs)]
        self.promoted = [set() for _ in range(n_rungs)]
        self.eta = eta
        self.n_trials = 0

    def get_job(self, num_trials):
        for k in range(len(self.rungs) - 2, -1, -1):
            ranked = sorted(self.rungs[k], key=lambda t: (self.rungs[k][t], t))
            candidates = ranked[: len(ranked) // self.eta]
            promotable = [t for t in candidates if t not in self.promoted[k]]
            if promotable:
                self.promoted[k].add(promotable[0])
                return promotable[0], k + 1
        if self.n_trials == num_trials:
            return None
        self.n_trials += 1
        return self.n_trials - 1, 0


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n_workers=st.integers(1, 12),
    eta=st.sampled_from([2, 3, 4]),
    n_levels=st.integers(2, 100),  # losses are rounded, so that there are ties
)
def test_jobs_are_those_of_algorithm_2(seed, n_workers, eta, n_levels):
    def curve(trial, resource):
        return round(noisy_curve(seed)(trial, resource) * n_levels)

    asha = ASHA(max_t=eta**3, reduction_factor=eta, variant="promotion")
    study = Driver(asha, curve, num_trials=40, n_workers=n_workers, seed=seed).run()

    paper, n_free, jobs = PaperAsha(4, eta), n_workers, []
    for trial, resource in [(-1, 0), *study.reports]:
        if trial >= 0:
            k = [eta**i for i in range(4)].index(resource)
            paper.rungs[k][trial] = curve(trial, resource)
            n_free += 1
        while n_free and (job := paper.get_job(num_trials=40)):
            jobs.append((job[0], eta ** job[1]))
            n_free -= 1
    assert jobs_of(study) == jobs


def jobs_of(study):
    """(trial, until) of each segment, in the order in which they began."""
    jobs = []
    for record in study.records:
        match record:
            case Launched(trial, until=until) | Reported(trial, decision=Continue(until)):
                jobs.append((trial, until))
    return list(dict.fromkeys(jobs))  # a lost trial is launched again


@pytest.mark.parametrize("seed", range(5))
def test_failed_trials_take_no_promotion_from_the_others(seed):
    """Every rung has promoted as many as it may, whatever failed on the way."""
    mishaps = Mishaps(fails=0.2, lost=0.2, slow_saves=0.5)
    asha = ASHA(max_t=27, reduction_factor=3, variant="promotion")
    study = Driver(asha, noisy_curve(seed), 90, n_workers=6, seed=seed, mishaps=mishaps).run()
    went_on = Counter(until for _, until in jobs_of(study))
    for resource in (1, 3, 9):
        assert went_on[3 * resource] >= len(study.reached[0, resource]) // 3


# -- brackets ------------------------------------------------------------------------------------


def started(asha, num_trials):
    """Brackets of the first trials."""
    brackets = []
    for number in range(num_trials):
        action = asha.next_action({}, can_start=True)
        assert isinstance(action, Start)
        brackets.append(action.bracket)
        asha.on_launch(a_trial(number, until=action.until, bracket=action.bracket))
    return brackets


def test_brackets_share_the_trials_in_the_proportions_of_hyperband():
    """η^s/(s+1) for s = 3, 2, 1, 0 and η = 3: 27/4 : 3 : 3/2 : 1."""
    counts = Counter(started(AsyncHyperband(max_t=27, reduction_factor=3), 490))
    assert counts == {0: 270, 1: 120, 2: 60, 3: 40}


def test_each_prefix_of_the_study_is_near_these_proportions():
    brackets = started(AsyncHyperband(max_t=27, reduction_factor=3), 300)
    shares = {0: 27 / 4, 1: 3.0, 2: 1.5, 3: 1.0}
    for n in range(1, 301):
        counts = Counter(brackets[:n])
        for bracket, share in shares.items():
            assert abs(counts[bracket] - n * share / sum(shares.values())) < 2


def test_later_brackets_begin_at_later_milestones():
    asha = ASHA(max_t=27, reduction_factor=3, brackets=3)
    starts = {}
    for number in range(50):
        action = asha.next_action({}, can_start=True)
        starts[action.bracket] = action.until
        asha.on_launch(a_trial(number, until=action.until, bracket=action.bracket))
    assert starts == {0: 1, 1: 3, 2: 9}


def test_brackets_do_not_compare_their_trials_with_one_another():
    asha = ASHA(max_t=27, reduction_factor=3, brackets=2)
    decisions(asha, [0.1], resource=3, bracket=0)
    assert decisions(asha, [0.9], resource=3, bracket=1) == [Continue(until=9)]


def test_the_last_of_all_brackets_trains_without_being_judged():
    study = Driver(AsyncHyperband(max_t=9), noisy_curve(0), num_trials=60, n_workers=4).run()
    unjudged = {r.trial for r in study.records if isinstance(r, Suggested) and r.bracket == 2}
    assert unjudged
    assert {study.ended[trial] for trial in unjudged} == {(Status.COMPLETED, 9)}


# -- asking and arguments ------------------------------------------------------------------------


def test_asking_twice_gives_the_same_answer_and_the_same_future():
    asha = ASHA(max_t=9, reduction_factor=3, variant="promotion")
    decisions(asha, [1.0, 2.0, 3.0])
    asked = copy.deepcopy(asha)
    answers = {asked.next_action(paused(0, 1, 2), can_start=True) for _ in range(3)}
    assert answers == {Resume(0, until=3)}
    more = [0.5, 2.5, 0.7, 1.1, 0.1, 9.0]
    assert decisions(asked, more, resource=3) == decisions(asha, more, resource=3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_t": 5, "grace_period": 9}, ValueError, "max_t=5 is below grace_period=9"),
        ({"grace_period": 0}, ValueError, "grace_period=0 must be at least 1"),
        ({"reduction_factor": 1}, ValueError, "reduction_factor=1 must be at least 2"),
        ({"reduction_factor": 2.5}, TypeError, "reduction_factor=2.5 must be an int"),
        ({"brackets": 0}, ValueError, "brackets=0 must be between 1 and 4"),
        ({"brackets": 5}, ValueError, "brackets=5 must be between 1 and 4"),
        ({"brackets": 1.5}, ValueError, "brackets=1.5 must be an int between 1 and 4"),
        ({"variant": "pausing"}, ValueError, "variant='pausing' must be"),
        ({"compare": "first"}, ValueError, "compare='first' must be"),
    ],
)
def test_wrong_arguments_are_refused_with_what_would_be_right(options, error, message):
    with pytest.raises(error, match=message):
        ASHA(**{"max_t": 27, "grace_period": 1, **options})
