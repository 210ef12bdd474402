"""Which of many points, curves and rows are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from daskhpo.core.types import Array

BEST_SHARE = 10  # all of the best tenth are drawn
_SPREAD = 2_654_435_761  # Knuth's multiplicative hash: neighbours land far apart


def chosen(losses: Array, limit: int, always: Sequence[int] = ()) -> Array:
    """Return the trials to draw, in order: the best tenth and a sample of the rest.

    The sample is the same whenever it is drawn, and only grows or is halved as trials are added:
    what is drawn does not flicker.

    Parameters
    ----------
    losses : best loss of each trial; inf: none.
    limit : greatest number of trials.
    always : trials that are drawn in any case, as far as the limit allows.
    """
    n = len(losses)
    if n <= limit:
        return np.arange(n)
    best = best_first(losses, min(n // BEST_SHARE, limit // 2))
    taken = np.zeros(n, bool)
    taken[best] = True
    taken[[*always][: limit - len(best)]] = True
    taken[sample(n, limit - int(taken.sum()))] = True
    return np.flatnonzero(taken)


def sample(n: int, limit: int) -> Array:
    """Return at most ``limit`` of the numbers below ``n``, spread evenly."""
    if limit <= 0:
        return np.arange(0)
    hashed = (np.arange(n, dtype=np.uint64) * np.uint64(_SPREAD)) % np.uint64(2**32)
    part = np.uint64(2**32)
    numbers = np.arange(n)
    while len(numbers) > limit:
        part //= np.uint64(2)
        numbers = numbers[hashed[numbers] < part]
    return numbers


def best_first(losses: Array, k: int) -> Array:
    """Return the numbers of the ``k`` smallest finite losses, the smallest first."""
    finite = np.flatnonzero(np.isfinite(losses))
    if k < len(finite):
        finite = finite[np.argpartition(losses[finite], k)[:k]] if k else finite[:0]
    return finite[np.lexsort((finite, losses[finite]))]


def thinned(n: int, limit: int) -> Array:
    """Return at most ``limit`` places among ``n``, evenly, with both ends."""
    return (
        np.arange(n) if n <= limit else np.unique(np.linspace(0, n - 1, limit).round().astype(int))
    )
