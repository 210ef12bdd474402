"""Names of Ray Tune that mean nothing here: what to use instead, and who says so.

Importing one of them works, so a script whose other branch needs it runs. Calling one, or deriving
a class from it, raises an error with both names.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from daskhpo.tune.messages import unavailable

RLLIB = "there is no RLlib here: wrap its algorithm in a tune.Trainable"
RANKS = "start ranks by daskhpo.distributed.launch(function, tune.get_context().trial, 2)"
OWN = "Ray's own machinery: a study has its journal, its workers and `daskhpo` as command line"
OWN_SEARCHER = "derive your searcher from daskhpo.searchers.Searcher"
SPACES = "use tune.uniform, tune.quniform, tune.choice and their like"
OPTUNA = "use OptunaSearch"
MULTI_FIDELITY = "use OptunaSearch with ASHAScheduler"
FIXED = "a trial's resources are fixed: resources={'gpu': 2}"
SYNC = "a study has one directory, which all workers share"
ANALYSIS = "use daskhpo.load_study(path), or Tuner.restore(path, trainable).get_results()"

# Names of modules that have other names with a meaning.
NAMES: dict[str, dict[str, str]] = {
    "tune": {
        "Analysis": ANALYSIS,
        **dict.fromkeys(["make_checkpoint_dir", "save_checkpoint"], "use tune.checkpoint_dir"),
        "register_env": RLLIB,
        **dict.fromkeys(["RemoteReporterMixin", "TrialProgressCallback", "TuneReporterBase"], OWN),
        **dict.fromkeys(["memory_debug_str", "trial_errors_str", "trial_progress_str"], OWN),
    },
    "air": {
        "ScalingConfig": RANKS,
        "AcquiredResources": FIXED,
        "ResourceRequest": FIXED,
        "DataBatchType": "there is no Ray Data here",
    },
    "train": {"ScalingConfig": RANKS, "DataConfig": "there is no Ray Data here"},
    "analysis": {
        "Analysis": ANALYSIS,
        **dict.fromkeys(["AbortTrialExecution", "Location", "TrialInfo"], OWN),
        **dict.fromkeys(["checkpoint_deleter", "date_str"], OWN),
    },
    "callback": {"CallbackList": OWN},
    "configs": {
        "ScalingConfig": RANKS,
        **dict.fromkeys(["json_to_resources", "resources_to_json"], OWN),
        **dict.fromkeys(["CloudSyncer", "NodeSyncer", "Syncer", "wait_for_sync"], SYNC),
        **dict.fromkeys(["get_cloud_syncer", "get_node_syncer", "log_sync_template"], SYNC),
    },
    "logger": {
        "AimLoggerCallback": "write a daskhpo.callbacks.Callback",
        "CometLoggerCallback": "write a daskhpo.callbacks.Callback",
    },
    "sample": {
        **dict.fromkeys(
            ["BaseSampler", "Categorical", "Float", "Grid", "Integer", "LogUniform"], SPACES
        ),
        **dict.fromkeys(["Normal", "Quantized", "Sampler", "Uniform", "function"], SPACES),
    },
    "schedulers": {
        **dict.fromkeys(["Bracket", "import_pb2_dependencies", "make_experiment_tag"], OWN),
        "DistributeResources": FIXED,
        "DistributeResourcesToTopJob": FIXED,
        "HyperBandForBOHB": "use ASHAScheduler with OptunaSearch",
        "PBTTrialState": OWN,
        "ResourceChangingScheduler": FIXED,
        "explore": "daskhpo.schedulers.PBT perturbs within mutations=",
    },
    "search": {
        **dict.fromkeys(["SearchAlgorithm", "SearchGenerator"], OWN_SEARCHER),
        **dict.fromkeys(["UNDEFINED_METRIC_MODE", "UNDEFINED_SEARCH_SPACE"], OWN),
        "UNRESOLVED_SEARCH_SPACE": OWN,
        "BOHB": MULTI_FIDELITY,
        "BlendSearch": MULTI_FIDELITY,
        "CFO": OPTUNA,
        "DragonflySearch": "use daskhpo.searchers.DragonflySearch",
        "HEBOSearch": "use BayesOptSearch or OptunaSearch",
        "NevergradSearch": OPTUNA,
        "SigOptSearch": "use daskhpo.searchers.SigOptSearch(address, token)",
        "TuneBOHB": MULTI_FIDELITY,
        "ZOOptSearch": OPTUNA,
    },
    "session": {
        "make_checkpoint_dir": "use tune.checkpoint_dir",
        "save_checkpoint": "use tune.checkpoint_dir",
        **dict.fromkeys(["TrackSession", "get_session", "init"], "tune.run begins a trial"),
    },
    "space": {
        **dict.fromkeys(["generate_variants", "resolve_nested_dict", "format_vars"], SPACES),
        **dict.fromkeys(["RecursiveDependencyError", "parse_spec_vars", "assign_value"], OWN),
        "flatten_resolved_vars": OWN,
    },
    "tuner": {"convert_to_experiment_list": OWN},
    "trainable": {
        **dict.fromkeys(
            ["FunctionTrainable", "FunctionRunner", "wrap_function"], "give the function"
        ),
        **dict.fromkeys(["FuncCheckpointUtil", "TrainableUtil", "StatusReporter"], OWN),
        "detect_checkpoint_function": OWN,
        **dict.fromkeys(["register_env", "register_input"], RLLIB),
        **dict.fromkeys(["registry_contains_input", "registry_get_input"], RLLIB),
    },
    "utils": {
        **dict.fromkeys(["Tee", "UtilMonitor", "retry_fn", "warn_if_slow"], OWN),
        **dict.fromkeys(["disable_ipython", "has_verbosity"], OWN),
        "validate_warmstart": "points_to_evaluate= is checked when the study is made",
    },
}

# Whole modules.
MODULES: dict[str, str] = {
    "automl": "use tune.run with OptunaSearch",
    **dict.fromkeys(["integration.torch", "integration.horovod", "integration.mxnet"], RANKS),
    **dict.fromkeys(["integration.tensorflow", "integration.ray_train"], RANKS),
    **dict.fromkeys(["train.torch", "train.tensorflow", "train.horovod"], RANKS),
    **dict.fromkeys(["train.lightning", "train.huggingface", "train.data_parallel_trainer"], RANKS),
    **dict.fromkeys(["train.xgboost", "train.lightgbm"], "train in the function: see boosting"),
    **dict.fromkeys(["integration.docker", "integration.kubernetes"], "see docs/how-to/slurm.md"),
    "integration.comet": "write a daskhpo.callbacks.Callback",
    **dict.fromkeys(["sklearn", "tune_sklearn"], "use daskhpo.sklearn.ASHASearchCV"),
    "utils.visual_utils": "use the table that daskhpo.Result.trials() returns",
    "web_server": "a study has a dashboard, and `daskhpo status`",
    **dict.fromkeys(["checkpoint_manager", "cluster_info", "commands", "config_parser"], OWN),
    **dict.fromkeys(["execution", "ray_trial_executor", "scripts", "sync_client"], OWN),
    **dict.fromkeys(["trial_executor", "trial_runner", "utils.mock", "utils.mock_trainable"], OWN),
    **dict.fromkeys(["cli", "experimental", "utils.serialization", "utils.file_transfer"], OWN),
    **dict.fromkeys(["schedulers.pb2_utils", "utils.release_test_util"], OWN),
}


def absent_module(name: str, instead: str) -> ModuleType:
    """Return what stands for a module of Ray Tune, whose names refuse to be used."""

    def refused(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return unavailable(f"{name}.{attribute}", instead)

    module = ModuleType(f"daskhpo.tune.{name}")
    vars(module).update(__path__=[], __getattr__=refused)
    return module


def install() -> None:
    """Put all of these names in their modules."""
    for module, names in NAMES.items():
        holder = sys.modules["daskhpo.tune" if module == "tune" else f"daskhpo.tune.{module}"]
        for name, instead in names.items():
            if not hasattr(holder, name):
                setattr(holder, name, unavailable(name, instead))
    for module, instead in MODULES.items():
        sys.modules[f"daskhpo.tune.{module}"] = absent_module(module, instead)
