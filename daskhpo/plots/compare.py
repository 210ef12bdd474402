"""Several studies compared over time, in one report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from daskhpo.core.types import Array
from daskhpo.plots import look
from daskhpo.plots.axes import is_wide
from daskhpo.plots.data import HOUR, Columns, best_trial, clock
from daskhpo.plots.report import placed, render, section
from daskhpo.plots.sampling import best_first
from daskhpo.plots.tables import StudyTables, short

N_TIMES = 200
TOP_K = 6
LINE_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#767676",
)
LINE_DASHES = ("solid", "dashed", "dotted", "dotdash")


def groups(studies: Sequence[StudyTables]) -> dict[str, list[StudyTables]]:
    """Return the studies by label: those of one scheduler and searcher are a group.

    If all are of one method, or no two are, each study is a group of its own.
    """
    found: dict[str, list[StudyTables]] = {}
    for study in studies:
        found.setdefault(f"{study.facts.scheduler}, {study.facts.searcher}", []).append(study)
    if len(found) in (1, len(studies)):
        names = [study.facts.name for study in studies]
        if len({*names}) < len(studies):  # the same name in several folders
            names = [study.facts.path for study in studies]
        return {name: [study] for name, study in zip(names, studies, strict=True)}
    brief = {", ".join(_class_of(part) for part in _parts(group[0])) for group in found.values()}
    if len(brief) < len(found):  # two differ by their arguments
        return found
    return {", ".join(_class_of(p) for p in _parts(group[0])): group for group in found.values()}


def _parts(study: StudyTables) -> tuple[str, str]:
    return study.facts.scheduler, study.facts.searcher


def _class_of(text: str) -> str:
    return text.split("(")[0]


def over_time(group: Sequence[StudyTables]) -> Columns:
    """Return the best value over time: the median of a group, and its middle 80 %.

    Of a single study: the median of its `TOP_K` best trials, and their extremes.
    """
    ends = [study.facts.seconds for study in group]
    times = np.linspace(0.0, min(ends) if len(ends) > 1 else ends[0], N_TIMES)
    if len(group) > 1:
        values = np.array([_best_at(study, times) for study in group])
        shares = (0.1, 0.5, 0.9)
    else:
        values = _top_at(group[0], times)
        shares = (0.0, 0.5, 1.0)
    known = np.isfinite(values).all(axis=0)
    low, middle, high = np.quantile(values[:, known], shares, axis=0)
    return {"hours": times[known] / HOUR, "low": low, "middle": middle, "high": high}


def _best_at(study: StudyTables, times: Array) -> Array:
    """Return a study's best value at each time; NaN before its first report."""
    place = np.searchsorted(np.array(study.best_seconds), times, side="right") - 1
    values = study.value(np.array(study.best_loss))
    if not len(values):
        return np.full(len(times), np.nan)
    return np.where(place < 0, np.nan, values[np.maximum(place, 0)])


def _top_at(study: StudyTables, times: Array) -> Array:
    """Return the values of a study's best trials at each time, a column a time."""
    owner, loss = np.array(study.unit_trial), np.array(study.unit_loss)
    seconds = np.array(study.unit_seconds)
    order = np.argsort(seconds, kind="stable")
    best = np.full(study.n_trials, np.inf)
    columns, begin = [], 0
    for end in np.searchsorted(seconds[order], times, side="right").tolist():
        part = order[begin:end]
        np.minimum.at(best, owner[part], loss[part])
        begin = end
        top = best[best_first(best, TOP_K)]
        columns.append(np.r_[top, np.full(TOP_K - len(top), np.inf)])
    return np.array(study.value(np.array(columns))).T


def seconds_to(study: StudyTables, target: float) -> float:
    """Return the seconds until a study's best value reached a target; inf: never."""
    loss = target if study.objective.mode == "min" else -target
    reached = np.flatnonzero(np.array(study.best_loss) <= loss)
    return float(study.best_seconds[reached[0]]) if len(reached) else math.inf


def share_reached(group: Sequence[StudyTables], target: float, until: float) -> Columns:
    """Return the share of a group's studies that reached a target, over time."""
    times = sorted(seconds_to(study, target) for study in group)
    reached = [time for time in times if math.isfinite(time)]
    shares = [(place + 1) / len(group) for place in range(len(reached))]
    hours = [0.0, *(time / HOUR for time in reached), until / HOUR]
    return {"hours": hours, "share": [0.0, *shares, shares[-1] if shares else 0.0]}


def comparison_html(studies: Sequence[StudyTables], target: float | None = None) -> str:
    """Return the report that compares studies as one self-contained HTML file.

    Parameters
    ----------
    target : value of the metric; None: no time to it is shown.

    Raises
    ------
    ValueError : the studies have different metrics.
    """
    first = studies[0].objective
    for study in studies:
        if study.objective != first:
            raise ValueError(
                f"{study.facts.name} has the metric {study.objective.metric!r} "
                f"({study.objective.mode}), but {studies[0].facts.name} has {first.metric!r} "
                f"({first.mode}): only studies of one metric can be compared"
            )
    by_label = {label: found for label, found in groups(studies).items() if _reported(found)}
    roots: list[Any] = []
    sections = [section("Studies", _overview(studies, target))]
    if by_label:
        what = (
            "The line is the median of the best value over a method's studies, the band holds the "
            "middle 80 % of them."
            if any(len(found) > 1 for found in by_label.values())
            else f"The line is the median of the {TOP_K} best trials until then, the band reaches "
            "from the best to the worst of them."
        )
        layout = _lines(by_label, first.metric)
        sections.append(placed(roots, "Best value over time", layout, f"<p>{what}</p>"))
    if target is not None and by_label:
        until = max(study.facts.seconds for study in studies)
        text = f"<p>Share of the studies whose best value has reached {target:g}.</p>"
        layout = _shares(by_label, target, until)
        sections.append(placed(roots, "Time to the target", layout, text))
    return render(f"Comparison of {len(studies)} studies", sections, roots)


def _reported(group: Sequence[StudyTables]) -> bool:
    return all(len(study.best_loss) for study in group)


def _overview(studies: Sequence[StudyTables], target: float | None) -> str:
    metric = studies[0].objective.metric
    head = ["study", "scheduler", "searcher", f"best {metric}", "trials", "time", "in slots"]
    head += [] if target is None else [f"time to {target:g}"]
    rows = []
    for study in studies:
        facts, number = study.facts, best_trial(study)
        best = "none" if number is None else f"{float(study.value(study.best[number])):.6g}"
        row = [
            facts.name,
            short(facts.scheduler, 60),
            short(facts.searcher, 40),
            best,
            f"{study.n_trials:,}",
            clock(facts.seconds),
            clock(facts.slot_seconds),
        ]
        if target is not None:
            seconds = seconds_to(study, target)
            row.append(clock(seconds) if math.isfinite(seconds) else "not reached")
        rows.append(row)
    return look.table(head, rows)


def _lines(by_label: dict[str, list[StudyTables]], metric: str) -> Any:
    lines = {label: over_time(found) for label, found in by_label.items()}
    ends = np.array(
        [end for each in lines.values() for name in ("low", "high") for end in each[name]]
    )
    scale = "log" if is_wide(ends) else "linear"
    figure = look.new_figure("Time since the study began", metric, height=420, y_axis_type=scale)
    look.time_axis(figure.xaxis[0])
    for place, (label, found) in enumerate(by_label.items()):
        columns = look.source(lines[label])
        colour = LINE_COLOURS[place % len(LINE_COLOURS)]
        name = _label(label, found)
        figure.varea(
            "hours",
            "low",
            "high",
            source=columns,
            fill_color=colour,
            fill_alpha=0.15,
            legend_label=name,
        )
        figure.line(
            "hours",
            "middle",
            source=columns,
            line_color=colour,
            line_width=2.5,
            line_dash=LINE_DASHES[place % len(LINE_DASHES)],
            legend_label=name,
        )
    look.flat_legend(figure)
    figure.legend[0].orientation = "vertical"
    return figure


def _shares(by_label: dict[str, list[StudyTables]], target: float, until: float) -> Any:
    figure = look.new_figure("Time since the study began", "Share of studies", height=300)
    look.time_axis(figure.xaxis[0])
    for place, (label, found) in enumerate(by_label.items()):
        figure.step(
            "hours",
            "share",
            source=look.source(share_reached(found, target, until)),
            mode="after",
            line_color=LINE_COLOURS[place % len(LINE_COLOURS)],
            line_width=2.5,
            line_dash=LINE_DASHES[place % len(LINE_DASHES)],
            legend_label=_label(label, found),
        )
    look.flat_legend(figure)
    figure.legend[0].orientation = "vertical"
    figure.y_range.start, figure.y_range.end = -0.02, 1.05
    return figure


def _label(label: str, found: Sequence[StudyTables]) -> str:
    n = f" ({len(found)} studies)" if len(found) > 1 else ""
    return short(label, 90) + n
