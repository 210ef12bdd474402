"""Estimators whose scores are known beforehand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator


class Constant(BaseEstimator):
    """Its score is its parameter, however long it trains."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def partial_fit(self, X: Any, y: Any = None) -> Constant:
        self.n_calls_ = getattr(self, "n_calls_", 0) + 1
        self.n_rows_ = getattr(self, "n_rows_", 0) + len(X)
        return self

    def fit(self, X: Any, y: Any = None) -> Constant:
        return self.partial_fit(X, y)

    def score(self, X: Any, y: Any = None) -> float:
        return self.value

    def predict(self, X: Any) -> Any:
        return X[:, 0]


class Line(Constant):
    """Its score grows with each call by ``value``, until it is ``most``."""

    def __init__(self, value: float = 1.0, most: float = float("inf")) -> None:
        super().__init__(value)
        self.most = most

    def score(self, X: Any, y: Any = None) -> float:
        return min(self.value * self.n_calls_, self.most)


class Trees(Constant):
    """It grows by a parameter, and remembers with which values it was fitted."""

    def __init__(self, value: float = 0.0, n_estimators: int = 40, warm_start: bool = False):
        super().__init__(value)
        self.n_estimators, self.warm_start = n_estimators, warm_start

    def fit(self, X: Any, y: Any = None) -> Trees:
        before = getattr(self, "fits_", []) if self.warm_start else []
        self.fits_ = [*before, self.n_estimators]
        return self

    def score(self, X: Any, y: Any = None) -> float:
        return self.value * len(self.fits_)


class Fails(Constant):
    """It cannot be fitted with a negative parameter."""

    def partial_fit(self, X: Any, y: Any = None) -> Constant:
        if self.value < 0:
            raise ArithmeticError("a negative value")
        return super().partial_fit(X, y)


class Slow(Line):
    """A call of it takes as long as a file does not exist."""

    def __init__(self, value: float = 1.0, most: float = float("inf"), gate: str = "") -> None:
        super().__init__(value, most)
        self.gate = gate

    def partial_fit(self, X: Any, y: Any = None) -> Constant:
        while getattr(self, "n_calls_", 0) >= 2 and not Path(self.gate).exists():
            time.sleep(0.01)
        return super().partial_fit(X, y)
