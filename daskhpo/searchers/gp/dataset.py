"""What has been seen so far: losses at points of the cube, failures, and what is still out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from daskhpo.core.types import Array, TrialId

MAX_PENDING = 256  # the newest ones; the oldest would tell nothing that those do not


class Observation(NamedTuple):
    """A loss: after ``resource`` units at a point of the cube; ``past``: in another study.

    A resource of 0 stands for full training.
    """

    unit: tuple[float, ...]
    resource: int
    loss: float
    past: bool = False


class Dataset:
    """All that the searcher was told, as points of the unit cube.

    Attributes
    ----------
    observations : by trial and resource, in order of arrival.
    failed : points whose trials failed.
    """

    def __init__(self, rows: Iterable[Observation], failed: Iterable[tuple[float, ...]]) -> None:
        self.observations: dict[tuple[TrialId, int], Observation] = {
            (-1 - i, row.resource): row for i, row in enumerate(rows)
        }
        self.failed = list(failed)
        self.n_reporting = len(self.observations) + len(self.failed)  #: trials that told something
        self.version = 0  #: grows with what is known
        self._pending: dict[TrialId, tuple[float, ...]] = {}
        self._heard: set[TrialId] = set()

    def started(self, trial: TrialId, unit: tuple[float, ...]) -> None:
        self._pending[trial] = unit

    def reported(self, trial: TrialId, row: Observation) -> None:
        self._pending.pop(trial, None)
        self.observations[trial, row.resource] = row
        self._hear(trial)

    def ended(self, trial: TrialId, unit: tuple[float, ...], failed: bool) -> None:
        self._pending.pop(trial, None)
        if failed:
            self.failed.append(unit)
            self._hear(trial)

    def _hear(self, trial: TrialId) -> None:
        self.version += 1
        if trial not in self._heard:
            self._heard.add(trial)
            self.n_reporting += 1

    @property
    def pending(self) -> Array:
        """The newest points that are out and have told nothing, (n, n_domains)."""
        newest = islice(reversed(self._pending.values()), MAX_PENDING)
        return np.array(list(newest))


def most_telling(rows: Sequence[Observation], n: int) -> Array:
    """Numbers of at most ``n`` rows, increasing.

    Half of them are the best of their resources (by rank among all rows of one resource, those of
    more resource first where ranks are equal); the others are spread evenly over the rest.
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
