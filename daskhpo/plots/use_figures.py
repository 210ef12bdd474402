"""Figures of the page *Workers and cost*: timeline, and time by purpose."""

from __future__ import annotations

from typing import Any

from daskhpo.plots.look import (
    COLOURS,
    FONT,
    INK,
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
    from bokeh.transform import factor_cmap, factor_hatch

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
        hatch_pattern=factor_hatch(
            "purpose", [PURPOSE_HATCHES[name] for name in purposes], purposes
        ),
        hatch_color="#333333",
        hatch_alpha=0.5,
        nonselection_alpha=0.25,
        nonselection_hatch_alpha=0.1,
        legend_field="purpose",
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
        (
            bars,
            {
                "slot": "slot",
                "id": "trial",
                "purpose": "purpose",
                "left": "from [h]",
                "right": "to [h]",
            },
        ),
    )


def jobs_panel(jobs: Any, rows: list[str], x_range: Any) -> Panel:
    """Return the Slurm jobs while their workers had slots, on the timeline's axis."""
    from bokeh.models import FactorRange, HoverTool

    figure = new_figure(
        "", "", y_range=FactorRange(factors=rows), x_range=x_range, height=_jobs_height(rows)
    )
    made = figure.hbar(
        y="row",
        left="left",
        right="right",
        height=0.85,
        source=jobs,
        fill_color=COLOURS["queued"],
        fill_alpha=0.4,
        line_color=COLOURS["running"],
    )
    figure.text(
        x="left",
        y="row",
        text="job",
        source=jobs,
        x_offset=4,
        text_baseline="middle",
        text_font_size=FONT,
        text_color=INK,
    )
    tips = [("job", "@job"), ("slots at most", "@n_slots"), ("", "@text")]
    figure.add_tools(HoverTool(renderers=[made], tooltips=tips))
    figure.yaxis.visible = figure.ygrid.visible = False
    time_axis(figure.xaxis[0])
    return Panel(
        "jobs",
        "Slurm jobs",
        "One bar a job, from its first slot to its last, with its id. A gap between jobs: the "
        "study waited in the queue.",
        [figure],
        numbers=(
            jobs,
            {"job": "job", "left": "from [h]", "right": "to [h]", "n_slots": "slots at most"},
        ),
    )


def _jobs_height(rows: list[str]) -> int:
    return max(80, min(300, 45 + 18 * len(rows)))


def gpus_panel(gpus: Any, workers: list[str]) -> Panel:
    """Return how busy each worker's GPU is, and how full its memory; as NVML says."""
    from bokeh.layouts import row
    from bokeh.models import FactorRange, HoverTool, NumeralTickFormatter

    figures: list[Any] = []
    for field, label in (("busy", "Utilisation"), ("full", "Memory in use")):
        figure = new_figure(
            label,
            "Worker" if field == "busy" else "",
            y_range=FactorRange(factors=workers) if not figures else figures[0].y_range,
            x_range=(0, 1),
            height=max(120, min(560, 70 + 20 * len(workers))),
        )
        bars = figure.hbar(
            y="worker",
            left=0,
            right=field,
            height=0.75,
            source=gpus,
            fill_color=PURPOSE_COLOURS["training"],
            line_color=COLOURS["completed"],
        )
        tips = [
            ("worker", "@worker"),
            ("GPU", "@gpu"),
            ("utilisation", "@busy{0%}"),
            ("memory", "@used{0.0} of @total{0.0} GB"),
        ]
        figure.add_tools(HoverTool(renderers=[bars], tooltips=tips))
        figure.xaxis.formatter = NumeralTickFormatter(format="0%")
        figure.ygrid.visible = False
        figures.append(figure)
    return Panel(
        "gpus",
        "GPUs now",
        "How much of the last moments each worker's GPU computed, and how much of its memory is "
        "taken, as NVIDIA's driver says. Low utilisation: the trial waits for its data, or several "
        "could share the GPU.",
        [row(*figures, sizing_mode="stretch_width")],
        numbers=(
            gpus,
            {
                "worker": "worker",
                "gpu": "GPU",
                "busy": "utilisation",
                "used": "memory in use [GB]",
                "total": "of [GB]",
            },
        ),
    )


def spent_panel(spent: Any, x_range: Any) -> Panel:
    """Return how many slots did what over time, as stacked areas, on the timeline's axis."""
    figure = new_figure("Time since the study began", "Slots", height=240, x_range=x_range)
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
        numbers=(spent, {"hours": "time [h]"} | {name: f"{name} [slots]" for name in PURPOSES}),
    )
