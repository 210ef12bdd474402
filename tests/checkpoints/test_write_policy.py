from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.checkpoints.write_policy import WriteCost, is_worth_writing
from daskhpo.core.types import Chance

chances = st.sampled_from(Chance)
seconds = st.floats(0, 1e7)
costs = st.floats(1e-3, 1e4)
durabilities = st.floats(0, 1e6) | st.just(inf)


@pytest.mark.parametrize(
    ("chance", "unsaved", "cost", "parked", "leaving"),
    [
        # chance, unsaved seconds, cost in seconds, worth it while it stays, when it leaves
        (Chance.SURE, 0.0, 1e9, True, True),
        (Chance.REAL, 101.0, 1.0, True, True),  # the meaning of durability=100
        (Chance.REAL, 99.0, 1.0, False, True),
        (Chance.REAL, 5.1, 1.0, False, True),  # 0.2 * 5.1 s > 1 s
        (Chance.REAL, 4.9, 1.0, False, False),
        (Chance.REAL, 6.0, 0.05, True, True),
        (Chance.REAL, 4.0, 0.05, False, True),
        (Chance.POOR, 1_001.0, 1.0, False, True),  # 0.001 * 1001 s > 1 s
        (Chance.POOR, 999.0, 1.0, False, False),
        (Chance.POOR, 20_001.0, 1.0, True, True),
        (Chance.POOR, 19_999.0, 1.0, False, True),
        (Chance.REAL, 0.0, 1e-3, False, False),  # nothing to lose
    ],
)
def test_a_state_is_written_when_the_expected_loss_exceeds_the_cost(
    chance, unsaved, cost, parked, leaving
):
    assert is_worth_writing(chance, unsaved, cost, is_leaving=False) is parked
    assert is_worth_writing(chance, unsaved, cost, is_leaving=True) is leaving


@pytest.mark.parametrize("durability", [5.0, 10.0, 100.0, 3000.0, 1.0, 0.5])
def test_a_parked_state_with_a_real_chance_is_written_above_durability_times_the_cost(durability):
    for factor, expected in ((1.01, True), (0.99, False)):
        found = is_worth_writing(
            Chance.REAL, factor * durability * 3.0, 3.0, is_leaving=False, durability=durability
        )
        assert found is expected


def test_without_durability_all_that_holds_work_is_written():
    for leaving in (True, False):
        assert is_worth_writing(Chance.POOR, 1e-3, 1e3, is_leaving=leaving, durability=0)
        assert not is_worth_writing(Chance.POOR, 0.0, 1e3, is_leaving=leaving, durability=0)


def test_with_infinite_durability_only_what_leaves_is_written():
    assert not is_worth_writing(Chance.REAL, 1e9, 1.0, is_leaving=False, durability=inf)
    assert is_worth_writing(Chance.REAL, 1e9, 1.0, is_leaving=True, durability=inf)


@given(chances, seconds, costs, durabilities)
def test_what_is_worth_writing_while_it_stays_is_so_when_it_leaves(
    chance, unsaved, cost, durability
):
    if is_worth_writing(chance, unsaved, cost, is_leaving=False, durability=durability):
        assert is_worth_writing(chance, unsaved, cost, is_leaving=True, durability=durability)


@given(chances, seconds, seconds, costs, st.booleans(), durabilities)
def test_more_work_never_makes_a_write_less_worth(chance, unsaved, more, cost, leaving, durability):
    if is_worth_writing(chance, unsaved, cost, is_leaving=leaving, durability=durability):
        assert is_worth_writing(
            chance, unsaved + more, cost, is_leaving=leaving, durability=durability
        )


# -- the cost ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_bytes", "expected"), [(0, 0.02), (2_000_000, 0.03), (10**9, 5.02)])
def test_before_a_measurement_a_write_costs_what_a_plain_disk_takes(n_bytes, expected):
    assert WriteCost().seconds(n_bytes) == pytest.approx(expected)


@pytest.mark.parametrize("factor", [1 / 50, 0.5, 1.0, 3.0, 80.0])
def test_the_estimate_comes_to_what_is_measured(factor):
    cost = WriteCost()
    for n_bytes in (10**5, 10**8) * 20:
        cost.observe(n_bytes, factor * (0.02 + n_bytes / 200e6))
    assert cost.seconds(10**7) == pytest.approx(factor * 0.07, rel=0.02)


def test_one_measurement_counts_a_quarter():
    cost = WriteCost()
    cost.observe(0, 0.06)
    assert cost.seconds(0) == pytest.approx(0.02 * (0.75 * 1 + 0.25 * 3))


@pytest.mark.parametrize("measured", [0.0, 1e6])
def test_one_hiccup_does_not_move_the_estimate_out_of_reach(measured):
    cost = WriteCost()
    cost.observe(10**6, measured)
    assert 0.7 < cost.seconds(0) / 0.02 < 3.5
