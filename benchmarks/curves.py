"""Recorded learning curves as tasks for simulated studies.

The folder of the curves is not part of the project. A configuration has the curve of the nearest
recorded one in the unit cube. For searchers with a model of the surface, it has a curve predicted
by a forest that was fitted to the recorded ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daskhpo.core.space import Space
from daskhpo.simulation.curves import RecordedCurve
from experiments.simulated import tables

FOLDER = tables.SHARED
MAX_T = 50


@dataclass(frozen=True)
class Task:
    """A table of curves; ``least``: its smallest loss."""

    name: str
    space: Space
    curve: Callable[[Any], RecordedCurve]
    least: float


def tasks(folder: Path = FOLDER, *, smooth: bool = False) -> list[Task]:
    """Load all recorded tasks; none if the folder does not exist.

    A thousand curves in eight dimensions are so sparse that most searches near a good configuration
    get the same curve again. ``smooth`` interpolates by a regression (extremely randomised trees,
    which reproduce the recorded curves), as in Eggensperger et al. 2015, *Efficient Benchmarking of
    Hyperparameter Optimizers via Surrogates*. A configuration whose nearest recorded one diverged
    still diverges.
    """
    found = [(task, tables.TASKSET) for task in tables.taskset(folder)]
    found += [(task, tables.LCBENCH) for task in tables.lcbench(folder)]
    return [_task(task, space, smooth) for task, space in found]


def _task(task: tables.Task, space: Space, smooth: bool) -> Task:
    nearest = task.curves.nearest(space)
    curve = _smooth(task, space, nearest) if smooth else nearest
    return Task(task.name, space, curve, float(task.losses.min()))


def _smooth(
    task: tables.Task, space: Space, nearest: Callable[[Any], RecordedCurve]
) -> Callable[[Any], RecordedCurve]:
    """Return a function from a configuration to an interpolated curve."""
    from sklearn.ensemble import ExtraTreesRegressor

    units = range(1, MAX_T + 1)
    cube = np.array([space.to_unit(config) for config in task.curves.configs])
    losses = np.array([[curve.metric(r) for r in units] for curve in task.curves.curves])
    times = np.array([[curve.seconds(r) for r in units] for curve in task.curves.curves])
    # Some losses are as large as 1e12; one of them would dominate all averages around it.
    worst = np.nanquantile(losses, 0.9)
    known = np.minimum(np.nan_to_num(losses, nan=worst), worst)
    forest = ExtraTreesRegressor(32, random_state=0).fit(cube, np.concatenate([known, times], 1))

    def between(config: Any) -> RecordedCurve:
        found = forest.predict(np.array(space.to_unit(config))[None])[0]
        values, seconds = found[:MAX_T], found[MAX_T:]
        theirs = np.array([nearest(config).metric(r) for r in units])
        values[np.isnan(theirs)] = np.nan
        return RecordedCurve(values.tolist(), seconds.tolist())

    return between
