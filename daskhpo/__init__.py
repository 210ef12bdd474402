"""Hyperparameter optimisation on Dask: asynchronous schedulers, cheap checkpoints, Slurm."""

from daskhpo.recommendation import Recommendation, recommend
from daskhpo.results.result import Result
from daskhpo.study.study import Study, load_study
from daskhpo.trainable import Trainable

__version__ = "0.1.0"
__all__ = [
    "Recommendation",
    "Result",
    "Study",
    "Trainable",
    "__version__",
    "load_study",
    "recommend",
]
