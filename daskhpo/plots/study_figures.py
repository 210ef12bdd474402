"""Figures of the page *Study*: best so far, learning curves, rungs, slots."""

from __future__ import annotations

import math
from typing import Any

from daskhpo.plots.data import Columns
from daskhpo.plots.look import (
    ACCENT,
    COLOURS,
    INK,
    MARKERS,
    THICK,
    Panel,
    flat_legend,
    new_figure,
    time_axis,
)

X_AXES = {
    "hours": "Time since the study began",
    "slot_hours": "Time of all slots together",
    "n_trials": "Trials started",
}


def best_panel(trials: Any, best: Any, metric: str) -> Panel:
    """Return the best value so far as steps, over all trials as points."""
    from bokeh.layouts import row
    from bokeh.models import (
        BasicTicker,
        BasicTickFormatter,
        CustomJS,
        HoverTool,
        RadioButtonGroup,
        Range1d,
        TapTool,
    )
    from bokeh.transform import factor_cmap, factor_mark

    figures, points, lines, axes = [], [], [], []
    states = [*COLOURS]
    for scale in ("linear", "log"):
        figure = new_figure(
            X_AXES["hours"], metric, tools="tap,box_select,lasso_select", y_axis_type=scale
        )
        point = figure.scatter(
            "hours",
            "value",
            source=trials,
            size=7,
            line_width=1.5,
            marker=factor_mark("state", [*MARKERS.values()], states),
            color=factor_cmap("state", [*COLOURS.values()], states),
            fill_alpha=0.55,
            line_alpha=0.8,
            nonselection_alpha=0.12,
        )
        line = figure.step("hours", "value", source=best, mode="after", color=INK, line_width=2.5)
        tips = [
            ("trial", "@id (@state)"),
            (metric, "@value{0.[0000]a}"),
            ("resource", "@resource"),
            ("config", "@config"),
        ]
        figure.add_tools(HoverTool(renderers=[point], tooltips=tips))
        figure.toolbar.active_tap = figure.select_one(TapTool)
        if scale == "linear":
            figure.y_range = Range1d()
        figure.visible = scale == "linear"
        figures.append(figure)
        points.append(point.glyph)
        lines.append(line.glyph)
        axes.append(figure.xaxis[0])
        time_axis(figure.xaxis[0])
    by = RadioButtonGroup(labels=["wall clock", "slot time", "trials"], active=0)
    by.js_on_change(
        "active",
        CustomJS(
            args={
                "glyphs": [*points, *lines],
                "axes": axes,
                "fields": [*X_AXES],
                "labels": [*X_AXES.values()],
                "tickers": [axes[0].ticker, BasicTicker()],
                "formatters": [axes[0].formatter, BasicTickFormatter()],
            },
            code="""
            for (const glyph of glyphs) glyph.x = {field: fields[cb_obj.active]}
            const i = cb_obj.active < 2 ? 0 : 1  // times, or numbers
            for (const axis of axes)
              axis.setv({axis_label: labels[cb_obj.active], ticker: tickers[i],
                formatter: formatters[i]})
            """,
        ),
    )
    scale = RadioButtonGroup(labels=["linear", "log"], active=0)
    scale.js_on_change("active", _switch(figures))
    return Panel(
        "best",
        "Best so far",
        "The line is the best value reported until then, the points are the best values of single "
        "trials, at the time they reported them. A flat line for long: stop, or change the space. "
        "Tap or box-select trials: they are selected in all plots.",
        [row(by, scale), *figures],
        figures[0].y_range,
        (
            best,
            {
                "hours": "time [h]",
                "slot_hours": "slot time [h]",
                "n_trials": "trials started",
                "value": f"best {metric}",
            },
        ),
    )


def _switch(figures: list[Any]) -> Any:
    from bokeh.models import CustomJS

    return CustomJS(
        args={"figures": figures},
        code="figures.forEach((figure, i) => { figure.visible = i == cb_obj.active })",
    )


def curves_panel(curves: Any, bands: Any, rungs: Any, metric: str) -> Panel:
    """Return learning curves, the band of most trials, and the rungs' cut-offs."""
    from bokeh.layouts import row
    from bokeh.models import (
        CDSView,
        CustomJS,
        CustomJSFilter,
        Div,
        HoverTool,
        RadioButtonGroup,
        Range1d,
        Spinner,
        Switch,
        TapTool,
    )
    from bokeh.transform import factor_mark

    top = Spinner(low=1, high=300, step=5, value=300, width=75)
    running = Switch(active=False, styles={"align-self": "center"})
    rest, thick, chosen = (
        CustomJSFilter(
            args={"top": top, "running": running, "first": first, "end": end}, code=_CURVES
        )
        for first, end in ((THICK, math.inf), (0, THICK), (0, math.inf))
    )
    emit = CustomJS(
        args={"filters": [rest, thick, chosen]},
        code="for (const filter of filters) filter.change.emit()",
    )
    top.js_on_change("value", emit)
    running.js_on_change("active", emit)
    figures = []
    for scale in ("linear", "log"):
        figure = new_figure("Resource [units of training]", metric, tools="tap", y_axis_type=scale)
        figure.varea(
            "resource",
            "low",
            "high",
            source=bands,
            fill_color=ACCENT,
            fill_alpha=0.10,
            legend_label="middle 80 % of all",
        )
        figure.line(
            "resource",
            "middle",
            source=bands,
            color=ACCENT,
            line_dash="dashed",
            line_width=1.5,
            legend_label="median of all",
        )
        lines = [
            figure.multi_line(
                "xs",
                "ys",
                source=curves,
                view=CDSView(filter=part),
                line_color="colour",
                line_dash="dash",
                line_width="width",
                line_alpha="alpha",
                nonselection_line_alpha=0.08,
                selection_line_alpha=1.0,
                selection_line_width=3.5,
            )
            for part in (rest, thick)  # the best on top
        ]
        figure.scatter(  # a trial of one unit has no line
            "end_x",
            "end_y",
            source=curves,
            view=CDSView(filter=chosen),
            size=6,
            marker=factor_mark("state", [*MARKERS.values()], [*COLOURS]),
            line_color="colour",
            fill_color="colour",
            fill_alpha=0.4,
            nonselection_alpha=0.06,
        )
        cuts = figure.scatter(
            "resource",
            "cut_off",
            source=rungs,
            marker="dash",
            size=26,
            line_width=3,
            color=INK,
            legend_label="worst that continued at a rung",
        )
        tips = [("trial", "@id (@state)"), ("config", "@config")]
        figure.add_tools(HoverTool(renderers=lines, tooltips=tips, line_policy="interp"))
        tips = [("rung", "@rung"), ("worst value that continued", "@cut_off")]
        figure.add_tools(HoverTool(renderers=[cuts], tooltips=tips))
        figure.toolbar.active_tap = figure.select_one(TapTool)
        flat_legend(figure)
        if scale == "linear":
            figure.y_range = Range1d()
        figure.visible = scale == "linear"
        figures.append(figure)
    scale = RadioButtonGroup(labels=["linear", "log"], active=0)
    scale.js_on_change("active", _switch(figures))
    words = {"align-self": "center"}
    return Panel(
        "curves",
        "Learning curves",
        "One line a trial: the five best are thick, the colour is the state. The band holds the "
        "middle 80 % of all trials that reached a resource. A dash is the worst value with which a "
        "trial continued beyond a rung. Lines that cross late: compare later. Choose how many of "
        "the best are drawn (300: also others).",
        [
            row(
                Div(text="best", styles=words),
                top,
                Div(text="running only", styles=words),
                running,
                scale,
            ),
            *figures,
        ],
        figures[0].y_range,
        (
            curves,
            {
                "id": "trial",
                "state": "state",
                "end_x": "last drawn unit",
                "end_y": metric,
                "config": "configuration",
            },
        ),
    )


# Of the ranks from the first on, before the end; -1 is after all others.
_CURVES = """
const {rank, state} = source.data, found = []
const all = top.value >= 300
for (let i = 0; i < rank.length; i++) {
  if (running.active && state[i] != "running") continue
  const place = rank[i] < 0 ? 300 : rank[i]
  if (place >= first && place < end && (all || place < top.value)) found.push(i)
}
return found
"""


def rung_panel(rungs: Any, names: list[str], table: Any) -> Panel:
    """Return how many trials were judged at each rung, and how many continued."""
    from bokeh.models import FactorRange, HoverTool, NumeralTickFormatter
    from bokeh.transform import dodge

    figure = new_figure(
        "Rung [units of training]", "Trials", x_range=FactorRange(factors=names), height=220
    )
    judged = figure.vbar(
        x=dodge("rung", -0.2, range=figure.x_range),
        top="judged",
        width=0.38,
        source=rungs,
        fill_color="#d0d0d0",
        line_color="#767676",
        legend_label="judged",
    )
    figure.vbar(
        x=dodge("rung", 0.2, range=figure.x_range),
        top="advanced",
        width=0.38,
        source=rungs,
        fill_color=COLOURS["running"],
        line_color=COLOURS["running"],
        hatch_pattern="/",
        hatch_color="white",
        hatch_alpha=0.5,
        legend_label="continued",
    )
    figure.y_range.start = 0
    figure.yaxis.formatter = NumeralTickFormatter(format="0a")
    figure.xgrid.visible = False
    tips = [
        ("rung", "@rung"),
        ("judged", "@judged"),
        ("continued", "@advanced"),
        ("worst value that continued", "@cut_off"),
        ("rank correlation with the last rung", "@correlation{0.00} (n = @n_pairs)"),
    ]
    figure.add_tools(HoverTool(renderers=[judged], tooltips=tips))
    flat_legend(figure)
    return Panel(
        "rungs",
        "Rungs",
        "At a rung, trials with the same training are compared. The rank correlation says how much "
        "the order there tells of the order at the last rung (1: all, 0: nothing). It is of the "
        "trials that reached both, who are survivors: among all trials it is higher.",
        [figure, table],
    )


def slots_panel(slots: Any, names: list[str]) -> Panel:
    """Return what each slot trains now; ``names``: from the lowest bar up."""
    from bokeh.models import FactorRange, HoverTool
    from bokeh.transform import factor_cmap

    figure = new_figure(
        "Trained, as a share of where the segment ends",
        "Slot",
        y_range=FactorRange(factors=names),
        x_range=(0, 1),
        tools="tap",
        height=max(160, min(560, 70 + 20 * len(names))),
    )
    bars = figure.hbar(
        y="slot",
        left=0,
        right="share",
        height=0.75,
        source=slots,
        fill_color=factor_cmap("state", [*COLOURS.values()], [*COLOURS]),
        line_color=factor_cmap("state", [*COLOURS.values()], [*COLOURS]),
        fill_alpha=0.35,
        nonselection_alpha=0.2,
    )
    if len(names) <= 32:
        figure.text(
            x=0.01,
            y="slot",
            text="label",
            source=slots,
            text_baseline="middle",
            text_font_size="12px",
            text_color=INK,
            nonselection_text_alpha=0.5,
        )
    figure.xaxis.formatter = _percent()
    figure.ygrid.visible = False
    if len(names) > 32:
        figure.yaxis.major_label_text_font_size = "0px"
    tips = [
        ("trial", "@id (@state)"),
        ("done", "@done of @until units"),
        ("in this slot", "@seconds s"),
        ("config", "@config"),
    ]
    figure.add_tools(HoverTool(renderers=[bars], tooltips=tips))
    return Panel(
        "slots",
        "Slots now",
        "One bar a slot: the trial in it, how far its segment is, and for how long it holds the "
        "slot. A bar that does not move: look at that worker.",
        [figure],
        numbers=(
            slots,
            {
                "slot": "slot",
                "id": "trial",
                "state": "state",
                "done": "units",
                "until": "of",
                "seconds": "in the slot [s]",
                "config": "configuration",
            },
        ),
    )


def _percent() -> Any:
    from bokeh.models import NumeralTickFormatter

    return NumeralTickFormatter(format="0%")


def rung_rows(rungs: Columns) -> list[list[str]]:
    """Return the table below the rungs: text for readers, and for screen readers."""
    rows = []
    for place, rung in enumerate(rungs["rung"]):
        correlation, n = rungs["correlation"][place], rungs["n_pairs"][place]
        cut_off = rungs["cut_off"][place]
        rows.append(
            [
                rung,
                f"{rungs['judged'][place]:,}",
                f"{rungs['advanced'][place]:,}",
                "" if cut_off != cut_off else f"{cut_off:.4g}",
                "" if correlation != correlation else f"{correlation:.2f} (n = {n})",
            ]
        )
    return rows


RUNG_HEAD = ("rung", "judged", "continued", "worst that did", "rank correlation with the last")
