"""Hyperparameter optimisation on Dask: asynchronous schedulers, cheap checkpoints, Slurm."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from daskhpo._version import __version__

if TYPE_CHECKING:
    from daskhpo.recommendation.answer import Recommendation, recommend
    from daskhpo.results.result import Result, load_study
    from daskhpo.study.study import Study
    from daskhpo.trainable import Trainable

__all__ = [
    "Recommendation",
    "Result",
    "Study",
    "Trainable",
    "__version__",
    "load_study",
    "recommend",
]

_HOME = {
    "Recommendation": "daskhpo.recommendation.answer",
    "Result": "daskhpo.results.result",
    "Study": "daskhpo.study.study",
    "Trainable": "daskhpo.trainable",
    "load_study": "daskhpo.results.result",
    "recommend": "daskhpo.recommendation.answer",
}


def __getattr__(name: str) -> Any:  # loaded at the first use: a worker needs Trainable alone
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
