"""Callbacks and loggers by Ray Tune's names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from daskhpo import callbacks
from daskhpo.callbacks.base import Callback as StudyCallback
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary
from daskhpo.core.types import Status
from daskhpo.tune.messages import no_effect, say
from daskhpo.tune.names import ITERATION, STATUS, trial_name


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
    trial_id, config, last_result, status : as Ray has them; the configuration is the study's.
    """

    def __init__(self, trial: FrozenTrial) -> None:
        self.trial_id, self.config = trial_name(trial.id), dict(trial.config)
        self.last_result = {**trial.metrics, ITERATION: trial.resource, "trial_id": self.trial_id}
        self.status = STATUS[trial.status]

    def __repr__(self) -> str:
        return f"trial_{self.trial_id}"


class Follower(StudyCallback):
    """Calls the hooks of a callback of Ray Tune."""

    def __init__(self, callback: Callback) -> None:
        self._callback = callback
        self._trials: dict[int, FollowedTrial] = {}
        self._n = 0

    def on_study_start(self, info: StudyInfo) -> None:
        self._callback.setup()

    def on_trial_start(self, trial: FrozenTrial) -> None:
        self._call("on_trial_start", trial)

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        self._n += 1
        own = {ITERATION: report.resource, "trial_id": trial_name(trial.id)}
        result = {**report.metrics, **own, "config": dict(trial.config)}
        self._call("on_trial_result", trial, result=result)

    def on_trial_end(self, trial: FrozenTrial) -> None:
        failed = trial.status is Status.FAILED
        self._call("on_trial_error" if failed else "on_trial_complete", trial)

    def on_study_end(self, study: StudySummary) -> None:
        self._callback.on_experiment_end([*self._trials.values()])

    def _call(self, hook: str, trial: FrozenTrial, **more: Any) -> None:
        self._trials[trial.id] = seen = FollowedTrial(trial)
        getattr(self._callback, hook)(self._n, [*self._trials.values()], seen, **more)


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


class Logger:
    """Base class of loggers of 2020; such a logger is not called."""


class CSVLogger(Logger):
    """The logger of 2020 for CSV files."""


class JsonLogger(Logger):
    """The logger of 2020 for JSON files."""


class TBXLogger(Logger):
    """The logger of 2020 for TensorBoard."""


UnifiedLogger = TFLogger = TF2Logger = TBXLogger
DEFAULT_LOGGERS = (JsonLogger, CSVLogger, TBXLogger)
_MADE = {
    CSVLogger: CSVLoggerCallback,
    JsonLogger: JsonLoggerCallback,
    TBXLogger: TBXLoggerCallback,
}


def followers(given: Iterable[Any] | None, loggers: Iterable[Any] | None) -> list[StudyCallback]:
    """Return a study's callbacks for those of a script."""
    found: list[StudyCallback] = []
    for callback in given or ():
        found.append(callback if isinstance(callback, StudyCallback) else Follower(callback))
    for logger in loggers or ():
        if logger in _MADE:
            found.append(_MADE[logger]())
        else:
            say(f"loggers=[{getattr(logger, '__name__', logger)}]", "is not called: use callbacks=")
    return found
