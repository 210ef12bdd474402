from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.checkpoints.write_policy import WriteCost, should_write
from daskhpo.core.types import ReuseProbability

chances = st.sampled_from(ReuseProbability)
seconds = st.floats(0, 1e7)
costs = st.floats(1e-3, 1e4)
durabilities = st.floats(0, 1e6) | st.just(inf)


@pytest.mark.parametrize(
    ("chance", "unsaved", "cost", "parked", "leaving"),
    [
        # chance, unsaved seconds, cost in seconds, worth it while it stays, when it leaves
        (ReuseProbability.CERTAIN, 0.0, 1e9, True, True),
        (ReuseProbability.LIKELY, 101.0, 1.0, True, True),  # the meaning of durability=100
        (ReuseProbability.LIKELY, 99.0, 1.0, False, True),
        (ReuseProbability.LIKELY, 5.1, 1.0, False, True),  # 0.2 * 5.1 s > 1 s
        (ReuseProbability.LIKELY, 4.9, 1.0, False, False),
        (ReuseProbability.LIKELY, 6.0, 0.05, True, True),
        (ReuseProbability.LIKELY, 4.0, 0.05, False, True),
        (ReuseProbability.UNLIKELY, 1_001.0, 1.0, False, True),  # 0.001 * 1001 s > 1 s
        (ReuseProbability.UNLIKELY, 999.0, 1.0, False, False),
        (ReuseProbability.UNLIKELY, 20_001.0, 1.0, True, True),
        (ReuseProbability.UNLIKELY, 19_999.0, 1.0, False, True),
        (ReuseProbability.LIKELY, 0.0, 1e-3, False, False),  # nothing to lose
    ],
)
def test_a_state_is_written_when_the_expected_loss_exceeds_the_cost(
    chance, unsaved, cost, parked, leaving
):
    assert should_write(chance, unsaved, cost, is_evicting=False) is parked
    assert should_write(chance, unsaved, cost, is_evicting=True) is leaving


@pytest.mark.parametrize("durability", [5.0, 10.0, 100.0, 3000.0, 1.0, 0.5])
def test_a_parked_state_with_a_real_chance_is_written_above_durability_times_the_cost(durability):
    for factor, expected in ((1.01, True), (0.99, False)):
        found = should_write(
            ReuseProbability.LIKELY,
            factor * durability * 3.0,
            3.0,
            is_evicting=False,
            durability=durability,
        )
        assert found is expected


def test_without_durability_all_that_holds_work_is_written():
    for leaving in (True, False):
        assert should_write(ReuseProbability.UNLIKELY, 1e-3, 1e3, is_evicting=leaving, durability=0)
        assert not should_write(
            ReuseProbability.UNLIKELY, 0.0, 1e3, is_evicting=leaving, durability=0
        )


def test_with_infinite_durability_only_what_leaves_is_written():
    assert not should_write(ReuseProbability.LIKELY, 1e9, 1.0, is_evicting=False, durability=inf)
    assert should_write(ReuseProbability.LIKELY, 1e9, 1.0, is_evicting=True, durability=inf)


@given(chances, seconds, costs, durabilities)
def test_what_is_worth_writing_while_it_stays_is_so_when_it_leaves(
    chance, unsaved, cost, durability
):
    if should_write(chance, unsaved, cost, is_evicting=False, durability=durability):
        assert should_write(chance, unsaved, cost, is_evicting=True, durability=durability)


@given(chances, seconds, seconds, costs, st.booleans(), durabilities)
def test_more_work_never_makes_a_write_less_worth(chance, unsaved, more, cost, leaving, durability):
    if should_write(chance, unsaved, cost, is_evicting=leaving, durability=durability):
        assert should_write(
            chance, unsaved + more, cost, is_evicting=leaving, durability=durability
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
