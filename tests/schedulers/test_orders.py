"""Whether the orders at rungs agree: tables of losses."""

from __future__ import annotations

import pytest

from daskhpo.core.types import Report
from daskhpo.schedulers.orders import Orders

LEVELS = (1, 3, 9, 27)


def a_trial(orders, number, losses, *, ends=LEVELS, is_main=True):
    """A trial with these losses at the levels, that reports at the ends of its segments."""
    curve, begin = [], 0
    for level, loss in zip(LEVELS, losses, strict=False):
        curve += [99.0] * (level - len(curve) - 1) + [float(loss)]
    for end in ends:
        if end <= len(curve):
            orders.add(number, Report(end, tuple(curve[begin:end]), min(curve[:end])), is_main)
            begin = end


def found(rows, **options):
    orders = Orders(LEVELS)
    for number, losses in enumerate(rows):
        a_trial(orders, number, losses, **options)
    orders._due = 0.0
    orders.add(-1, Report(1, (0.0,), 0.0), is_main=True)  # they are compared now
    return orders


def test_equal_orders_bear_one_another_out():
    orders = found([[n, n, n] for n in range(20)])
    assert orders.borne_out
    assert orders.first == 1


def test_few_trials_prove_nothing():
    assert not found([[n, n, n] for n in range(4)]).borne_out
    assert found([[n, -n, n] for n in range(4)]).first == 1


def test_the_first_two_pairs_of_rungs_need_enough_trials():
    assert not found([[n, n] for n in range(20)]).borne_out
    assert found([[n, n, n] for n in range(20)]).borne_out


@pytest.mark.parametrize(
    ("signs", "first"),
    [((-1, 1, 1, 1), 3), ((-1, -1, 1, 1), 9), ((1, 1, 1, -1), 27), ((1, -1, 1, 1), 9)],
)
def test_above_the_highest_refuted_order_none_is_refuted(signs, first):
    orders = found([[sign * n for sign in signs] for n in range(20)])
    assert orders.first == first
    assert not orders.borne_out


def test_orders_without_relation_are_neither_borne_out_nor_refuted():
    orders = found([[n * 7 % 20, n * 11 % 20, n] for n in range(20)])
    assert not orders.borne_out
    assert orders.first == 1


def test_equal_losses_are_no_order():
    orders = found([[1.0, 1.0, 1.0] for _ in range(20)])
    assert not orders.borne_out
    assert orders.first == 1


def test_orders_are_of_the_last_losses_not_of_the_best():
    assert found([[n, n + 100, 100 - n] for n in range(30)]).first == 9


def test_a_longer_first_segment_tells_about_the_rungs_below():
    assert found([[-n, -n, n] for n in range(20)], ends=(9,)).first == 9


def test_the_reserve_refutes_orders_but_does_not_bear_them_out():
    assert found([[-n, -n, n] for n in range(20)], is_main=False).first == 9
    assert not found([[n, n, n] for n in range(20)], is_main=False).borne_out


def test_trials_that_went_on_for_another_reason_refute_nothing():
    orders = Orders(LEVELS)
    for number in range(20):
        a_trial(orders, number, [number])
        orders.exclude(number)
        orders.add(number, Report(3, (0.0, -float(number)), 0.0), is_main=True)
    assert orders.first == 1


def test_what_was_refuted_early_may_be_right_later():
    orders = found([[n, -n, -n] for n in range(8)])
    assert orders.first == 3
    for number in range(100, 200):
        a_trial(orders, number, [number] * 3)
    assert orders.first == 1


def test_a_trial_that_ended_leaves_what_it_told():
    orders = found([[n, -n] for n in range(8)])
    for number in range(8):
        orders.forget(number, for_good=True)
    assert orders._newest.keys() == {-1}
    assert len(orders._fair[1]) == 8
