"""The page *Workers and cost*: where the slots' time goes."""

from __future__ import annotations

import html
from collections.abc import Sequence

from daskhpo.plots import look, use, use_figures
from daskhpo.plots.data import HOUR, clock
from daskhpo.plots.page import (
    Page,
    PageData,
    Sources,
    Window,
    make_sources,
    nothing_yet,
    take_ranges,
)
from daskhpo.plots.tables import StudyTables


def use_data(
    tables: StudyTables, jobs: Sequence[Sequence[str]] = (), hours: float | None = None
) -> PageData:
    """Return what the page *Workers and cost* shows.

    Parameters
    ----------
    jobs : rows of the table of Slurm jobs; empty: none are known but their ids.
    hours : only the last ones; None: all.
    """
    facts = tables.facts
    bars, spent = use.timeline(tables, hours), use.spent(tables)
    lanes = sorted({int(slot) for slot in bars["slot"]})
    has_bars = bool(bars["slot"])
    since = "" if hours is None or facts.seconds < hours * HOUR else f"the last {hours:g} h"
    ends = (min(bars["left"]), max(bars["right"])) if has_bars else (0.0, 1.0)
    return PageData(
        sources={"timeline": bars, "spent": spent},
        notes={
            "timeline": (
                since or f"{len(tables.run_trial):,} launches" if has_bars else nothing_yet(tables),
                has_bars,
            ),
            "spent": (
                "" if len(spent["hours"]) else nothing_yet(tables),
                bool(len(spent["hours"])),
            ),
        },
        factors={"timeline": [str(lane) for lane in lanes][::-1]},
        scales={"time": ends},
        texts={"cost": cost_html(tables), "jobs": _jobs_html(tables, jobs)},
    )


JOB_HEAD = ("job", "state", "ran", "left", "why it waits")


def cost_html(tables: StudyTables) -> str:
    """Return where the slots' time went, and the checkpoints, as tables in HTML."""
    facts = tables.facts
    total = facts.slot_seconds or 1.0
    known = facts.useful_seconds + facts.lost_seconds + facts.saving_seconds + facts.idle_seconds
    parts = (
        ("training, reported for the first time", facts.useful_seconds),
        ("training again, or never reported", facts.lost_seconds),
        ("saving states", facts.saving_seconds),
        ("since the last report of running trials", max(0.0, facts.slot_seconds - known)),
        ("no trial in the slot", facts.idle_seconds),
    )
    rows = [(name, clock(seconds), f"{seconds / total:.0%}") for name, seconds in parts]
    rows.append(("together", clock(facts.slot_seconds), ""))
    room = "" if facts.max_bytes is None else f" of {_size(facts.max_bytes)}"
    files = "" if facts.max_files is None else f" of {facts.max_files:,}"
    stored = [
        (
            "in the store now",
            f"{facts.stored_files:,}{files}",
            f"{_size(facts.stored_bytes)}{room}",
        ),
        ("written in all", f"{facts.written_files:,}", _size(facts.written_bytes)),
    ]
    return (
        "<b>Slots' time</b>"
        + look.table(("", "time", "share"), rows)
        + "<br><b>Checkpoints</b>"
        + look.table(("", "files", "size"), stored)
    )


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def _jobs_html(tables: StudyTables, jobs: Sequence[Sequence[str]]) -> str:
    if jobs:
        return "<b>Slurm jobs</b>" + look.table(JOB_HEAD, jobs)
    if tables.facts.jobs:
        ids = ", ".join(map(html.escape, tables.facts.jobs[-50:]))
        return f"<b>Slurm jobs</b> whose workers have served the study: {ids}"
    return ""


def build_use(new: PageData, sources: Sources | None = None) -> Page:
    """Build the page *Workers and cost*."""
    from bokeh.layouts import column

    sources = make_sources(new, sources)
    cost, jobs = look.div(), look.div()
    timeline = use_figures.timeline_panel(sources["timeline"], new.factors["timeline"])
    spent = use_figures.spent_panel(sources["spent"])
    page = Page(
        column(
            timeline.layout,
            spent.layout,
            look.side_by_side(cost, jobs),
            sizing_mode="stretch_width",
        ),
        sources,
        {"timeline": timeline, "spent": spent},
        divs={"cost": cost, "jobs": jobs},
    )
    take_ranges(page)
    page.mappers["time"] = Window(timeline.window)
    page.update(new)
    return page
