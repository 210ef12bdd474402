"""The model's data: losses at points of the cube, failures, pending points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from daskhpo.core.types import Array, TrialId

MAX_PENDING = 256  # the newest pending points; older ones would add no information


class Observation(NamedTuple):
    """A loss at a point of the unit cube.

    Attributes
    ----------
    resource : units of training; 0: full training.
    past : True if the loss was observed in another study.
    """

    unit: tuple[float, ...]
    resource: int
    loss: float
    past: bool = False


class Dataset:
    """All reports to the searcher, as points of the unit cube.

    Attributes
    ----------
    observations : by trial and resource, in order of arrival.
    failed : points of failed trials.
    n_reporting : number of trials with a loss or a failure.
    version : increases with each report and failure.
    """

    def __init__(self, rows: Iterable[Observation], failed: Iterable[tuple[float, ...]]) -> None:
        self.observations: dict[tuple[TrialId, int], Observation] = {
            (-1 - i, row.resource): row for i, row in enumerate(rows)
        }
        self.failed = list(failed)
        self.n_reporting = len(self.observations) + len(self.failed)
        self.version = 0
        self._pending: dict[TrialId, tuple[float, ...]] = {}
        self._reporting: set[TrialId] = set()
        self._failed_at: dict[TrialId, tuple[float, ...]] = {}

    def started(self, trial: TrialId, unit: tuple[float, ...]) -> None:
        self._pending[trial] = unit

    def reported(self, trial: TrialId, row: Observation) -> None:
        self._pending.pop(trial, None)
        if trial in self._failed_at:  # it ran again
            self.failed.remove(self._failed_at.pop(trial))
        self.observations[trial, row.resource] = row
        self._count(trial)

    def ended(self, trial: TrialId, unit: tuple[float, ...], failed: bool) -> None:
        self._pending.pop(trial, None)
        if failed:
            self.failed.append(unit)
            self._failed_at[trial] = unit
            self._count(trial)

    def _count(self, trial: TrialId) -> None:
        self.version += 1
        if trial not in self._reporting:
            self._reporting.add(trial)
            self.n_reporting += 1

    @property
    def pending(self) -> Array:
        """The newest points suggested or running without a report, (n, n_domains)."""
        newest = islice(reversed(self._pending.values()), MAX_PENDING)
        return np.array(list(newest))

    @property
    def known(self) -> Array:
        """All points with a loss, a failure or a trial that runs, (n, n_domains)."""
        observed = (row.unit for row in self.observations.values())
        return np.array([*observed, *self.failed, *self._pending.values()])


def most_telling(rows: Sequence[Observation], n: int) -> Array:
    """Select the ``n`` most informative observations; return increasing indices.

    Half of them have the best ranks among those of their resource (ties: more resource first). The
    others are spread evenly over the rest. Up to ``n`` observations are all selected.
    """
    if len(rows) <= n:
        return np.arange(len(rows))
    resources = np.array([row.resource for row in rows])
    losses = np.array([row.loss for row in rows])
    rank = np.empty(len(rows))
    for resource in np.unique(resources):
        of_it = np.flatnonzero(resources == resource)
        rank[of_it[np.argsort(losses[of_it], kind="stable")]] = np.arange(len(of_it)) / len(of_it)
    order = np.lexsort((-resources, rank))
    best, rest = order[: n // 2], np.sort(order[n // 2 :])
    spread = rest[np.linspace(0, len(rest) - 1, n - len(best)).astype(int)]
    return np.sort(np.concatenate([best, spread]))
