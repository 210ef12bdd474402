"""The page *Trials*: a table to sort and to filter, two trials compared, all of one."""

from __future__ import annotations

import html

from daskhpo.plots import data, look, trial_table
from daskhpo.plots.data import clock
from daskhpo.plots.look import Panel
from daskhpo.plots.page import Page, PageData, Sources, Window, make_sources, nothing_yet
from daskhpo.plots.tables import StudyTables

TABLE_TRIALS = 5_000


def trials_data(tables: StudyTables) -> PageData:
    """Return what the page *Trials* shows."""
    trials = data.trials(tables, TABLE_TRIALS, ("texts",))
    curves = look.styled(data.curves(tables))
    names = tables.names()
    n = tables.n_trials
    return PageData(
        key=(tuple(names), tables.objective.metric),
        sources={"trials": trials, "curves": curves},
        notes={"table": (data.seen(trials, n) if n else nothing_yet(tables), bool(n))},
        scales={"table": data.value_window(tables)},
        names=names,
        metric=tables.objective.metric,
    )


def build_trials(new: PageData, sources: Sources | None = None) -> Page:
    """Build the page *Trials*: a table, two trials compared, their curves."""
    from bokeh.layouts import column, row

    sources = make_sources(new, sources)
    detail = look.div()
    parts = trial_table.parts(sources["trials"], sources["curves"], new.names, new.metric)
    panel = Panel(
        "table",
        "Trials",
        "Click a heading to sort, a row to select; Ctrl-click a second one to compare the two. "
        "The filters and the download see all rows here.",
        [
            row(parts.states, parts.text, parts.download),
            parts.table,
            look.side_by_side(parts.curves, parts.compared),
            detail,
        ],
    )
    layout = column(panel.layout, sizing_mode="stretch_width")
    page = Page(layout, sources, {"table": panel}, divs={"detail": detail})
    page.mappers["table"] = Window(parts.curves.y_range)
    look.link_by_id({"trials": sources["trials"], "curves": sources["curves"]})
    page.update(new)
    return page


def detail_html(tables: StudyTables, number: int) -> str:
    """Return all that is known of one trial, with its traceback, as HTML."""
    rows = [
        ("state", tables.state(number) + _because(tables, number)),
        ("resource", tables.resource[number]),
        ("best", f"{float(tables.value(tables.best[number])):.6g}"),
        ("last", f"{float(tables.value(tables.last[number])):.6g}"),
        ("bracket", tables.bracket[number]),
        ("began", f"{clock(tables.started[number])} after the study"),
        ("in slots", clock(tables.in_slot[number])),
        *((name, tables.setting(name, number)) for name in tables.config),
    ]
    error = tables.errors.get(number, "")
    trace = f"<pre>{html.escape(error[-6000:])}</pre>" if error else ""
    return f"<b>Trial {number}</b>" + look.table(("", ""), rows) + trace


def _because(tables: StudyTables, number: int) -> str:
    reason = tables.reasons.get(number, "")
    return f": {reason}" if reason else ""
