"""Acquisition functions, in a form suitable for gradient ascent.

Each takes the mean and the standard deviation of the surface at some points. It returns a value
(larger is better) and its derivatives with respect to both; all of shape (n,). scikit-optimize has
the same three, but its expected improvement and the gradient are exactly 0 in most of the space.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

from daskhpo.core.types import Array

Valued = tuple[Array, Array, Array]
Acquisition = Callable[[Array, Array], Valued]

LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)


def log_expected_improvement(best: float) -> Acquisition:
    """Return the logarithm of the expected improvement on ``best``.

    References
    ----------
    Ament et al. 2023, *Unexpected Improvements to Expected Improvement for Bayesian
    Optimization*, eq. 9 and App. A.1.
    """

    def value(mean: Array, sd: Array) -> Valued:
        z = (best - mean) / sd
        log_h = _log_h(z)
        by_z = np.exp(log_ndtr(z) - log_h)  # h' = Φ
        density = np.exp(-0.5 * z * z - LOG_ROOT_2PI - log_h)
        return log_h + np.log(sd), -by_z / sd, density / sd

    return value


def log_probability_of_improvement(best: float) -> Acquisition:
    """Return the logarithm of the probability of a value below ``best``."""

    def value(mean: Array, sd: Array) -> Valued:
        z = (best - mean) / sd
        log_p = log_ndtr(z)
        by_z = np.exp(-0.5 * z * z - LOG_ROOT_2PI - log_p)
        return log_p, -by_z / sd, -z * by_z / sd

    return value


def lower_confidence_bound(kappa: float) -> Acquisition:
    """Return the negative of the bound ``mean - kappa * sd``."""

    def value(mean: Array, sd: Array) -> Valued:
        return kappa * sd - mean, np.full_like(mean, -1.0), np.full_like(sd, kappa)

    return value


def _log_h(z: Array) -> Array:
    """Compute log(φ(z) + z Φ(z)), also where the two terms nearly cancel."""
    low = np.minimum(z, -1.0)
    ratio = math.sqrt(math.pi / 2.0) * erfcx(-low / math.sqrt(2.0))  # Φ/φ
    # For z -> -inf, 1 + z Φ/φ -> 1/z², which is below the rounding error of that sum.
    rest = np.where(low > -1e4, np.log(np.maximum(1.0 + low * ratio, 1e-16)), -2 * np.log(-low))
    tail = -0.5 * low * low - LOG_ROOT_2PI + rest
    high = np.maximum(z, -1.0)
    body = np.log(np.exp(-0.5 * high * high - LOG_ROOT_2PI) + high * ndtr(high))
    return np.where(z < -1.0, tail, body)
