"""Milestones, brackets, and rungs against plain sorting."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.core.rungs import Level, Rung, halving_levels, hyperband_brackets, milestones

# -- milestones ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_t", "grace_period", "eta", "expected"),
    [
        (81, 3, 3, (3, 9, 27, 81)),
        (1, 1, 2, (1,)),
        (9, 9, 3, (9,)),
        (100, 1, 3, (1, 3, 9, 27, 81, 100)),
        (10, 4, 3, (4, 10)),
        (243, 1, 3, (1, 3, 9, 27, 81, 243)),  # log(243, 3) < 5 in floating point
        (59049, 1, 3, tuple(3**k for k in range(11))),
        (1000, 1, 10, (1, 10, 100, 1000)),  # log(1000, 10) < 3
        (10**6, 1, 10, tuple(10**k for k in range(7))),
    ],
)
def test_milestones_are_multiples_up_to_max_t(max_t, grace_period, eta, expected):
    assert milestones(max_t, grace_period, eta) == expected


@given(st.integers(1, 10**9), st.integers(1, 50), st.integers(2, 10))
def test_milestones_increase_by_at_most_eta_and_end_at_max_t(max_t, grace_period, eta):
    if max_t < grace_period:
        return
    found = milestones(max_t, grace_period, eta)
    assert (found[0], found[-1]) == (grace_period, max_t)
    steps = list(itertools.pairwise(found))
    assert all(a * eta == b for a, b in steps[:-1])
    assert all(a < b <= a * eta for a, b in steps)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((5, 9, 3), ValueError, "max_t=5 is below grace_period=9; a trial could never reach"),
        ((9, 0, 3), ValueError, "grace_period=0 must be at least 1"),
        ((9, 1, 1), ValueError, "reduction_factor=1 must be at least 2"),
        ((9.0, 1, 3), TypeError, "max_t=9.0 must be an int of at least 1: resources count units"),
        ((9, True, 3), TypeError, "grace_period=True must be an int"),
        ((9, 1, "3"), TypeError, "reduction_factor='3' must be an int"),
    ],
)
def test_values_that_give_no_ladder_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        milestones(*given)
    with pytest.raises(error, match=message):
        hyperband_brackets(*given)


# -- Hyperband -----------------------------------------------------------------------------------


def as_pairs(brackets):
    return [[(level.n_trials, level.resource) for level in levels] for levels in brackets]


def test_the_brackets_for_81_and_3_are_table_1_of_the_paper():
    """Li et al. 2018, Table 1: (n_i, r_i) for s = 4, 3, 2, 1, 0."""
    assert as_pairs(hyperband_brackets(81, 1, 3)) == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(27, 3), (9, 9), (3, 27), (1, 81)],
        [(9, 9), (3, 27), (1, 81)],
        [(6, 27), (2, 81)],
        [(5, 81)],
    ]


@pytest.mark.parametrize(
    ("max_t", "grace_period", "eta", "expected"),
    [
        (9, 1, 3, [[(9, 1), (3, 3), (1, 9)], [(3, 3), (1, 9)], [(3, 9)]]),
        (81, 9, 3, [[(9, 9), (3, 27), (1, 81)], [(3, 27), (1, 81)], [(3, 81)]]),
        (10, 1, 3, [[(9, 1), (3, 3), (1, 10)], [(3, 3), (1, 10)], [(3, 10)]]),
        (8, 1, 4, [[(4, 2), (1, 8)], [(2, 8)]]),
        (5, 5, 2, [[(1, 5)]]),
    ],
)
def test_other_brackets_follow_the_same_rule(max_t, grace_period, eta, expected):
    assert as_pairs(hyperband_brackets(max_t, grace_period, eta)) == expected


@pytest.mark.parametrize(
    ("max_t", "eta", "n_brackets"), [(243, 3, 6), (59049, 3, 11), (1000, 10, 4), (242, 3, 5)]
)
def test_the_number_of_brackets_is_exact_at_powers(max_t, eta, n_brackets):
    assert len(hyperband_brackets(max_t, 1, eta)) == n_brackets


@given(st.integers(1, 5000), st.integers(1, 20), st.integers(2, 6))
def test_each_bracket_climbs_from_the_grace_period_to_max_t_with_ever_fewer_trials(
    max_t, grace_period, eta
):
    if max_t < grace_period:
        return
    for levels in hyperband_brackets(max_t, grace_period, eta):
        assert grace_period <= levels[0].resource
        assert levels[-1].resource == max_t
        assert levels[-1].n_trials >= 1
        for low, high in itertools.pairwise(levels):
            assert low.resource < high.resource
            assert high.n_trials == low.n_trials // eta


def test_a_bracket_keeps_the_floor_of_its_share():
    assert halving_levels(10, 9, 2, 3) == (Level(10, 1), Level(3, 3), Level(1, 9))


# -- rungs ---------------------------------------------------------------------------------------


class NaiveRung:
    """The same questions, answered by sorting everything."""

    def __init__(self, eta):
        self.eta, self.losses, self.settled = eta, {}, set()

    def top(self):
        ranked = sorted(self.losses, key=lambda trial: (self.losses[trial], trial))
        return ranked[: len(ranked) // self.eta]

    def cutoff(self):
        if not self.losses:
            return None
        return max((self.losses[t] for t in self.top()), default=min(self.losses.values()))

    def may_rise(self, trial):
        n = len(self.losses)
        own = (self.losses[trial], trial)
        n_better = sum((loss, other) < own for other, loss in self.losses.items())
        return n < 2 * self.eta or n_better < math.ceil(n * (1 / self.eta + 0.15))

    def promotable(self, can_go):
        return next((t for t in self.top() if t not in self.settled and can_go(t)), None)


@given(
    eta=st.integers(2, 5),
    losses=st.lists(st.integers(-4, 4) | st.floats(-5, 5), max_size=60),
    random=st.randoms(use_true_random=False),
)
def test_a_rung_answers_as_if_it_were_sorted_each_time(eta, losses, random):
    rung, naive = Rung(eta), NaiveRung(eta)
    numbers = random.sample(range(len(losses)), len(losses))
    for trial, loss in zip(numbers, losses, strict=True):
        rung.insert(trial, loss)
        naive.losses[trial] = loss
        assert rung.cutoff() == naive.cutoff()
        assert [t for t in sorted(naive.losses) if rung.in_top(t)] == sorted(naive.top())
        rising = {t for t in naive.losses if rung.may_rise(t)}
        assert rising == {t for t in naive.losses if naive.may_rise(t)}
        assert set(naive.top()) <= rising
        busy = set(random.sample(numbers, len(numbers) // 3))
        for can_go in (lambda t: t not in busy, lambda t: True, lambda t: False):  # noqa: B023
            assert rung.promotable(can_go) == naive.promotable(can_go)
        if random.random() < 0.5 and (promoted := naive.promotable(lambda t: True)) is not None:
            rung.settle(promoted)
            naive.settled.add(promoted)
        if random.random() < 0.2:  # some trial ends, or has ended, or is not here
            rung.settle(ended := random.choice([*numbers, -1]))
            naive.settled.update({ended} & set(naive.losses))


def test_an_empty_rung_has_no_cutoff_and_nobody_to_promote():
    rung = Rung(3)
    assert (rung.cutoff(), rung.promotable(lambda trial: True), len(rung)) == (None, None, 0)


def test_a_rung_knows_its_trials():
    rung = Rung(3)
    rung.insert(4, 0.5)
    assert 4 in rung
    assert 5 not in rung
    assert len(rung) == 1


def test_equal_losses_rank_by_trial_number():
    rung = Rung(2)
    for trial in (3, 1, 2, 0):
        rung.insert(trial, 0.5)
    assert [rung.in_top(trial) for trial in range(4)] == [True, True, False, False]


def test_while_a_rung_is_young_anyone_may_rise_then_only_who_is_near_the_top():
    rung = Rung(4)
    for trial in range(7):
        rung.insert(trial, float(trial))
    assert [trial for trial in range(7) if rung.may_rise(trial)] == list(range(7))
    rung.insert(7, 7.0)  # from 2·4 on: the best ⌈8·0.4⌉ = 4
    assert [trial for trial in range(8) if rung.may_rise(trial)] == [0, 1, 2, 3]
    for trial in (8, 9, 10):
        rung.insert(trial, 0.5 + trial / 100)  # and others overtake: the best ⌈11·0.4⌉ = 5
    assert [trial for trial in range(11) if rung.may_rise(trial)] == [0, 1, 8, 9, 10]
    for trial in (11, 12, 13):
        rung.insert(trial, 99.0)  # more losses make room: the best ⌈14·0.4⌉ = 6
    assert [trial for trial in range(14) if rung.may_rise(trial)] == [0, 1, 2, 8, 9, 10]


def test_who_fell_out_of_the_top_and_came_back_can_be_promoted():
    rung = Rung(2)
    for trial, loss in [(0, 1.0), (1, 2.0), (2, 0.5), (3, 3.0)]:
        rung.insert(trial, loss)  # the top is {0}, then {2}, then {2, 0}
    rung.settle(2)
    assert rung.promotable(lambda trial: True) == 0


def counted(name):
    """A comparison of floats that is counted."""

    def compare(self, other):
        Counted.n += 1
        return getattr(float, name)(self, other)

    return compare


class Counted(float):
    """A loss that counts how often it is compared."""

    n = 0
    __lt__, __gt__, __eq__ = counted("__lt__"), counted("__gt__"), counted("__eq__")
    __le__, __ge__, __hash__ = counted("__le__"), counted("__ge__"), float.__hash__

    def __neg__(self):
        return Counted(-float(self))


def test_a_hundred_thousand_entries_take_a_few_comparisons_each():
    rung = Rung(3)
    n = 100_000
    for trial in range(n):
        rung.insert(trial, (trial * 7919 % n) / n)  # a permutation
        if trial % 3 == 0 and (best := rung.promotable(lambda trial: True)) is not None:
            rung.settle(best)
    worst = 0
    for trial in range(n, n + 300):
        before = Counted.n
        rung.insert(trial, Counted(trial * 31 % 300 / 300))
        rung.in_top(trial)
        rung.may_rise(trial)
        rung.cutoff()
        worst = max(worst, Counted.n - before)
    assert 0 < worst < 200  # log2(100,000) is 17; five heaps, two comparisons a level
