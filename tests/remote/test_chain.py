"""What a head decides about its own job."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.remote.chain import Crashed, Finished, WalltimeReached, should_continue, stop_margin

HOUR = 3600.0


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (Finished(), False),
        (WalltimeReached(), True),
        (Crashed(reported=True), True),
        (Crashed(reported=False), False),
    ],
    ids=repr,
)
def test_the_next_link_goes_on(end, expected):
    assert should_continue(end) is expected


def test_before_any_unit_is_known_a_minute_is_enough():
    assert stop_margin(12 * HOUR, 0.0) == 60.0


def test_a_unit_that_has_just_begun_is_waited_for():
    assert stop_margin(12 * HOUR, 600.0) == 60.0 + 1.2 * 600.0


def test_a_short_job_gives_a_quarter_of_itself_up_at_most():
    assert stop_margin(120.0, 0.0) == 30.0
    assert stop_margin(4 * HOUR, 3 * HOUR) == HOUR


@given(st.floats(60, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_longer_units_need_an_earlier_stop_and_some_work_is_always_done(walltime, unit, more):
    assert stop_margin(walltime, unit) <= stop_margin(walltime, unit + more) < walltime / 2
