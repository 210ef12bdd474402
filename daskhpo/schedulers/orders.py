"""Evidence on whether the orders of trials at the rungs of a ladder agree."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np

from daskhpo.core.ranks import rank_correlation
from daskhpo.core.types import Report, TrialId

LEAST_PAIRS = 5  # trials that reached two rungs, to compare their orders
BEARS_OUT, REFUTES = 1.0, -1.5  # standard deviations of a correlation of independent orders
AGAIN = 1.2  # growth of the number of reports after which the orders are compared again

Pairs = dict[int, list[tuple[float, float]]]  # losses at a level and at the next one


class Orders:
    """Record of whether the order of trials at a rung is that at the next one.

    Orders are those of the last losses: a loss that was low by chance stays the best so far.

    - They *bear one another out* if those of the main arm agree at each pair of neighbouring rungs
      with enough trials, and the first two pairs have enough.
    - An order is *refuted* if it is rather the opposite of that at the next rung. This is judged by
      trials of both arms whose losses alone took them there, if anything: a trial that the model
      rescued has a bad loss and a good prospect, so it speaks against any order. A trial whose
      first rung is a higher one was not selected at the lower ones at all.

    Attributes
    ----------
    borne_out : True if the main arm's orders bear one another out.
    first : the lowest level from which on no order is refuted.
    """

    def __init__(self, levels: tuple[int, ...]) -> None:
        self.borne_out, self.first = False, levels[0]
        self._main: Pairs = {}
        self._fair: Pairs = {}
        self.extend(levels)
        self._newest: dict[TrialId, tuple[int, float]] = {}  # level, and loss there
        self._unfair: set[TrialId] = set()
        self._n, self._due = 0, 1.0

    def extend(self, levels: tuple[int, ...]) -> None:
        """Add the levels of a longer ladder, which begins with those of this one."""
        self._levels, self._next_of = levels, dict(pairwise(levels))
        for pairs in (self._main, self._fair):
            pairs |= {level: [] for level in levels[:-1] if level not in pairs}

    def resume(self, trial: TrialId, level: int, loss: float) -> None:
        """Note the newest level of a trial that ended, and now may train further."""
        self._newest[trial] = level, loss

    def exclude(self, trial: TrialId) -> None:
        """Note that a trial continues for another reason than its losses."""
        self._unfair.add(trial)

    def add(self, trial: TrialId, report: Report, is_main: bool) -> None:
        """Add a trial's losses at the levels of its segment."""
        for level, loss in self._at_levels(report):
            below = self._newest.get(trial)
            if below is not None and self._next_of[below[0]] == level:
                pair = below[1], loss
                if is_main:
                    self._main[below[0]].append(pair)
                if trial not in self._unfair:
                    self._fair[below[0]].append(pair)
            self._newest[trial] = level, loss
        self._n += 1
        if self._n >= self._due:
            self._due = AGAIN * self._n
            self.borne_out = self._bear_out()
            self.first = self._first()

    def forget(self, trial: TrialId, *, for_good: bool) -> None:
        """Forget a trial that ended; what it told stays.

        ``for_good``: no extension will resume it.
        """
        self._newest.pop(trial, None)
        if for_good:
            self._unfair.discard(trial)

    def _at_levels(self, report: Report) -> Iterator[tuple[int, float]]:
        """Yield the levels among the report's units, with the losses there."""
        before = report.resource - len(report.losses)
        for level in self._levels:
            if before < level <= report.resource:
                yield level, report.losses[level - before - 1]

    def _bear_out(self) -> bool:
        for number, pairs in enumerate(self._main.values()):
            if len(pairs) < LEAST_PAIRS:
                return number >= min(2, len(self._main))
            if not _evidence(pairs) >= BEARS_OUT:  # NaN: no order at all
                return False
        return True

    def _first(self) -> int:
        refuted = [
            level
            for level, pairs in self._fair.items()
            if len(pairs) >= LEAST_PAIRS and _evidence(pairs) <= REFUTES
        ]
        return self._next_of[refuted[-1]] if refuted else self._levels[0]


def _evidence(pairs: Iterable[tuple[float, float]]) -> float:
    """Return the rank correlation in its standard deviations if there were none."""
    one, other = np.array(pairs).T
    return rank_correlation(one, other) * math.sqrt(len(one) - 1)
