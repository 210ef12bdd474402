"""Maximisation of a score: sampled candidates, then local search from the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
from scipy.optimize import minimize

from daskhpo.core.types import Array
from daskhpo.searchers.gp.encoding import Encoding

Score = Callable[[Array], Array]  # points of the cube, (m, n_domains) -> (m,)
ScoreAndSlope = Callable[[Array], tuple[Array, Array]]  # ... -> (m,), (m, n_domains)

N_GLOBAL, N_LOCAL = 512, 32
RADII = (0.2, 0.05, 0.01, 0.001)  # step sizes around good points, in widths of the cube
N_STARTS = 3  # starts of the local search among global candidates, and as many among local ones
MAX_NEIGHBOURS = 8  # values of a countable hyperparameter to try around a point
MAX_CATEGORIES = 64  # up to this number of categories, each is tried


def candidates(
    encoding: Encoding, good: Array, generator: np.random.Generator
) -> tuple[Array, Array]:
    """Draw uniform points, (N_GLOBAL, n_domains), and points near good ones.

    A step changes about half of the coordinates. Its standard deviation is a radius, but at least
    one value of a countable domain. A category is drawn again with a probability of 1/3.
    """
    n = len(encoding.sizes)
    anywhere = generator.random((N_GLOBAL, n))
    countable = encoding.sizes > 0
    place_width = 1.0 / np.maximum(encoding.sizes, 1)
    near = []
    for point in good:
        for radius in RADII:
            width = np.where(countable, np.maximum(radius, place_width), radius)
            step = generator.standard_normal((N_LOCAL, n)) * width
            step *= generator.random((N_LOCAL, n)) < 0.5
            moved = np.clip(point + step, 0.0, 1.0)
            swap = ~encoding.ordered & (generator.random((N_LOCAL, n)) < 1 / 3)
            other = generator.random((N_LOCAL, n))
            moved = np.where(encoding.ordered, moved, point)
            near.append(np.where(swap, other, moved))
    return anywhere, np.concatenate(near) if near else np.empty((0, n))


def climb(
    encoding: Encoding,
    starts: Array,
    known: Array,
    score: Score,
    score_and_slope: ScoreAndSlope,
) -> Array:
    """Improve the starts by local search; return points of shape (m, n_domains).

    ``known``: the points in the model, (n, n_domains).

    First the reals of all starts follow the gradient, as one optimisation problem. Then the best
    point takes the best value of each countable hyperparameter in turn. Finally its reals follow
    the gradient again.
    """
    points = _along_reals(encoding, starts, score_and_slope)
    if not (encoding.sizes > 0).any():
        return points
    best = points[int(np.argmax(score(points)))]
    for domain in np.flatnonzero(encoding.sizes):
        options = _neighbours(encoding, best, int(domain), known)
        best = options[int(np.argmax(score(options)))]
    last = _along_reals(encoding, best[None], score_and_slope)
    return np.concatenate([points, best[None], last])


def _along_reals(encoding: Encoding, starts: Array, score_and_slope: ScoreAndSlope) -> Array:
    reals = np.flatnonzero(encoding.sizes == 0)
    if not len(reals):
        return starts

    def moved(values: Array) -> Array:
        points = starts.copy()
        points[:, reals] = values.reshape(len(starts), -1)
        return points

    def descend(values: Array) -> tuple[float, Array]:
        value, slope = score_and_slope(moved(values))
        return -float(value.sum()), -slope[:, reals].ravel()

    first = starts[:, reals].ravel()
    bounds = [(0.0, 1.0)] * len(first)
    options = {"maxiter": 20}
    found = minimize(descend, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return moved(np.clip(found.x, 0.0, 1.0))


def _neighbours(encoding: Encoding, point: Array, domain: int, known: Array) -> Array:
    """Return the point, and copies with other values of one countable hyperparameter.

    Of a long list of categories, those are taken that were seen. For a model all others are alike,
    but for some that may have been suggested meanwhile: a few of them are enough.
    """
    size = encoding.sizes[domain]
    places: Sequence[int] = range(int(min(size, MAX_CATEGORIES)))
    if encoding.ordered[domain] and size > MAX_NEIGHBOURS:
        here = int(encoding.places(point[None])[0, domain])
        first = max(here - MAX_NEIGHBOURS // 2, 0)
        places = range(first, int(min(here + MAX_NEIGHBOURS // 2 + 1, size)))
    elif size > MAX_CATEGORIES:
        seen = {int(place) for place in encoding.places(known)[:, domain]}
        unseen = (place for place in range(int(size)) if place not in seen)
        places = sorted({*seen, *islice(unseen, MAX_NEIGHBOURS)})
    options = np.repeat(point[None], len(places) + 1, axis=0)
    options[1:, domain] = [encoding.unit_at(domain, int(place)) for place in places]
    return options
