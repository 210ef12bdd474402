"""Data of the slots' timeline, and of their time by purpose."""

from __future__ import annotations

import math

import numpy as np

from daskhpo.core.types import Array
from daskhpo.plots.data import HOUR, Columns, clock
from daskhpo.plots.tables import StudyTables

MAX_BARS = 3_000
MAX_JOBS = 300
MIN_BINS, MAX_BINS = 20, 120
LIVE_HOURS = 6.0
PURPOSES = ("training", "saving", "lost", "idle")


def timeline(tables: StudyTables, hours: float | None = None) -> Columns:
    """Return bars: what each slot did, and when.

    Parameters
    ----------
    hours : only the last ones; None: all. Of more than `MAX_BARS` the newest are returned.
    """
    now = tables.facts.seconds
    start, worked = np.array(tables.run_start), np.array(tables.run_worked)
    ends = np.array(tables.run_end)
    end = np.where(np.isnan(ends), now, ends)
    since = 0.0 if hours is None else now - hours * HOUR
    runs = np.flatnonzero(end >= since)[-MAX_BARS // 2 :]
    columns: Columns = {
        name: [] for name in ("row", "slot", "left", "right", "purpose", "id", "text")
    }
    for run in runs.tolist():
        trial = tables.run_trial[run]
        is_open = bool(np.isnan(ends[run]))
        rest = "lost" if tables.run_lost[run] else "saving"
        parts = [("training", start[run], end[run] if is_open else worked[run])]
        if not is_open and end[run] > worked[run]:
            parts.append((rest, worked[run], end[run]))
        for purpose, left, right in parts:
            if right <= left:
                continue
            columns["row"].append(2 * run + (purpose == rest))
            columns["slot"].append(str(tables.run_lane[run]))
            columns["left"].append(max(left, since) / HOUR)
            columns["right"].append(right / HOUR)
            columns["purpose"].append(purpose)
            columns["id"].append(trial)
            columns["text"].append(f"{right - left:.3g} s")
    return columns


def jobs(tables: StudyTables, hours: float | None = None) -> Columns:
    """Return bars: the Slurm jobs while they had slots; ``row``: lines that they share in turn.

    Parameters
    ----------
    hours : only the last ones; None: all. Of more than `MAX_JOBS` the newest are returned.
    """
    now = tables.facts.seconds
    since = 0.0 if hours is None else now - hours * HOUR
    columns: Columns = {name: [] for name in ("row", "job", "left", "right", "n_slots", "text")}
    ends: list[float] = []  # of each line
    for span in tables.jobs[-MAX_JOBS:]:
        ended = now if math.isnan(span.ended) else span.ended
        if ended < since:
            continue
        free = [row for row, end in enumerate(ends) if end <= span.began]
        row = free[0] if free else len(ends)
        ends[row : row + 1] = [ended]
        columns["row"].append(str(row))
        columns["job"].append(span.job)
        columns["left"].append(max(span.began, since) / HOUR)
        columns["right"].append(ended / HOUR)
        columns["n_slots"].append(span.most_slots)
        left = "has slots" if math.isnan(span.ended) else "left"
        columns["text"].append(f"{clock(ended - span.began)}, {left}")
    return columns


def stepped(columns: Columns) -> Columns:
    """Return the columns of :func:`spent` as the corners of steps, from 0 to the end."""
    middle = columns["hours"]
    if not len(middle):
        return columns
    width = 2 * middle[0]
    edges = np.linspace(0.0, middle[-1] + width / 2, len(middle) + 1)
    steps: Columns = {"hours": np.repeat(edges, 2)[1:-1]}
    return steps | {name: np.repeat(columns[name], 2) for name in PURPOSES}


def spent(tables: StudyTables) -> Columns:
    """Return how many slots did what, in at most `MAX_BINS` equal times."""
    now = tables.facts.seconds
    if now <= 0:
        return {name: [] for name in ("hours", *PURPOSES)}
    n = int(min(MAX_BINS, max(MIN_BINS, now // 60)))
    edges = np.linspace(0.0, now, n + 1)
    start, worked = np.array(tables.run_start), np.array(tables.run_worked)
    ends = np.array(tables.run_end)
    is_open = np.isnan(ends)
    end = np.where(is_open, now, ends)
    worked = np.where(is_open, now, worked)
    is_lost = np.array(tables.run_lost, bool) & ~is_open
    training = _covered(start, worked, edges)
    saving = _covered(worked[~is_lost], end[~is_lost], edges)
    lost = _covered(worked[is_lost], end[is_lost], edges)
    idle = np.maximum(_slots(tables, edges) - training - saving - lost, 0)
    width = now / n
    middle = (edges[:-1] + edges[1:]) / 2 / HOUR
    parts = dict(zip(PURPOSES, (training, saving, lost, idle), strict=True))
    return {"hours": middle} | {name: (part / width).round(3) for name, part in parts.items()}


def idle_at_the_end(tables: StudyTables) -> float:
    """Return the idle slot-seconds after the last new trial began."""
    now = tables.facts.seconds
    if not tables.n_trials or not len(tables.run_start):
        return 0.0
    edges = np.array([min(max(tables.started), now), now])
    ends = np.array(tables.run_end)
    held = _covered(np.array(tables.run_start), np.where(np.isnan(ends), now, ends), edges)
    return float(max(0.0, (_slots(tables, edges) - held)[0]))


def _slots(tables: StudyTables, edges: Array) -> Array:
    """Return the slot-seconds between edges."""
    begin, n = np.array(tables.slots_seconds), np.array(tables.slots_n, float)
    if not len(begin):
        return np.zeros(len(edges) - 1)
    passed = np.r_[0.0, np.cumsum(np.diff(begin) * n[:-1])]
    place = np.searchsorted(begin, edges, side="right") - 1
    known = np.maximum(place, 0)
    total = passed[known] + n[known] * np.maximum(edges - begin[known], 0)
    return np.diff(np.where(place < 0, 0.0, total))


def _covered(left: Array, right: Array, edges: Array) -> Array:
    """Return the seconds that intervals cover between edges, summed over intervals."""
    return np.diff(_passed(left, edges) - _passed(right, edges))


def _passed(points: Array, at: Array) -> Array:
    """Return at each time the seconds since each earlier point, summed."""
    points = np.sort(points)
    total = np.r_[0.0, np.cumsum(points)]
    n = np.searchsorted(points, at, side="right")
    passed: Array = n * at - total[n]
    return passed
