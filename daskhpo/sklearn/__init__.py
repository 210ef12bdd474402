"""Searches with scikit-learn's interface; candidates are trials of a study.

``searches`` has the classes, ``base`` their ``fit``, and ``best`` the methods of the best
estimator. ``candidates`` draws configurations, ``dataset`` holds the training data for workers,
``trial`` trains one candidate, and ``tables`` makes ``cv_results_`` and ``history_``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daskhpo._lazy import lazy

if TYPE_CHECKING:
    from daskhpo.sklearn.searches import (
        ASHASearchCV,
        HyperbandSearchCV,
        IncrementalSearchCV,
        RandomizedSearchCV,
        SuccessiveHalvingSearchCV,
    )

__all__ = [
    "ASHASearchCV",
    "HyperbandSearchCV",
    "IncrementalSearchCV",
    "RandomizedSearchCV",
    "SuccessiveHalvingSearchCV",
]

__getattr__, __dir__ = lazy(__name__, dict.fromkeys(__all__, "daskhpo.sklearn.searches"))
