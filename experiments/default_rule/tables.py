"""Recorded tables as the races use them, also with misleading data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from daskhpo.core.space import Space
from daskhpo.core.types import Array, Config
from daskhpo.simulation.curves import RecordedCurve
from experiments.simulated.tables import LCBENCH, TASKSET, Task, lcbench, taskset

SPACES = {"LCBench": LCBENCH, "TaskSet": TASKSET}
SHUFFLED = "shuffled"  # each configuration has another one's curve: its values tell nothing
REVERSED = "reversed"  # early ranks are reversed
N_REVERSED = 3  # units
HUNDREDTH, FEW = 0.01, 0.002  # shares of the configurations that are good enough


@dataclass(frozen=True)
class Table:
    """Curves of a task, and the space of their configurations.

    Attributes
    ----------
    variant : what was done to them: ``""``, ``SHUFFLED`` or ``REVERSED``.
    """

    task: Task
    variant: str = ""

    @property
    def space(self) -> Space:
        return SPACES[self.task.family]

    @cached_property
    def units(self) -> Array:
        """Points of the configurations in the unit cube, (n, n_domains)."""
        rows = [self.space.to_unit(config) for config in self.task.curves.configs]
        units: Array = np.clip(np.array(rows), 0.0, 1.0)
        return units

    @cached_property
    def curves(self) -> tuple[RecordedCurve, ...]:
        """The curve of each configuration."""
        curves = self.task.curves.curves
        if self.variant == SHUFFLED:
            order = np.random.default_rng(len(curves)).permutation(len(curves))
            return tuple(curves[i] for i in order)
        return _reversed(self.task) if self.variant == REVERSED else curves

    @cached_property
    def seconds(self) -> float:
        """Seconds of a full training: the median."""
        max_t = self.task.curves.max_t
        return float(np.median([curve.seconds(max_t) for curve in self.curves]))

    @cached_property
    def best(self) -> Array:
        """The best metric of each configuration at any unit, sorted; inf if it has none."""
        units = range(1, self.task.curves.max_t + 1)
        losses = np.array([[curve.metric(r) for r in units] for curve in self.curves])
        best: Array = np.sort(np.where(np.isfinite(losses), losses, np.inf).min(axis=1))
        return best

    def target(self, share: float) -> float:
        """Return the metric that this share of the configurations reaches at some unit."""
        return float(np.quantile(self.best, share))

    def rank(self, metric: float) -> float:
        """Return the share of the configurations that reach this metric, or a better one."""
        return float(np.searchsorted(self.best, metric, side="right")) / len(self.best)

    def source(self) -> Callable[[Config], RecordedCurve]:
        """Return the source of curves: that of the nearest recorded configuration."""
        return partial(_nearest, self.space, self.units, self.curves)


def _nearest(space: Space, units: Array, curves: Any, config: Config) -> RecordedCurve:
    apart = units - np.array(space.to_unit(config))
    found: RecordedCurve = curves[int(np.argmin(np.einsum("ij,ij->i", apart, apart)))]
    return found


def _reversed(task: Task) -> tuple[RecordedCurve, ...]:
    """Give the k-th best finite value of an early unit to the k-th worst trial."""
    max_t = task.curves.max_t
    values = np.array([[c.metric(r) for r in range(1, max_t + 1)] for c in task.curves.curves])
    for unit in range(N_REVERSED):
        finite = np.flatnonzero(np.isfinite(values[:, unit]))
        order = finite[np.argsort(values[finite, unit], kind="stable")]
        values[order, unit] = values[order[::-1], unit].copy()
    times = [[c.seconds(r) for r in range(1, max_t + 1)] for c in task.curves.curves]
    return tuple(RecordedCurve(*pair) for pair in zip(values.tolist(), times, strict=True))


@cache
def tables(folder: Path) -> dict[tuple[str, str], Table]:
    """Load all tables of a folder, by task and variant."""
    tasks = [*lcbench(folder), *taskset(folder)]
    return {(t.name, v): Table(t, v) for t in tasks for v in ("", SHUFFLED, REVERSED)}
