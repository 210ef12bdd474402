"""Reports as a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import naming
from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary
from daskhpo.core.arguments import check_path
from daskhpo.core.cells import encode_cell


class CSVLogger(Callback):
    """A CSV file with one line per report, written as reports arrive.

    The columns are those of ``Result.history()`` and the configuration. Its values are JSON; text
    stands as it is, unless it could be taken for another value. The first report fixes the columns:
    a metric that appears later is omitted (it is in the journal). A session that resumes a study
    rewrites the whole file.

    Parameters
    ----------
    path : the file; None: ``history.csv`` in the study's directory.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = None if path is None else check_path("path", path).absolute()

    def on_study_start(self, info: StudyInfo) -> None:
        path = info.directory / "history.csv" if self._path is None else self._path
        self._file, self._name = path.open("w", newline=""), path
        self._writer: Any = None

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        row: dict[str, Any] = {
            "trial": trial.id,
            "attempt": trial.attempt,
            "resource": report.resource,
            "seconds": round(report.seconds, 6),
            **{f"config/{name}": encode_cell(value) for name, value in trial.config.items()},
        }
        row |= {name: value for name, value in report.metrics.items() if name not in row}
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, list(row), extrasaction="ignore")
            self._writer.writeheader()
        with naming(self._name):
            self._writer.writerow(row)

    def on_tick(self, study: StudySummary) -> None:
        with naming(self._name):
            self._file.flush()

    def on_study_end(self, study: StudySummary) -> None:
        with naming(self._name):
            self._file.close()
