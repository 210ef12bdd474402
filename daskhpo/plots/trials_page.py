"""The page *Trials*: a table, two trials compared, all of one."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daskhpo.core.random import trial_seed
from daskhpo.core.sizes import size_text
from daskhpo.core.types import Array, CheckpointRef
from daskhpo.plots import axes, data, look, trial_table
from daskhpo.plots.data import clock
from daskhpo.plots.look import Panel
from daskhpo.plots.page import Page, PageData, Sources, Window, make_sources, nothing_yet
from daskhpo.plots.tables import STATES, StudyTables

TABLE_TRIALS = 5_000  # with more the table has pages
PAGE_TRIALS = 1_000
TABLE_ORDERS = ("number", "newest", "best")


@dataclass(frozen=True)
class TableView:
    """The part of a long table that is shown: the browser then has one page of it.

    Attributes
    ----------
    page : from 0.
    order : one of `TABLE_ORDERS`.
    states : only trials in one of these states; empty: all.
    text : only trials with this in their configuration or reason.
    """

    page: int = 0
    order: str = "number"
    states: tuple[str, ...] = ()
    text: str = ""


def rows_of(tables: StudyTables, view: TableView) -> Array:
    """Return the trials that pass the filters, in their order."""
    numbers = np.arange(tables.n_trials)
    if view.states:
        codes = [code for code, state in enumerate(STATES) if state.value in view.states]
        numbers = numbers[np.isin(np.array(tables.status), codes)]
    if word := view.text.strip().lower():
        found = [n for n in numbers.tolist() if word in _searched(tables, n).lower()]
        numbers = np.array(found, int)
    if view.order == "newest":
        return numbers[::-1]
    if view.order == "best":
        numbers = numbers[np.argsort(np.array(tables.best)[numbers], kind="stable")]
    return numbers


def _searched(tables: StudyTables, number: int) -> str:
    return f"{tables.text_of(number)} {tables.reasons.get(number, '')}"


def trials_data(tables: StudyTables, view: TableView = TableView()) -> PageData:
    """Return what the page *Trials* shows; ``view``: of a long table."""
    is_paged, pager = tables.n_trials > TABLE_TRIALS, ""
    if is_paged:
        rows = rows_of(tables, view)
        last = max(0, (len(rows) - 1) // PAGE_TRIALS)
        begin = min(view.page, last) * PAGE_TRIALS
        shown = rows[begin : begin + PAGE_TRIALS]
        pager = f"{begin + 1:,} to {begin + len(shown):,} of {len(rows):,}" if len(rows) else "none"
        trials = data.trials(tables, parts=("texts",), numbers=shown)
    else:
        trials = data.trials(tables, TABLE_TRIALS, ("texts",))
    curves = look.styled(data.curves(tables))
    names = tables.names()
    n = tables.n_trials
    return PageData(
        key=(tuple(names), tables.objective.metric, is_paged),
        sources={"trials": trials, "curves": curves},
        notes={"table": (f"{n:,} trials" if n else nothing_yet(tables), bool(n))},
        texts={"pager": pager} if is_paged else {},
        scales={"table": axes.value_window(tables)},
        names=names,
        metric=tables.objective.metric,
    )


def build_trials(new: PageData, sources: Sources | None = None) -> Page:
    """Build the page *Trials*: a table, two trials compared, their curves."""
    from bokeh.layouts import column, row

    sources = make_sources(new, sources)
    detail = look.div()
    parts = trial_table.parts(sources["trials"], sources["curves"], new.names, new.metric)
    pager = trial_table.pager(TABLE_ORDERS) if "pager" in new.texts else None
    panel = Panel(
        "table",
        "Trials",
        "Click a heading to sort, a row to select; Ctrl-click a second one to compare the two. "
        + (
            "The filters and the order are of all trials; a heading sorts, and the download has, "
            "those that are here."
            if pager
            else "The filters and the download see all rows here."
        ),
        [
            row(parts.states, parts.text, parts.download),
            *([pager.layout] if pager else []),
            parts.table,
            look.side_by_side(parts.curves, parts.compared),
            detail,
        ],
    )
    layout = column(panel.layout, sizing_mode="stretch_width")
    page = Page(layout, sources, {"table": panel}, divs={"detail": detail})
    if pager:
        page.divs["pager"] = pager.text
        page.controls = {"states": parts.states, "text": parts.text, **pager.controls}
    page.mappers["table"] = Window(parts.curves.y_range)
    look.link_by_id({"trials": sources["trials"], "curves": sources["curves"]})
    page.update(new)
    return page


def detail_html(
    tables: StudyTables, number: int, checkpoints: Sequence[CheckpointRef] = (), log: str = ""
) -> str:
    """Return all that is known of one trial as HTML.

    Parameters
    ----------
    checkpoints : its own ones in the store.
    log : the end of what it printed.
    """
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
    if (seed := tables.facts.seed) is not None:
        rows.insert(4, ("trial.seed", trial_seed(seed, number)))
    saved = [(ref.id, ref.resource, size_text(ref.n_bytes), ref.array) for ref in checkpoints]
    error = tables.errors.get(number, "")
    trace = f"<pre>{html.escape(error[-6000:])}</pre>" if error else ""
    parts = [f"<b>Trial {number}</b>", look.table(("", ""), rows)]
    if saved:
        parts.append("<br><b>Checkpoints in the store</b>")
        parts.append(look.table(("id", "after units", "size", "array"), saved))
    if trace:
        parts.append(f"<br><b>Traceback</b>{trace}")
    if log:
        command = f"daskhpo logs {tables.facts.path} {number}"
        parts.append(f"<br><b>The end of what it printed</b> (<code>{html.escape(command)}</code>)")
        parts.append(f"<pre>{html.escape(_plain(log))}</pre>")
    return "".join(parts)


def _plain(log: str) -> str:
    """Return text without a terminal's colours, and without overwritten lines."""
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", log).split("\n")
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)


def _because(tables: StudyTables, number: int) -> str:
    reason = tables.reasons.get(number, "")
    return f": {reason}" if reason else ""
