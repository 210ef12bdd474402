"""Figures of the page *Workers and cost*: timeline, and time by purpose."""

from __future__ import annotations

from typing import Any

from daskhpo.plots.look import (
    FONT,
    PURPOSE_COLOURS,
    PURPOSE_HATCHES,
    Panel,
    flat_legend,
    new_figure,
    time_axis,
)
from daskhpo.plots.use import PURPOSES


def timeline_panel(bars: Any, slots: list[str]) -> Panel:
    """Return what each slot did, and when, with an overview.

    ``slots``: from the lowest line up.
    """
    from bokeh.models import FactorRange, HoverTool, Range1d, RangeTool, TapTool
    from bokeh.transform import factor_cmap

    height = max(170, min(640, 90 + 16 * len(slots)))
    figure = new_figure(
        "Time since the study began",
        "Slot",
        y_range=FactorRange(factors=slots),
        x_range=Range1d(0, 1),
        tools="tap",
        height=height,
    )
    purposes = [*PURPOSES[:3]]
    colours = factor_cmap("purpose", [PURPOSE_COLOURS[name] for name in purposes], purposes)
    made = figure.hbar(
        y="slot",
        left="left",
        right="right",
        height=0.8,
        source=bars,
        fill_color=colours,
        line_color="white",
        line_width=0.5,
        nonselection_alpha=0.25,
        legend_group="purpose",
    )
    flat_legend(figure)
    time_axis(figure.xaxis[0])
    figure.add_tools(
        HoverTool(
            renderers=[made],
            tooltips=[("trial", "@id"), ("", "@purpose for @text"), ("slot", "@slot")],
        )
    )
    figure.toolbar.active_tap = figure.select_one(TapTool)
    figure.ygrid.visible = False
    if len(slots) > 32:
        figure.yaxis.major_label_text_font_size = "0px"
    overview = new_figure("", "", height=70, y_range=figure.y_range)
    overview.hbar(
        y="slot",
        left="left",
        right="right",
        height=0.9,
        source=bars,
        fill_color=colours,
        line_color=None,
    )
    overview.yaxis.visible = False
    time_axis(overview.xaxis[0])
    overview.grid.visible = False
    overview.toolbar_location = None
    overview.xaxis.major_label_text_font_size = FONT
    overview.add_tools(RangeTool(x_range=figure.x_range))
    return Panel(
        "timeline",
        "Timeline of the slots",
        "One line a slot: training, saving a state, and time that was lost with a worker or an "
        "error. White is idle. A launch takes the lowest free number: the journal names no "
        "workers. Drag the frame in the strip below.",
        [figure, overview],
        figure.x_range,
    )


def spent_panel(spent: Any) -> Panel:
    """Return how many slots did what over time, as stacked areas."""
    figure = new_figure("Time since the study began", "Slots", height=240)
    areas = figure.varea_stack(
        [*PURPOSES],
        x="hours",
        source=spent,
        color=[PURPOSE_COLOURS[name] for name in PURPOSES],
        legend_label=[*PURPOSES],
    )
    for area, name in zip(areas, PURPOSES, strict=True):
        area.glyph.hatch_pattern = PURPOSE_HATCHES[name]
        area.glyph.hatch_color = "#333333"
        area.glyph.hatch_alpha = 0.5
    flat_legend(figure)
    figure.y_range.start = 0
    time_axis(figure.xaxis[0])
    return Panel(
        "spent",
        "Where the slots' time went",
        "How many slots trained, saved, lost their work or had no trial, on average over equal "
        "times. A growing grey area: too many workers, or a scheduler that waits.",
        [figure],
    )
