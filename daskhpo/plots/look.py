"""Looks of all plots: colours, markers, headings, help texts, notes."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from daskhpo.plots.data import Columns

# Okabe and Ito's colours, told apart by colour-blind readers; marker and dash say the same.
COLOURS = {
    "running": "#0072B2",
    "completed": "#009E73",
    "stopped": "#767676",
    "paused": "#E69F00",
    "failed": "#D55E00",
    "queued": "#56B4E9",
}
MARKERS = {
    "running": "circle",
    "completed": "square",
    "stopped": "x",
    "paused": "triangle",
    "failed": "asterisk",
    "queued": "diamond",
}
SIGNS = {
    "running": "●",
    "completed": "■",
    "stopped": "✕",
    "paused": "▲",
    "failed": "✱",
    "queued": "◆",
}
DASHES = {
    "running": "solid",
    "completed": "solid",
    "stopped": "dotted",
    "paused": "dashed",
    "failed": "dotdash",
    "queued": "dashed",
}
PURPOSE_COLOURS = {  # of falling lightness, so that they differ in grey as well
    "training": "#9ad3c0",
    "saving": "#3a86c8",
    "lost": "#8c2d04",
    "idle": "#eeeeee",
}
PURPOSE_HATCHES = {"training": " ", "saving": "/", "lost": "x", "idle": " "}
INK, FAINT, ACCENT = "#1a1a1a", "#cccccc", "#0072B2"
FONT = "12px"
PLOT_HEIGHT = 270
THICK = 5  # of the best curves
STYLE = """
:host { font-family: Helvetica, Arial, sans-serif; font-size: 13px; color: #1a1a1a; }
table { border-collapse: collapse; }
td, th { padding: 2px 10px 2px 0; text-align: left; vertical-align: top; font-size: 13px; }
th { color: #555; font-weight: 600; }
a { color: #0060a0; }
code, pre { background: #f2f2f2; padding: 0 3px; font-size: 12px; white-space: pre-wrap; }
h1 { font-size: 18px; margin: 0 0 2px 0; }
.dim { color: #555; }
.big { font-size: 20px; font-weight: 600; }
.state { font-size: 12px; border: 1px solid #777; border-radius: 8px; padding: 0 7px;
  vertical-align: middle; font-weight: normal; }
"""


def styled(curves: Columns) -> Columns:
    """Add colour, dash, width, opacity and last point to curves; the best are thick."""
    states, rank = curves["state"], curves["rank"]
    return curves | {
        "end_x": [float(xs[-1]) for xs in curves["xs"]],
        "end_y": [float(ys[-1]) for ys in curves["ys"]],
        "colour": [COLOURS[state] for state in states],
        "dash": [DASHES[state] for state in states],
        "width": [3.0 if 0 <= place < THICK else 1.2 for place in rank],
        "alpha": [
            1.0 if 0 <= place < THICK else 0.75 if state == "running" else 0.4
            for place, state in zip(rank, states, strict=True)
        ],
    }


def source(columns: Columns) -> Any:
    """Return a Bokeh data source with these columns."""
    from bokeh.models import ColumnDataSource

    return ColumnDataSource(sent(columns))


def sent(columns: Columns) -> Columns:
    """Return columns as they are sent: arrays in rows as lists, which are smaller."""
    return {
        name: [row.tolist() for row in values] if _has_arrays(values) else values
        for name, values in columns.items()
    }


def _has_arrays(values: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and hasattr(values[0], "tolist")
        and values[0].ndim == 1
    )


def side_by_side(*layouts: Any) -> Any:
    """Return layouts in one row, all of the same width."""
    from bokeh.layouts import row

    for layout in layouts:
        layout.styles = {**layout.styles, "flex": "1 1 0", "min-width": "0"}
    return row(*layouts, sizing_mode="stretch_width")


def new_figure(
    x: str, y: str, *, tools: str = "", height: int = PLOT_HEIGHT, **options: Any
) -> Any:
    """Return a figure with named axes, whose text is large and dark enough to be read."""
    from bokeh.plotting import figure

    made = figure(
        x_axis_label=x,
        y_axis_label=y,
        tools=f"pan,wheel_zoom,box_zoom,reset,save{',' if tools else ''}{tools}",
        active_drag=None,
        active_scroll=None,
        height=height,
        sizing_mode="stretch_width",
        toolbar_location="right",
        **options,
    )
    made.toolbar.autohide = True
    made.toolbar.logo = None
    for axis in made.axis:
        axis.axis_label_text_font_size = axis.major_label_text_font_size = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_color = axis.major_label_text_color = INK
    made.grid.grid_line_color = "#e6e6e6"
    made.outline_line_color = made.border_fill_color = None
    made.min_border_left = 55
    return made


def time_axis(axis: Any) -> None:
    """Let an axis of hours show round times with their unit, from seconds to days."""
    from bokeh.models import CustomJSTicker, CustomJSTickFormatter

    axis.ticker = CustomJSTicker(major_code=_TIME_TICKS, minor_code="return []")
    axis.formatter = CustomJSTickFormatter(code=_TIME_TEXT)


_TIME_TICKS = """
const {start, end} = cb_data.range, span = 3600 * (end - start)
const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800,
  21600, 43200]
let step = steps.find((s) => span / s <= 7)
if (step == null) step = 86400 * Math.max(1, Math.ceil(span / 86400 / 7))
const ticks = []
for (let n = Math.ceil(3600 * start / step - 1e-6); n * step <= 3600 * end; n++)
  ticks.push(n * step / 3600)
return ticks
"""
_TIME_TEXT = """
const seconds = Math.round(36000 * tick) / 10, size = Math.abs(seconds)
const [divisor, unit] = size < 120 ? [1, "s"] : size < 3600 ? [60, "min"] :
  size < 172800 ? [3600, "h"] : [86400, "d"]
return seconds == 0 ? "0" : `${Number((seconds / divisor).toFixed(1))} ${unit}`
"""


def flat_legend(made: Any, side: str = "above") -> None:
    """Put a figure's legend outside its frame, where it hides nothing."""
    legend = made.legend[0]
    legend.label_text_font_size = FONT
    legend.label_text_color = INK
    legend.border_line_color = legend.background_fill_color = None
    legend.padding = legend.spacing = legend.margin = 3
    if side == "above":
        legend.orientation = "horizontal"
    made.add_layout(legend, side)


class Panel:
    """A plot with its heading, a help text, and a line that says what is drawn.

    Parameters
    ----------
    name : of the panel, unique in its page.
    heading : what is seen.
    explanation : one or two sentences behind the question mark.
    body : what is below the heading: figures and controls; hidden while there is nothing to see.
    window : see below.
    numbers : the source of what is drawn, and titles of those of its columns that are in a table of
        the same numbers; None: the body has one. The browser makes it when it is asked for.

    Attributes
    ----------
    layout : all of it.
    window : an axis whose ends follow the study until the user moves them, or None.
    """

    def __init__(
        self,
        name: str,
        heading: str,
        explanation: str,
        body: Sequence[Any],
        window: Any = None,
        numbers: tuple[Any, Mapping[str, str]] | None = None,
    ) -> None:
        from bokeh.layouts import column, row
        from bokeh.models import Div, HelpButton, Spacer, Tooltip

        self.name, self.window = name, window
        title = Div(text=f"<b>{html.escape(heading)}</b>", styles={"font-size": "14px"})
        self._note = Div(text="", styles={"color": "#555", "font-size": "12px"})
        helps = HelpButton(
            tooltip=Tooltip(content=explanation, position="bottom", styles={"max-width": "420px"}),
            stylesheets=[".bk-btn { padding: 1px 6px; border: none; background: none; }"],
        )
        shown = [*body] or [Spacer()]
        buttons = [helps]
        if numbers is not None:
            button, table_of = _numbers(*numbers)
            buttons.append(button)
            shown.append(table_of)
        self._body = column(*shown, sizing_mode="stretch_width")
        head = row(title, self._note, *buttons, styles={"align-items": "center", "gap": "8px"})
        self.layout = column(head, self._body, sizing_mode="stretch_width", name=name)

    def show(self, note: str, *, has_data: bool) -> None:
        """Set the line beside the heading; without data it is all that is shown, if not empty."""
        if self.layout.visible != (is_seen := has_data or bool(note)):
            self.layout.visible = is_seen
        note = html.escape(note)
        if self._note.text != note:
            self._note.text = note
        if self._body.visible != has_data:
            self._body.visible = has_data


def _numbers(source: Any, titles: Mapping[str, str]) -> tuple[Any, Any]:
    """Return a button, and the table of a source's columns that it shows."""
    from bokeh.models import CustomJS, Div, Toggle

    button = Toggle(label="numbers", height=24, stylesheets=[_QUIET])
    shown = Div(
        stylesheets=[STYLE],
        visible=False,
        styles={"max-height": "240px", "overflow": "auto"},
        sizing_mode="stretch_width",
    )
    fill = CustomJS(
        args={
            "button": button,
            "shown": shown,
            "source": source,
            "fields": [*titles],
            "titles": [*titles.values()],
        },
        code=_FILL,
    )
    button.js_on_change("active", fill)
    for change in ("data", "patching", "streaming"):
        source.js_on_change(change, fill)
    return button, shown


_QUIET = """
.bk-btn { padding: 1px 6px; border: none; background: none; color: #555; font-size: 12px; }
.bk-btn.bk-active { background: #e6e6e6; color: #1a1a1a; box-shadow: none; }
"""
_FILL = """
if (!button.active) { shown.setv({visible: false}, {sync: false}); return }
const safe = (value) => {
  if (typeof value == "number") {
    if (!Number.isFinite(value)) return ""
    return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5)))
  }
  return String(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;")
}
const columns = fields.map((field) => source.data[field]), n = columns[0].length
const there = (i) => !("id" in source.data) || source.data.id[i] !== -1  // else it is blank
const rows = []
for (let i = 0; i < n && rows.length < 500; i++)
  if (there(i)) rows.push("<td>" + columns.map((c) => safe(c[i])).join("</td><td>") + "</td>")
const head = titles.map((title) => `<th>${safe(title)}</th>`).join("")
const more = n > 500 ? `<p class=dim>the first 500 of ${n} rows</p>` : ""
const text = `<table><tr>${head}</tr><tr>${rows.join("</tr><tr>")}</tr></table>${more}`
shown.setv({text, visible: true}, {sync: false})
"""


def div(text: str = "", **options: Any) -> Any:
    """Return text as HTML, in the style of all pages."""
    from bokeh.models import Div

    return Div(text=text, stylesheets=[STYLE], sizing_mode="stretch_width", **options)


def state_legend() -> str:
    """Return the legend of states, the same on all pages, as HTML."""
    parts = [
        f'<span style="color:{COLOURS[state]}">{sign}</span>&nbsp;{state}'
        for state, sign in SIGNS.items()
    ]
    return " &nbsp;".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table as HTML; the texts are escaped."""
    cells = ["".join(f"<th>{html.escape(str(cell))}</th>" for cell in head)]
    cells += ["".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in cells) + "</table>"


def link_by_id(sources: Mapping[str, Any]) -> None:
    """Let what is selected in one source be selected in all, by trial."""
    from bokeh.models import CustomJS

    for name, one in sources.items():
        others = {key: other for key, other in sources.items() if key != name}
        one.selected.js_on_change(
            "indices", CustomJS(args={"one": one, "others": others}, code=_LINK)
        )


_LINK = """
const all = Object.entries(others).map(([_, s]) => s)
const wanted = new Set(one.selected.indices.map((i) => one.data.id[i]))
const targets = others instanceof Map ? Array.from(others.values()) : all
for (const other of targets) {
  const ids = other.data.id, found = []
  for (let i = 0; i < ids.length; i++) if (wanted.has(ids[i])) found.push(i)
  const now = other.selected.indices
  const had = new Set(now.map((i) => ids[i]))
  const missing = [...wanted].some((id) => !had.has(id))
  const extra = [...had].some((id) => !wanted.has(id))
  if (extra || (missing && found.length != now.length)) other.selected.indices = found
}
"""
