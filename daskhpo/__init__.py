"""Hyperparameter optimisation on Dask.

Asynchronous schedulers, cheap checkpoints, Slurm.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from daskhpo._lazy import lazy
from daskhpo._version import __version__

if TYPE_CHECKING:
    from daskhpo.define_by_run import from_optuna
    from daskhpo.engine.options import RunOptions
    from daskhpo.recommendation import Recommendation, recommend
    from daskhpo.results.result import Result, load_study
    from daskhpo.scripts.script import Script
    from daskhpo.study.study import Study
    from daskhpo.trainable import Trainable

__all__ = [
    "Recommendation",
    "Result",
    "RunOptions",
    "Script",
    "Study",
    "Trainable",
    "__version__",
    "from_optuna",
    "load_study",
    "recommend",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Recommendation": "daskhpo.recommendation",
        "Result": "daskhpo.results.result",
        "RunOptions": "daskhpo.engine.options",
        "Script": "daskhpo.scripts.script",
        "Study": "daskhpo.study.study",
        "Trainable": "daskhpo.trainable",
        "from_optuna": "daskhpo.define_by_run",
        "load_study": "daskhpo.results.result",
        "recommend": "daskhpo.recommendation",
    },
)

if "DASKHPO_TRIAL_LOG" in os.environ:  # a trial has started this process
    from daskhpo.trial_output import join_parent

    join_parent()
