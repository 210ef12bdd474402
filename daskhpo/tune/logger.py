"""Callbacks and loggers by Ray Tune's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from daskhpo import callbacks
from daskhpo.callbacks.base import Callback as StudyCallback
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary
from daskhpo.core.types import Status
from daskhpo.tune.messages import no_effect, say
from daskhpo.tune.names import ITERATION, STATUS, flat, trial_name
from daskhpo.tune.result import SHOULD_CHECKPOINT

ConfigOf = Callable[[int, Mapping[str, Any]], dict[Any, Any]]
NO_SHOULD_CHECKPOINT = "has no effect: a study saves what it needs"


class Callback:
    """Base class of callbacks: hooks, called in the process that started the study."""

    def setup(self, **info: Any) -> None:
        """Handle the start."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Handle the start of a trial."""

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Handle a report."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Handle the end of a trial."""

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Handle the failure of a trial."""

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Handle the end of the study."""

    def get_state(self) -> dict[str, Any] | None:
        """Return None: it is not called; a study that is resumed tells all again."""
        return None

    def set_state(self, state: dict[str, Any]) -> None:
        """Do nothing: it is not called."""


class LoggerCallback(Callback):
    """Base class of loggers: simpler hooks."""

    def log_trial_start(self, trial: Any) -> None:
        """Handle the start of a trial."""

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Handle a report."""

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Handle the end of a trial."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.log_trial_start(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.log_trial_result(iteration, trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.log_trial_end(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.log_trial_end(trial, failed=True)


class FollowedTrial:
    """A trial, as the hooks get it.

    Attributes
    ----------
    trial_id, config, last_result, status : as Ray has them.
    logdir : a folder of its own in the study's directory; a hook that writes there makes it.
    """

    def __init__(self, trial: FrozenTrial, config: dict[Any, Any], folder: Path) -> None:
        self.trial_id, self.config = trial_name(trial.id), config
        self.last_result = {**trial.metrics, ITERATION: trial.resource, "trial_id": self.trial_id}
        self.status, self.evaluated_params = STATUS[trial.status], dict(trial.config)
        self.logdir = self.path = self.local_path = str(folder / f"trial_{self.trial_id}")

    def __repr__(self) -> str:
        return f"trial_{self.trial_id}"


class Follower(StudyCallback):
    """Calls the hooks of a callback of Ray Tune.

    Parameters
    ----------
    config_of : makes a trial's nested configuration of its number and the study's.
    """

    def __init__(self, callback: Callback, config_of: ConfigOf) -> None:
        self._callback, self._config_of = callback, config_of
        self._trials: dict[int, FollowedTrial] = {}
        self._n = 0

    def on_study_start(self, info: StudyInfo) -> None:
        self._directory = info.directory
        self._callback.setup()

    def on_trial_start(self, trial: FrozenTrial) -> None:
        self._call("on_trial_start", trial)

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        self._n += 1
        own = {
            ITERATION: report.resource,
            "trial_id": trial_name(trial.id),
            "time_total_s": trial.seconds,
        }
        config = self._config_of(trial.id, trial.config)
        result = {**report.metrics, **own, "done": False, "config": config}
        self._call("on_trial_result", trial, result=result)
        if result.get(SHOULD_CHECKPOINT):
            say(SHOULD_CHECKPOINT, NO_SHOULD_CHECKPOINT)

    def on_trial_end(self, trial: FrozenTrial) -> None:
        failed = trial.status is Status.FAILED
        self._call("on_trial_error" if failed else "on_trial_complete", trial)

    def on_study_end(self, study: StudySummary) -> None:
        self._callback.on_experiment_end([*self._trials.values()])

    def _call(self, hook: str, trial: FrozenTrial, **more: Any) -> None:
        config = self._config_of(trial.id, trial.config)
        self._trials[trial.id] = seen = FollowedTrial(trial, config, self._directory)
        getattr(self._callback, hook)(self._n, [*self._trials.values()], seen, **more)


class Logger:
    """Base class of loggers of 2020: one object for each trial.

    Attributes
    ----------
    config, logdir, trial : nested configuration; a folder for its files; the trial.
    """

    def __init__(self, config: dict[str, Any], logdir: str, trial: Any = None) -> None:
        self.config, self.logdir, self.trial = config, logdir, trial
        self._init()

    def _init(self) -> None:
        """Begin."""

    def on_result(self, result: dict[str, Any]) -> None:
        """Handle a report."""

    def update_config(self, config: dict[str, Any]) -> None:
        """Handle a changed configuration; it is not called."""

    def flush(self) -> None:
        """Write what is held; it is not called before :meth:`close`."""

    def close(self) -> None:
        """Handle the end of the trial."""


class LoggerOf2020(LoggerCallback):
    """Makes and calls a logger of 2020 for each trial."""

    def __init__(self, kind: Callable[..., Any]) -> None:
        self._kind = kind
        self._open: dict[str, Any] = {}

    def log_trial_start(self, trial: Any) -> None:
        Path(trial.logdir).mkdir(parents=True, exist_ok=True)
        self._open[trial.trial_id] = self._kind(trial.config, trial.logdir, trial)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self._open[trial.trial_id].on_result(result)

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        self._open.pop(trial.trial_id).close()


def TBXLoggerCallback(**kwargs: Any) -> StudyCallback:  # noqa: N802 - a class in Ray
    """Return `daskhpo.callbacks.TensorBoardLogger`."""
    return callbacks.TensorBoardLogger()


def CSVLoggerCallback() -> StudyCallback:  # noqa: N802
    """Return `daskhpo.callbacks.CSVLogger`."""
    return callbacks.CSVLogger()


def JsonLoggerCallback() -> StudyCallback:  # noqa: N802
    """Return `daskhpo.callbacks.JSONLogger`."""
    return callbacks.JSONLogger()


def WandbLoggerCallback(project: str = "daskhpo", **kwargs: Any) -> StudyCallback:  # noqa: N802
    """Return `daskhpo.callbacks.WandbLogger`."""
    own = ("api_key", "api_key_file", "excludes", "log_config", "save_checkpoints")
    no_effect({name: kwargs.pop(name, None) for name in own}, "W&B takes it from its environment")
    return callbacks.WandbLogger(project, **kwargs)


def MLflowLoggerCallback(  # noqa: N802
    tracking_uri: str | None = None, experiment_name: str | None = None, **kwargs: Any
) -> StudyCallback:
    """Return `daskhpo.callbacks.MLflowLogger`."""
    no_effect(kwargs, "daskhpo.callbacks.MLflowLogger has no such option")
    return callbacks.MLflowLogger(experiment_name, tracking_uri)


class CSVLogger(Logger):
    """The logger of 2020 for CSV files."""


class JsonLogger(Logger):
    """The logger of 2020 for JSON files."""


class TBXLogger(Logger):
    """The logger of 2020 for TensorBoard."""


class WandbLogger(Logger):
    """The logger of 2020 for W&B; its options are ``config["wandb"]``."""


class MLFlowLogger(Logger):
    """The logger of 2020 for MLflow, in ``config["mlflow_experiment_id"]``."""

    def _init(self) -> None:
        from mlflow import MlflowClient

        self._client: Any = MlflowClient()
        self._run = self._client.create_run(str(self.config.get("mlflow_experiment_id", "0")))
        for name, value in flat(self.config):
            self._client.log_param(self._run.info.run_id, name, value)

    def on_result(self, result: dict[str, Any]) -> None:
        for name, value in result.items():
            if isinstance(value, float):
                self._client.log_metric(self._run.info.run_id, name, value, step=result[ITERATION])

    def close(self) -> None:
        self._client.set_terminated(self._run.info.run_id)


class NoopLogger(Logger):
    """A logger that does nothing."""


MLFLowLogger = MLFlowLogger  # as it was written in 2020
UnifiedLogger = TFLogger = TF2Logger = TBXLogger
DEFAULT_LOGGERS = (JsonLogger, CSVLogger, TBXLogger)
_MADE = {
    CSVLogger: CSVLoggerCallback,
    JsonLogger: JsonLoggerCallback,
    TBXLogger: TBXLoggerCallback,
}


def pretty_print(result: Mapping[str, Any], *args: Any) -> str:
    """Return a report as text, one name a line."""
    return "\n".join(f"{name}: {value}" for name, value in sorted(result.items())) + "\n"


def followers(
    given: Iterable[Any] | None,
    loggers: Iterable[Any] | None,
    config: Mapping[str, Any],
    config_of: ConfigOf,
) -> list[StudyCallback]:
    """Return a study's callbacks for those of a script.

    Parameters
    ----------
    config : what the script gave. config_of : as for `Follower`.
    """
    found: list[StudyCallback] = []
    for callback in given or ():
        is_ours = isinstance(callback, StudyCallback)
        found.append(callback if is_ours else Follower(callback, config_of))
    for logger in loggers or ():
        if logger in _MADE:
            found.append(_MADE[logger]())
        elif logger is WandbLogger:
            found.append(WandbLoggerCallback(**config.get("wandb", {})))
        else:
            found.append(Follower(LoggerOf2020(logger), config_of))
    return found
