"""Ranks of numbers, their correlation, and a test of pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from daskhpo.core.types import Array

UNSURE = 0.05  # significance level: a larger p-value may be chance


def mean_ranks(values: Array) -> Array:
    """Return the ranks from 0; equal values have the mean of their ranks."""
    _, place, n_equal = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(n_equal)
    ranks: Array = (last - (n_equal + 1) / 2)[place]
    return ranks


def rank_correlation(one: Array, other: Array) -> float:
    """Return Spearman's correlation; NaN if all values on one side are equal."""
    x, y = (ranks - ranks.mean() for ranks in (mean_ranks(one), mean_ranks(other)))
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else float("nan")


def sign_test(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the two-sided p-value of a sign test of pairs; ties do not count."""
    wins = sum(x < y for x, y in zip(a, b, strict=True))
    losses = sum(x > y for x, y in zip(a, b, strict=True))
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1)) / float(2**n)
    return min(1.0, 2 * tail)
