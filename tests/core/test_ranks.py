"""Ranks and their correlation, beside scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, rankdata, spearmanr

from daskhpo.core.ranks import mean_ranks, rank_correlation, sign_test

numbers = st.integers(0, 5).map(float) | st.just(math.inf)  # few, so that many are equal


@given(st.lists(numbers, min_size=1))
def test_equal_values_share_the_mean_of_their_ranks(values):
    assert mean_ranks(np.array(values)).tolist() == (rankdata(values) - 1).tolist()


@given(st.lists(st.tuples(numbers, numbers), min_size=2))
def test_the_correlation_is_spearmans(pairs):
    one, other = np.array(pairs).T
    found = rank_correlation(one, other)
    if min(len(set(one)), len(set(other))) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(spearmanr(rankdata(one), rankdata(other)).statistic)


@pytest.mark.parametrize(("wins", "losses", "ties"), [(0, 0, 3), (10, 0, 0), (9, 1, 2), (3, 5, 1)])
def test_a_sign_test_is_a_binomial_test_without_ties(wins, losses, ties):
    one = [1.0] * wins + [math.inf] * losses + [2.0] * ties
    other = [math.inf] * wins + [3.0] * losses + [2.0] * ties
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(one, other) == pytest.approx(expected)
