"""A forest of extremely randomised trees that ranks configurations at a resource."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from daskhpo.core.ranks import mean_ranks, rank_correlation
from daskhpo.core.types import Array

N_TREES = 20
N_TRIED = 4  # features that are tried at each split
LEAST_IN_LEAF = 2
MAX_IN_TREE = 800  # of a tree
INSIDE = 0.7  # share of the configurations that a tree of the test sees
LEAST_ROWS = 6  # at a resource, to count in the test
LEAST_Z = 1.5  # of the test, to trust the forest
UNTESTED = 60  # with fewer rows it is trusted


class Rows(NamedTuple):
    """Results at rungs.

    Attributes
    ----------
    features : of each configuration, (n_configs, n_features).
    config : number of each row's configuration, (n,).
    resource, loss : (n,); the loss is inf if the trial failed.
    """

    features: Array
    config: Array
    resource: Array
    loss: Array


@dataclass(frozen=True)
class Forest:
    """Model of a configuration's rank at a resource: the logarithm of its share.

    Attributes
    ----------
    trees : of scikit-learn; they predict an array (n, 1).
    n_rows : number of rows that it was fitted to.
    trusted : True if the ranks of configurations that trees have not seen are predicted better
        than by chance, or there are too few rows for a verdict.
    """

    trees: tuple[Any, ...]
    n_rows: int
    trusted: bool

    def score(self, features: Array, resource: Array | float) -> Array:
        """Return the mean of the trees less their standard deviation; lower is better."""
        predicted = _predictions(self.trees, _inputs(features, resource))
        score: Array = predicted.mean(axis=0) - predicted.std(axis=0)
        return score


def fit(rows: Rows, generator: np.random.Generator) -> Forest:
    """Fit a forest to all rows, and test whether such a forest is to be trusted."""
    n = len(rows.loss)
    inputs, target = _inputs(rows.features[rows.config], rows.resource), _target(rows.loss)

    def tree(seen: Array) -> Any:
        from sklearn.tree import ExtraTreeRegressor  # takes a second to import

        if len(seen) > MAX_IN_TREE:
            seen = generator.choice(seen, MAX_IN_TREE, replace=False)
        grown = ExtraTreeRegressor(
            max_features=min(N_TRIED, inputs.shape[1]),
            min_samples_leaf=LEAST_IN_LEAF,
            random_state=int(generator.integers(2**31)),
        )
        return grown.fit(inputs[seen], target[seen]).tree_

    trees = tuple(tree(np.arange(n)) for _ in range(N_TREES))
    if n < UNTESTED:
        return Forest(trees, n, trusted=True)
    # Rows are left out by configuration: a repeated one must not predict itself.
    total, count = np.zeros(n), np.zeros(n)
    for _ in range(N_TREES):
        inside = (generator.random(len(rows.features)) < INSIDE)[rows.config]
        if inside.sum() >= 2 * LEAST_IN_LEAF and not inside.all():
            total[~inside] += _predictions([tree(np.flatnonzero(inside))], inputs[~inside])[0]
            count[~inside] += 1
    z = _evidence(np.divide(total, count, where=count > 0, out=total), target, rows, count > 0)
    return Forest(trees, n, trusted=z >= LEAST_Z)


def _evidence(predicted: Array, target: Array, rows: Rows, known: Array) -> float:
    """Return the rank correlations at the resources together, in standard deviations.

    A configuration counts once at each resource, however often it was repeated.
    """
    total = weight = 0.0
    for resource in np.unique(rows.resource):
        at = np.flatnonzero(known & (rows.resource == resource))
        at = at[np.unique(rows.config[at], return_index=True)[1]]
        if (n := len(at)) >= LEAST_ROWS:
            rho = rank_correlation(predicted[at], target[at])
            if math.isfinite(rho):
                total, weight = total + rho * (n - 1), weight + n - 1
    return total / math.sqrt(weight) if weight else 0.0


def _target(loss: Array) -> Array:
    """Return the logarithm of each loss's rank among all, at whatever resource."""
    ranks = mean_ranks(loss)
    ranks[~np.isfinite(loss)] = len(loss) - 1
    target: Array = np.log((ranks + 1) / (len(loss) + 1))
    return target


def _inputs(features: Array, resource: Array | float) -> Array:
    level = np.broadcast_to(np.log(np.asarray(resource, dtype=float)), len(features))
    return np.column_stack([features, level]).astype(np.float32)


def _predictions(trees: Any, inputs: Array) -> Array:
    return np.stack([tree.predict(inputs)[:, 0] for tree in trees])
