"""Importance of hyperparameters by a forest, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from daskhpo.core.types import Array, Status
from daskhpo.plots.axes import places_on_axis
from daskhpo.plots.data import Columns, ranks
from daskhpo.plots.sampling import sample, thinned
from daskhpo.plots.tables import STATES, StudyTables

MIN_TRIALS = 30
MIN_R2 = 0.1
MAX_FITTED = 3_000
N_IMPORTANCE_TREES = 64
CELLS = 24  # of the map, along each axis
_FAILED = STATES.index(Status.FAILED)


@dataclass(frozen=True)
class Importance:
    """A forest that predicts the ranks of trials from their configurations.

    Attributes
    ----------
    names : hyperparameters that differ between trials.
    resource : units of training after which the trials were compared.
    n_trials : trials that it was fitted to, with failed ones, which count as the worst.
    r2 : share of the variance of ranks that it explains, of trials left out of each tree; NaN:
        there were too few trials to fit it.
    share, error : importance of each hyperparameter (permutation, of 1 together), and its standard
        deviation over trees.
    problem : why nothing is shown; empty: it can be shown.
    """

    names: tuple[str, ...] = ()
    resource: int = 0
    n_trials: int = 0
    r2: float = float("nan")
    share: tuple[float, ...] = ()
    error: tuple[float, ...] = ()
    problem: str = ""
    forest: Any = None
    points: Any = None  # configurations on the unit scale, as the forest sees them

    def columns(self) -> Columns:
        """Return the bars, the largest last: the top of a plot."""
        if self.problem:
            return {name: [] for name in ("name", "share", "low", "high")}
        order = np.argsort(self.share)
        share, error = np.array(self.share)[order], np.array(self.error)[order]
        return {
            "name": [self.names[place] for place in order],
            "share": share,
            "low": np.maximum(share - error, 0),
            "high": share + error,
        }

    def describe(self) -> str:
        """Describe in one line what it rests on, or why nothing is shown."""
        if self.problem:
            return self.problem
        return (
            f"{self.n_trials:,} trials after {self.resource} unit{'s' * (self.resource != 1)}, "
            f"R² = {self.r2:.2f}"
        )


def importance(tables: StudyTables) -> Importance:
    """Fit the forest. It takes a second for thousands of trials: call it in a thread.

    Trials that were stopped early have worse values because they trained less. So trials are
    compared at one resource: the largest that at least half of those with a report have reached.
    """
    names = tables.names()
    resource, numbers, losses = comparable(tables)
    if not names:
        return Importance(problem="All trials have the same configuration.")
    if len(numbers) < MIN_TRIALS:
        return Importance(
            tuple(names),
            resource,
            len(numbers),
            problem=f"Shown from {MIN_TRIALS} trials on; {len(numbers)} can be compared so far.",
        )
    if len(numbers) > MAX_FITTED:
        kept = sample(len(numbers), MAX_FITTED)
        numbers, losses = numbers[kept], losses[kept]
    points = encoded(tables, names, numbers)
    target = ranks(losses) / len(losses)
    if np.ptp(losses) == 0:
        return Importance(
            tuple(names), resource, len(numbers), problem="All trials have the same value."
        )
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ImportError:
        return Importance(problem="Importance needs scikit-learn: pip install scikit-learn")
    forest = RandomForestRegressor(
        N_IMPORTANCE_TREES,
        min_samples_leaf=3,
        max_features=0.7,
        oob_score=True,
        random_state=0,
        n_jobs=1,
    )
    forest.fit(points, target)
    r2 = float(forest.oob_score_)
    found = Importance(tuple(names), resource, len(numbers), r2)
    if r2 < MIN_R2:
        why = (
            f"Not shown: from the configurations a forest explains R² = {r2:.2f} of the ranks of "
            f"{len(numbers)} trials, which is too little (below {MIN_R2}) to say what matters."
        )
        return replace(found, problem=why)
    share, error = _permuted(forest, points, target)
    return replace(found, share=tuple(share), error=tuple(error), forest=forest, points=points)


def comparable(tables: StudyTables) -> tuple[int, Array, Array]:
    """Return a resource, and trials with their losses there; failed: the worst."""
    owner, resource = np.array(tables.unit_trial), np.array(tables.unit_resource)
    loss = np.array(tables.unit_loss)
    failed = np.flatnonzero(np.array(tables.status) == _FAILED)
    if not len(owner):
        return 0, failed, np.zeros(len(failed))
    levels, reached = np.unique(resource, return_counts=True)
    n = len(np.unique(owner))
    level = int(levels[np.flatnonzero(reached >= n / 2)[-1]]) if (reached >= n / 2).any() else 1
    here = np.flatnonzero(resource == level)
    trials, first = np.unique(owner[here], return_index=True)
    losses = loss[here][first]
    finite = losses[np.isfinite(losses)]
    worst = float(finite.max()) if len(finite) else 1.0
    failed = np.setdiff1d(failed, trials)
    together = np.r_[np.where(np.isfinite(losses), losses, worst), np.full(len(failed), worst)]
    return level, np.r_[trials, failed], together


def encoded(tables: StudyTables, names: list[str], numbers: Array) -> Array:
    """Return configurations on the unit scale of each name; -1: it is missing."""
    columns = [places_on_axis(tables, name)[numbers] for name in names]
    points: Array = np.nan_to_num(np.array(columns).T, nan=-1.0)
    return points


def _permuted(forest: Any, points: Array, target: Array) -> tuple[Array, Array]:
    """Return the loss of accuracy when one column is shuffled, and its spread."""
    generator = np.random.default_rng(0)
    some = thinned(len(points), 400)
    points, target = points[some], target[some]
    gains = np.zeros((len(forest.estimators_), points.shape[1]))
    before = [((tree.predict(points) - target) ** 2).mean() for tree in forest.estimators_]
    for place in range(points.shape[1]):
        shuffled = points.copy()
        shuffled[:, place] = generator.permutation(shuffled[:, place])
        for number, tree in enumerate(forest.estimators_):
            after = ((tree.predict(shuffled) - target) ** 2).mean()
            gains[number, place] = after - before[number]
    mean = np.maximum(gains.mean(axis=0), 0)
    total = mean.sum() or 1.0
    return mean / total, gains.std(axis=0) / total


def prediction_map(found: Importance, first: str, second: str) -> Array:
    """Return the predicted rank over two names, 0 the best; rows: the second.

    The others are averaged over the trials (a partial dependence).

    References
    ----------
    Friedman 2001, *Greedy Function Approximation*, Sec. 8.2.
    """
    a, b = found.names.index(first), found.names.index(second)
    some = found.points[thinned(len(found.points), 24)]
    middles = (np.arange(CELLS) + 0.5) / CELLS
    grid = np.repeat(some[None], CELLS * CELLS, axis=0)
    grid[:, :, b] = np.repeat(middles, CELLS)[:, None]
    grid[:, :, a] = np.tile(middles, CELLS)[:, None]
    predicted = found.forest.predict(grid.reshape(-1, grid.shape[-1]))
    mean: Array = predicted.reshape(CELLS, CELLS, -1).mean(axis=2)
    return mean


def deciles(tables: StudyTables, name: str) -> Columns:
    """Return the middle half of the values in each tenth of the trials by one name.

    Of few distinct values, or choices, each has a part of its own.
    """
    results = tables.value(np.array(tables.best))
    places = encoded(tables, [name], np.arange(tables.n_trials))[:, 0]
    order = np.flatnonzero((places >= 0) & np.isfinite(results))
    order = order[np.argsort(places[order], kind="stable")]
    known, distinct = places[order], np.unique(places[order])
    if len(distinct) <= 12:
        parts = [order[known == place] for place in distinct]
    elif tables.config[name].levels is None:
        edges = np.unique(np.quantile(known, np.linspace(0, 1, 11)[1:-1]))
        tenth = np.searchsorted(edges, known, side="right")  # equal values stay together
        parts = [order[tenth == number] for number in range(len(edges) + 1)]
    else:
        parts = []
    parts = [part for part in parts if len(part) >= 3]
    quartiles = np.array([np.quantile(results[part], [0.25, 0.5, 0.75]) for part in parts])
    low, middle, high = quartiles.reshape(-1, 3).T
    at = np.array([np.median(places[part]) for part in parts])
    return {"at": at, "low": low, "middle": middle, "high": high}


def maps(found: Importance, n_names: int = 5) -> Columns:
    """Return the predicted ranks over each pair of the most important hyperparameters."""
    columns: Columns = {"first": [], "second": [], "image": []}
    if found.problem:
        return columns
    top = [found.names[place] for place in np.argsort(found.share)[::-1][:n_names]]
    pairs = list(combinations(sorted(top), 2))
    pairs.sort(key=lambda pair: set(pair) != set(top[:2]))  # the most important two come first
    for first, second in pairs:
        columns["first"].append(first)
        columns["second"].append(second)
        columns["image"].append(prediction_map(found, first, second).round(2).astype(np.float32))
    return columns
