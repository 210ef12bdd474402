"""Ray Tune's names, of 2020 and of today: ``from daskhpo import tune``.

What a name means here is in docs/how-to/from-ray-tune.md. It is translation: the studies that run
are daskhpo's.
"""

from __future__ import annotations

import sys
from importlib import import_module

from daskhpo.tune.absent import install
from daskhpo.tune.analysis import ExperimentAnalysis, Result, ResultGrid, TuneError
from daskhpo.tune.checkpoint import Checkpoint
from daskhpo.tune.configs import (
    CheckpointConfig,
    FailureConfig,
    PlacementGroupFactory,
    ResumeConfig,
    RunConfig,
    SyncConfig,
    TuneConfig,
)
from daskhpo.tune.logger import Callback
from daskhpo.tune.schedulers import create_scheduler
from daskhpo.tune.search import create_searcher
from daskhpo.tune.session import (
    TuneContext,
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
from daskhpo.tune.stopper import ExperimentPlateauStopper as EarlyStopping
from daskhpo.tune.stopper import Stopper
from daskhpo.tune.trainable import (
    DurableTrainable,
    Trainable,
    register_trainable,
    with_parameters,
    with_resources,
)
from daskhpo.tune.tuner import Experiment, Tuner, run, run_experiments

__all__ = [
    "CLIReporter",
    "Callback",
    "Checkpoint",
    "CheckpointConfig",
    "DurableTrainable",
    "EarlyStopping",
    "Experiment",
    "ExperimentAnalysis",
    "FailureConfig",
    "JupyterNotebookReporter",
    "PlacementGroupFactory",
    "ProgressReporter",
    "Result",
    "ResultGrid",
    "ResumeConfig",
    "RunConfig",
    "Stopper",
    "SyncConfig",
    "Trainable",
    "TuneConfig",
    "TuneContext",
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

    add_parameter_column = add_metric_column


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
        *("suggest.search", "search.search_algorithm", "search.search_generator"),
        *(
            name
            for library in (
                *("ax", "bayesopt", "bohb", "dragonfly", "flaml", "hebo", "hyperopt"),
                *("nevergrad", "optuna", "sigopt", "skopt", "zoopt"),
            )
            for name in (
                f"suggest.{library}",
                f"search.{library}",
                f"search.{library}.{library}_search",
            )
        ),
    ),
    "sample": ("search.sample",),
    "space": ("search.variant_generator", "suggest.variant_generator"),
    "stopper": (
        *("stopper.stopper", "stopper.experiment_plateau", "stopper.trial_plateau"),
        *("stopper.maximum_iteration", "stopper.timeout", "stopper.function_stopper"),
        "stopper.noop",
    ),
    "logger": (
        *("logger.logger", "logger.csv", "logger.json", "logger.tensorboardx", "callback"),
        *("logger.aim", "logger.comet", "logger.mlflow", "logger.wandb", "air.integrations.comet"),
    ),
    "analysis": (
        *("analysis.experiment_analysis", "result_grid", "error", "trial", "experiment.trial"),
        "air.result",
    ),
    "tuner": ("tune", "experiment", "experiment.experiment"),
    "configs": ("tune_config", "syncer", "resources", "execution.placement_groups", "air.config"),
    "session": (
        *("track", "track.session", "context", "trainable.session", "air.session"),
        "trainable.trainable_fn_utils",
    ),
    "trainable": (
        *("registry", "function_runner", "durable_trainable", "trainable.trainable"),
        *("trainable.util", "trainable.function_trainable"),
    ),
    "utils": ("utils.util", "utils.log"),
    "integration": ("air.integrations",),
    "integration.wandb": ("air.integrations.wandb",),
    "integration.mlflow": ("air.integrations.mlflow",),
}
for _name, _others in ALIASES.items():
    _module = import_module(f"daskhpo.tune.{_name}")
    for _other in _others:
        sys.modules[f"daskhpo.tune.{_other}"] = _module
        if "." not in _other and _other not in globals():
            globals()[_other] = _module
sys.modules["daskhpo.tune.progress_reporter"] = sys.modules[__name__]
install()
