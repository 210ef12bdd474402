"""A Gaussian process with a Matérn kernel: its hyperparameters and its posterior.

scikit-optimize's is not used: one evaluation of its likelihood takes nine times as long as here,
and its predictive variance loops over all pairs of observations for each candidate. The tests
compare both.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from daskhpo.core.gp import GaussianProcess, squared_distances
from daskhpo.core.types import Array

JITTER = 1e-9  # keeps a covariance positive definite; far below any noise that matters
WORST = 4.0  # the largest loss, in distances from the median to the best decile
CHUNK = 64  # candidates per batch: their intermediate results fit in the processor's cache


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of a Matérn 5/2 kernel, for losses of unit variance.

    Attributes
    ----------
    lengths : length scale of each feature, shape (n_features,), in widths of the unit cube.
    signal, noise : variance of the surface; variance of a single loss around it.
    """

    lengths: Array
    signal: float
    noise: float

    @property
    def logs(self) -> Array:
        logs: Array = np.log(np.r_[self.lengths, self.signal, self.noise])
        return logs

    @classmethod
    def of_logs(cls, theta: Array) -> Hyperparameters:
        return cls(np.exp(theta[:-2]), float(np.exp(theta[-2])), float(np.exp(theta[-1])))


# Log-normal priors, as (median, standard deviation of the logarithm), and bounds.
LENGTH, LENGTH_BOUNDS = (0.4, 1.0), (0.02, 50.0)
SIGNAL, SIGNAL_BOUNDS = (1.0, 1.5), (1e-2, 1e2)
NOISE, NOISE_BOUNDS = (1e-5, 3.0), (1e-8, 1.0)


class Likelihood:
    """The negative log posterior density of the hyperparameters, with its gradient.

    Parameters
    ----------
    features : shape (n, n_features).
    losses : shape (n,), with mean 0 and variance 1.
    unordered : True for features that are numbers of categories, shape (n_features,): any two
        different ones are 1 apart.

    References
    ----------
    Rasmussen and Williams 2006, *Gaussian Processes for Machine Learning*, eq. 5.8 and 5.9.
    """

    def __init__(self, features: Array, losses: Array, unordered: Array) -> None:
        n_features = len(unordered)
        self._n, self._losses = len(features), losses
        self._squares = np.empty((n_features, self._n**2))  # squared distances in each feature
        for column, squares, is_category in zip(features.T, self._squares, unordered, strict=True):
            apart = (np.not_equal if is_category else np.subtract).outer(column, column)
            squares[:] = apart.ravel() ** 2.0
        # Typical distances in a cube grow with the root of its dimension, and so should length
        # scales (Hvarfner et al. 2024, Sec. 4). The fourth root is between that and no growth.
        length = LENGTH[0] * max(n_features, 1) ** 0.25
        median = [*[length] * n_features, SIGNAL[0], NOISE[0]]
        self.median = np.log(median)
        self._sd = np.array([*[LENGTH[1]] * n_features, SIGNAL[1], NOISE[1]])
        self.bounds = np.log([*[LENGTH_BOUNDS] * n_features, SIGNAL_BOUNDS, NOISE_BOUNDS])

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Return value and gradient at the hyperparameters' logarithms, (n_features + 2,)."""
        n = self._n
        weights, signal, noise = np.exp(-2.0 * theta[:-2]), np.exp(theta[-2]), np.exp(theta[-1])
        q = weights @ self._squares
        r = np.sqrt(5.0 * q)
        decay = np.exp(-r)
        slope = (1.0 + r) * decay  # derivative of the correlation with respect to -5 q / 6
        correlation = slope + (5.0 / 3.0) * q * decay
        covariance = (signal * correlation).reshape(n, n)
        try:
            process = GaussianProcess(covariance, noise + JITTER, self._losses)
        except np.linalg.LinAlgError:
            return 1e25, np.zeros_like(theta)
        excess = (process.precision - np.outer(process.weights, process.weights)).ravel()
        gradient = np.empty_like(theta)
        gradient[:-2] = (5.0 / 6.0) * signal * weights * (self._squares @ (excess * slope))
        gradient[-2] = 0.5 * signal * (excess @ correlation)
        gradient[-1] = 0.5 * noise * excess[:: n + 1].sum()
        z = (theta - self.median) / self._sd
        value = 0.5 * (process.misfit + z @ z) + process.log_volume
        return float(value), gradient + z / self._sd


def fit(
    features: Array, losses: Array, unordered: Array, previous: Hyperparameters | None = None
) -> Hyperparameters:
    """Find the most probable hyperparameters, from several starts.

    There are several starts because the likelihood has many peaks; ``previous`` is another one.
    Each of some hundred evaluations takes O(n³).
    """
    objective = Likelihood(features, losses, unordered)
    starts = [objective.median]
    for length, noise in ((0.1, NOISE[0]), (1.0, 1e-2)):  # rugged, no noise; smooth, noisy
        starts.append(objective.median.copy())
        starts[-1][:-2], starts[-1][-1] = math.log(length), math.log(noise)
    if previous is not None and len(previous.logs) == len(objective.median):
        starts.append(previous.logs)
    low, high = objective.bounds.T
    options = {"maxiter": 50}
    found = [
        minimize(
            objective,
            np.clip(start, low, high),
            jac=True,
            method="L-BFGS-B",
            bounds=objective.bounds,
            options=options,
        )
        for start in starts
    ]
    return Hyperparameters.of_logs(min(found, key=lambda result: result.fun).x)


class Posterior:
    """The surface of losses, given observations and hyperparameters.

    Parameters
    ----------
    features : shape (n, n_features).
    losses : shape (n,).
    unordered : shape (n_features,), as for :class:`Likelihood`.
    hyperparameters : result of :func:`fit` for these or earlier data.
    """

    def __init__(
        self, features: Array, losses: Array, unordered: Array, hyperparameters: Hyperparameters
    ) -> None:
        self._signal = hyperparameters.signal
        self._categories = np.flatnonzero(unordered)
        self._weights = hyperparameters.lengths[unordered] ** -2.0  # of each category
        self._scale = np.where(unordered, 0.0, 1.0 / hyperparameters.lengths)
        self._data = features
        covariance = self._covariance(self._data, self._data)
        self._process = GaussianProcess(covariance, hyperparameters.noise + JITTER, losses)

    def believe(self, features: Array) -> Posterior:
        """Condition also on the mean at ``features``: see :meth:`GaussianProcess.believe`."""
        more = copy.copy(self)
        more._data = np.concatenate([self._data, features])
        more._process = self._process.believe(
            self._covariance(self._data, features), self._covariance(features, features)
        )
        return more

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the surface, without noise; each (m,)."""
        mean, variance = np.empty(len(features)), np.empty(len(features))
        for at in range(0, len(features), CHUNK):
            chunk = slice(at, at + CHUNK)
            cross = self._covariance(self._data, features[chunk])
            mean[chunk] = self._process.mean(cross)
            variance[chunk] = self._signal - self._process.explained(cross)
        return mean, _root(variance)

    def mean(self, features: Array) -> Array:
        """Return only the mean, (m,); a standard deviation takes O(n²) more per point."""
        return self._process.mean(self._covariance(self._data, features))

    def slopes(self, features: Array) -> tuple[Array, Array, Array, Array]:
        """Return mean and standard deviation, (m,), and gradients, (m, n_features).

        The gradient is 0 along a category.
        """
        apart = features[:, None, :] * self._scale - self._data * self._scale  # (m, n, n_features)
        squares = np.einsum("mnf,mnf->mn", apart, apart) + self._differing(features, self._data)
        r = np.sqrt(5.0 * squares)
        decay = self._signal * np.exp(-r)
        cross = ((1.0 + r + r * r / 3.0) * decay).T
        slope = (-5.0 / 3.0) * (1.0 + r) * decay  # dk/dx = slope · (x - x_i)
        sd = _root(self._signal - self._process.explained(cross))
        by_mean = np.einsum("mn,mnf->mf", slope * self._process.weights, apart) * self._scale
        weights = self._process.solve(cross).T
        by_sd = np.einsum("mn,mnf->mf", slope * weights, apart) * self._scale / -sd[:, None]
        return self._process.mean(cross), sd, by_mean, by_sd

    def _covariance(self, a: Array, b: Array) -> Array:
        squares = squared_distances(a * self._scale, b * self._scale) + self._differing(a, b)
        r = np.sqrt(5.0 * squares)
        covariance: Array = (r * (r / 3.0 + 1.0) + 1.0) * np.exp(-r)
        covariance *= self._signal
        return covariance

    def _differing(self, a: Array, b: Array) -> Array | float:
        """Return what different categories add to the squared distances, (n, m)."""
        parts = (
            weight * (a[:, column, None] != b[:, column])
            for column, weight in zip(self._categories, self._weights, strict=True)
        )
        return sum(parts, start=0.0)


def _root(variance: Array) -> Array:
    return np.sqrt(np.maximum(variance, 1e-12))  # rounding may make it negative


def standardised(losses: Iterable[float]) -> Array:
    """Scale losses to mean 0 and variance 1; very bad ones are compressed first.

    A diverged training may be orders of magnitude worse than all others, and would make their
    differences vanish. Let d be the distance from the median to the best decile. A loss that is
    more than d above the median is compressed by its logarithm, to at most ``WORST`` times d.
    """
    y = np.fromiter(losses, float)
    median, decile = np.quantile(y, [0.5, 0.1])
    if median > decile:
        z = (y - median) / (median - decile)
        y = np.where(z > 1.0, np.minimum(1.0 + np.log(np.maximum(z, 1.0)), WORST), z)
    spread = y.std()
    return (y - y.mean()) / spread if spread > 0 else np.zeros(len(y))
