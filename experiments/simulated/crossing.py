"""Where early ranks mislead: learning curves that cross."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from experiments.simulated.tables import Task

GOOD = 0.01  # of the configurations: those that one wants to find
FINE = 0.10  # of the configurations: enough of them to compare learning rates
ETA = 3


@dataclass(frozen=True)
class Crossing:
    """What ranks after ``resource`` units say about the end of training.

    Attributes
    ----------
    correlation : Spearman's, of the best losses so far with those at the end.
    kept : of the best hundredth, the share that is in the best third by then: what a rung with
        η 3 would let go on.
    rates_kept, rates_cut : median learning rate of those in the best tenth at the end that are in
        the best third by then, and of those that are not; NaN where there are none, or no rates.
    """

    resource: int
    correlation: float
    kept: float
    rates_kept: float
    rates_cut: float


def crossing(task: Task, resource: int) -> Crossing:
    """What a rung after so many units would see."""
    then, end = best_so_far(task)[:, resource - 1], task.losses.min(axis=1)
    goes_on = _first(then, 1 / ETA)
    good, fine = _first(end, GOOD), _first(end, FINE)
    kept, cut = (_median(task.rates, fine & part) for part in (goes_on, ~goes_on))
    with np.errstate(invalid="ignore"):
        correlation = float(spearmanr(_finite(then), _finite(end)).statistic)
    return Crossing(resource, correlation, float(goes_on[good].mean()), kept, cut)


def best_so_far(task: Task) -> Any:
    """(n, max_t) the lowest loss after 1, 2, … units."""
    return np.minimum.accumulate(task.losses, axis=1)


def rungs(task: Task) -> list[int]:
    """1, 3, 9, … below the full length."""
    found = [1]
    while found[-1] * ETA < task.curves.max_t:
        found.append(found[-1] * ETA)
    return found


def _first(losses: Any, share: float) -> Any:
    """Which are in the lowest share; of equal ones, the first of the table."""
    n = max(round(share * len(losses)), 1)
    chosen = np.zeros(len(losses), dtype=bool)
    chosen[np.argsort(losses, kind="stable")[:n]] = True
    return chosen


def _finite(losses: Any) -> Any:
    """Trainings that failed are worse than all others, and equal."""
    known = losses[np.isfinite(losses)]
    return np.where(np.isfinite(losses), losses, known.max() + 1)


def _median(rates: Any | None, chosen: Any) -> float:
    return float(np.median(rates[chosen])) if rates is not None and chosen.any() else float("nan")
