"""Recorded learning curves as tasks for simulated studies; the folder is not part of the project.

A configuration learns like the recorded one that is nearest to it in the unit cube; or, where a
searcher follows a surface, as a forest says that was fitted to the recorded ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daskhpo.core.space import Integer, Real, Space

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "curves"
MAX_T = 50

LCBENCH = Space(
    {
        "batch_size": Integer(16, 512, log=True),
        "learning_rate": Real(1e-4, 0.1, log=True),
        "momentum": Real(0.1, 0.99),
        "weight_decay": Real(1e-5, 0.1),
        "num_layers": Integer(1, 5),
        "max_units": Integer(64, 1024, log=True),
        "max_dropout": Real(0.0, 1.0),
    }
)
TASKSET = Space(
    {
        "learning_rate": Real(1e-8, 10.0, log=True),
        "one_minus_beta1": Real(1e-4, 1.0, log=True),
        "one_minus_beta2": Real(1e-6, 1.0, log=True),
        "epsilon": Real(1e-10, 1e3, log=True),
        "l1": Real(1e-8, 10.0, log=True),
        "l2": Real(1e-8, 10.0, log=True),
        "linear_decay": Real(1e-7, 1e-4, log=True),
        "exponential_decay": Real(1e-6, 1e-3, log=True),
    }
)


class Recorded:
    """One recorded curve: losses and seconds after 1, 2, ... units."""

    __slots__ = ("_losses", "_seconds")

    def __init__(self, losses: list[float], seconds: list[float]) -> None:
        self._losses, self._seconds = losses, seconds

    def metric(self, resource: int) -> float:
        return self._losses[resource - 1]

    def seconds(self, resource: int) -> float:
        return self._seconds[resource - 1]


@dataclass(frozen=True)
class Task:
    """A table of curves. ``target``: the loss that one configuration in a hundred reaches;
    ``least``: the smallest of all.
    """

    name: str
    space: Space
    curve: Callable[[Any], Recorded]
    target: float
    least: float


def tasks(folder: Path = FOLDER, *, smooth: bool = False) -> list[Task]:
    """All recorded tasks, or none if the folder is not there.

    A thousand curves in eight dimensions are so sparse that to most searches near a good one
    answers the same curve again. ``smooth`` puts a regression between them (extremely randomised
    trees, which pass through what was recorded), as Eggensperger et al. 2015, *Efficient
    Benchmarking of Hyperparameter Optimizers via Surrogates*, do. Who is nearest to a training
    that diverged still diverges.
    """
    found = []
    if (path := folder / "taskset_4_tasks.npz").exists():
        data = np.load(path)
        rows = data["X"].astype(float)
        rows[:, 1:3] = 1.0 - rows[:, 1:3]
        seconds = np.arange(1.0, MAX_T + 1)
        for name, losses in zip(data["task"], data["valid_loss"][:, :, 1:], strict=True):
            short = str(name).split("_")[-2 if "relu" not in name else -3]
            times = np.broadcast_to(seconds, losses.shape)
            found.append(_task(f"TaskSet {short}", TASKSET, rows, losses, times, smooth))
    if (path := folder / "lcbench_surrogate_5_tasks.npz").exists():
        data = np.load(path)
        for name, accuracy, times in zip(
            data["task"], data["val_accuracy"], data["time_s"], strict=True
        ):
            times = np.maximum.accumulate(times.astype(float), axis=1)
            times = times + 1e-6 * np.arange(times.shape[1])  # a few steps take no time
            found.append(
                _task(f"LCBench {name}", LCBENCH, data["X"], 100 - accuracy, times, smooth)
            )
    return found


def _task(name: str, space: Space, rows: Any, losses: Any, times: Any, smooth: bool) -> Task:
    configs = [dict(zip(space, _typed(space, row), strict=True)) for row in rows]
    cube = np.array([space.to_unit(config) for config in configs])
    curves = [Recorded(a, b) for a, b in zip(losses.tolist(), times.tolist(), strict=True)]
    best = np.where(np.isnan(losses), np.inf, losses).min(axis=1)

    def nearest(unit: Any) -> int:
        apart = cube - unit
        return int(np.argmin(np.einsum("ij,ij->i", apart, apart)))

    between = _forest(cube, losses, times) if smooth else None

    def curve(config: Any) -> Recorded:
        unit = np.array(space.to_unit(config))
        if between is None:
            return curves[nearest(unit)]
        values, seconds = between(unit)
        values[np.isnan(losses[nearest(unit)])] = np.nan
        return Recorded(values.tolist(), seconds.tolist())

    return Task(name, space, curve, float(np.quantile(best, 0.01)), float(best.min()))


def _forest(cube: Any, losses: Any, times: Any) -> Callable[[Any], tuple[Any, Any]]:
    """From a point of the cube to losses and seconds after 1, 2, ... units."""
    from sklearn.ensemble import ExtraTreesRegressor

    # Some losses are as large as 1e12, and one of them would be in all averages around it.
    worst = np.nanquantile(losses, 0.9)
    known = np.minimum(np.nan_to_num(losses, nan=worst), worst)
    forest = ExtraTreesRegressor(32, random_state=0).fit(cube, np.concatenate([known, times], 1))

    def between(unit: Any) -> tuple[Any, Any]:
        found = forest.predict(unit[None])[0]
        return found[: known.shape[1]], found[known.shape[1] :]

    return between


def _typed(space: Space, row: Any) -> list[Any]:
    return [
        round(float(value)) if isinstance(domain, Integer) else float(value)
        for domain, value in zip(space.domains.values(), row, strict=True)
    ]
