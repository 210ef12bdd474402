"""The page *Advice*: what an expert would change."""

from __future__ import annotations

import html

from daskhpo.plots import look
from daskhpo.plots.advice import advice
from daskhpo.plots.page import Page, PageData, Sources, make_sources, nothing_yet
from daskhpo.plots.tables import StudyTables


def advice_data(tables: StudyTables) -> PageData:
    """Return what the page *Advice* shows."""
    return PageData(texts={"advice": advice_html(tables)})


def advice_html(tables: StudyTables) -> str:
    """Return all advice as HTML, with its evidence."""
    found = advice(tables)
    if not found:
        n = tables.n_trials
        return (
            f"Nothing stands out in {n:,} trials: no hyperparameter's best values lie at a bound, "
            "slots are busy, early ranks tell the end as far as is known, and no trial failed."
            if n
            else nothing_yet(tables)
        )
    rows = [
        f"<tr><td><b>{html.escape(a.finding)}</b></td><td>{html.escape(a.evidence)}</td>"
        f"<td>{_code(a.action)}</td></tr>"
        for a in found
    ]
    head = "<tr><th>what</th><th>evidence</th><th>what to do</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _code(text: str) -> str:
    """Return text as HTML; what stands between backticks is set as code."""
    parts = html.escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def build_advice(new: PageData, sources: Sources | None = None) -> Page:
    """Build the page *Advice*."""
    from bokeh.layouts import column

    text = look.div()
    page = Page(column(text, sizing_mode="stretch_width"), make_sources(new, sources))
    page.divs["advice"] = text
    page.update(new)
    return page
