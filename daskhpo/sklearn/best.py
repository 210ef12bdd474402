"""The methods that a search has from its best estimator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted


def _of_best(name: str) -> Callable[[Any], bool]:
    """Return a check that the best estimator, or else the given one, has a method."""

    def has(search: Any) -> bool:
        getattr(getattr(search, "best_estimator_", search.estimator), name)
        return True

    return has


class OfBestEstimator:
    """Predictions and scores of ``best_estimator_``.

    Attributes
    ----------
    classes_ : its classes.
    """

    best_estimator_: Any
    scorer_: Any
    refit: Any

    def _best(self, name: str, X: Any) -> Any:
        """Call a method of the best estimator, lazily for a Dask array."""
        check_is_fitted(self, "best_estimator_")
        method = getattr(self.best_estimator_, name)
        return _of_blocks(method, X) if hasattr(X, "dask") else method(X)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the score by which candidates were compared, of the best estimator."""
        check_is_fitted(self, "best_estimator_")
        if hasattr(X, "dask") or hasattr(y, "dask"):
            import dask

            X, y = dask.compute(X, y)
        found = self.scorer_(self.best_estimator_, X, *(() if y is None else (y,)))
        return float(found[self.refit] if isinstance(found, dict) else found)

    @available_if(_of_best("predict"))  # type: ignore[untyped-decorator]
    def predict(self, X: Any) -> Any:
        """Call ``predict`` of the best estimator."""
        return self._best("predict", X)

    @available_if(_of_best("predict_proba"))  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Any:
        """Call ``predict_proba`` of the best estimator."""
        return self._best("predict_proba", X)

    @available_if(_of_best("predict_log_proba"))  # type: ignore[untyped-decorator]
    def predict_log_proba(self, X: Any) -> Any:
        """Call ``predict_log_proba`` of the best estimator."""
        return self._best("predict_log_proba", X)

    @available_if(_of_best("decision_function"))  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> Any:
        """Call ``decision_function`` of the best estimator."""
        return self._best("decision_function", X)

    @available_if(_of_best("score_samples"))  # type: ignore[untyped-decorator]
    def score_samples(self, X: Any) -> Any:
        """Call ``score_samples`` of the best estimator."""
        return self._best("score_samples", X)

    @available_if(_of_best("transform"))  # type: ignore[untyped-decorator]
    def transform(self, X: Any) -> Any:
        """Call ``transform`` of the best estimator."""
        return self._best("transform", X)

    @available_if(_of_best("inverse_transform"))  # type: ignore[untyped-decorator]
    def inverse_transform(self, X: Any) -> Any:
        """Call ``inverse_transform`` of the best estimator."""
        return self._best("inverse_transform", X)

    @property
    def classes_(self) -> Any:
        """The classes of the best estimator."""
        check_is_fitted(self, "best_estimator_")
        return self.best_estimator_.classes_


def _of_blocks(method: Callable[[Any], Any], X: Any) -> Any:
    """Return a method's result for a Dask array or data frame, block by block."""
    if not hasattr(X, "chunks"):  # a data frame: its partitions keep their columns and types
        return _of_partitions(method, X)
    sample = method(np.zeros((1, X.shape[1]), X.dtype))
    X = X.rechunk({1: -1})
    if sample.ndim == 1:
        return X.map_blocks(method, dtype=sample.dtype, drop_axis=1)
    return X.map_blocks(method, dtype=sample.dtype, chunks=(X.chunks[0], sample.shape[1:]))


def _of_partitions(method: Callable[[Any], Any], X: Any) -> Any:
    import dask
    import dask.array as da

    sample = method(X.head(1, npartitions=-1))  # zeros could be unknown to an encoder
    shape = (np.nan, *sample.shape[1:])
    blocks = [dask.delayed(method)(part) for part in X.to_delayed()]
    return da.concatenate([da.from_delayed(block, shape, sample.dtype) for block in blocks])
