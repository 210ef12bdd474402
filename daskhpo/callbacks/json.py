"""Reports as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.continued import ContinuedFile
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary
from daskhpo.core.arguments import check_path


class JSONLogger(Callback):
    """A file of JSON lines, written as reports arrive, for other programs to follow.

    The first line is the study's: ``study``, ``metric``, ``mode``. A report is ``trial``,
    ``attempt``, ``resource``, ``seconds``, ``metrics``, ``config``; the end of a trial is
    ``trial``, ``status``, ``reason``, ``seconds``, ``best``. A session that resumes a study
    continues the file.

    Parameters
    ----------
    path : the file; None: ``history.jsonl`` in the study's directory.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = None if path is None else check_path("path", path).absolute()

    def on_study_start(self, info: StudyInfo) -> None:
        self._file = ContinuedFile(self._path or info.directory / "history.jsonl")
        objective = info.objective
        self._write({"study": info.name, "metric": objective.metric, "mode": objective.mode})

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        self._write(
            {
                "trial": trial.id,
                "attempt": trial.attempt,
                "resource": report.resource,
                "seconds": round(report.seconds, 6),
                "metrics": dict(report.metrics),
                "config": dict(trial.config),
            }
        )

    def on_trial_end(self, trial: FrozenTrial) -> None:
        self._write(
            {
                "trial": trial.id,
                "status": trial.status.value,
                "reason": trial.reason,
                "seconds": trial.ended,
                "best": trial.best_value,
            }
        )

    def on_tick(self, study: StudySummary) -> None:
        self._file.flush()

    def on_study_end(self, study: StudySummary) -> None:
        self._file.flush()

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row).encode() + b"\n")
