"""Trials as runs of MLflow."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.continued import Bookmark, StudyClock
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary
from daskhpo.core.arguments import check_text, optional
from daskhpo.core.events import Record
from daskhpo.core.libraries import need
from daskhpo.core.types import Status, TrialId
from daskhpo.results.progress import StudyProgress

MAX_METRICS, MAX_PARAMS = 1000, 100  # of one request
MAX_TEXT = 500
FILES_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"  # MLflow 3.17 asks for this before it uses a folder
PARENT = "study"


class MLflowLogger(Callback):
    """One MLflow run per trial, nested in a run of the study.

    Reports are sent in batches. A session that resumes a study continues the runs.

    Parameters
    ----------
    experiment : name of the experiment; None: the study's name.
    tracking_uri : address of a server or a database; None: the folder ``mlruns`` in the study's
        directory, which needs no server.

    Raises
    ------
    MissingLibrary : MLflow is not installed; ``mlflow-skinny`` is enough.
    """

    own_thread = True

    def __init__(self, experiment: str | None = None, tracking_uri: str | None = None) -> None:
        self._experiment = optional(check_text, "experiment", experiment)
        self._uri = optional(check_text, "tracking_uri", tracking_uri)
        need("mlflow", "mlflow")

    def on_study_start(self, info: StudyInfo) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        uri = self._uri or (info.directory / "mlruns").absolute().as_uri()
        if uri.startswith("file:") or "://" not in uri:
            os.environ.setdefault(FILES_ALLOWED, "true")
        from mlflow import MlflowClient

        self._client: Any = MlflowClient(tracking_uri=uri)
        self._info, self._clock = info, StudyClock(info)
        self._mark = Bookmark(info.directory / "mlflow.json")
        self._metrics: dict[str, list[Any]] = {}  # by run, not sent yet
        self._configs: dict[TrialId, Mapping[str, Any]] = {}
        name = self._experiment or info.name
        found = self._client.get_experiment_by_name(name)
        self._experiment_id = (
            self._client.create_experiment(name) if found is None else found.experiment_id
        )
        if PARENT in self._mark.runs:
            self._client.update_run(self._mark.runs[PARENT], status="RUNNING")
        else:
            self._create(PARENT, info.name, {"scheduler": info.scheduler}, {})
            self._mark.save(now=True)

    def on_trial_start(self, trial: FrozenTrial) -> None:
        self._configs[trial.id] = trial.config

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        before, self._configs[trial.id] = self._configs[trial.id], trial.config
        if not self._mark.is_new(report):
            return
        values = {**report.metrics, f"best/{self._info.objective.metric}": trial.best_value}
        if trial.config != before or trial.n_exploits:  # its parameters cannot be changed there
            values |= {f"config/{name}": value for name, value in trial.config.items()}
        at = round(1000 * self._clock.at(report.seconds))
        self._add(self._run(trial), values, at, report.resource)

    def on_trial_end(self, trial: FrozenTrial) -> None:
        if trial.status is Status.STOPPED:  # others may continue: retried, or extended
            self._configs.pop(trial.id, None)
        if not self._mark.is_new_end():
            return
        run = self._run(trial)
        self._send()
        for name, text in {"status": trial.status.value, "reason": trial.reason}.items():
            self._client.set_tag(run, f"daskhpo.{name}", text[:MAX_TEXT])
        status = "FAILED" if trial.status is Status.FAILED else "FINISHED"
        self._client.set_terminated(run, status, round(1000 * self._clock.at(trial.ended or 0.0)))
        if trial.status is Status.STOPPED:
            del self._mark.runs[str(trial.id)]

    def on_record(self, record: Record, progress: StudyProgress) -> None:
        self._clock.learn(record)

    def on_tick(self, study: StudySummary) -> None:
        self._send()
        self._mark.save()

    def on_study_end(self, study: StudySummary) -> None:
        parent = self._mark.runs[PARENT]
        if study.best is not None:
            at = round(1000 * self._clock.at(study.seconds))
            best = {self._info.objective.metric: study.best.best_value}
            self._add(parent, best, at, study.n_trials)
            self._client.set_tag(parent, "daskhpo.best_trial", str(study.best.id))
        self._send()
        self._client.set_terminated(parent)
        self._mark.save(now=True)

    def _run(self, trial: FrozenTrial) -> str:
        if (run := self._mark.runs.get(str(trial.id))) is None:
            name, parent = f"{self._info.name}-{trial.id}", self._mark.runs[PARENT]
            tags = {"mlflow.parentRunId": parent, "daskhpo.trial": str(trial.id)}
            run = self._create(str(trial.id), name, tags, trial.config, trial.started)
        return run

    def _create(
        self,
        key: str,
        name: str,
        tags: Mapping[str, str],
        config: Mapping[str, Any],
        seconds: float = 0.0,
    ) -> str:
        from mlflow.entities import Param

        at = round(1000 * self._clock.at(seconds))
        created = self._client.create_run(self._experiment_id, at, dict(tags), name)
        run = self._mark.runs[key] = str(created.info.run_id)
        params = [Param(_name(name), str(value)[:MAX_TEXT]) for name, value in config.items()]
        for n in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(run, params=params[n : n + MAX_PARAMS])
        return run

    def _add(self, run: str, values: Mapping[str, Any], at: int, step: int) -> None:
        from mlflow.entities import Metric

        self._metrics.setdefault(run, []).extend(
            Metric(_name(name), float(value), at, step)
            for name, value in values.items()
            if isinstance(value, (int, float))
        )

    def _send(self) -> None:
        waiting, self._metrics = self._metrics, {}
        for run, metrics in waiting.items():
            for n in range(0, len(metrics), MAX_METRICS):
                self._client.log_batch(run, metrics=metrics[n : n + MAX_METRICS])


def _name(name: str) -> str:
    """Return a name in the characters that MLflow allows."""
    return re.sub(r"[^\w./ -]", "_", name)
