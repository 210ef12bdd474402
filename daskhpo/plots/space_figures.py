"""Figures of the page *Hyperparameters*: parallel axes, slices, importance, map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daskhpo.plots.data import Columns
from daskhpo.plots.look import COLOURS, FONT, INK, MARKERS, Panel, new_figure

Ticks = tuple[list[float], list[str]]  # places from 0 to 1, and their texts
ROOM = 0.04  # beyond both ends of an axis, where a brush can be gripped


def tick_columns(ticks: Sequence[Ticks]) -> Columns:
    """Return a row for each tick of parallel axes, from left to right."""
    rows = [
        (axis, float(height), text)
        for axis, (places, texts) in enumerate(ticks)
        for height, text in zip(places, texts, strict=True)
    ]
    return {name: [row[i] for row in rows] for i, name in enumerate(("axis", "y", "text"))}


def parallel_panel(
    trials: Any, marks: Any, names: Sequence[str], metric: str, mapper: Any
) -> Panel:
    """Return parallel coordinates with a brush on each axis.

    Parameters
    ----------
    marks : source of the axes' ticks, see `tick_columns`.
    names : hyperparameters in the order of their axes; the metric's axis comes last.
    mapper : colours the lines by rank.
    """
    from bokeh.layouts import row
    from bokeh.models import (
        BoxAnnotation,
        Button,
        CDSView,
        CustomJS,
        CustomJSTransform,
        FixedTicker,
        GroupFilter,
        HoverTool,
        MultiChoice,
        TapTool,
    )

    axes = [*names, metric]
    choice = MultiChoice(
        title="Axes, from left to right: take one out, and add it again at the end",
        options=[*names],
        value=[*names],
        sizing_mode="stretch_width",
    )
    across, upwards, beside = (
        CustomJSTransform(args={"choice": choice}, v_func=_AXES + code)
        for code in (_ACROSS, _UPWARDS, _BESIDE)
    )
    figure = new_figure(
        "", "", height=330, x_range=(-0.35, len(axes) - 0.55), y_range=(-0.09, 1.09)
    )
    figure.add_tools(TapTool())
    figure.yaxis.visible = figure.ygrid.visible = False
    figure.xgrid.grid_line_color = "#777777"
    figure.xaxis.ticker = FixedTicker(ticks=[*range(len(axes))])
    figure.xaxis.major_label_overrides = dict(enumerate(_shortened(axes)))
    figure.xaxis.axis_label = (
        "Hyperparameters, and the metric last; drag the ends of a box to brush"
    )
    figure.xaxis.major_label_text_font_size = FONT
    figure.xaxis.major_label_text_font_style = "bold"
    lines = [
        figure.multi_line(
            {"field": "axes_x", "transform": across},
            {"field": "axes_y", "transform": upwards},
            source=trials,
            view=CDSView(filter=GroupFilter(column_name="tier", group=tier)),
            line_color={"field": "rank", "transform": mapper},
            line_width=width,
            line_alpha=alpha,
            nonselection_line_color="#bbbbbb",
            nonselection_line_alpha=0.08,
            selection_line_alpha=0.95,
            selection_line_width=2.2,
        )
        for tier, width, alpha in (("rest", 1.0, 0.35), ("best", 2.2, 0.9))  # on top
    ]
    figure.text(
        x={"field": "axis", "transform": beside},
        y="y",
        text="text",
        source=marks,
        text_font_size="12px",
        text_baseline="middle",
        text_color=INK,
        background_fill_color="white",
        background_fill_alpha=0.85,
        level="annotation",
    )
    brushes = [
        BoxAnnotation(
            left=place - 0.06,
            right=place + 0.02,
            bottom=-ROOM,
            top=1 + ROOM,
            editable=True,
            resizable="y",
            movable="y",
            fill_color="#0072B2",
            fill_alpha=0.10,
            line_color="#0072B2",
            line_alpha=0.7,
            hover_fill_alpha=0.25,
        )
        for place in range(len(axes))
    ]
    for brush in brushes:
        figure.add_layout(brush)
    select = CustomJS(args={"trials": trials, "brushes": brushes, "room": ROOM}, code=_BRUSH)
    for brush in brushes:
        brush.js_on_change("top", select)
        brush.js_on_change("bottom", select)
    for change in ("data", "patching", "streaming"):  # new trials pass, or do not
        trials.js_on_change(change, select)
    choice.js_on_change(
        "value",
        CustomJS(
            args={
                "choice": choice,
                "trials": trials,
                "brushes": brushes,
                "marks": marks,
                "axis": figure.xaxis[0],
                "range": figure.x_range,
                "labels": _shortened(axes),
                "room": ROOM,
            },
            code=_AXES + _ARRANGE,
        ),
    )
    figure.add_tools(
        HoverTool(
            renderers=lines,
            line_policy="interp",
            tooltips=[("trial", "@id (@state)"), (metric, "@value"), ("config", "@config")],
        )
    )
    figure.toolbar.active_tap = figure.select_one(TapTool)
    clear = Button(label="clear brushes", width=110)
    clear.js_on_click(
        CustomJS(
            args={"brushes": brushes, "room": ROOM, "trials": trials},
            code="""
            for (const brush of brushes) brush.setv({top: 1 + room, bottom: -room})
            trials.selected.indices = []
            """,
        )
    )
    return Panel(
        "parallel",
        "Parallel coordinates",
        "One line a trial; the best tenth is thick and dark. Drag the upper or lower end of the "
        "box on an axis to keep only the trials that pass through it; drag the box to move it. "
        "Which settings led to good values: narrow the last axis. The list above the plot says "
        "which axes there are, and in which order.",
        [row(choice, clear, sizing_mode="stretch_width"), figure],
        numbers=(
            trials,
            {
                "id": "trial",
                "state": "state",
                "value": metric,
                "resource": "resource",
                "config": "configuration",
            },
        ),
    )


# The numbers of the axes that are shown, from left to right; the metric's is the last.
_AXES = """
const order = [...choice.value.map((name) => choice.options.indexOf(name)), choice.options.length]
"""
_ACROSS = """
const places = order.map((_, i) => i)
return Array.from(xs, (line) => line.length == 0 ? [] : places)
"""
_UPWARDS = """
return Array.from(xs, (line) => line.length == 0 ? [] : order.map((axis) => line[axis]))
"""
_BESIDE = """
const place = new Map(order.map((axis, i) => [axis, i]))
return Array.from(xs, (axis) => (place.get(axis) ?? NaN) + 0.03)
"""
_ARRANGE = """
const place = new Map(order.map((axis, i) => [axis, i]))
brushes.forEach((brush, axis) => {
  const x = place.get(axis)
  if (x == null) brush.setv({visible: false, bottom: -room, top: 1 + room})
  else brush.setv({visible: true, left: x - 0.06, right: x + 0.02})
})
axis.ticker.ticks = order.map((_, i) => i)
axis.major_label_overrides = new Map(order.map((n, i) => [i, labels[n]]))
range.end = order.length - 0.55
trials.change.emit()
marks.change.emit()
"""

_BRUSH = """
const {axes_y} = trials.data, found = []
const narrow = brushes.map((b, i) => [i, b.bottom, b.top]).filter(([_, low, high]) =>
  low > -room + 1e-6 || high < 1 + room - 1e-6)
if (narrow.length == 0) {  // what was tapped stays selected while the study continues
  if (cb_obj != trials) trials.selected.indices = []
  return
}
for (let i = 0; i < axes_y.length; i++) {
  const line = axes_y[i]
  const passes = ([axis, low, high]) => line[axis] >= low && line[axis] <= high
  if (line.length > 0 && narrow.every(passes)) found.push(i)
}
const had = trials.selected.indices
if (found.length != had.length || found.some((place, i) => place != had[i]))
  trials.selected.indices = found
"""


def _shortened(names: Sequence[str]) -> list[str]:
    return [name if len(name) <= 18 else name[:17] + "…" for name in names]


def slices_panel(
    trials: Any,
    deciles: Mapping[str, Any],
    names: Sequence[str],
    ticks: Mapping[str, Ticks],
    metric: str,
    mapper: Any,
    y_type: str,
) -> Panel:
    """Return each hyperparameter against the metric, with its medians."""
    from bokeh.layouts import grid
    from bokeh.models import ColorBar, FixedTicker, HoverTool
    from bokeh.transform import factor_mark

    figures = []
    for name in names:
        figure = new_figure(
            name,
            metric,
            tools="box_select,tap",
            height=230,
            x_range=(-0.04, 1.04),
            y_axis_type=y_type,
        )
        places, texts = ticks[name]
        figure.xaxis.ticker = FixedTicker(ticks=places)
        figure.xaxis.major_label_overrides = dict(zip(places, texts, strict=True))
        points = figure.scatter(
            f"unit:{name}",
            "value",
            source=trials,
            size=6,
            marker=factor_mark("state", [*MARKERS.values()], [*COLOURS]),
            color={"field": "resource", "transform": mapper},
            alpha=0.6,
            nonselection_alpha=0.06,
        )
        figure.varea(
            "at", "low", "high", source=deciles[name], fill_color="#000000", fill_alpha=0.12
        )
        figure.line("at", "middle", source=deciles[name], color=INK, line_width=2)
        tips = [("trial", "@id (@state)"), (metric, "@value"), ("config", "@config")]
        figure.add_tools(HoverTool(renderers=[points], tooltips=tips))
        figures.append(figure)
    if figures:
        bar = ColorBar(
            color_mapper=mapper,
            width=10,
            title="resource",
            title_text_font_size=FONT,
            major_label_text_font_size=FONT,
            padding=4,
        )
        figures[0].add_layout(bar, "right")
    n = 3 if len(figures) > 2 else max(1, len(figures))
    rows = [figures[place : place + n] for place in range(0, len(figures), n)]
    for line in rows:
        line += [None] * (n - len(line))
    return Panel(
        "slices",
        "Slices",
        "One point a trial: dark points trained long, the marker is the state. The line is the "
        "median of each tenth of the trials, the band the middle half. Good values at an end: "
        "widen the axis there.",
        [grid(rows, sizing_mode="stretch_width")] if rows else [],
    )


def importance_panel(bars: Any, names: list[str]) -> Panel:
    """Return the importance of each hyperparameter, with its spread over trees."""
    from bokeh.models import FactorRange, NumeralTickFormatter, Whisker

    figure = new_figure(
        "Share of the explained rank",
        "",
        y_range=FactorRange(factors=names),
        height=max(150, 70 + 26 * len(names)),
    )
    figure.hbar(
        y="name", right="share", height=0.6, source=bars, fill_color="#56B4E9", line_color=INK
    )
    figure.add_layout(
        Whisker(base="name", lower="low", upper="high", dimension="width", source=bars)
    )
    ends = figure.scatter("high", "name", source=bars, alpha=0)  # the axis reaches to all of them
    ends.nonselection_glyph = None
    figure.x_range.start = 0
    figure.xaxis.formatter = NumeralTickFormatter(format="0%")
    figure.ygrid.visible = False
    return Panel(
        "importance",
        "Importance",
        "A random forest predicts a trial's rank from its configuration; the bar is how much worse "
        "it becomes when one hyperparameter is shuffled. The line is the spread over its trees. "
        "R² is measured on trials that a tree has not seen.",
        [figure],
        numbers=(
            bars,
            {"name": "hyperparameter", "share": "share", "low": "from", "high": "to"},
        ),
    )


def map_panel(images: Any, trials: Any, names: Sequence[str], ticks: Mapping[str, Ticks]) -> Panel:
    """Return the prediction over two hyperparameters of those that matter most.

    ``images``: the source of predictions by pair, see :func:`daskhpo.plots.importance.maps`.
    """
    from bokeh.layouts import row
    from bokeh.models import (
        ColorBar,
        ColumnDataSource,
        CustomJS,
        FixedTicker,
        LinearColorMapper,
        Select,
    )

    pairs = [*zip(images.data["first"], images.data["second"], strict=True)]
    known = sorted({name for pair in pairs for name in pair})
    shown = ColumnDataSource({"image": [*images.data["image"][:1]]})
    figure = new_figure(
        "", "", height=300, x_range=(-0.02, 1.02), y_range=(-0.04, 1.04), tools="tap"
    )
    mapper = LinearColorMapper("Cividis256", low=0, high=1)
    figure.image("image", source=shown, x=0, y=0, dw=1, dh=1, color_mapper=mapper, alpha=0.85)
    if len(names) > 1:
        first, second = pairs[0] if pairs else names[:2]
        points = figure.scatter(
            f"unit:{first}",
            f"unit:{second}",
            source=trials,
            size=5,
            fill_color="white",
            line_color="black",
            alpha=0.6,
            nonselection_alpha=0.08,
        )
        for axis, name in ((figure.xaxis[0], first), (figure.yaxis[0], second)):
            places, texts = ticks[name]
            axis.axis_label = name
            axis.ticker = FixedTicker(ticks=places)
            axis.major_label_overrides = dict(zip(places, texts, strict=True))
        figure.add_layout(
            ColorBar(
                color_mapper=mapper,
                width=10,
                title="rank (0: best)",
                title_text_font_size=FONT,
                major_label_text_font_size=FONT,
            ),
            "right",
        )
        across, upwards = (
            Select(title=title, options=known, value=name if pairs else "", width=180)
            for title, name in (("Across", first), ("Upwards", second))
        )
        show = CustomJS(
            args={
                "across": across,
                "upwards": upwards,
                "images": images,
                "shown": shown,
                "glyphs": [points.glyph, points.nonselection_glyph, points.selection_glyph],
                "x": figure.xaxis[0],
                "y": figure.yaxis[0],
                "ticks": {
                    n: [[*map(float, places)], texts] for n, (places, texts) in ticks.items()
                },
            },
            code=_MAP,
        )
        for select, other in ((across, upwards), (upwards, across)):
            move = CustomJS(args={"other": other}, code=_NOT_TWICE)
            select.js_on_change("value", move, show)
        images.js_on_change("patching", show)
        images.js_on_change("data", show)
    return Panel(
        "map",
        "Map of two hyperparameters",
        "The forest's predicted rank, averaged over the other hyperparameters of all trials: dark "
        "is good. The points are the trials. A dark area with few: the search has not been there.",
        [row(across, upwards), figure] if len(names) > 1 else [],
    )


_NOT_TWICE = """
if (other.value == cb_obj.value) other.value = other.options.find((name) => name != cb_obj.value)
"""

_MAP = """
const {first, second, image} = images.data
const names = new Set([...first, ...second, across.value, upwards.value].filter((name) => name))
for (const select of [across, upwards])
  if (select.options.length != names.size || !select.options.every((name) => names.has(name)))
    select.options = [...names].sort()
if (!across.value && first.length > 0) {  // the first forest
  across.value = first[0]
  upwards.value = second[0]
}
const a = across.value, b = upwards.value
const i = Array.from(first).findIndex((name, i) =>
  (name == a && second[i] == b) || (name == b && second[i] == a))
if (i < 0) return
let cells = image[i]
if (first[i] != a) {  // its rows are those of the other name
  const n = cells.shape[0]
  const turned = Array.from(cells, (_, k) => cells[(k % n) * n + Math.floor(k / n)])
  cells = new cells.constructor(turned, cells.shape)
}
shown.data = {image: [cells]}
for (const glyph of glyphs) {
  if (glyph == null || glyph.x == null) continue
  glyph.x = {field: "unit:" + a}
  glyph.y = {field: "unit:" + b}
}
for (const [axis, name] of [[x, a], [y, b]]) {
  const [places, texts] = ticks.get ? ticks.get(name) : ticks[name]
  axis.axis_label = name
  axis.ticker.ticks = Array.from(places)
  axis.major_label_overrides = new Map(Array.from(places).map((p, j) => [p, texts[j]]))
}
"""
