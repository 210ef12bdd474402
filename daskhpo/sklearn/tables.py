"""The tables of a search that has ended, under scikit-learn's and dask-ml's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from daskhpo.core.types import Config
from daskhpo.results.result import Result

Row = dict[str, Any]


def history(
    result: Result,
    params: Callable[[Config], dict[str, Any]],
    model_id: Callable[[int, int], Any],
    metric: str,
    bracket: Callable[[int], int] | None,
) -> list[Row]:
    """Return one row for each score, in order of time.

    Units whose fit is another unit's, between milestones of a search by growing samples, have none.
    """
    frame, rows, last = result.history(), [], dict[int, float]()
    for report in frame.to_dict("records"):
        trial = result.trial(report["trial"])
        if last.get(trial.id) == report["n_resources"]:
            continue
        last[trial.id] = report["n_resources"]
        row = {
            "model_id": model_id(trial.id, trial.bracket),
            "params": params(trial.config),
            "partial_fit_calls": int(report["resource"]),
            "partial_fit_time": float(report["fit_time"]),
            "score": float(report[metric]),
            "score_time": float(report["score_time"]),
            "elapsed_wall_time": float(report["seconds"]),
        }
        if bracket is not None:
            row["bracket"] = bracket(trial.bracket)
        rows.append(row)
    return rows


def by_model(rows: list[Row]) -> dict[Any, list[Row]]:
    """Return the history of each model."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row["model_id"], []).append(row)
    return found


def cv_results(
    result: Result,
    params: Callable[[Config], dict[str, Any]],
    model_id: Callable[[int, int], Any],
    n_splits: int,
    error_score: float,
    bracket: Callable[[int], int] | None,
) -> dict[str, Any]:
    """Return ``cv_results_``: one entry for each candidate, in the order of starts."""
    table, reports = result.trials(), result.history()
    trials = [result.trial(int(number)) for number in table["trial"]]
    times = {name: reports.groupby("trial")[name] for name in ("fit_time", "score_time")}
    n = len(trials)
    found: dict[str, Any] = {}
    for name, grouped in times.items():
        shown = name.replace("fit_time", "partial_fit_time")
        mean, std = grouped.mean(), grouped.std(ddof=0)
        for key in {name, shown}:
            found[f"mean_{key}"] = mean.reindex(table["trial"]).to_numpy(float)
            found[f"std_{key}"] = std.reindex(table["trial"]).to_numpy(float)
    found["model_id"] = np.array([model_id(trial.id, trial.bracket) for trial in trials])
    found["params"] = np.array([params(trial.config) for trial in trials], dtype=object)
    names = dict.fromkeys(name for each in found["params"] for name in each)
    for name in names:
        column: Any = np.ma.MaskedArray(np.empty(n, object), mask=True)
        for number, each in enumerate(found["params"]):
            if name in each:
                column[number] = each[name]
        found[f"param_{name}"] = _narrow(column)
    found["partial_fit_calls"] = table["resource"].to_numpy(int)
    found["n_resources"] = _column(table, "n_resources", 0.0).astype(int)
    if bracket is not None:
        found["bracket"] = np.array([bracket(trial.bracket) for trial in trials])
    first = "split0_"
    for name in [c.removeprefix(first) for c in map(str, table) if c.startswith(first)]:
        splits = [_column(table, f"split{split}_{name}", error_score) for split in range(n_splits)]
        for split, values in enumerate(splits):
            found[f"split{split}_test_{name}"] = values
        mean = np.mean(splits, axis=0)
        found[f"mean_test_{name}"] = found[f"test_{name}"] = mean
        found[f"std_test_{name}"] = np.std(splits, axis=0)
        found[f"rank_test_{name}"] = ranks(mean)
    return found


def ranks(scores: Any) -> Any:
    """Return the rank of each score, 1 the best; all that are nan have the last."""
    from scipy.stats import rankdata

    worst = np.nanmin(scores) - 1 if np.isfinite(scores).any() else 0.0
    return rankdata(-np.nan_to_num(scores, nan=worst), method="min").astype(np.int32)


def _column(table: Any, name: str, missing: float) -> Any:
    if name not in table:
        return np.full(len(table), missing)
    return table[name].fillna(missing).to_numpy(float)


def _narrow(column: Any) -> Any:
    """Return a column with the dtype of its numbers, if they have one."""
    if np.ma.getmaskarray(column).any():
        return column
    values = column.compressed().tolist()
    if all(isinstance(value, (bool, int, float, np.number)) for value in values):
        return np.ma.masked_array(np.array(values))
    return column
