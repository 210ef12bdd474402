"""The page *Advice*: what an expert would change."""

from __future__ import annotations

import html

from daskhpo.plots import look
from daskhpo.plots.advice import advice
from daskhpo.plots.alternatives import Alternatives, alternatives_html, code
from daskhpo.plots.page import Page, PageData, Sources, make_sources, nothing_yet
from daskhpo.plots.tables import StudyTables


def advice_data(tables: StudyTables, replayed: Alternatives) -> PageData:
    """Return what the page *Advice* shows; ``replayed``: of `alternatives`."""
    return PageData(texts={"advice": advice_html(tables, replayed)})


def advice_html(tables: StudyTables, replayed: Alternatives) -> str:
    """Return all advice as HTML, with its evidence."""
    if not tables.n_trials:
        return nothing_yet(tables)
    found = advice(tables, replayed)
    rows = [
        f"<tr><td><b>{html.escape(a.finding)}</b></td><td>{html.escape(a.evidence)}</td>"
        f"<td>{code(a.action)}</td></tr>"
        for a in found
    ]
    head = "<tr><th>what</th><th>evidence</th><th>what to do</th></tr>"
    text = (
        f"<table>{head}{''.join(rows)}</table>"
        if found
        else f"Nothing stands out in {tables.n_trials:,} trials: no hyperparameter's best values "
        "lie at a bound, slots are busy, early ranks tell the end as far as is known, and no "
        "trial failed."
    )
    return text + alternatives_html(replayed, tables.objective)


def build_advice(new: PageData, sources: Sources | None = None) -> Page:
    """Build the page *Advice*."""
    from bokeh.layouts import column

    text = look.div()
    page = Page(column(text, sizing_mode="stretch_width"), make_sources(new, sources))
    page.divs["advice"] = text
    page.update(new)
    return page
