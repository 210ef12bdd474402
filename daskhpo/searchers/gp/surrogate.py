"""Models of a study's losses and failures over the unit cube."""

from __future__ import annotations

import math

import numpy as np

from daskhpo.core.types import Array
from daskhpo.searchers.gp.acquisition import log_probability_of_improvement
from daskhpo.searchers.gp.dataset import Observation, most_telling
from daskhpo.searchers.gp.encoding import Encoding
from daskhpo.searchers.gp.model import Hyperparameters, Posterior, fit, standardised

MAX_OBSERVATIONS = 400  # in a model: a suggestion's cost is bounded, however long the study
MAX_FIT_ROWS = 200  # whose likelihood is maximised, which takes a hundred times a prediction
MAX_LABELS = 256
PAST = 0.1  # how far another study is away, in widths of the cube, before anything is learned
STEEP, LOG_HALF = 1e3, math.log(0.5)


class Fitted:
    """Hyperparameters that are fitted anew on a schedule, and kept in between.

    At every call with more rows up to 100, then whenever there are a tenth more.
    """

    def __init__(self) -> None:
        self._value: Hyperparameters | None = None
        self._n = 0

    def to(self, features: Array, losses: Array, groups: Array, n: int) -> Hyperparameters:
        """Hyperparameters for data of which there are ``n`` rows in all."""
        n_groups = int(groups.max(initial=-1)) + 1
        due = n != self._n if n <= 100 else 10 * n >= 11 * self._n
        if self._value is None or len(self._value.lengths) != n_groups or due:
            self._value = fit(features, losses, groups, self._value)
            self._n = n
        return self._value


class Surrogate:
    """The losses as a Gaussian process over points, the resource, and where they were seen.

    ``target`` is the resource at which points are judged. With rows of several resources (of
    another study) the process has one more feature, whose length scale tells how far a loss of one
    is evidence for another. Another study is taken for much alike until losses say otherwise.

    Attributes
    ----------
    best : smallest mean at the target over all points that were tried.
    good : the points with the smallest means, best first, (at most 3, n_domains).
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
        n_domains = len(encoding.sizes)
        extra = features.shape[1] - len(encoding.owner)
        groups = np.r_[encoding.owner, n_domains + np.arange(extra)].astype(int)
        few = most_telling(kept, MAX_FIT_ROWS)
        hyperparameters = fitted.to(features[few], losses[few], groups, len(rows))
        self.posterior = Posterior(features, losses, groups, hyperparameters)
        tried = np.unique(units, axis=0)
        means = self.posterior.mean(self.at(tried))
        order = np.argsort(means, kind="stable")[:3]
        self.best, self.good = float(means[order[0]]), tried[order]

    def at(self, units: Array) -> Array:
        """Features of points, in this study and at the target."""
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
    """How likely a trial succeeds, from those that failed and those that did not.

    A Gaussian process of its own over labels (1: failed) says where it lies below one half, as
    in least-squares classification (Rasmussen and Williams 2006, Sec. 6.5). It knows nothing of
    losses and they nothing of it, so a failure bends no surface of losses, and its length scales
    find the hyperparameters that matter for failing. Far from all failures it changes little.
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
        hyperparameters = fitted.to(features, labels, encoding.owner, n)
        self._posterior = Posterior(features, labels, encoding.owner, hyperparameters)
        self._below = log_probability_of_improvement(0.5)

    def log_weight(self, units: Array) -> Array:
        """What is added to the logarithm of an acquisition, (m,).

        The logarithm of the probability to succeed; where failing is the more likely, far less:
        a large promise must not outweigh it, and grows without bound where all else is known.
        """
        mean, sd = self._posterior.predict(self._encoding.features(units))
        value, _, _ = self._below(mean, sd)
        return value + STEEP * np.minimum(value - LOG_HALF, 0.0)

    def log_weight_and_slope(self, units: Array) -> tuple[Array, Array]:
        """The same, and its slope by each feature, (m, n_features)."""
        mean, sd, d_mean, d_sd = self._posterior.slopes(self._encoding.features(units))
        value, by_mean, by_sd = self._below(mean, sd)
        steeper = np.where(value < LOG_HALF, 1.0 + STEEP, 1.0)[:, None]
        slope = by_mean[:, None] * d_mean + by_sd[:, None] * d_sd
        return value + STEEP * np.minimum(value - LOG_HALF, 0.0), steeper * slope
