"""Learning curves that cross, so that early ranks mislead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from experiments.simulated.tables import Task

GOOD = 0.01  # share of the configurations that a search should find
FINE = 0.10  # share of the configurations; enough of them to compare learning rates
ETA = 3


@dataclass(frozen=True)
class Crossing:
    """A comparison of ranks after ``resource`` units with those at the end.

    Attributes
    ----------
    correlation : Spearman's, of the best losses so far with those at the end.
    kept : share of the final best 1 % that is in the best third at ``resource``: those that
        continue at a rung with η 3.
    rates_kept, rates_cut : median learning rates of the final best 10 %: of those in the best third
        at ``resource``, and of the others; NaN: no such configuration, or no learning rates.
    """

    resource: int
    correlation: float
    kept: float
    rates_kept: float
    rates_cut: float


def crossing(task: Task, resource: int) -> Crossing:
    """Compare the ranks at a rung after ``resource`` units with the final ones."""
    then, end = best_so_far(task)[:, resource - 1], task.losses.min(axis=1)
    continues = _first(then, 1 / ETA)
    good, fine = _first(end, GOOD), _first(end, FINE)
    kept, cut = (_median(task.rates, fine & part) for part in (continues, ~continues))
    with np.errstate(invalid="ignore"):
        correlation = float(spearmanr(_finite(then), _finite(end)).statistic)
    return Crossing(resource, correlation, float(continues[good].mean()), kept, cut)


def best_so_far(task: Task) -> Any:
    """Return the lowest losses after 1, 2, … units, shape (n, max_t)."""
    return np.minimum.accumulate(task.losses, axis=1)


def rungs(task: Task) -> list[int]:
    """Return the rungs 1, 3, 9, … below the full length."""
    found = [1]
    while found[-1] * ETA < task.curves.max_t:
        found.append(found[-1] * ETA)
    return found


def _first(losses: Any, share: float) -> Any:
    """Select the lowest share of the losses; ties: the first in the table."""
    n = max(round(share * len(losses)), 1)
    chosen = np.zeros(len(losses), dtype=bool)
    chosen[np.argsort(losses, kind="stable")[:n]] = True
    return chosen


def _finite(losses: Any) -> Any:
    """Replace the losses of failed trainings by one that is worse than all others."""
    known = losses[np.isfinite(losses)]
    return np.where(np.isfinite(losses), losses, known.max() + 1)


def _median(rates: Any | None, chosen: Any) -> float:
    return float(np.median(rates[chosen])) if rates is not None and chosen.any() else float("nan")
