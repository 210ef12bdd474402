"""What a head decides about its own job."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.remote.chain import Broke, OutOfTime, Over, goes_on, stop_seconds

HOUR = 3600.0


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (Over(), False),
        (OutOfTime(), True),
        (Broke(reported=True), True),
        (Broke(reported=False), False),
    ],
    ids=repr,
)
def test_the_next_link_goes_on(end, expected):
    assert goes_on(end) is expected


def test_before_any_unit_is_known_a_minute_is_enough():
    assert stop_seconds(12 * HOUR, 0.0) == 60.0


def test_a_unit_that_has_just_begun_is_waited_for():
    assert stop_seconds(12 * HOUR, 600.0) == 60.0 + 1.2 * 600.0


def test_a_short_job_gives_a_quarter_of_itself_up_at_most():
    assert stop_seconds(120.0, 0.0) == 30.0
    assert stop_seconds(4 * HOUR, 3 * HOUR) == HOUR


@given(st.floats(60, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_longer_units_need_an_earlier_stop_and_some_work_is_always_done(walltime, unit, more):
    assert stop_seconds(walltime, unit) <= stop_seconds(walltime, unit + more) < walltime / 2
