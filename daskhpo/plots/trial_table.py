"""The table of trials: filters, the comparison of two rows, the download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from daskhpo.plots.look import COLOURS, STYLE, new_figure

TABLE_HEIGHT = 330


class TableParts(NamedTuple):
    """The parts of the page, to be laid out."""

    table: Any
    states: Any
    text: Any
    download: Any
    compared: Any
    curves: Any


def parts(trials: Any, curves: Any, names: Sequence[str], metric: str) -> TableParts:
    """Return the table of all rows of a source, and what belongs to it.

    Parameters
    ----------
    names : hyperparameters with a column of their own.
    """
    from bokeh.models import (
        Button,
        CDSView,
        CustomJS,
        CustomJSFilter,
        DataTable,
        Div,
        HoverTool,
        HTMLTemplateFormatter,
        MultiChoice,
        NumberFormatter,
        Range1d,
        TableColumn,
        TextInput,
    )

    states = MultiChoice(options=[*COLOURS], placeholder="states: all", width=330)
    text = TextInput(placeholder="text in the configuration or the reason", width=330)
    chosen = CustomJSFilter(
        args={"states": states, "text": text},
        code="""
        const {state, config, reason} = source.data, found = []
        const wanted = new Set(states.value), word = text.value.toLowerCase()
        for (let i = 0; i < state.length; i++) {
          if (state[i] == "") continue
          if (wanted.size > 0 && !wanted.has(state[i])) continue
          if (word && !(config[i] + " " + reason[i]).toLowerCase().includes(word)) continue
          found.push(i)
        }
        return found
        """,
    )
    emit = CustomJS(args={"chosen": chosen}, code="chosen.change.emit()")
    states.js_on_change("value", emit)
    text.js_on_change("value_input", CustomJS(args={"text": text, "chosen": chosen}, code=_TYPED))
    colours = "".join(f'value == "{state}" ? "{colour}" : ' for state, colour in COLOURS.items())
    state_look = HTMLTemplateFormatter(
        template=f'<span style="color:<%= {colours} "#000" %>; font-weight:600"><%= value %></span>'
    )
    number = NumberFormatter(format="0.[00000]")
    columns = [
        TableColumn(field="id", title="trial", width=55),
        TableColumn(field="state", title="state", width=100, formatter=state_look),
        TableColumn(field="value", title=f"best {metric}", width=110, formatter=number),
        TableColumn(field="last", title="last", width=90, formatter=number),
        TableColumn(field="resource", title="resource", width=70),
        TableColumn(field="seconds", title="in slots [s]", width=80),
        *(TableColumn(field=f"text:{name}", title=name, width=90) for name in names[:20]),
        TableColumn(field="reason", title="reason", width=260),
    ]
    table = DataTable(
        source=trials,
        view=CDSView(filter=chosen),
        columns=columns,
        height=TABLE_HEIGHT,
        sizing_mode="stretch_width",
        index_position=None,
        selectable=True,
        row_height=24,
        stylesheets=[".slick-cell, .slick-header-column { font-size: 12px; }"],
    )
    compared = Div(
        text="Select one row, or two to compare them.",
        stylesheets=[STYLE],
        sizing_mode="stretch_width",
    )
    trials.selected.js_on_change(
        "indices",
        CustomJS(
            args={"trials": trials, "compared": compared, "names": [*names], "metric": metric},
            code=_COMPARE,
        ),
    )
    figure = new_figure("Resource [units of training]", metric, tools="tap", height=230)
    figure.y_range = Range1d()
    lines = figure.multi_line(
        "xs",
        "ys",
        source=curves,
        line_color="colour",
        line_dash="dash",
        line_width="width",
        line_alpha="alpha",
        nonselection_line_alpha=0.06,
        selection_line_alpha=1.0,
        selection_line_width=3.5,
    )
    tips = [("trial", "@id (@state)"), ("config", "@config")]
    figure.add_tools(HoverTool(renderers=[lines], tooltips=tips, line_policy="interp"))
    download = Button(label="download as CSV", width=140)
    download.js_on_click(CustomJS(args={"trials": trials, "names": [*names]}, code=_CSV))
    return TableParts(table, states, text, download, compared, figure)


class Pager(NamedTuple):
    """The controls of a table of which the browser has one page."""

    layout: Any
    text: Any
    controls: dict[str, Any]


def pager(orders: Sequence[str]) -> Pager:
    """Return buttons that turn the pages, and the choice of the order."""
    from bokeh.layouts import row
    from bokeh.models import Button, Div, Select

    before, after = Button(label="◀ previous", width=90), Button(label="next ▶", width=90)
    order = Select(options=[(name, f"order: {name}") for name in orders], width=150)
    order.value = orders[0]
    text = Div(styles={"align-self": "center"})
    layout = row(before, after, order, text)
    return Pager(layout, text, {"previous": before, "next": after, "order": order})


_TYPED = """
if (text.value != cb_obj.value_input) text.value = cb_obj.value_input
chosen.change.emit()
"""

_COMPARE = """
const d = trials.data, chosen = trials.selected.indices.slice(0, 2)
const safe = (value) => String(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;")
if (chosen.length == 0) { compared.text = "Select one row, or two to compare them."; return }
const fields = [["state", "state"], ["best " + metric, "value"], ["resource", "resource"],
  ["in slots [s]", "seconds"], ...names.map((n) => [n, "text:" + n]), ["reason", "reason"]]
const heads = chosen.map((i) => `<th>trial ${d.id[i]}</th>`).join("")
let text = `<table><tr><th></th>${heads}</tr>`
for (const [title, field] of fields) {
  const values = chosen.map((i) => d[field][i])
  const differ = values.length == 2 && values[0] !== values[1]
  const mark = differ ? "font-weight:600" : "color:#555"
  text += `<tr style="${mark}"><td>${differ ? "≠ " : ""}${safe(title)}</td>` + values.map((v) =>
    `<td>${safe(typeof v == "number" ? Number(v.toPrecision(6)) : v)}</td>`).join("") + "</tr>"
}
compared.text = text + "</table>"
"""

_CSV = """
const d = trials.data
const fields = ["id", "state", "value", "last", "resource", "seconds",
  ...names.map((n) => "text:" + n), "reason"]
const cell = (value) => {
  const text = String(value)
  const safe = /^[=+@\\t\\r]/.test(text) ? "'" + text : text
  return /[",\\n]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe
}
const rows = [fields.map((f) => cell(f.replace("text:", "config/"))).join(",")]
for (let i = 0; i < d.id.length; i++) {
  if (d.id[i] >= 0) rows.push(fields.map((f) => cell(d[f][i])).join(","))
}
const link = document.createElement("a")
link.href = URL.createObjectURL(new Blob([rows.join("\\n") + "\\n"], {type: "text/csv"}))
link.download = "trials.csv"
link.click()
"""
