"""The data of the plots of a study and its trials: from tables to short columns.

Each function returns columns of equal length, whose size does not grow with the study. Times are
hours since the study began.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from daskhpo.core.types import Array, Status
from daskhpo.plots.axes import places_on_axis, value_scale
from daskhpo.plots.sampling import best_first, chosen, sample, thinned
from daskhpo.plots.tables import STATES, StudyTables

Columns = dict[str, Any]  # a name to an array, or to a list of texts or of arrays

MAX_TRIALS = 2_000
MAX_CURVES, MAX_POINTS = 300, 50
MAX_STEPS = 500
BEST_TIER = 0.1
TRIAL_PARTS = ("times", "texts", "axes")
MAX_SLOTS = 256
HOUR = 3600.0
_RUNNING = STATES.index(Status.RUNNING)
_STATE_WORDS = np.array([state.value for state in STATES])


def trials(
    tables: StudyTables,
    limit: int = MAX_TRIALS,
    parts: Collection[str] = TRIAL_PARTS,
    numbers: Array | None = None,
) -> Columns:
    """Return a row for each trial that is drawn; `seen` says how many these are.

    Parameters
    ----------
    parts : columns besides ``id``, ``state``, ``value`` (the best), ``resource`` and ``config``.
        "times": ``hours``, ``slot_hours`` and ``n_trials`` at its best report. "texts": ``last``
        value, ``seconds`` in slots, ``reason``, and each hyperparameter as ``text:<name>``. "axes":
        the place of each on its axis, from 0 to 1, as ``unit:<name>``; its line in parallel
        coordinates, ``axes_x`` and ``axes_y``, the value last; its ``rank`` from 0, the best, to 1,
        and ``tier``, which is "best" for the first tenth.
    numbers : the trials; None: at most ``limit`` are chosen.
    """
    losses, status = np.array(tables.best), np.array(tables.status)
    if numbers is None:
        running = np.flatnonzero(status == _RUNNING)
        numbers = chosen(losses, limit, running[:MAX_SLOTS].tolist())
    columns: Columns = {
        "id": numbers,
        "state": _STATE_WORDS[status[numbers]].tolist() if len(numbers) else [],
        "value": rounded(tables.value(losses[numbers])),
        "resource": np.array(tables.resource)[numbers],
        "config": [tables.text_of(number) for number in numbers.tolist()],
    }
    if "times" in parts:
        at = np.array(tables.at)[numbers]
        columns["hours"] = rounded(at / HOUR)
        columns["slot_hours"] = rounded(slot_seconds(tables, at) / HOUR)
        columns["n_trials"] = n_started(tables, at)
    if "texts" in parts:
        columns["last"] = rounded(tables.value(np.array(tables.last)[numbers]))
        columns["seconds"] = np.array(tables.in_slot)[numbers].round(1)
        columns["reason"] = [tables.reasons.get(number, "") for number in numbers.tolist()]
        for name in tables.names():
            texts = [tables.setting(name, number) for number in numbers.tolist()]
            columns[f"text:{name}"] = texts
    if "axes" in parts:
        rank = _rank(losses)[numbers]
        columns["rank"] = (20 * rank).round() / 20  # its colour: it changes seldom
        columns["tier"] = np.where(rank <= BEST_TIER, "best", "rest").tolist()
        for name in tables.names():
            columns[f"unit:{name}"] = places_on_axis(tables, name)[numbers].round(4)
        columns |= _parallel(tables, columns)
    return columns


def rounded(values: Array) -> Array:
    """Return values with six digits: more cannot be seen, and take longer to send."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scale = 10.0 ** (5 - np.floor(np.log10(np.abs(values))))
    scale = np.where(np.isfinite(scale) & (scale > 0) & (scale < 1e250), scale, 1.0)
    result: Array = np.round(values * scale) / scale
    return result


def _rank(losses: Array) -> Array:
    """Return the place of each loss among the finite ones, from 0 to 1; else NaN."""
    order = best_first(losses, len(losses))
    rank = np.full(len(losses), np.nan)
    rank[order] = np.arange(len(order)) / max(len(order) - 1, 1)
    return rank.round(3)


def seen(columns: Columns, total: int) -> str:
    """Return text such as ``2,000 of 48,120 trials``."""
    n = len(columns["id"])
    shown = f"{n:,} of {total:,}" if n < total else f"{n:,}"
    return f"{shown} trial{'s' * (total != 1)}"


def _parallel(tables: StudyTables, columns: Columns) -> Columns:
    axes = [columns[f"unit:{name}"] for name in tables.names()]
    axes.append(value_scale(tables).places(columns["value"]))
    heights = np.array(axes).T.reshape(-1, len(axes)).round(4)
    places = np.arange(len(axes), dtype=float)
    return {"axes_x": [places] * len(heights), "axes_y": [*heights]}


def best(tables: StudyTables) -> Columns:
    """Return the study's best value so far, as the corners of a line of steps."""
    places = thinned(len(tables.best_loss), MAX_STEPS)
    facts = tables.facts
    if not len(places):
        return {"hours": [], "slot_hours": [], "n_trials": [], "value": []}
    value = tables.value(np.array(tables.best_loss)[places])
    at = np.r_[np.array(tables.best_seconds)[places], facts.seconds]
    return {
        "hours": at / HOUR,
        "slot_hours": slot_seconds(tables, at) / HOUR,
        "n_trials": n_started(tables, at),
        "value": np.r_[value, value[-1]],
    }


def slot_seconds(tables: StudyTables, at: Array) -> Array:
    """Return the seconds of all slots together until these times."""
    known = np.r_[0.0, np.array(tables.slots_seconds), tables.facts.seconds]
    total = np.r_[0.0, np.array(tables.slots_total), tables.facts.slot_seconds]
    return np.where(np.isnan(at), np.nan, np.interp(at, known, total))


def n_started(tables: StudyTables, at: Array) -> Array:
    """Return how many trials had been started until these times."""
    return np.searchsorted(np.sort(np.array(tables.started)), at, side="right")


def curves(tables: StudyTables, top: int = MAX_POINTS, *, running_only: bool = False) -> Columns:
    """Return curves: of the best trials, running ones, the last ones, and a sample.

    ``rank``: the place among these trials, 0 for the best; -1 for those without a finite loss.
    """
    n = tables.n_trials
    status, losses = np.array(tables.status), np.array(tables.best)
    running = np.flatnonzero(status == _RUNNING)[:MAX_SLOTS]
    ranked = best_first(losses, min(top, MAX_CURVES))
    if running_only:
        numbers = running
    else:
        recent = np.arange(max(0, n - 50), n)
        wanted = dict.fromkeys(np.r_[ranked, running, recent].tolist())
        rest = sample(n, MAX_CURVES - len(wanted)).tolist()
        numbers = np.array(sorted([*dict.fromkeys([*wanted, *rest])][:MAX_CURVES]), int)
    order = numbers[best_first(losses[numbers], len(numbers))].tolist()
    rank = {number: place for place, number in enumerate(order)}
    is_wanted = np.zeros(n, bool)
    is_wanted[numbers] = True
    owner = np.array(tables.unit_trial)
    units = np.flatnonzero(is_wanted[owner]) if n else np.arange(0)
    units = units[np.argsort(owner[units], kind="stable")]
    parts = np.split(units, np.flatnonzero(np.diff(owner[units])) + 1) if len(units) else []
    resource = np.array(tables.unit_resource)
    value = tables.value(np.array(tables.unit_loss))
    columns: Columns = {"id": [], "state": [], "rank": [], "xs": [], "ys": [], "config": []}
    for part in parts:
        part = part[thinned(len(part), MAX_POINTS)]
        number = int(owner[part[0]])
        xs, ys = _broken(resource[part].astype(float), rounded(value[part]))
        columns["id"].append(number)
        columns["state"].append(tables.state(number))
        columns["rank"].append(rank.get(number, -1))
        columns["xs"].append(xs)
        columns["ys"].append(ys)
        columns["config"].append(tables.text_of(number))
    return columns


def _broken(xs: Array, ys: Array) -> tuple[Array, Array]:
    """Break a curve where its trial took over another state."""
    breaks = np.flatnonzero(np.diff(xs) <= 0) + 1
    if not len(breaks):
        return xs, ys
    return np.insert(xs, breaks, np.nan), np.insert(ys, breaks, np.nan)


def bands(tables: StudyTables) -> Columns:
    """Return the quantiles of all trials' values by resource: where most of them are."""
    resource = np.array(tables.unit_resource)
    value = tables.value(np.array(tables.unit_loss))
    order = np.argsort(resource, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(resource[order])) + 1) if len(order) else []
    parts = [part for part in parts if len(part) >= 5]
    parts = [parts[place] for place in thinned(len(parts), MAX_POINTS)]
    rows = [np.nanquantile(value[part], [0.1, 0.5, 0.9]) for part in parts]
    low, middle, high = np.array(rows).reshape(-1, 3).T
    return {
        "resource": np.array([resource[part[0]] for part in parts]),
        "low": low,
        "middle": middle,
        "high": high,
        "n": [len(part) for part in parts],
    }


def rungs(tables: StudyTables) -> Columns:
    """Return a row for each resource at which trials were compared.

    ``cut_off``: the worst value that continued. ``correlation``: Spearman's, of the values with
    those at the last rung, over the ``n_pairs`` trials that reached it; NaN: fewer than five.
    """
    columns: Columns = {
        name: []
        for name in ("rung", "resource", "judged", "advanced", "cut_off", "correlation", "n_pairs")
    }
    resource, trial = np.array(tables.judged_resource), np.array(tables.judged_trial)
    loss, until = np.array(tables.judged_loss), np.array(tables.until)
    levels = np.unique(resource)
    if len(levels) > 24:  # each unit is judged: too many to be read
        levels = levels[thinned(len(levels), 24)]
    last = resource == levels[-1] if len(levels) else resource == 0
    at_last = dict(zip(trial[last].tolist(), loss[last].tolist(), strict=True))
    for level in levels.tolist():
        here = resource == level
        advanced = until[trial[here]] > level
        pairs = [
            (own, at_last[number])
            for number, own in zip(trial[here].tolist(), loss[here].tolist(), strict=True)
            if number in at_last
        ]
        columns["rung"].append(str(level))
        columns["resource"].append(level)
        columns["judged"].append(int(here.sum()))
        columns["advanced"].append(int(advanced.sum()))
        worst = loss[here][advanced].max() if advanced.any() else math.inf
        columns["cut_off"].append(float(tables.value(worst)))
        few = level == levels[-1] or len(pairs) < 5
        columns["correlation"].append(math.nan if few else rank_correlation(*np.array(pairs).T))
        columns["n_pairs"].append(len(pairs))
    return columns


def rank_correlation(a: Array, b: Array) -> float:
    """Return Spearman's rank correlation; NaN if one of the two is constant."""
    both = [ranks(values) for values in (a, b)]
    if any(np.ptp(rank) == 0 for rank in both):
        return math.nan
    return float(np.corrcoef(np.array(both))[0, 1])


def ranks(values: Array) -> Array:
    """Return ranks; equal values share the middle of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle: Array = np.cumsum(counts) - (counts - 1) / 2
    return middle[place]


def slots(tables: StudyTables) -> Columns:
    """Return a row for each slot that trains a trial now, by slot."""
    ends = np.array(tables.run_end)
    runs = np.flatnonzero(np.isnan(ends))
    lanes = np.array(tables.run_lane)[runs]
    runs = runs[np.argsort(lanes)][:MAX_SLOTS].tolist()
    columns: Columns = {
        name: []
        for name in ("slot", "id", "done", "until", "share", "seconds", "state", "label", "config")
    }
    for run in runs:
        trial = tables.run_trial[run]
        done, until = tables.resource[trial], max(tables.until[trial], 1)
        seconds = tables.facts.seconds - tables.run_start[run]
        columns["slot"].append(str(tables.run_lane[run]))
        columns["id"].append(trial)
        columns["done"].append(done)
        columns["until"].append(until)
        columns["share"].append(min(1.0, done / until))
        columns["seconds"].append(round(seconds, 1))
        columns["state"].append(tables.state(trial))
        config = tables.text_of(trial)
        columns["label"].append(f"trial {trial}: {done} of {until}, {clock(seconds)}   {config}")
        columns["config"].append(config)
    return columns


def counts(tables: StudyTables) -> dict[str, int]:
    """Return the number of trials by state, those states only that any has."""
    numbers = np.bincount(np.array(tables.status, int), minlength=len(STATES))
    return {s.value: int(n) for s, n in zip(STATES, numbers, strict=True) if n}


def best_trial(tables: StudyTables) -> int | None:
    """Return the number of the trial with the best value; None: no trial has reported."""
    first = best_first(np.array(tables.best), 1)
    return int(first[0]) if len(first) else None


def clock(seconds: float) -> str:
    """Return seconds as text: ``31 s``, ``12 min``, ``3.4 h``, ``2.5 d``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    if seconds < 5970:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / HOUR:.1f} h" if seconds < 48 * HOUR else f"{seconds / HOUR / 24:.1f} d"


def spread_of_best(tables: StudyTables) -> float | None:
    """Return the standard deviation of the best trial's last units, as its noise."""
    number = best_trial(tables)
    if number is None:
        return None
    of_it = np.array(tables.unit_loss)[np.array(tables.unit_trial) == number][-5:]
    return float(of_it.std()) if len(of_it) >= 5 else None
