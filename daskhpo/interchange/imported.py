"""A study of another library, and its way into a study's directory."""

from __future__ import annotations

import json
import math
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskhpo._version import __version__
from daskhpo.core.errors import StudyExists
from daskhpo.core.events import (
    Ended,
    Failed,
    Launched,
    Record,
    Reported,
    SessionStarted,
    SlotsChanged,
    Step,
    Suggested,
)
from daskhpo.core.objective import Objective
from daskhpo.core.study_folders import MANIFEST
from daskhpo.core.types import CheckpointPolicy, Limits, Status
from daskhpo.engine.journal import encode_record
from daskhpo.engine.session import DIRECTORY_FORMAT


@dataclass(frozen=True)
class ImportedTrial:
    """A trial of another library; times in seconds since its study began."""

    config: Mapping[str, Any]
    steps: Sequence[Step]
    status: Status
    reason: str
    started: float
    ended: float


@dataclass(frozen=True)
class ImportedStudy:
    """A study of another library.

    Attributes
    ----------
    origin : from where it was read, for people.
    space : domains, and constants, by name.
    began_at : seconds since 1970.
    """

    origin: str
    objective: Objective
    space: Mapping[str, Any]
    trials: Sequence[ImportedTrial]
    began_at: float


def write_study(study: ImportedStudy, directory: Path) -> None:
    """Write a study's directory: one to read and to warm-start from, not to resume.

    Raises
    ------
    StudyExists : the directory exists.
    """
    if directory.exists():
        raise StudyExists(f"{directory} already exists: give another path")
    manifest = {
        "format": DIRECTORY_FORMAT,
        "version": __version__,
        "metric": study.objective.metric,
        "mode": study.objective.mode,
        "seed": 0,
        "scheduler": f"imported from {study.origin}",
        "searcher": f"imported from {study.origin}",
        "space": {name: repr(domain) for name, domain in study.space.items()},
        "source": None,
    }
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}.partial")
    aside.mkdir(mode=0o700)
    try:
        lines = (encode_record(record) + "\n" for record in _records(study))
        (aside / "journal.jsonl").write_text("".join(lines))
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1))
        aside.rename(directory)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _records(study: ImportedStudy) -> list[Record]:
    """Return the records that the study would have left, in order of time."""
    limits = Limits(num_trials=len(study.trials))
    began = SessionStarted(limits, CheckpointPolicy(), 0.0, clock=study.began_at)
    records: list[Record] = []
    for number, trial in enumerate(study.trials):
        records += _records_of(number, trial)
    records.sort(key=lambda record: record.seconds)  # stable: those of a trial stay in order
    n_running = n_slots = 0
    for record in records:
        n_running += isinstance(record, Launched) - isinstance(record, Ended)
        n_slots = max(n_slots, n_running)
    return [began, SlotsChanged(n_slots, 0.0), *records]


def _records_of(number: int, trial: ImportedTrial) -> Iterator[Record]:
    now = trial.started
    until = trial.steps[-1].resource if trial.steps else 1
    yield Suggested(number, trial.config, 0, now)
    yield Launched(number, 1, 0, until, now)
    for step in trial.steps:
        now = max(now, step.seconds)
        yield Reported(number, 1, (step._replace(seconds=now),), now)
    now = max(now, trial.ended)
    if trial.status is Status.FAILED:
        yield Failed(number, 1, trial.reason, now, retry=False)
    yield Ended(number, trial.status, trial.reason, now)


def finite(value: Any) -> float | None:
    """Return a finite number, or None for all else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
