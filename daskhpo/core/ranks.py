"""Ranks of numbers, and their correlation."""

from __future__ import annotations

import numpy as np

from daskhpo.core.types import Array


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
