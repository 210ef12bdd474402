"""A Gaussian process: its hyperparameters, and its posterior given data.

The kernels are scikit-optimize's. Its regressor is not used: one evaluation of its likelihood takes
nine times as long as here, and its predictive variance loops over all pairs of observations for
each candidate. The tests compare both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack, solve_triangular
from scipy.optimize import minimize
from skopt.learning.gaussian_process.kernels import ConstantKernel, Matern

from daskhpo.core.types import Array

JITTER = 1e-9  # keeps a covariance positive definite; far below any noise that matters
WORST = 4.0  # the largest loss, in distances from the median to the best decile
CHUNK = 64  # candidates per batch: their intermediate results fit in the processor's cache


@dataclass(frozen=True)
class Hyperparameters:
    """Hyperparameters of a Matérn 5/2 kernel, for losses of unit variance.

    Attributes
    ----------
    lengths : one length scale per group of features, shape (n_groups,), in widths of the unit cube.
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
    groups : index of each feature's length scale, shape (n_features,).

    References
    ----------
    Rasmussen and Williams 2006, *Gaussian Processes for Machine Learning*, eq. 5.8 and 5.9.
    """

    def __init__(self, features: Array, losses: Array, groups: Array) -> None:
        n_groups = int(groups.max(initial=-1)) + 1
        self._n, self._losses = len(features), losses
        self._squares = np.zeros((n_groups, self._n**2))  # squared distances, group by group
        for column, group in zip(features.T, groups, strict=True):
            self._squares[group] += np.subtract.outer(column, column).ravel() ** 2
        # Typical distances in a cube grow with the root of its dimension, and so should length
        # scales (Hvarfner et al. 2024, Sec. 4). The fourth root is between that and no growth.
        length = LENGTH[0] * max(n_groups, 1) ** 0.25
        median = [*[length] * n_groups, SIGNAL[0], NOISE[0]]
        self.median = np.log(median)
        self._sd = np.array([*[LENGTH[1]] * n_groups, SIGNAL[1], NOISE[1]])
        self.bounds = np.log([*[LENGTH_BOUNDS] * n_groups, SIGNAL_BOUNDS, NOISE_BOUNDS])

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Return value and gradient at the hyperparameters' logarithms, (n_groups + 2,)."""
        n = self._n
        weights, signal, noise = np.exp(-2.0 * theta[:-2]), np.exp(theta[-2]), np.exp(theta[-1])
        q = weights @ self._squares
        r = np.sqrt(5.0 * q)
        decay = np.exp(-r)
        slope = (1.0 + r) * decay  # derivative of the correlation with respect to -5 q / 6
        correlation = slope + (5.0 / 3.0) * q * decay
        covariance = (signal * correlation).reshape(n, n)
        covariance.flat[:: n + 1] += noise + JITTER
        factor, failed = lapack.dpotrf(covariance, lower=1, overwrite_a=1)
        if failed:
            return 1e25, np.zeros_like(theta)
        alpha, _ = lapack.dpotrs(factor, self._losses, lower=1)
        value = 0.5 * self._losses @ alpha + np.log(factor.diagonal()).sum()
        lower = np.tril(lapack.dpotri(factor, lower=1)[0])
        inverse = lower + lower.T
        inverse.flat[:: n + 1] /= 2.0
        excess = (inverse - np.outer(alpha, alpha)).ravel()  # K⁻¹ - α αᵀ
        gradient = np.empty_like(theta)
        gradient[:-2] = (5.0 / 6.0) * signal * weights * (self._squares @ (excess * slope))
        gradient[-2] = 0.5 * signal * (excess @ correlation)
        gradient[-1] = 0.5 * noise * excess[:: n + 1].sum()
        z = (theta - self.median) / self._sd
        return float(value + 0.5 * z @ z), gradient + z / self._sd


def fit(
    features: Array, losses: Array, groups: Array, previous: Hyperparameters | None = None
) -> Hyperparameters:
    """Find the most probable hyperparameters, from several starts.

    There are several starts because the likelihood has many peaks; ``previous`` is another one.
    Each of some hundred evaluations takes O(n³).
    """
    objective = Likelihood(features, losses, groups)
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
    """A Gaussian process conditioned on data.

    Parameters
    ----------
    features : shape (n, n_features).
    losses : shape (n,).
    groups : shape (n_features,), as for :func:`fit`.
    hyperparameters : result of :func:`fit` for these or earlier data.
    """

    def __init__(
        self, features: Array, losses: Array, groups: Array, hyperparameters: Hyperparameters
    ) -> None:
        self._hyper = hyperparameters
        self._scale = 1.0 / hyperparameters.lengths[groups]
        # Features are divided by their length scales once, so the kernel's length scale is 1.
        self._kernel = ConstantKernel(hyperparameters.signal) * Matern(1.0, nu=2.5)
        self._data = features * self._scale
        covariance = self._kernel(self._data)
        covariance.flat[:: len(features) + 1] += self._nugget
        self._factor, failed = lapack.dpotrf(covariance, lower=1, clean=1)
        assert not failed, "a Matérn covariance with a nugget is positive definite"
        self._alpha, _ = lapack.dpotrs(self._factor, losses, lower=1)

    @property
    def _nugget(self) -> float:
        return self._hyper.noise + JITTER

    def believe(self, features: Array) -> Posterior:
        """Condition also on the posterior mean at ``features``, as if observed there.

        The mean does not change; the variance shrinks around the points. The Cholesky factor is
        extended by rows in O(n² m), not recomputed.

        References
        ----------
        Ginsbourger et al. 2010, *Kriging is well-suited to parallelize optimization*, Sec. 4.1
        ("kriging believer"); Desautels et al. 2014, *Parallelizing exploration-exploitation
        tradeoffs in Gaussian process bandit optimization*, Sec. 3.2.
        """
        points = features * self._scale
        rows = self._solve(self._kernel(self._data, points))
        rest = self._kernel(points) - rows.T @ rows
        rest.flat[:: len(points) + 1] += self._nugget
        n, m = len(self._data), len(points)
        more = object.__new__(Posterior)
        more._hyper, more._scale, more._kernel = self._hyper, self._scale, self._kernel
        more._data = np.concatenate([self._data, points])
        more._factor = np.zeros((n + m, n + m), order="F")
        more._factor[:n, :n] = self._factor
        more._factor[n:, :n] = rows.T
        more._factor[n:, n:] = np.linalg.cholesky(rest)
        more._alpha = np.r_[self._alpha, np.zeros(m)]
        return more

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the surface, without noise; each (m,)."""
        mean, variance = np.empty(len(features)), np.empty(len(features))
        for at in range(0, len(features), CHUNK):
            chunk = slice(at, at + CHUNK)
            cross = self._kernel(self._data, features[chunk] * self._scale)
            mean[chunk] = self._alpha @ cross
            part = self._solve(cross)
            variance[chunk] = self._hyper.signal - np.einsum("ij,ij->j", part, part)
        return mean, _root(variance)

    def mean(self, features: Array) -> Array:
        """Return only the mean, (m,); a standard deviation takes O(n²) more per point."""
        means: Array = self._alpha @ self._kernel(self._data, features * self._scale)
        return means

    def slopes(self, features: Array) -> tuple[Array, Array, Array, Array]:
        """Return mean and standard deviation, (m,), and gradients, (m, n_features)."""
        apart = (features * self._scale)[:, None, :] - self._data  # (m, n, n_features)
        r = np.sqrt(5.0 * np.einsum("mnf,mnf->mn", apart, apart))
        decay = self._hyper.signal * np.exp(-r)
        cross = (1.0 + r + r * r / 3.0) * decay
        slope = (-5.0 / 3.0) * (1.0 + r) * decay  # dk/dx = slope · (x - x_i)
        part = self._solve(cross.T)
        sd = _root(self._hyper.signal - np.einsum("ij,ij->j", part, part))
        weights = self._solve(part, transposed=True).T
        by_mean = np.einsum("mn,mnf->mf", slope * self._alpha, apart) * self._scale
        by_sd = np.einsum("mn,mnf->mf", slope * weights, apart) * self._scale / -sd[:, None]
        return cross @ self._alpha, sd, by_mean, by_sd

    def _solve(self, columns: Array, transposed: bool = False) -> Array:
        solved: Array = solve_triangular(
            self._factor, columns, lower=True, trans=int(transposed), check_finite=False
        )
        return solved


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
