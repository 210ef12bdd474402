"""Reader of Optuna's journal files; Optuna is not needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daskhpo.callbacks.optuna import Operation, OptunaState
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.events import Step
from daskhpo.core.objective import Objective
from daskhpo.core.types import Status
from daskhpo.interchange.imported import ImportedStudy, ImportedTrial, finite

MAX_VALUES = 1000  # of a domain with steps that becomes a list of values
STATUSES: dict[int, Status] = {
    OptunaState.COMPLETE: Status.COMPLETED,
    OptunaState.PRUNED: Status.STOPPED,
    OptunaState.FAIL: Status.FAILED,
    OptunaState.RUNNING: Status.STOPPED,
}


@dataclass
class _Trial:
    """A trial, as the journal's operations leave it."""

    state: int = OptunaState.RUNNING
    value: float | None = None
    began: str | None = None
    ended: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    reports: dict[int, float | None] = field(default_factory=dict)


def read_optuna(path: Path, metric: str | None = None) -> ImportedStudy:
    """Read a journal file of Optuna.

    Parameters
    ----------
    metric : a name for the value; None: the study's own name for it, else ``"value"``.

    Raises
    ------
    ValueError : it is no such file, holds several studies, or has several objectives.
    """
    study: dict[str, Any] | None = None
    trials: list[_Trial] = []
    space: dict[str, Any] = {}
    for entry in _entries(path):
        match entry.get("op_code"):
            case Operation.CREATE_STUDY:
                if study is not None and study["study_name"] != entry["study_name"]:
                    raise ValueError(
                        f"{path} holds several studies, such as {study['study_name']!r} and "
                        f"{entry['study_name']!r}: copy one to a file of its own with "
                        "optuna.copy_study"
                    )
                study = study or entry
                if len(entry["directions"]) > 1:
                    raise ValueError(f"{path} has several objectives: a study here has one")
            case Operation.DELETE_STUDY:
                raise ValueError(f"{path} holds a study that was deleted")
            case Operation.STUDY_SYSTEM_ATTR:
                names = entry["system_attr"].get("study:metric_names")
                metric = metric or (names[0] if names else None)
            case Operation.CREATE_TRIAL:
                trials.append(_created(entry, space))
            case Operation.PARAM:
                trial, name = trials[entry["trial_id"]], entry["param_name"]
                value = _add_domain(
                    space, name, entry["distribution"], entry["param_value_internal"]
                )
                trial.params[name] = value
            case Operation.STATE_VALUES:
                trial = trials[entry["trial_id"]]
                trial.state = entry["state"]
                trial.began = entry.get("datetime_start") or trial.began
                trial.ended = entry.get("datetime_complete")
                if entry["values"] is not None:
                    trial.value = entry["values"][0]
            case Operation.INTERMEDIATE:
                reports = trials[entry["trial_id"]].reports
                reports[entry["step"]] = entry["intermediate_value"]
    if study is None:
        raise ValueError(f"{path} is no journal file of Optuna: it creates no study")
    objective = Objective(metric or "value", "max" if study["directions"] == [2] else "min")
    return _imported(
        str(path), objective, space, [t for t in trials if t.state != OptunaState.WAITING]
    )


def _imported(
    origin: str, objective: Objective, space: Mapping[str, Any], trials: list[_Trial]
) -> ImportedStudy:
    times = [_seconds(trial.began) for trial in trials if trial.began]
    zero = min(times, default=0.0)
    found = []
    for trial in sorted(trials, key=lambda trial: _seconds(trial.began)):
        began = max(0.0, _seconds(trial.began) - zero)
        ended = max(began, _seconds(trial.ended) - zero)
        status, reason = STATUSES[trial.state], "as imported"
        if trial.state == OptunaState.RUNNING:
            reason = "it was running when it was imported"
        steps = _steps(trial, objective, began, ended)
        if not steps and status is Status.COMPLETED:
            status, reason = Status.FAILED, "it has no value"
        found.append(ImportedTrial(trial.params, steps, status, reason, began, ended))
    return ImportedStudy(origin, objective, space, found, zero)


def _steps(trial: _Trial, objective: Objective, began: float, ended: float) -> list[Step]:
    """Return a trial's reports as units of training; its value is among them."""
    values = {step: finite(value) for step, value in sorted(trial.reports.items())}
    reports = [(step, value) for step, value in values.items() if value is not None]
    shift = 1 - reports[0][0] if reports and reports[0][0] < 1 else 0  # units begin with 1
    numbered = [(step + shift, value) for step, value in reports]
    last = finite(trial.value) if trial.state != OptunaState.FAIL else None
    if last is not None and all(value != last for _, value in numbered):
        numbered = [*numbered[:-1], (numbered[-1][0] if numbered else 1, last)]
    return [
        Step(step, {objective.metric: value}, began + (ended - began) * n / len(numbered))
        for n, (step, value) in enumerate(numbered, start=1)
    ]


def _created(entry: Mapping[str, Any], space: dict[str, Any]) -> _Trial:
    distributions = entry.get("distributions", {})
    value = entry.get("value")
    if value is None and entry.get("values"):
        value = entry["values"][0]
    return _Trial(
        entry.get("state", OptunaState.RUNNING),
        value,
        entry.get("datetime_start"),
        entry.get("datetime_complete"),
        {
            name: _add_domain(space, name, distributions[name], param)
            for name, param in entry.get("params", {}).items()
        },
        {int(step): number for step, number in entry.get("intermediate_values", {}).items()},
    )


def _add_domain(space: dict[str, Any], name: str, distribution: str, param: float) -> Any:
    """Add a parameter's domain to the space, and return its value."""
    found = json.loads(distribution)
    domain = _domain(found["name"], found["attributes"])
    match space.get(name), domain:
        case (Real(low, high, log), Real()) | (Integer(low, high, log), Integer()):
            space[name] = type(domain)(min(low, domain.low), max(high, domain.high), log)
        case _:
            space[name] = domain
    if found["name"] == "CategoricalDistribution":
        return found["attributes"]["choices"][int(param)]
    if found["name"].startswith("Int"):
        return int(param)
    return param


def _domain(kind: str, given: Mapping[str, Any]) -> Any:
    """Return the domain for a distribution; a constant if it has one value."""
    if kind == "CategoricalDistribution":
        choices = given["choices"]
        return Categorical(choices) if len(choices) > 1 else choices[0]
    low, high, step = given["low"], given["high"], given.get("step", given.get("q"))
    log = bool(given.get("log")) or "Log" in kind
    if low == high:
        return low
    is_int = kind.startswith("Int")
    if step and not (is_int and step == 1) and (high - low) / step < MAX_VALUES:
        n = round((high - low) / step)
        return Ordinal([low + i * step for i in range(n + 1)])
    domain: Domain = Integer(low, high, log) if is_int else Real(low, high, log)
    return domain


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                entry = json.loads(line)
                entry["op_code"]
            except (ValueError, TypeError, KeyError):
                if not line.endswith(b"\n"):
                    return  # it is being written
                raise ValueError(
                    f"{path}, line {number} is none of an Optuna journal file: {line[:60]!r}. Copy "
                    "a study of another storage to a JournalStorage with optuna.copy_study"
                ) from None
            yield entry


def _seconds(day: str | None) -> float:
    if day is None:
        return 0.0
    found = datetime.fromisoformat(day)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
