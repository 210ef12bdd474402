"""Tables of recorded learning curves for the races."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from daskhpo.core.domains import Integer, Real
from daskhpo.core.objective import Objective
from daskhpo.core.space import Space
from daskhpo.simulation.curves import CurveTable, RecordedCurve

HERE = Path(__file__).parent
COMMITTED = HERE / "curves"
SHARED = HERE.parents[2] / "shared" / "data" / "curves"

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
RATES = ("learning_rate", "lr")
SHARES = (0.01, 0.002)  # of configurations that reach the easy target and the hard one
LEAST = 5  # configurations that reach the only target of a small table, at least


@dataclass(frozen=True)
class Task:
    """A table of curves for races.

    Attributes
    ----------
    family : name of a group of tasks with the same origin; results are averaged over it.
    curves : the table; each trial draws one of its curves, with replacement.
    """

    name: str
    family: str
    curves: CurveTable

    @cached_property
    def losses(self) -> Any:
        """Losses after 1, 2, … units, (n, max_t); inf: training failed, or no value."""
        objective, max_t = self.curves.objective, self.curves.max_t
        found = np.full((len(self.curves), max_t), math.inf)
        for row, curve in zip(found, self.curves.curves, strict=True):
            for r in range(1, curve.n_units + 1):
                row[r - 1] = objective.loss({objective.metric: curve.metric(r)})
        return found

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of configurations that reach each target: easy first, then hard."""
        easy, hard = SHARES
        n = len(self.curves)
        return (easy, hard) if hard * n >= 1 else (max(easy, LEAST / n),)

    def target(self, share: float) -> float:
        """Return the metric that this share of the configurations reaches at some unit."""
        best = np.sort(self.losses.min(axis=1))
        return self.curves.objective.value(float(best[max(round(share * len(best)), 1) - 1]))

    @cached_property
    def full(self) -> float:
        """Seconds of a full training, mean over the table."""
        return float(np.mean([curve.seconds(self.curves.max_t) for curve in self.curves.curves]))

    @property
    def rates(self) -> Any | None:
        """Learning rates, (n,); None: the table has none."""
        for name in RATES:
            if all(name in config for config in self.curves.configs):
                return np.array([config[name] for config in self.curves.configs], dtype=float)
        return None


@cache
def all_tasks(own: tuple[Path, ...] = (), shared: Path = SHARED) -> tuple[Task, ...]:
    """Load all tables: of this folder, of ``shared`` if it exists, and the user's."""
    found = [
        Task(path.name.removesuffix(".csv.gz"), "adsorption", CurveTable.read(path))
        for path in sorted(COMMITTED.glob("*.csv.gz"))
    ]
    found += [*taskset(shared), *lcbench(shared)]
    found += [Task(str(path), path.name.split(".")[0], CurveTable.read(path)) for path in own]
    return tuple(found)


def taskset(folder: Path = SHARED) -> list[Task]:
    """Load TaskSet: text classification by recurrent networks, real runs.

    The hyperparameters are Adam's settings, over wide ranges.

    References
    ----------
    Metz et al. 2020, *Using a thousand optimization tasks to learn hyperparameter search
    strategies*.
    """
    path = folder / "taskset_4_tasks.npz"
    if not path.exists():
        return []
    data = np.load(path)
    rows = data["X"].astype(float)
    rows[:, 1:3] = 1.0 - rows[:, 1:3]
    found = []
    for name, losses in zip(data["task"], data["valid_loss"][:, :, 1:], strict=True):
        short = str(name).split("_")[-2 if "relu" not in name else -3]
        times = np.broadcast_to(np.arange(1.0, losses.shape[1] + 1), losses.shape)
        found.append(Task(f"TaskSet {short}", "TaskSet", _table(TASKSET, rows, losses, times)))
    return found


def lcbench(folder: Path = SHARED) -> list[Task]:
    """Load a surrogate of LCBench, which is smoother than real runs.

    Its networks are multilayer perceptrons on tabular data. The metric is the error on the
    validation part, per cent.

    References
    ----------
    Zimmer et al. 2021, *Auto-PyTorch Tabular*; Pfisterer et al. 2022, *YAHPO Gym*.
    """
    path = folder / "lcbench_surrogate_5_tasks.npz"
    if not path.exists():
        return []
    data = np.load(path)
    found = []
    for name, accuracy, times in zip(
        data["task"], data["val_accuracy"], data["time_s"], strict=True
    ):
        times = np.maximum.accumulate(times.astype(float), axis=1)
        times = times + 1e-6 * np.arange(times.shape[1])  # a few steps take no time
        curves = _table(LCBENCH, data["X"], 100 - accuracy, times)
        found.append(Task(f"LCBench {name}", "LCBench", curves))
    return found


def _table(space: Space, rows: Any, losses: Any, times: Any) -> CurveTable:
    configs = tuple(dict(zip(space, _typed(space, row), strict=True)) for row in rows)
    curves = (RecordedCurve(a, b) for a, b in zip(losses.tolist(), times.tolist(), strict=True))
    return CurveTable(Objective("loss"), configs, tuple(curves))


def _typed(space: Space, row: Any) -> list[Any]:
    return [
        round(float(value)) if isinstance(domain, Integer) else float(value)
        for domain, value in zip(space.domains.values(), row, strict=True)
    ]
