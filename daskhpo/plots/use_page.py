"""The page *Workers and cost*: where the slots' time goes."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

from daskhpo.core.sizes import size_text
from daskhpo.plots import look, use, use_figures
from daskhpo.plots.data import HOUR, Columns, clock
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
    tables: StudyTables,
    jobs: Sequence[Sequence[str]] = (),
    gpus: Sequence[Gpu] = (),
    hours: float | None = None,
) -> PageData:
    """Return what the page *Workers and cost* shows.

    Parameters
    ----------
    jobs : rows of the table of Slurm jobs; empty: none are known but their ids.
    gpus : what workers say of their GPUs now.
    hours : only the last ones; None: all.
    """
    facts = tables.facts
    bars, spent = use.timeline(tables, hours), use.stepped(use.spent(tables))
    strip, devices = use.jobs(tables, hours), gpu_columns(gpus)
    lanes = sorted({int(slot) for slot in bars["slot"]})
    has_bars = bool(bars["slot"])
    since = "" if hours is None or facts.seconds < hours * HOUR else f"the last {hours:g} h"
    ends = (min(bars["left"]), max(bars["right"])) if has_bars else (0.0, 1.0)
    return PageData(
        sources={"timeline": bars, "spent": spent, "jobs": strip, "gpus": devices},
        notes={
            "timeline": (
                since or f"{len(tables.run_trial):,} launches" if has_bars else nothing_yet(tables),
                has_bars,
            ),
            "jobs": (
                f"{len(tables.jobs):,} with slots so far" if strip["row"] else "",
                bool(strip["row"]),
            ),
            "gpus": (f"{len(gpus)} workers" if gpus else "", bool(gpus)),
            "spent": (
                "" if len(spent["hours"]) else nothing_yet(tables),
                bool(len(spent["hours"])),
            ),
        },
        factors={
            "timeline": [str(lane) for lane in lanes][::-1],
            "jobs": sorted(set(strip["row"]), key=int, reverse=True),
            "gpus": devices["worker"][::-1],
        },
        scales={"time": ends},
        texts={"cost": cost_html(tables), "jobs": _jobs_html(tables, jobs)},
    )


class Gpu(NamedTuple):
    """A worker's GPU as its driver describes it.

    Attributes
    ----------
    busy : share of the last moments in which it computed, from 0 to 1.
    used, total : bytes of its memory.
    """

    worker: str
    name: str
    busy: float
    used: float
    total: float


def gpu_columns(gpus: Sequence[Gpu]) -> Columns:
    """Return a row for each worker with a GPU."""
    shown = gpus[:MAX_GPUS]
    return {
        "worker": [gpu.worker for gpu in shown],
        "gpu": [gpu.name for gpu in shown],
        "busy": [gpu.busy for gpu in shown],
        "full": [round(gpu.used / gpu.total, 3) if gpu.total else 0.0 for gpu in shown],
        "used": [round(gpu.used / 1e9, 2) for gpu in shown],
        "total": [round(gpu.total / 1e9, 2) for gpu in shown],
    }


MAX_GPUS = 64
JOB_HEAD = ("job", "state", "waited", "ran", "left", "GPU-h", "why it waits")


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
    room = "" if facts.max_bytes is None else f" of {size_text(facts.max_bytes)}"
    files = "" if facts.max_files is None else f" of {facts.max_files:,}"
    stored = [
        (
            "in the store now",
            f"{facts.stored_files:,}{files}",
            f"{size_text(facts.stored_bytes)}{room}",
        ),
        ("written in all", f"{facts.written_files:,}", size_text(facts.written_bytes)),
    ]
    return (
        "<b>Slots' time</b>"
        + look.table(("", "time", "share"), rows)
        + "<br><b>Checkpoints</b>"
        + look.table(("", "files", "size"), stored)
    )


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
    spent = use_figures.spent_panel(sources["spent"], timeline.window)
    strip = use_figures.jobs_panel(sources["jobs"], new.factors["jobs"], timeline.window)
    gpus = use_figures.gpus_panel(sources["gpus"], new.factors["gpus"])
    panels = [timeline, strip, spent, gpus]
    page = Page(
        column(
            *(panel.layout for panel in panels),
            look.side_by_side(cost, jobs),
            sizing_mode="stretch_width",
        ),
        sources,
        {panel.name: panel for panel in panels},
        divs={"cost": cost, "jobs": jobs},
    )
    take_ranges(page)
    page.mappers["time"] = Window(timeline.window)
    page.update(new)
    return page
