"""Multistep schedules: a value that changes at a few milestones, fitted or given."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


@dataclass(frozen=True)
class MultiStep:
    """A schedule of one hyperparameter, which is constant between milestones.

    Attributes
    ----------
    name : name of the hyperparameter.
    values : values in order; one more than milestones.
    milestones : units of training after which the next value holds; increasing.
    max_t : total units of training.
    residual : root mean square deviation of the fitted values' logarithm; 0.1 is about 10 %.

    Examples
    --------
    >>> steps = MultiStep("lr", values=(0.1, 0.02), milestones=(60,), max_t=90)
    >>> steps.at(60), steps.at(61)
    (0.1, 0.02)
    >>> print(steps)
    lr: 0.1, from unit 61 on 0.02, of 90
    """

    name: str
    values: tuple[float, ...]
    milestones: tuple[int, ...]
    max_t: int
    residual: float = 0.0

    def __post_init__(self) -> None:
        bounds = (0, *self.milestones, self.max_t)
        if len(self.values) != len(self.milestones) + 1 or any(b <= a for a, b in pairwise(bounds)):
            raise ValueError(
                f"milestones={self.milestones} must increase between 0 and max_t={self.max_t}, "
                f"and values={self.values} must have one element more"
            )

    def __str__(self) -> str:
        later = zip(self.milestones, self.values[1:], strict=True)
        steps = "".join(f", from unit {m + 1} on {value:.4g}" for m, value in later)
        return f"{self.name}: {self.values[0]:.4g}{steps}, of {self.max_t}"

    def at(self, unit: int) -> float:
        """Return the value for the ``unit``-th unit of training, counted from 1."""
        return self.values[bisect_right(self.milestones, unit - 1)]

    def stretch(self, max_t: int) -> MultiStep:
        """Return the schedule for another length of training.

        Raises
        ------
        ValueError : ``max_t`` is too small for the milestones.
        """
        milestones = tuple(round(m * max_t / self.max_t) for m in self.milestones)
        return MultiStep(self.name, self.values, milestones, max_t, self.residual)

    def torch_scheduler(self, optimizer: Optimizer) -> LRScheduler:
        """Return a learning-rate scheduler of torch; call its ``step`` after each unit.

        The optimizer's learning rates are set to the first value.
        """
        from torch.optim.lr_scheduler import LambdaLR

        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] = self.values[0]
        factors, milestones = self._factors(), list(self.milestones)
        return LambdaLR(optimizer, lambda n_done: factors[bisect_right(milestones, n_done)])

    def torch_code(self) -> str:
        """Return the schedule as code to paste, which needs torch only."""
        factors = [float(f"{factor:.6g}") for factor in self._factors()]
        return (
            f"# {self}\n"
            "from bisect import bisect_right\n"
            "\n"
            "from torch.optim.lr_scheduler import LambdaLR\n"
            "\n"
            f"MILESTONES = {list(self.milestones)}  # epochs done when the next factor begins\n"
            f"FACTORS = {factors}\n"
            f"# Give the optimizer lr={self.values[0]:.6g}; "
            "call scheduler.step() after each epoch.\n"
            "scheduler = LambdaLR(optimizer, lambda epoch: "
            "FACTORS[bisect_right(MILESTONES, epoch)])\n"
        )

    def _factors(self) -> list[float]:
        return [value / self.values[0] for value in self.values]


def fit(
    name: str, lengths: Sequence[int], values: Sequence[Any], *, max_steps: int, tolerance: float
) -> MultiStep:
    """Fit a multistep schedule; see ``Schedule.fit_multistep``.

    Parameters
    ----------
    lengths, values : units of training and value of each piece, in order.
    """
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise ValueError(f"{name}={value!r} must be a positive number: its logarithm is fitted")
    n = len(values)
    ends = np.cumsum(lengths)
    cost, level = _segments(np.asarray(lengths, float), np.log(np.asarray(values, float)))
    best, cuts = _partitions(cost, min(max_steps, n - 1))
    # Schwarz's criterion with a floor for the variance; n pieces, k milestones, k + 1 levels.
    mean = best / ends[-1]
    criterion = [
        n * math.log(max(r, tolerance**2)) + (2 * k + 1) * math.log(n) for k, r in enumerate(mean)
    ]
    k = int(np.argmin(criterion))
    bounds = [0, *cuts[k], n]
    return MultiStep(
        name,
        tuple(math.exp(level[i, j]) for i, j in pairwise(bounds)),
        tuple(int(ends[cut - 1]) for cut in cuts[k]),
        int(ends[-1]),
        math.sqrt(max(0.0, mean[k])),
    )


def _segments(weight: Any, y: Any) -> tuple[Any, Any]:
    """Return squared error and mean of pieces i..j-1 as one, both (n + 1, n + 1)."""
    total, first, second = (
        np.concatenate([[0.0], np.cumsum(weight * power)]) for power in (1.0, y, y * y)
    )
    w, a, b = (s[None, :] - s[:, None] for s in (total, first, second))
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.where(w > 0, a / w, 0.0)
    return np.maximum(b - w * level**2, 0.0), level


def _partitions(cost: Any, max_steps: int) -> tuple[Any, list[list[int]]]:
    """Find the least cost with 0, 1, … cuts, and the cuts, by dynamic programming."""
    n = len(cost) - 1
    least = cost[0].copy()  # of the first j pieces with k cuts
    least[0] = np.inf
    best: list[float] = [least[n]]
    cuts: list[list[int]] = [[]]
    places: list[list[list[int]]] = [[[] for _ in range(n + 1)]]
    for _ in range(max_steps):
        table = least[:, None] + np.where(np.tri(n + 1, dtype=bool), np.inf, cost)
        last = table.argmin(axis=0)
        least = table.min(axis=0)
        places.append([[*places[-1][i], int(i)] for i in last])
        best.append(least[n])
        cuts.append(places[-1][n])
    return np.array(best), cuts
