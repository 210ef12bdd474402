"""A study as a journal file of Optuna, written without it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.continued import ContinuedFile, StudyClock, domains_of
from daskhpo.callbacks.values import FrozenReport, FrozenTrial, StudyInfo, StudySummary
from daskhpo.core.arguments import check_path
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.events import Ended, Launched, Record
from daskhpo.core.objective import Objective
from daskhpo.core.types import Status, TrialId
from daskhpo.results.progress import StudyProgress, TrialRecord

WORKER = "daskhpo"  # who wrote a line
PLAIN = (type(None), bool, int, float, str)  # choices that Optuna's journal may hold
_MARK = f'"worker_id":"{WORKER}"'.encode()


class Operation(IntEnum):
    """Operations of Optuna's journal, as in `optuna.storages.journal`."""

    CREATE_STUDY = 0
    DELETE_STUDY = 1
    STUDY_SYSTEM_ATTR = 3
    CREATE_TRIAL = 4
    PARAM = 5
    STATE_VALUES = 6
    INTERMEDIATE = 7
    USER_ATTR = 8


class OptunaState(IntEnum):
    """States of Optuna's trials."""

    RUNNING = 0
    COMPLETE = 1
    PRUNED = 2
    FAIL = 3
    WAITING = 4


class OptunaJournal(Callback):
    """A journal file that Optuna reads while the study runs.

    ``optuna-dashboard FILE``, ``optuna.load_study`` and ``optuna.visualization`` then show the
    study. Optuna seeks its best trial among the complete ones: stopped trials are *pruned*, except
    one that is the study's best when it stops, which is *complete*. The value of a trial is its
    running best. A session that resumes a study continues the file.

    Parameters
    ----------
    path : the file; None: ``optuna.log`` in the study's directory.
    """

    own_thread = True

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = None if path is None else check_path("path", path).absolute()

    def on_study_start(self, info: StudyInfo) -> None:
        self._file = journal_file(self._path or info.directory / "optuna.log")
        self._info, self._clock = info, StudyClock(info)
        self._numbers: dict[TrialId, int] = {}  # of those that have not ended
        self._configs: dict[TrialId, Mapping[str, Any]] = {}
        self._n_trials = 0
        self._domains: dict[str, Domain] | None = None
        self._file.write(first_line(info.name, info.objective))
        names = {"study:metric_names": [info.objective.metric]}
        self._write(Operation.STUDY_SYSTEM_ATTR, study_id=0, system_attr=names)

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        number = self._numbers[trial.id]
        before, self._configs[trial.id] = self._configs[trial.id], trial.config
        if trial.config != before:  # population based training has mutated it
            distributions, params, _ = self._described(trial.config)
            for name, value in params.items():
                if trial.config[name] != before[name]:
                    self._write(
                        Operation.PARAM,
                        trial_id=number,
                        param_name=name,
                        param_value_internal=value,
                        distribution=distributions[name],
                    )
        self._write(
            Operation.INTERMEDIATE,
            trial_id=number,
            step=report.resource,
            intermediate_value=report.value,
        )

    def on_record(self, record: Record, progress: StudyProgress) -> None:
        self._clock.learn(record)
        match record:
            case Launched(trial) if trial not in self._numbers:  # new, or retried after it failed
                self._create(progress.trials[trial], record.seconds)
            case Ended(trial):
                is_best = progress.best is not None and progress.best.id == trial
                self._end(progress.trials[trial], record.seconds, is_best=is_best)

    def on_tick(self, study: StudySummary) -> None:
        self._file.flush()

    def on_study_end(self, study: StudySummary) -> None:
        self._file.flush()

    def _create(self, trial: TrialRecord, seconds: float) -> None:
        distributions, params, others = self._described(trial.config)
        self._numbers[trial.id], self._configs[trial.id] = self._n_trials, trial.config
        self._n_trials += 1
        self._write(
            Operation.CREATE_TRIAL,
            study_id=0,
            datetime_start=self._day(seconds),
            state=OptunaState.RUNNING,
            value=None,
            values=None,
            distributions=distributions,
            params=params,
            user_attrs={"trial": trial.id, "bracket": trial.bracket, **others},
            system_attrs={},
            intermediate_values={},
        )

    def _end(self, trial: TrialRecord, seconds: float, *, is_best: bool) -> None:
        number = self._numbers.pop(trial.id, None)
        self._configs.pop(trial.id, None)
        if number is None:  # it was never launched
            return
        value = self._info.objective.value(trial.best_loss)
        facts = {
            "status": trial.status.value,
            "reason": trial.reason,
            "resource": trial.resource,
            **{f"metrics/{name}": metric for name, metric in trial.metrics.items()},
        }
        for name, fact in facts.items():
            self._write(Operation.USER_ATTR, trial_id=number, user_attr={name: fact})
        state = (
            OptunaState.PRUNED
            if trial.status is Status.STOPPED and not is_best
            else OptunaState.COMPLETE
        )
        if trial.status is Status.FAILED or not math.isfinite(value):
            state = OptunaState.FAIL
        self._write(
            Operation.STATE_VALUES,
            trial_id=number,
            state=state,
            values=None if state == OptunaState.FAIL else [value],
            datetime_complete=self._day(seconds),
        )

    def _described(self, config: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any], Any]:
        """Return distributions, parameters, and what has no distribution as attributes."""
        if self._domains is None:  # not earlier: the study may write its manifest only now
            self._domains = domains_of(self._info.directory)
        distributions, params, others = {}, {}, {}
        for name, value in config.items():
            if (domain := self._domains.get(name)) is None:
                others[f"config/{name}"] = value
            else:
                distributions[name] = json.dumps(distribution(domain))
                params[name] = internal(domain, value)
        return distributions, params, others

    def _day(self, seconds: float) -> str:
        return datetime.fromtimestamp(self._clock.at(seconds), UTC).isoformat(
            timespec="microseconds"
        )

    def _write(self, operation: Operation, **fields: Any) -> None:
        self._file.write(_line(operation, **fields))


def _line(operation: Operation, **fields: Any) -> bytes:
    data = {"op_code": operation, "worker_id": WORKER, **fields}
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def first_line(name: str, objective: Objective) -> bytes:
    """Return the line that creates a study, the first one of its file."""
    directions = [1 if objective.mode == "min" else 2]
    return _line(Operation.CREATE_STUDY, study_name=name, directions=directions)


def journal_file(path: Path) -> ContinuedFile:
    """Return a journal file to continue; lines that optuna-dashboard adds stay."""
    return ContinuedFile(path, is_own=lambda line: _MARK in line)


def check_target(path: Path, info: StudyInfo) -> None:
    """Check that a journal file of a study may be written here.

    Raises
    ------
    ValueError : the file exists and is not of the study.
    """
    if path.exists():
        journal_file(path).write(first_line(info.name, info.objective))


def distribution(domain: Domain) -> dict[str, Any]:
    """Return a domain as Optuna writes its distributions."""
    match domain:
        case Real(low, high, log):
            bounds = {"step": None, "low": float(low), "high": float(high), "log": log}
            return {"name": "FloatDistribution", "attributes": bounds}
        case Integer(low, high, log):
            bounds = {"log": log, "step": 1, "low": low, "high": high}
            return {"name": "IntDistribution", "attributes": bounds}
        case Ordinal(values) | Categorical(values):
            choices = [value if isinstance(value, PLAIN) else repr(value) for value in values]
            return {"name": "CategoricalDistribution", "attributes": {"choices": choices}}
    raise TypeError(f"{domain!r} has no like in Optuna")


def internal(domain: Domain, value: Any) -> float | int:
    """Return a value as Optuna's journal holds it: a number, or the place of a choice."""
    if isinstance(domain, (Ordinal, Categorical)):
        return int(domain.to_unit(value) * len(domain.values))
    return float(value)
