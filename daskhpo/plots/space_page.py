"""The page *Hyperparameters*: which settings lead to good values."""

from __future__ import annotations

import numpy as np

from daskhpo.plots import axes, data, look, space_figures
from daskhpo.plots.importance import Importance, deciles, maps
from daskhpo.plots.page import (
    MAX_NAMES_SHOWN,
    Page,
    PageData,
    Sources,
    axis_label,
    make_sources,
    nothing_yet,
    take_ranges,
)
from daskhpo.plots.tables import StudyTables


def space_data(tables: StudyTables, found: Importance) -> PageData:
    """Return what the page *Hyperparameters* shows; ``found``: of `importance`."""
    trials = data.trials(tables, parts=("axes",))
    names = tables.names()[:MAX_NAMES_SHOWN]
    scale = axes.value_scale(tables)
    ticks = {name: axes.ticks(tables, name) for name in names}
    marks = space_figures.tick_columns([*ticks.values(), scale.ticks()])
    pairs = maps(found)
    bars = found.columns()
    has_values = bool(np.isfinite(trials["value"]).any()) and bool(names)
    nothing = nothing_yet(tables) if names else "all trials have the same configuration"
    note = data.seen(trials, tables.n_trials) if has_values else nothing
    resources = np.array(tables.resource)
    most = float(resources.max()) if len(resources) else 1.0
    sources = {"trials": trials, "importance": bars, "maps": pairs, "marks": marks}
    sources |= {f"deciles:{name}": deciles(tables, name) for name in names}
    return PageData(
        key=(
            tuple(names),
            scale.log,
            tuple(str(tick) for tick in ticks.values()) if has_values else (),
        ),
        sources=sources,
        notes={
            "parallel": (note, has_values),
            "slices": (note, has_values),
            "importance": (found.describe(), not found.problem),
            "map": (
                f"R² = {found.r2:.2f}" if pairs["first"] else found.problem or "one hyperparameter",
                bool(pairs["first"]),
            ),
        },
        factors={"importance": [str(name) for name in bars["name"]]},
        scales={"resource": (1.0, max(most, 2.0))},
        names=names,
        ticks=ticks,
        metric=tables.objective.metric,
        log=scale.log,
    )


def build_space(new: PageData, sources: Sources | None = None) -> Page:
    """Build the page *Hyperparameters*."""
    from bokeh.layouts import column
    from bokeh.models import LinearColorMapper, LogColorMapper
    from bokeh.palettes import Cividis256

    sources = make_sources(new, sources)
    by_rank = LinearColorMapper(palette=Cividis256, low=0, high=1)
    by_resource = LogColorMapper(palette=Cividis256[215::-1])  # without the palest
    metric = axis_label(new.metric)
    of = {name: sources[f"deciles:{name}"] for name in new.names}
    trials, names, ticks = sources["trials"], new.names, new.ticks
    parallel = space_figures.parallel_panel(trials, sources["marks"], names, metric, by_rank)
    y_type = "log" if new.log else "linear"
    slices = space_figures.slices_panel(trials, of, names, ticks, metric, by_resource, y_type)
    bars = space_figures.importance_panel(sources["importance"], new.factors["importance"])
    over = space_figures.map_panel(sources["maps"], trials, names, ticks)
    panels = [parallel, slices, bars, over]
    page = Page(
        column(
            parallel.layout,
            look.side_by_side(bars.layout, over.layout),
            slices.layout,
            sizing_mode="stretch_width",
        ),
        sources,
        {panel.name: panel for panel in panels},
        mappers={"resource": by_resource},
    )
    take_ranges(page)
    page.update(new)
    return page
