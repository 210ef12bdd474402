"""The page *Study*: what is best so far, curves, rungs, slots."""

from __future__ import annotations

from collections.abc import Collection

from daskhpo.plots import axes, data, look, study_figures
from daskhpo.plots.page import (
    Page,
    PageData,
    Sources,
    Window,
    axis_label,
    make_sources,
    nothing_yet,
    take_ranges,
)
from daskhpo.plots.tables import StudyTables
from daskhpo.plots.verdict import header


def study_data(
    tables: StudyTables, outlook: str = "", used: str = "", parts: Collection[str] = ("times",)
) -> PageData:
    """Return what the page *Study* shows.

    Parameters
    ----------
    outlook : what is known of workers that are not there yet.
    used : what its workers cost, and may cost.
    parts : of the columns of trials, see :func:`daskhpo.plots.data.trials`.
    """
    trials, best = data.trials(tables, parts=parts), data.best(tables)
    curves, bands = look.styled(data.curves(tables)), data.bands(tables)
    rungs, slots = data.rungs(tables), data.slots(tables)
    n = tables.n_trials
    has_values = bool(len(best["value"]))
    judged = sum(rungs["judged"])
    return PageData(
        key=tables.objective.metric,
        sources={
            "trials": trials,
            "best": best,
            "curves": curves,
            "bands": bands,
            "rungs": rungs,
            "slots": slots,
        },
        notes={
            "best": (data.seen(trials, n) if has_values else nothing_yet(tables), has_values),
            "curves": (
                f"{len(curves['id']):,} of {n:,} curves" if has_values else nothing_yet(tables),
                has_values,
            ),
            "rungs": (
                f"{judged:,} decisions" if judged else "no trial was judged at a rung yet",
                bool(judged),
            ),
            "slots": (
                f"{len(slots['id'])} of {tables.facts.n_slots} slots train"
                if slots["id"]
                else "no trial runs",
                bool(slots["id"]),
            ),
        },
        factors={"rungs": rungs["rung"], "slots": slots["slot"][::-1]},
        texts={
            "header": header(tables, outlook, used),
            "rungs": look.table(study_figures.RUNG_HEAD, study_figures.rung_rows(rungs)),
        },
        scales={"best": axes.value_window(tables), "curves": axes.value_window(tables)},
        metric=tables.objective.metric,
    )


def build_study(new: PageData, sources: Sources | None = None, *, live: bool = True) -> Page:
    """Build the page *Study*; ``live``: with the slots as they are now."""
    from bokeh.layouts import column

    sources = make_sources(new, sources)
    metric = axis_label(new.metric)
    head = look.div()
    rung_table = look.div(styles={"max-height": "190px", "overflow": "auto"} if live else {})
    panels = [
        study_figures.best_panel(sources["trials"], sources["best"], metric),
        study_figures.curves_panel(sources["curves"], sources["bands"], sources["rungs"], metric),
        study_figures.rung_panel(sources["rungs"], new.factors["rungs"], rung_table),
    ]
    if live:
        panels.append(study_figures.slots_panel(sources["slots"], new.factors["slots"]))
    layouts = [panel.layout for panel in panels]
    rows = [look.side_by_side(*layouts[:2]), look.side_by_side(*layouts[2:])]
    page = Page(
        column(head, *rows, sizing_mode="stretch_width"),
        sources,
        {panel.name: panel for panel in panels},
        divs={"header": head, "rungs": rung_table},
    )
    take_ranges(page)
    for panel in panels[:2]:
        page.mappers[panel.name] = Window(panel.window)
    kinds = ("trials", "curves", "slots") if live else ("trials", "curves")
    look.link_by_id({kind: sources[kind] for kind in kinds})
    if not live:
        del new.notes["slots"]
    page.update(new)
    return page
