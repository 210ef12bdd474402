"""The running median against sorting."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.core.medians import RunningMedian


@given(st.lists(st.integers(-3, 3) | st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_it_is_the_median_after_each_value(values):
    median = RunningMedian()
    for n, value in enumerate(values, start=1):
        median.insert(value)
        assert median.value() == statistics.median(values[:n])
        assert len(median) == n


def test_of_an_even_number_it_is_the_mean_of_the_two_in_the_middle():
    median = RunningMedian()
    for value in (4.0, 1.0, 100.0, 2.0):
        median.insert(value)
    assert median.value() == 3.0


def test_nothing_has_no_median():
    with pytest.raises(AssertionError, match="no value"):
        RunningMedian().value()
