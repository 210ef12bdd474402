"""Ray Tune's names, of 2020 and of today: ``from daskhpo import tune``.

What a name means here is in docs/how-to/from-ray-tune.md. It is translation: the studies that run
are daskhpo's.
"""

from __future__ import annotations

import sys
from importlib import import_module

from daskhpo.tune.analysis import ExperimentAnalysis, Result, ResultGrid, TuneError
from daskhpo.tune.checkpoint import Checkpoint
from daskhpo.tune.configs import (
    CheckpointConfig,
    FailureConfig,
    PlacementGroupFactory,
    RunConfig,
    SyncConfig,
    TuneConfig,
)
from daskhpo.tune.logger import Callback
from daskhpo.tune.schedulers import create_scheduler
from daskhpo.tune.search import create_searcher
from daskhpo.tune.session import (
    checkpoint_dir,
    get_checkpoint,
    get_context,
    get_trial_dir,
    get_trial_id,
    get_trial_name,
    get_trial_resources,
    is_session_enabled,
    report,
)
from daskhpo.tune.space import (
    choice,
    grid_search,
    lograndint,
    loguniform,
    qlograndint,
    qloguniform,
    qrandint,
    qrandn,
    quniform,
    randint,
    randn,
    sample_from,
    uniform,
)
from daskhpo.tune.stopper import Stopper
from daskhpo.tune.trainable import Trainable, register_trainable, with_parameters, with_resources
from daskhpo.tune.tuner import Experiment, Tuner, run, run_experiments

__all__ = [
    "CLIReporter",
    "Callback",
    "Checkpoint",
    "CheckpointConfig",
    "Experiment",
    "ExperimentAnalysis",
    "FailureConfig",
    "JupyterNotebookReporter",
    "PlacementGroupFactory",
    "ProgressReporter",
    "Result",
    "ResultGrid",
    "RunConfig",
    "Stopper",
    "SyncConfig",
    "Trainable",
    "TuneConfig",
    "TuneError",
    "Tuner",
    "checkpoint_dir",
    "choice",
    "create_scheduler",
    "create_searcher",
    "function",
    "get_checkpoint",
    "get_context",
    "get_trial_dir",
    "get_trial_id",
    "get_trial_name",
    "get_trial_resources",
    "grid_search",
    "is_session_enabled",
    "lograndint",
    "loguniform",
    "qlograndint",
    "qloguniform",
    "qrandint",
    "qrandn",
    "quniform",
    "randint",
    "randn",
    "register_trainable",
    "report",
    "run",
    "run_experiments",
    "sample_from",
    "uniform",
    "with_parameters",
    "with_resources",
]


class ProgressReporter:
    """Accepted, without effect: progress is daskhpo's."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def add_metric_column(self, *args: object, **kwargs: object) -> None:
        """Do nothing."""


CLIReporter = JupyterNotebookReporter = ProgressReporter


def function(called: object) -> object:
    """Return the function: in 2019 it had to be marked."""
    return called


# Modules of Ray Tune that are others here, such as ``daskhpo.tune.suggest.optuna``.
ALIASES = {
    "schedulers": (
        *("schedulers.async_hyperband", "schedulers.hyperband", "schedulers.pbt", "schedulers.pb2"),
        *("schedulers.median_stopping_rule", "schedulers.trial_scheduler", "schedulers.hb_bohb"),
        *("async_hyperband", "hyperband", "pbt", "median_stopping_rule"),
        "schedulers.resource_changing_scheduler",
    ),
    "search": (
        *("suggest", "search.searcher", "search.basic_variant", "search.concurrency_limiter"),
        *("search.repeater", "suggest.suggestion", "suggest.basic_variant", "suggest.repeater"),
        *(
            f"{folder}.{library}"
            for folder in ("search", "suggest")
            for library in (
                *("ax", "bayesopt", "bohb", "dragonfly", "flaml", "hebo", "hyperopt"),
                *("nevergrad", "optuna", "sigopt", "skopt", "zoopt"),
            )
        ),
    ),
    "space": ("sample", "search.sample", "search.variant_generator"),
    "stopper": (
        *("stopper.stopper", "stopper.experiment_plateau", "stopper.trial_plateau"),
        *("stopper.maximum_iteration", "stopper.timeout", "stopper.function_stopper"),
    ),
    "logger": ("logger.logger", "logger.csv", "logger.json", "logger.tensorboardx", "callback"),
    "analysis": ("analysis.experiment_analysis", "result_grid", "result", "error", "trial"),
    "tuner": ("tune", "experiment"),
    "configs": ("tune_config", "syncer", "execution.placement_groups"),
    "session": ("track", "trainable.session"),
    "trainable": ("registry", "function_runner", "trainable.trainable", "trainable.util"),
    "utils": ("utils.util", "utils.log"),
    "integration": (
        *("integration.wandb", "integration.mlflow", "air.integrations"),
        *("air.integrations.wandb", "air.integrations.mlflow"),
    ),
}
for _name, _others in ALIASES.items():
    _module = import_module(f"daskhpo.tune.{_name}")
    for _other in _others:
        sys.modules[f"daskhpo.tune.{_other}"] = _module
        if "." not in _other and _other not in globals():
            globals()[_other] = _module
sys.modules["daskhpo.tune.progress_reporter"] = sys.modules[__name__]
