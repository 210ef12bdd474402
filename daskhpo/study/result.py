"""What came out of a study: read from its journal alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskhpo.core.objective import Objective
from daskhpo.core.types import (
    Began,
    CheckpointRef,
    Config,
    Continue,
    Ended,
    Failed,
    Launched,
    Lost,
    Metrics,
    Pause,
    Record,
    Reported,
    Saved,
    SlotsChanged,
    Status,
    StopRequested,
    Suggested,
    TrialId,
)

if TYPE_CHECKING:
    import pandas as pd


class TrialRecord:
    """One trial as the journal tells it.

    Attributes
    ----------
    id, config, bracket, status, resource : as the names say.
    seconds : time that its attempts held a slot, in all.
    metrics : of its last report; empty before the first.
    best_loss : running best; inf before the first report.
    checkpoint : newest committed checkpoint, or None. It may have been deleted since.
    reason : why it ended, or "".
    error : traceback of its last failure, or "".
    """

    __slots__ = (
        "_last",
        "attempt",
        "best_loss",
        "bracket",
        "checkpoint",
        "config",
        "error",
        "id",
        "metrics",
        "reason",
        "resource",
        "seconds",
        "status",
    )

    def __init__(self, trial: TrialId, config: Config, bracket: int) -> None:
        self.id, self.config, self.bracket = trial, config, bracket
        self.status = Status.QUEUED
        self.resource = self.attempt = 0
        self.seconds = self._last = 0.0
        self.metrics: dict[str, float] = {}
        self.best_loss = math.inf
        self.checkpoint: CheckpointRef | None = None
        self.reason = self.error = ""

    def launch(self, record: Launched) -> None:
        self.status, self.attempt = Status.RUNNING, record.attempt
        self._last = record.seconds

    def hold(self, seconds: float) -> None:
        """It held its slot until now."""
        self.seconds += max(0.0, seconds - self._last)
        self._last = max(self._last, seconds)


class Story:
    """The trials of a study as its records tell them, one record after another.

    Attributes
    ----------
    trials : all of them by number.
    n_slots : slots that serve the study.
    n_sessions : how often it was begun or resumed.
    n_checkpoints, n_checkpoint_bytes : written, in all.
    best : the trial with the best loss so far, or None.
    stop_reason : why the last session was stopped, or None.
    seconds : of the last record.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.trials: dict[TrialId, TrialRecord] = {}
        self.best: TrialRecord | None = None
        self.n_slots = self.n_sessions = 0
        self.n_checkpoints = self.n_checkpoint_bytes = 0
        self.stop_reason: str | None = None
        self.seconds = 0.0
        self._target: float | None = None

    def tell(self, record: Record) -> None:
        """Take in the next record."""
        self.seconds = record.seconds
        match record:
            case Reported():
                self._reported(record)
            case Suggested(number, config, bracket):
                self.trials[number] = TrialRecord(number, config, bracket)
            case Launched():
                self.trials[record.trial].launch(record)
            case Saved(number, _, ref):
                trial = self.trials[number]
                trial.hold(record.seconds)
                if ref is not None:
                    trial.checkpoint = ref
                    self.n_checkpoints += 1
                    self.n_checkpoint_bytes += ref.n_bytes
                if trial.status is Status.RUNNING and self.stop_reason is not None:
                    trial.status = Status.QUEUED  # it was to go on, and handed over instead
            case Ended(number, status, reason):
                trial = self.trials[number]
                if trial.status is Status.RUNNING:
                    trial.hold(record.seconds)
                trial.status, trial.reason = status, reason
            case Lost(number, _, reason):
                self._leave(number, record.seconds)
            case Failed(number, _, error):
                self._leave(number, record.seconds).error = error
            case SlotsChanged(n_slots):
                self.n_slots = n_slots
            case StopRequested(reason):
                self.stop_reason = reason
            case Began():
                self.n_sessions += 1
                self.stop_reason, self._target = None, record.limits.target
                for trial in self.trials.values():
                    if trial.status is Status.RUNNING:
                        trial.hold(record.seconds)
                        trial.status = Status.QUEUED

    def _reported(self, record: Reported) -> None:
        trial = self.trials[record.trial]
        trial.hold(record.seconds)
        for step in record.steps:
            trial.best_loss = min(trial.best_loss, self.objective.loss(step.metrics))
        if record.steps:
            trial.resource = record.steps[-1].resource
            trial.metrics = dict(record.steps[-1].metrics)
        if trial.best_loss < (math.inf if self.best is None else self.best.best_loss):
            self.best = trial
        match record.decision:
            case Pause():
                trial.status = Status.PAUSED
            case Continue():
                trial.status = Status.QUEUED if self._is_stopping() else Status.RUNNING
            case None if record.yielded:
                trial.status = Status.QUEUED

    def _is_stopping(self) -> bool:
        if self._target is None or self.best is None:
            return self.stop_reason is not None
        # The stop that a report brings about is recorded after the report.
        reached = self.objective.reached(self.best.best_loss, self._target)
        return reached or self.stop_reason is not None

    def _leave(self, number: TrialId, seconds: float) -> TrialRecord:
        trial = self.trials[number]
        trial.hold(seconds)
        if trial.status is Status.RUNNING:
            trial.status = Status.QUEUED
        return trial


class Result:
    """What a study has found so far.

    "Best" is the running best over each trial's history. Nothing but the journal is needed, not
    even the optimiser that was used.
    """

    def __init__(
        self, records: Iterable[Record], objective: Objective, path: Path | None = None
    ) -> None:
        self.path = path
        self.objective = objective
        self._story = Story(objective)
        self._trial: list[int] = []
        self._attempt: list[int] = []
        self._resource: list[int] = []
        self._seconds: list[float] = []
        self._metrics: list[Metrics] = []
        for record in records:
            self._story.tell(record)
            if isinstance(record, Reported):
                for step in record.steps:
                    self._trial.append(record.trial)
                    self._attempt.append(record.attempt)
                    self._resource.append(step.resource)
                    self._seconds.append(step.seconds)
                    self._metrics.append(step.metrics)

    def __repr__(self) -> str:
        metric = self.objective.metric
        if self._story.best is None:
            return f"Result({self.num_trials} trials, no report yet)"
        return f"Result({self.num_trials} trials, best {metric}={self.best_value:.6g})"

    @property
    def num_trials(self) -> int:
        """Trials that were started."""
        return len(self._story.trials)

    @property
    def has_reports(self) -> bool:
        """Whether any trial has reported a value."""
        return self._story.best is not None

    @property
    def stop_reason(self) -> str | None:
        """Why the study was stopped; None: it came to its end, or still runs."""
        return self._story.stop_reason

    @property
    def best_trial(self) -> TrialRecord:
        """The trial with the best value so far.

        Raises
        ------
        ValueError : no trial has reported; the message shows the first failure, if there is one.
        """
        if self._story.best is None:
            errors = [trial.error for trial in self._story.trials.values() if trial.error]
            shown = f" The first failure:\n{errors[0]}" if errors else ""
            raise ValueError(f"none of {self.num_trials} trials has reported a value.{shown}")
        return self._story.best

    def best_trials(self, k: int = 1) -> list[TrialRecord]:
        """The ``k`` trials with the best values so far, the best first."""
        reported = [t for t in self._story.trials.values() if math.isfinite(t.best_loss)]
        return sorted(reported, key=lambda trial: (trial.best_loss, trial.id))[:k]

    def trial(self, trial_id: TrialId) -> TrialRecord:
        """One trial: its configuration, status, metrics, and the traceback if it failed.

        Raises
        ------
        KeyError : there is no such trial.
        """
        return self._story.trials[trial_id]

    @property
    def best_config(self) -> dict[str, Any]:
        """Configuration of the best trial."""
        return dict(self.best_trial.config)

    @property
    def best_value(self) -> float:
        """The best value of the metric that any trial has reported."""
        return self.objective.value(self.best_trial.best_loss)

    def trials(self) -> pd.DataFrame:
        """One row a trial, in order of their numbers.

        Columns: ``trial``, ``status``, ``resource``, ``seconds`` (slots held, in all), ``bracket``,
        ``config/<name>``, the last metrics, ``best/<metric>``, ``reason`` (why it ended).
        """
        import pandas as pd

        best = f"best/{self.objective.metric}"
        rows = []
        for trial in self._story.trials.values():
            row: dict[str, Any] = {
                "trial": trial.id,
                "status": trial.status.value,
                "resource": trial.resource,
                "seconds": trial.seconds,
                "bracket": trial.bracket,
            }
            row |= {f"config/{name}": value for name, value in trial.config.items()}
            row |= trial.metrics
            value = self.objective.value(trial.best_loss)
            row[best] = value if math.isfinite(value) else math.nan
            row["reason"] = trial.reason
            rows.append(row)
        columns = ["trial", "status", "resource", "seconds", "bracket", best, "reason"]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)

    def history(self) -> pd.DataFrame:
        """One row a report, in order of time.

        Columns: ``trial``, ``attempt``, ``resource``, ``seconds`` since the study began, and the
        metrics. A unit that was trained again after a loss appears once, as first reported.
        """
        import pandas as pd

        frame = pd.DataFrame(
            {
                "trial": self._trial,
                "attempt": self._attempt,
                "resource": self._resource,
                "seconds": self._seconds,
            }
        )
        metrics = pd.DataFrame(self._metrics, index=frame.index)
        frame = pd.concat([frame, metrics], axis=1)
        frame = frame.drop_duplicates(["trial", "resource"], keep="first")
        return frame.sort_values("seconds", kind="stable", ignore_index=True)

    def time_to_solution(self, target: float) -> float | None:
        """Seconds from the study's beginning to the first report as good as the target, or None."""
        reached = [
            seconds
            for seconds, metrics in zip(self._seconds, self._metrics, strict=True)
            if self.objective.reached(self.objective.loss(metrics), target)
        ]
        return min(reached, default=None)

    def top_k_curve(self, k: int = 6) -> pd.DataFrame:
        """Mean and standard deviation of the ``k`` best trials' best values, over time.

        One row for each change, from the time on when ``k`` trials have reported. Columns:
        ``seconds``, ``mean``, ``std`` (of the population of k), ``num_trials`` that have reported.
        """
        import numpy as np
        import pandas as pd

        if k < 1:
            raise ValueError(f"k={k!r} must be at least 1")
        best: dict[int, float] = {}
        top: list[tuple[float, int]] = []  # the k best, sorted
        rows = []
        for i in sorted(range(len(self._seconds)), key=self._seconds.__getitem__):
            trial, loss = self._trial[i], self.objective.loss(self._metrics[i])
            if loss >= best.get(trial, math.inf):
                continue
            best[trial] = loss
            entry = [pair for pair in top if pair[1] != trial] + [(loss, trial)]
            top_now = sorted(entry)[:k]
            if top_now != top or len(best) == k:
                top = top_now
                if len(top) == k:
                    values = np.array([self.objective.value(pair[0]) for pair in top])
                    rows.append((self._seconds[i], values.mean(), values.std(), len(best)))
        return pd.DataFrame(rows, columns=["seconds", "mean", "std", "num_trials"])

    def cost(self) -> dict[str, float]:
        """What the study cost.

        Keys: ``device_seconds`` (slots held by trials), ``seconds`` (the study's length),
        ``checkpoint_bytes`` and ``checkpoint_files`` (written, in all).
        """
        story = self._story
        return {
            "device_seconds": sum(trial.seconds for trial in story.trials.values()),
            "seconds": story.seconds,
            "checkpoint_bytes": story.n_checkpoint_bytes,
            "checkpoint_files": story.n_checkpoints,
        }

    def checkpoint(self, trial_id: TrialId | None = None) -> Any:
        """The newest checkpointed state of a trial, by default of the best one.

        Raises
        ------
        CheckpointMissing : none was written, or it is no longer kept.
        """
        from daskhpo.checkpoints import ZarrStore
        from daskhpo.core.errors import CheckpointMissing

        trial = self.best_trial if trial_id is None else self._story.trials[trial_id]
        if trial.checkpoint is None or self.path is None:
            raise CheckpointMissing(
                f"trial {trial.id} ({trial.status.value}) has no checkpoint; "
                "run the study with checkpoint='end' to keep one of every trial"
            )
        return ZarrStore(self.path / "checkpoints.zarr").read(trial.checkpoint)
