"""The page *Population*: schedules, lineage, diversity."""

from __future__ import annotations

from daskhpo.plots import axes, look, population, population_figures
from daskhpo.plots.data import Columns
from daskhpo.plots.page import (
    MAX_NAMES_SHOWN,
    Page,
    PageData,
    Sources,
    axis_label,
    make_sources,
)
from daskhpo.plots.tables import StudyTables


def population_data(tables: StudyTables) -> PageData:
    """Return what the page *Population* shows."""
    names = population.changed_names(tables)[:MAX_NAMES_SHOWN]
    lineage, arrows = population.lineage(tables), population.arrows(tables)
    there = bool(lineage["id"])
    nothing = "no trial has taken over a state: this is no population, or it has just begun"
    sources: dict[str, Columns] = {"lineage": lineage, "arrows": arrows}
    sources |= {f"schedule:{name}": population.schedules(tables, name) for name in names}
    sources |= {f"diversity:{name}": population.diversity(tables, name) for name in names}
    sources["spread"] = population.spread_of_values(tables)
    members = sorted(set(lineage["id"]))
    log = tuple(name for name in names if axes.scale_of(tables, name).log)
    note = f"{len(members)} members, {len(arrows['id'])} states taken over"
    return PageData(
        key=(tuple(names), log, len(members)),
        sources=sources,
        notes={
            "schedules": (note if names else nothing, bool(names)),
            "lineage": (note if there else nothing, there),
            "diversity": ("" if names else nothing, bool(names)),
        },
        names=names,
        ticks={name: ([], []) for name in log},
        metric=tables.objective.metric,
    )


def build_population(new: PageData, sources: Sources | None = None) -> Page:
    """Build the page *Population*."""
    from bokeh.layouts import column

    sources = make_sources(new, sources)
    scale = {name: "log" if name in new.ticks else "linear" for name in new.names}
    lines = [
        population_figures.schedule_figure(sources[f"schedule:{name}"], name, scale[name])
        for name in new.names
    ]
    spreads = [
        population_figures.diversity_figure(sources[f"diversity:{name}"], name, scale[name])
        for name in new.names
    ]
    of_metric = population_figures.diversity_figure(
        sources["spread"], axis_label(new.metric), "linear"
    )
    members = sorted(set(new.sources["lineage"]["id"]))
    panels = [
        population_figures.schedules_panel(lines),
        population_figures.lineage_panel(sources["lineage"], sources["arrows"], members),
        population_figures.diversity_panel([*spreads, of_metric]),
    ]
    below = look.side_by_side(panels[0].layout, panels[2].layout)
    page = Page(
        column(panels[1].layout, below, sizing_mode="stretch_width"),
        sources,
        {panel.name: panel for panel in panels},
    )
    page.update(new)
    return page
