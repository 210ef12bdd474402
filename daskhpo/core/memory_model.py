"""Regression of the memory that configurations need, on what trials have used."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from daskhpo.core.domains import Categorical
from daskhpo.core.space import Space
from daskhpo.core.types import Config, TrialId

FEWEST_PEAKS = 8  # ... and two more than the space has hyperparameters
MOST_PEAKS = 500  # the newest ones
NEW_SHARE = 0.1  # of the trials: then it is fitted again
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
COVERAGE = 0.95  # share of the trials that lie within the spread
LEAST_SPREAD = math.log(1.05)


class Prediction(NamedTuple):
    """Bytes that a configuration needs: most likely, and the range of nearly all."""

    low: float
    middle: float
    high: float


class _Fit(NamedTuple):
    weights: np.ndarray  # [F]
    inverse: np.ndarray  # [F, F], of the normal equations
    spread: float  # of the logarithm


class MemoryModel:
    """Ridge regression of the logarithm of bytes, on a configuration and its squares.

    Memory is mostly a product (batch size times width), so its logarithm is a sum. The spread is a
    high quantile of the errors that each trial's prediction has without that trial, and grows
    outside of what was seen.

    References
    ----------
    Barber et al. 2021, *Predictive inference with the jackknife+*, Sec. 1: quantiles of
    leave-one-out errors.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._seen: dict[TrialId, tuple[list[float], float]] = {}
        self._fit: _Fit | None = None
        self._n_fitted = 0
        self._n_added = 0

    def add(self, trial: TrialId, config: Config, n_bytes: float) -> None:
        """Add the peak of a trial; a later one replaces it, if it is higher."""
        if trial not in self._seen:
            self._n_added += 1
            if len(self._seen) == MOST_PEAKS:
                del self._seen[next(iter(self._seen))]
        before = self._seen.get(trial, ([], 0.0))[1]
        self._seen[trial] = self._features(config), max(before, math.log(n_bytes))

    def predict(self, config: Config) -> Prediction | None:
        """Return what a configuration needs; None: too few trials are known."""
        if len(self._seen) < max(FEWEST_PEAKS, len(self._space.domains) + 2):
            return None
        if self._fit is None or self._n_added >= (1 + NEW_SHARE) * self._n_fitted:
            self._fit, self._n_fitted = self._fitted(), self._n_added
        x = np.array(self._features(config))
        middle = float(x @ self._fit.weights)
        spread = self._fit.spread * math.sqrt(1.0 + float(x @ self._fit.inverse @ x))
        return Prediction(*(math.exp(min(700.0, middle + s)) for s in (-spread, 0.0, spread)))

    def _features(self, config: Config) -> list[float]:
        """Return a one, numbers in their unit with squares, and a bit per category."""
        found = [1.0]
        units = self._space.to_unit(config)
        for (name, domain), unit in zip(self._space.domains.items(), units, strict=True):
            if isinstance(domain, Categorical):
                found += [float(value == config[name]) for value in domain.values]
            else:
                found += [unit, unit * unit]
        return found

    def _fitted(self) -> _Fit:
        """Fit with the ridge that predicts left-out trials best."""
        x = np.array([features for features, _ in self._seen.values()])  # [N, F]
        y = np.array([value for _, value in self._seen.values()])  # [N]
        best: tuple[float, _Fit] | None = None
        for ridge in RIDGES:
            penalty = np.full(x.shape[1], ridge)
            penalty[0] = 1e-9  # the mean is not shrunk
            inverse = np.linalg.inv(x.T @ x + np.diag(penalty))
            weights = inverse @ x.T @ y
            leverage = np.einsum("nf,fg,ng->n", x, inverse, x)
            left_out = np.abs(y - x @ weights) / np.maximum(1e-9, 1.0 - leverage)
            spread = float(np.quantile(left_out, COVERAGE, method="higher"))
            error = float(left_out @ left_out)
            if best is None or error < best[0]:
                best = error, _Fit(weights, inverse, max(LEAST_SPREAD, spread))
        assert best is not None
        return best[1]
