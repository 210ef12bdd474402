"""Results in Ray Tune's words, read from a study's `Result`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from daskhpo.core.errors import CheckpointMissing, InvalidArgument
from daskhpo.core.random import trial_seed
from daskhpo.results.progress import TrialRecord
from daskhpo.results.result import Result as StudyResult
from daskhpo.tune.checkpoint import Checkpoint
from daskhpo.tune.names import ITERATION, STATUS, flat, trial_name
from daskhpo.tune.space import ParamSpace

SCOPES = ("last", "all", "avg", "last-5-avg", "last-10-avg")


class ExportFormat:
    """Accepted, without effect: see `daskhpo.checkpoints`."""

    CHECKPOINT, MODEL, ONNX, H5 = "checkpoint", "model", "onnx", "h5"


class TuneError(RuntimeError):
    """A trial failed, or the study could not run."""


class Trial:
    """A trial, as Ray describes one.

    Attributes
    ----------
    trial_id, config, status : number as text; nested configuration; Ray's word.
    results : one dict per report, oldest first.
    """

    def __init__(self, record: TrialRecord, analysis: ExperimentAnalysis) -> None:
        self._record, self._analysis = record, analysis
        self.trial_id = trial_name(record.id)
        self.config = analysis._params.config(record.config, trial_seed(analysis._seed, record.id))
        self.status = STATUS[record.status]
        self.results: list[dict[str, Any]] = []

    def __repr__(self) -> str:
        return f"trial_{self.trial_id}"

    __str__ = __repr__

    @property
    def last_result(self) -> dict[str, Any]:
        """The last report, with its configuration."""
        last = self.results[-1] if self.results else {"trial_id": self.trial_id}
        done = self.status in ("TERMINATED", "ERROR")
        return last | {"config": self.config, "done": done}

    @property
    def evaluated_params(self) -> dict[str, Any]:
        """The drawn hyperparameters, by flat names."""
        return dict(self._record.config)

    @property
    def error(self) -> TuneError | None:
        """The traceback of its failure, or None."""
        return TuneError(self._record.error or self._record.reason) if self._failed else None

    @property
    def _failed(self) -> bool:
        return self.status == "ERROR"

    @cached_property
    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint of the trial that the study keeps, or None."""
        try:
            return Checkpoint.unpacked(self._analysis._result.checkpoint(self._record.id))
        except CheckpointMissing:
            return None

    @property
    def logdir(self) -> str:
        """A path of its own in the study's directory; loggers may have written there."""
        return str(Path(self._analysis.experiment_path, f"trial_{self.trial_id}"))

    path = local_path = logdir

    def scores(self, metric: str) -> list[float]:
        """Return the values of a metric that it has reported."""
        return [row[metric] for row in self.results if metric in row]


class ExperimentAnalysis:
    """Results of a study; "best" is by the last report, unless a scope is given.

    Attributes
    ----------
    trials : all of them, in order.
    default_metric, default_mode : those of the study; None: it was given none.
    """

    def __init__(
        self,
        result: StudyResult,
        params: ParamSpace,
        seed: int,
        metric: str | None,
        mode: str | None,
    ) -> None:
        self._result, self._params, self._seed = result, params, seed
        self.default_metric, self.default_mode = metric, mode
        self.trials = [Trial(result.trial(n), self) for n in range(result.num_trials)]
        names = ("trial", "resource", "seconds", "attempt")
        for row in result.history().to_dict("records") if result.has_reports else ():
            trial = self.trials[row["trial"]]
            own = {
                ITERATION: row["resource"],
                "trial_id": trial.trial_id,
                "time_total_s": row["seconds"] - trial._record.started,
            }
            metrics = {n: v for n, v in row.items() if n not in names and not _is_missing(v)}
            trial.results.append(metrics | own)

    @property
    def experiment_path(self) -> str:
        """The study's directory."""
        return str(self._result.path)

    def get_best_trial(
        self,
        metric: str | None = None,
        mode: str | None = None,
        scope: str = "last",
        filter_nan_and_inf: bool = True,
    ) -> Trial | None:
        """Return the best trial by its ``"last"`` report, by ``"all"``, or by a mean."""
        metric, mode = self._asked(metric, mode)
        if scope not in SCOPES:
            raise InvalidArgument(f"scope={scope!r} must be one of {list(SCOPES)}")
        sign = 1 if mode == "min" else -1

        def loss(trial: Trial) -> float:
            values = [sign * value for value in trial.scores(metric)]
            match scope:
                case "last":
                    return values[-1]
                case "all":
                    return min(values)
                case "avg":
                    return fmean(values)
                case _:
                    return fmean(values[-int(scope.split("-")[1]) :])

        found = [trial for trial in self.trials if trial.scores(metric)]
        return min(found, key=loss, default=None)

    def get_best_config(
        self, metric: str | None = None, mode: str | None = None, scope: str = "last"
    ) -> dict[str, Any] | None:
        """Return the configuration of the best trial."""
        best = self.get_best_trial(metric, mode, scope)
        return None if best is None else best.config

    def get_best_logdir(
        self, metric: str | None = None, mode: str | None = None, scope: str = "last"
    ) -> str | None:
        """Return the path of the best trial."""
        best = self.get_best_trial(metric, mode, scope)
        return None if best is None else best.logdir

    def get_best_checkpoint(
        self, trial: Trial, metric: str | None = None, mode: str | None = None, **kwargs: Any
    ) -> Checkpoint | None:
        """Return the newest checkpoint of a trial that the study keeps."""
        return trial.checkpoint

    def get_trial_checkpoints_paths(
        self, trial: Trial, metric: str | None = None
    ) -> list[tuple[Checkpoint, float]]:
        """Return the checkpoint of a trial, with its value of a metric."""
        metric = metric or self.default_metric or ITERATION
        found = trial.checkpoint
        return [] if found is None else [(found, trial.last_result[metric])]

    def stats(self) -> dict[str, Any]:
        """Return the number of trials by status, and the study's cost."""
        counts = Counter(trial.status for trial in self.trials)
        return {"num_trials": dict(counts), **self._result.cost()}

    def get_last_checkpoint(
        self, trial: Trial | None = None, metric: str | None = None, mode: str | None = None
    ) -> Checkpoint | None:
        """Return the newest checkpoint of a trial, by default the best."""
        found = trial or self.get_best_trial(metric, mode)
        return None if found is None else found.checkpoint

    def get_all_configs(self, prefix: bool = False) -> dict[str, dict[str, Any]]:
        """Return the configuration of each trial."""
        return {trial.trial_id: trial.config for trial in self.trials}

    @property
    def best_trial(self) -> Trial:
        """The best trial by its last report."""
        best = self.get_best_trial()
        if best is None:
            raise TuneError(f"no trial has reported {self.default_metric!r}")
        return best

    @property
    def best_config(self) -> dict[str, Any]:
        """Its configuration."""
        return self.best_trial.config

    @property
    def best_result(self) -> dict[str, Any]:
        """Its last report."""
        return self.best_trial.last_result

    @property
    def best_checkpoint(self) -> Checkpoint | None:
        """Its checkpoint."""
        return self.best_trial.checkpoint

    @property
    def best_logdir(self) -> str:
        """Its path."""
        return self.best_trial.logdir

    @property
    def best_dataframe(self) -> Any:
        """Its reports, as a table."""
        return self.trial_dataframes[self.best_trial.trial_id]

    best_result_df = best_dataframe

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """The last report of each trial."""
        return {trial.trial_id: trial.last_result for trial in self.trials}

    @property
    def trial_dataframes(self) -> dict[str, Any]:
        """The reports of each trial, as a table."""
        import pandas as pd

        return {trial.trial_id: pd.DataFrame(trial.results) for trial in self.trials}

    fetch_trial_dataframes = trial_dataframes

    @property
    def results_df(self) -> Any:
        """The last report of each trial, as a table by trial."""
        frame = self.dataframe()
        return frame.set_index("trial_id") if len(frame) else frame

    def dataframe(self, metric: str | None = None, mode: str | None = None) -> Any:
        """Return one row per trial: its last report, or its best by a metric."""
        import pandas as pd

        rows = []
        for trial in self.trials:
            row: dict[str, Any] = {"trial_id": trial.trial_id}
            if trial.results:
                row = trial.results[-1]
            if metric is not None and trial.scores(metric):
                pick = max if mode == "max" else min
                row = pick((r for r in trial.results if metric in r), key=lambda r: r[metric])
            rows.append(row | {f"config/{n}": v for n, v in flat(trial.config)})
        return pd.DataFrame(rows)

    def _asked(self, metric: str | None, mode: str | None) -> tuple[str, str]:
        metric, mode = metric or self.default_metric, mode or self.default_mode
        if metric is None or mode is None:
            raise InvalidArgument("give metric= and mode=: the study was given none")
        if mode not in ("min", "max"):
            raise InvalidArgument(f"mode={mode!r} must be 'min' or 'max'")
        return metric, mode


class Result:
    """One trial, as `ResultGrid` gives it.

    Attributes
    ----------
    metrics, config, error, path : last report; configuration; error or None; a folder.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self.metrics, self.config, self.error = trial.last_result, trial.config, trial.error
        self.path = self.log_dir = trial.logdir

    def __repr__(self) -> str:
        return f"Result(trial {self._trial.trial_id}, metrics={self.metrics})"

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The trial's newest checkpoint."""
        return self._trial.checkpoint

    @property
    def metrics_dataframe(self) -> Any:
        """The trial's reports, as a table."""
        import pandas as pd

        return pd.DataFrame(self._trial.results)

    @property
    def best_checkpoints(self) -> list[tuple[Checkpoint, dict[str, Any]]]:
        """The trial's checkpoint: the newest one is kept."""
        return [] if self.checkpoint is None else [(self.checkpoint, self.metrics)]

    def get_best_checkpoint(self, metric: str, mode: str) -> Checkpoint | None:
        """Return the trial's newest checkpoint."""
        return self.checkpoint


class ResultGrid(Sequence[Result]):
    """Results of a study: one `Result` per trial."""

    def __init__(self, analysis: ExperimentAnalysis) -> None:
        self._analysis = analysis

    def __len__(self) -> int:
        return len(self._analysis.trials)

    def __getitem__(self, n: Any) -> Any:
        if isinstance(n, slice):
            return [Result(trial) for trial in self._analysis.trials[n]]
        return Result(self._analysis.trials[n])

    def __repr__(self) -> str:
        return f"ResultGrid({len(self)} trials, {self.num_errors} failed)"

    def get_best_result(
        self,
        metric: str | None = None,
        mode: str | None = None,
        scope: str = "last",
        filter_nan_and_inf: bool = True,
    ) -> Result:
        """Return the best trial by its ``"last"`` report, by ``"all"``, or by a mean."""
        best = self._analysis.get_best_trial(metric, mode, scope)
        if best is None:
            failed = next((each.error for each in self if each.error is not None), "")
            raise RuntimeError(f"no trial has reported the metric. {failed}")
        return Result(best)

    def get_dataframe(
        self, filter_metric: str | None = None, filter_mode: str | None = None
    ) -> Any:
        """Return one row per trial: its last report, or its best by a metric."""
        return self._analysis.dataframe(filter_metric, filter_mode)

    @property
    def errors(self) -> list[TuneError]:
        """Errors of the trials that failed."""
        return [each.error for each in self if each.error is not None]

    @property
    def num_errors(self) -> int:
        """Number of trials that failed."""
        return len(self.errors)

    @property
    def num_terminated(self) -> int:
        """Number of trials that ended well."""
        return sum(trial.status == "TERMINATED" for trial in self._analysis.trials)

    @property
    def experiment_path(self) -> str:
        """The study's directory."""
        return self._analysis.experiment_path

    @property
    def study(self) -> StudyResult:
        """The same in daskhpo's words: a `daskhpo.Result`."""
        return self._analysis._result


def _is_missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
