"""A study as runs of TensorBoard, written without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskhpo.callbacks import tensorboard_events as events
from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.continued import ContinuedFile, StudyClock, domains_of
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary
from daskhpo.core.arguments import check_path
from daskhpo.core.domains import Domain
from daskhpo.core.events import Record
from daskhpo.core.types import Status, TrialId
from daskhpo.results.progress import StudyProgress

FILE = "events.out.tfevents.daskhpo"  # TensorBoard looks for a part of this name


class TensorBoardLogger(Callback):
    """A folder for TensorBoard, with one run per trial; it needs no library.

    ``tensorboard --logdir FOLDER`` shows it, also while the study runs. The metrics and
    ``best/<metric>`` are scalars over the resource. The HParams page has all trials with their
    hyperparameters, and filters by the bounds of the space. A hyperparameter that population based
    training changes is a scalar ``config/<name>``, too. A session that resumes a study continues
    the runs.

    Parameters
    ----------
    logdir : folder, in which the study gets one of its name; None: ``tensorboard`` in the study's
        directory.
    """

    own_thread = True

    def __init__(self, logdir: str | Path | None = None) -> None:
        self._logdir = None if logdir is None else check_path("logdir", logdir).absolute()

    def on_study_start(self, info: StudyInfo) -> None:
        inside = info.directory / "tensorboard"
        self._folder = inside if self._logdir is None else self._logdir / info.name
        self._info, self._clock = info, StudyClock(info)
        self._best = f"best/{info.objective.metric}"
        self._runs: dict[TrialId, _TrialRun] = {}
        self._unwritten: dict[ContinuedFile, None] = {}
        self._is_described = False
        self._domains: dict[str, Domain] | None = None

    def on_trial_start(self, trial: FrozenTrial) -> None:
        at = self._clock.at(trial.started)
        run = _TrialRun(self._file(f"trial-{trial.id:05}", at), trial.config)
        self._runs[trial.id] = run
        if self._domains is None:  # not earlier: the study may write its manifest only now
            self._domains = domains_of(self._info.directory)
        run.file.write(events.start_event(at, str(trial.id), trial.config, self._domains))

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        at = self._clock.at(report.seconds)
        if not self._is_described:
            self._describe(at, report.metrics)
        run = self._runs[trial.id]
        if trial.config != run.config:
            run.changed |= {n for n in trial.config if trial.config[n] != run.config[n]}
            before = _numbers(run.config, run.changed)  # a curve needs its first point, too
            if before:
                run.file.write(events.scalar_event(run.at, run.step, before))
            run.config = trial.config
        run.at, run.step = at, report.resource
        values = {**report.metrics, **_numbers(run.config, run.changed)}
        if trial.best_value is not None:
            values[self._best] = trial.best_value
        run.file.write(events.scalar_event(at, report.resource, values))
        self._unwritten[run.file] = None

    def on_trial_end(self, trial: FrozenTrial) -> None:
        failed = trial.status is Status.FAILED
        at = self._clock.at(trial.ended or 0.0)
        run = self._runs[trial.id]
        if trial.status is Status.STOPPED:  # others may continue: retried, or extended
            del self._runs[trial.id]
        run.file.write(events.end_event(at, events.FAILURE if failed else events.SUCCESS))
        self._unwritten[run.file] = None

    def on_record(self, record: Record, progress: StudyProgress) -> None:
        self._clock.learn(record)

    def on_tick(self, study: StudySummary) -> None:
        unwritten, self._unwritten = self._unwritten, {}
        for file in unwritten:
            file.flush()

    def on_study_end(self, study: StudySummary) -> None:
        self.on_tick(study)

    def _describe(self, at: float, metrics: Mapping[str, float]) -> None:
        """Write the hyperparameters and metrics of the study, once."""
        self._is_described = True
        main = self._info.objective.metric
        names = [self._best, main, *(name for name in metrics if name != main)]
        self._file("", at).write(events.experiment_event(at, self._domains or {}, names))

    def _file(self, run: str, at: float) -> ContinuedFile:
        file = ContinuedFile(self._folder / run / FILE, events.records_of, is_chosen=False)
        self._unwritten[file] = None
        file.write(events.version_event(at))
        return file


@dataclass
class _TrialRun:
    """The run of a trial.

    Attributes
    ----------
    config : configuration at the last report.
    changed : names of hyperparameters that have changed since the start.
    at, step : time and resource of the last report.
    """

    file: ContinuedFile
    config: Mapping[str, Any]
    at: float = 0.0
    step: int = 0

    def __post_init__(self) -> None:
        self.changed: set[str] = set()


def _numbers(config: Mapping[str, Any], names: set[str]) -> dict[str, float]:
    return {
        f"config/{name}": float(config[name])
        for name in sorted(names)
        if isinstance(config[name], (int, float))
    }
