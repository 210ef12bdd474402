"""The data of the plots of a population: schedules, lineage, diversity."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskhpo.plots.data import Columns, best_trial
from daskhpo.plots.tables import Piece, StudyTables, short


def is_population(tables: StudyTables) -> bool:
    """Return True if any trial took over a state, or changed its configuration."""
    return bool(tables.pieces)


def changed_names(tables: StudyTables) -> list[str]:
    """Return the hyperparameters, all numbers, that trials changed while they trained."""
    first: dict[tuple[int, str], Any] = {}
    found: dict[str, None] = {}
    for piece in tables.pieces:
        for name, value in piece.config.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and first.setdefault((piece.trial, name), value) != value:
                found[name] = None
    return [*found]


def ancestry(tables: StudyTables, trial: int) -> list[tuple[Piece, int]]:
    """Return the pieces that led to a trial's state, oldest first, each with its end."""
    by_trial: dict[int, list[Piece]] = {}
    for piece in tables.pieces:
        by_trial.setdefault(piece.trial, []).append(piece)
    steps: list[tuple[Piece, int]] = []
    until, before = tables.resource[trial], np.inf
    while True:
        own = [p for p in by_trial.get(trial, ()) if p.seconds <= before and p.start <= until]
        if not own:
            return steps[::-1]
        piece = own[-1]
        if piece.start < until:
            steps.append((piece, until))
        if piece.start == 0:
            return steps[::-1]
        until, before = piece.start, np.nextafter(piece.seconds, -np.inf)
        trial = piece.source


def winning_member(tables: StudyTables) -> int | None:
    """Return the trial whose newest state descends from the best report, or None."""
    if not tables.pieces:
        return best_trial(tables)
    owner, loss = np.array(tables.unit_trial), np.array(tables.unit_loss)
    resource, seconds = np.array(tables.unit_resource), np.array(tables.unit_seconds)
    units = {trial: np.flatnonzero(owner == trial) for trial in {p.trial for p in tables.pieces}}
    best, winner = np.inf, None
    for trial in units:
        after = np.inf
        for piece, end in reversed(ancestry(tables, trial)):
            own = units[piece.trial]
            inside = (seconds[own] > piece.seconds) & (seconds[own] <= after)
            own = own[inside & (resource[own] > piece.start) & (resource[own] <= end)]
            if len(own) and loss[own].min() < best:
                best, winner = loss[own].min(), trial
            after = piece.seconds
    return winner


def schedules(tables: StudyTables, name: str) -> Columns:
    """Return one line of steps a member for one hyperparameter, and the winner's last."""
    columns: Columns = {"id": [], "kind": [], "xs": [], "ys": []}
    by_trial: dict[int, list[Piece]] = {}
    for piece in tables.pieces:
        by_trial.setdefault(piece.trial, []).append(piece)
    for trial, pieces in by_trial.items():
        xs: list[float] = []
        ys: list[float] = []
        ends = [*(piece.left for piece in pieces[1:]), tables.resource[trial]]
        for piece, end in zip(pieces, ends, strict=True):
            if xs and piece.start != xs[-1]:
                xs, ys = [*xs, np.nan], [*ys, np.nan]
            xs += [piece.start, max(end, piece.start)]
            ys += [float(piece.config[name])] * 2
        _add(columns, trial, "member", xs, ys)
    winner = winning_member(tables)
    if winner is not None and (path := ancestry(tables, winner)):
        xs = [float(at) for piece, end in path for at in (piece.start, end)]
        ys = [float(piece.config[name]) for piece, _ in path for _ in (0, 1)]
        _add(columns, winner, "winner", xs, ys)
    return columns


def _add(columns: Columns, trial: int, kind: str, xs: list[float], ys: list[float]) -> None:
    for column, value in zip(
        columns.values(), (trial, kind, np.array(xs), np.array(ys)), strict=True
    ):
        column.append(value)


def lineage(tables: StudyTables) -> Columns:
    """Return a segment for each piece of training; ``from_id``: of whose state."""
    columns: Columns = {
        name: [] for name in ("id", "left", "right", "from_id", "is_winner", "config", "kind")
    }
    winner = winning_member(tables)
    path = ancestry(tables, winner) if winner is not None else []
    on_path = {(piece.trial, piece.start, piece.seconds): end for piece, end in path}
    following: dict[int, Piece] = {}
    rows = []
    for piece in reversed(tables.pieces):
        after = following.get(piece.trial)
        end = tables.resource[piece.trial] if after is None else after.left
        end = on_path.get((piece.trial, piece.start, piece.seconds), end)
        following[piece.trial] = piece
        rows.append((piece, end))
    for piece, end in reversed(rows):
        is_winner = (piece.trial, piece.start, piece.seconds) in on_path
        columns["id"].append(piece.trial)
        columns["left"].append(piece.start)
        columns["right"].append(max(end, piece.start))
        columns["from_id"].append(piece.source)
        columns["is_winner"].append(is_winner)
        columns["kind"].append("winner's ancestry" if is_winner else "member")
        columns["config"].append(" ".join(f"{n}={short(v)}" for n, v in piece.config.items()))
    return columns


def arrows(tables: StudyTables) -> Columns:
    """Return an arrow for each exploit: from the source's line to the member's."""
    taken = [piece for piece in tables.pieces if piece.source != piece.trial][-1_000:]
    up = [piece.source < piece.trial for piece in taken]
    return {
        "resource": [piece.start for piece in taken],
        "marker": ["triangle" if is_up else "inverted_triangle" for is_up in up],
        "from_id": [piece.source for piece in taken],
        "id": [piece.trial for piece in taken],
    }


def diversity(tables: StudyTables, name: str, n: int = 60) -> Columns:
    """Return middle and extremes of one hyperparameter among members, over time."""
    columns: Columns = {key: [] for key in ("hours", "low", "middle", "high")}
    if not tables.pieces:
        return columns
    times = np.linspace(tables.pieces[0].seconds, max(tables.facts.seconds, 1e-9), n)
    current: dict[int, float] = {}
    pieces = sorted(tables.pieces, key=lambda piece: piece.seconds)
    place = 0
    for time in times.tolist():
        while place < len(pieces) and pieces[place].seconds <= time:
            current[pieces[place].trial] = float(pieces[place].config[name])
            place += 1
        if current:
            values = np.array([*current.values()])
            columns["hours"].append(time / 3600)
            for key, value in zip(("low", "middle", "high"), _spread(values), strict=True):
                columns[key].append(value)
    return columns


def spread_of_values(tables: StudyTables, n: int = 60) -> Columns:
    """Return middle and extremes of the members' last values, over time."""
    columns: Columns = {key: [] for key in ("hours", "low", "middle", "high")}
    seconds = np.array(tables.unit_seconds)
    if not tables.pieces or not len(seconds):
        return columns
    owner, value = np.array(tables.unit_trial), tables.value(np.array(tables.unit_loss))
    order = np.argsort(seconds, kind="stable")
    last = np.full(tables.n_trials, np.nan)
    begin = 0
    for time in np.linspace(seconds.min(), max(tables.facts.seconds, 1e-9), n).tolist():
        end = int(np.searchsorted(seconds[order], time, side="right"))
        new = order[begin:end]
        last[owner[new]], begin = value[new], end
        if len(known := last[np.isfinite(last)]):
            columns["hours"].append(time / 3600)
            for key, number in zip(("low", "middle", "high"), _spread(known), strict=True):
                columns[key].append(number)
    return columns


def _spread(values: Any) -> tuple[float, float, float]:
    return float(values.min()), float(np.median(values)), float(values.max())
