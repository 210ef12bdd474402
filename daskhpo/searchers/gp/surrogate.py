"""Models of a study's losses and of its failures over the unit cube."""

from __future__ import annotations

import math

import numpy as np

from daskhpo.core.types import Array
from daskhpo.searchers.gp.acquisition import log_probability_of_improvement
from daskhpo.searchers.gp.dataset import Observation, most_telling
from daskhpo.searchers.gp.encoding import Encoding
from daskhpo.searchers.gp.model import Hyperparameters, Posterior, fit, standardised

MAX_OBSERVATIONS = 400  # in a model; bounds the cost of a suggestion in a long study
MAX_FIT_ROWS = 200  # used to fit hyperparameters, which takes a hundred times a prediction
MAX_LABELS = 256
PAST = 0.1  # initial distance to another study's points, in widths of the cube
STEEP, LOG_HALF = 1e3, math.log(0.5)


class Fitted:
    """Hyperparameters, refitted on a schedule and kept in between.

    Up to 100 observations they are refitted whenever their number changes; later, whenever it has
    grown by 10 %.
    """

    def __init__(self) -> None:
        self._value: Hyperparameters | None = None
        self._n = 0

    def to(self, features: Array, losses: Array, unordered: Array, n: int) -> Hyperparameters:
        """Return hyperparameters; refit them to this data if due.

        ``n``: number of all observations; the data may be a part of them.
        """
        due = n != self._n if n <= 100 else 10 * n >= 11 * self._n
        if self._value is None or len(self._value.lengths) != len(unordered) or due:
            self._value = fit(features, losses, unordered, self._value)
            self._n = n
        return self._value


class Surrogate:
    """A Gaussian process of the loss over points, resource, and this or another study.

    Points are compared at the target: the largest resource in the data, in this study. If
    observations differ in resource, its logarithm is another feature. The length scale of that
    feature says how far a loss at one resource is evidence for another. If some observations come
    from another study, the study is another feature. Studies are ``PAST`` apart in it, so they are
    assumed to be similar until losses contradict.

    Attributes
    ----------
    best : smallest mean at the target over all points that were tried.
    good : the tried points with the smallest means, best first; shape (at most 3, n_domains).
    """

    def __init__(self, encoding: Encoding, rows: list[Observation], fitted: Fitted) -> None:
        self._encoding = encoding
        kept = [rows[i] for i in most_telling(rows, MAX_OBSERVATIONS)]
        full = max(1, *(row.resource for row in kept))
        resources = np.log([row.resource or full for row in kept])
        self._span = (float(resources.min()), float(np.ptp(resources)))
        self._has_past = any(row.past for row in kept)
        units = np.array([row.unit for row in kept])
        features = self._features(units, resources, np.array([PAST * row.past for row in kept]))
        losses = standardised([row.loss for row in kept])
        unordered = np.zeros(features.shape[1], bool)  # resource and study have an order
        unordered[: len(encoding.ordered)] = ~encoding.ordered
        few = most_telling(kept, MAX_FIT_ROWS)
        hyperparameters = fitted.to(features[few], losses[few], unordered, len(rows))
        self.posterior = Posterior(features, losses, unordered, hyperparameters)
        tried = np.unique(units, axis=0)
        means = self.posterior.mean(self.at(tried))
        order = np.argsort(means, kind="stable")[:3]
        self.best, self.good = float(means[order[0]]), tried[order]

    def at(self, units: Array) -> Array:
        """Return features of points in this study at the target resource."""
        return self._features(units, np.full(len(units), sum(self._span)), np.zeros(len(units)))

    def _features(self, units: Array, resources: Array, past: Array) -> Array:
        columns = [self._encoding.features(units)]
        low, width = self._span
        if width > 0:
            columns.append(((resources - low) / width)[:, None])
        if self._has_past:
            columns.append(past[:, None])
        return np.concatenate(columns, axis=1)


class Feasibility:
    """The probability that a trial succeeds, from failed and successful trials.

    A separate Gaussian process is fitted to labels (1: failed, 0: not). The probability to succeed
    is that of a value below 0.5, as in least-squares classification (Rasmussen and Williams 2006,
    Sec. 6.5). It is independent of the model of losses, so failures do not distort that one, and
    its length scales reflect which hyperparameters cause failures. Far from all failures it changes
    an acquisition little.
    """

    def __init__(
        self,
        encoding: Encoding,
        rows: list[Observation],
        failed: list[tuple[float, ...]],
        fitted: Fitted,
    ) -> None:
        self._encoding = encoding
        bad = failed[-MAX_LABELS // 2 :]
        good = [rows[i].unit for i in most_telling(rows, MAX_LABELS - len(bad))]
        features = encoding.features(np.array([*bad, *good]))
        labels = np.r_[np.ones(len(bad)), np.zeros(len(good))]
        n = len(rows) + len(failed)
        hyperparameters = fitted.to(features, labels, ~encoding.ordered, n)
        self._posterior = Posterior(features, labels, ~encoding.ordered, hyperparameters)
        self._below = log_probability_of_improvement(0.5)

    def log_weight(self, units: Array) -> Array:
        """Return a term to add to the logarithm of an acquisition, (m,).

        It is the logarithm of the probability to succeed, with a steep penalty where failure is
        more likely than success. Without the penalty a large acquisition could outweigh a likely
        failure: differences of logarithms are unbounded where all other points are well known.
        """
        mean, sd = self._posterior.predict(self._encoding.features(units))
        value, _, _ = self._below(mean, sd)
        return value + STEEP * np.minimum(value - LOG_HALF, 0.0)

    def log_weight_and_slope(self, units: Array) -> tuple[Array, Array]:
        """Return :meth:`log_weight` and its gradient, (m, n_features)."""
        mean, sd, d_mean, d_sd = self._posterior.slopes(self._encoding.features(units))
        value, by_mean, by_sd = self._below(mean, sd)
        steeper = np.where(value < LOG_HALF, 1.0 + STEEP, 1.0)[:, None]
        slope = by_mean[:, None] * d_mean + by_sd[:, None] * d_sd
        return value + STEEP * np.minimum(value - LOG_HALF, 0.0), steeper * slope
