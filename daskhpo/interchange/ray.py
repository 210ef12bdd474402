"""Reader of the result folders of Ray Tune; Ray is not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daskhpo.core.domains import Categorical, Integer, Real
from daskhpo.core.events import Step
from daskhpo.core.objective import RESERVED_PREFIXES, Mode, Objective
from daskhpo.core.plain import why_not_plain
from daskhpo.core.types import Status
from daskhpo.interchange.imported import ImportedStudy, ImportedTrial, finite

RESULTS, PARAMS = "result.json", "params.json"
# What Ray adds to each report.
OWN_METRICS = {
    *("training_iteration", "timestamp", "time_since_restore", "time_this_iter_s"),
    *("time_total_s", "iterations_since_restore", "timesteps_total", "episodes_total", "pid"),
    *("timesteps_since_restore", "warmup_time", "trial", "attempt", "resource", "seconds"),
    *("status", "reason", "bracket"),
}


def read_ray(folder: Path, metric: str, mode: Mode) -> ImportedStudy:
    """Read the folder of an experiment, which has one folder per trial.

    Its space is what its trials have tried: bounds of numbers, and lists of all else.

    Raises
    ------
    ValueError : it has no trial, or none has the metric.
    """
    objective = Objective(metric, mode)
    found = sorted(path.parent for path in folder.glob(f"**/{RESULTS}"))
    if not found:
        raise ValueError(f"{folder} has no folder with a {RESULTS}: it is none of Ray Tune")
    rows = {path: _rows(path / RESULTS) for path in found}
    if not any(metric in row for each in rows.values() for row in each):
        names = sorted({name for each in rows.values() for row in each for name in _numbers(row)})
        raise ValueError(f"no report in {folder} has the metric {metric!r}: they have {names}")
    zero = min(_began(each) for each in rows.values() if each)
    began = {path: _began(each) if each else zero for path, each in rows.items()}
    longest = max(int(row["training_iteration"]) for each in rows.values() for row in each)
    trials = [
        _trial(path, rows[path], objective, began[path] - zero, longest)
        for path in sorted(found, key=lambda path: (began[path], path))
    ]
    return ImportedStudy(str(folder), objective, _space(trials), trials, zero)


def _trial(
    path: Path, rows: Sequence[Mapping[str, Any]], objective: Objective, began: float, longest: int
) -> ImportedTrial:
    steps: list[Step] = []
    for row in rows:
        metrics = _numbers(row)
        if objective.metric in metrics and (not steps or row["training_iteration"] > steps[-1][0]):
            seconds = began + float(row.get("time_total_s", 0.0))
            steps.append(Step(int(row["training_iteration"]), metrics, seconds))
    last = steps[-1].resource if steps else 0
    status = Status.COMPLETED if last == longest else Status.STOPPED
    reason = "as imported"
    error = path / "error.txt"
    if error.exists() or not steps:
        status, reason = Status.FAILED, "it has no value"
        if error.exists():
            reason = error.read_text(errors="replace").strip() or "it failed"
    params = path / PARAMS
    config = json.loads(params.read_text()) if params.exists() else dict(rows[-1].get("config", {}))
    ended = steps[-1].seconds if steps else began
    return ImportedTrial(_flat(config), steps, status, reason, began, ended)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break  # it was being written
        if isinstance(row, dict) and "training_iteration" in row:
            rows.append(row)
    return rows


def _began(rows: Sequence[Mapping[str, Any]]) -> float:
    return float(rows[0].get("timestamp", 0.0)) - float(rows[0].get("time_total_s", 0.0))


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    flat = _flat({name: value for name, value in row.items() if name != "config"})
    numbers = {name: finite(value) for name, value in flat.items() if name not in OWN_METRICS}
    return {
        name: number
        for name, number in numbers.items()
        if number is not None and not name.startswith(RESERVED_PREFIXES)
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested configuration with names such as ``model/layers``."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            value = tuple(value) if isinstance(value, list) else value
            flat[prefix + name] = repr(value) if why_not_plain(value) else value
    return flat


def _space(trials: Sequence[ImportedTrial]) -> dict[str, Any]:
    space: dict[str, Any] = {}
    for name in dict.fromkeys(name for trial in trials for name in trial.config):
        values = [trial.config[name] for trial in trials if name in trial.config]
        different = list({repr(value): value for value in values}.values())
        numbers = [v for v in different if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(different) == 1:
            space[name] = different[0]
        elif len(numbers) < len(different):
            space[name] = Categorical(different)
        elif all(isinstance(value, int) for value in numbers):
            space[name] = Integer(int(min(numbers)), int(max(numbers)))
        else:
            space[name] = Real(min(numbers), max(numbers))
    return space
