"""Figures of the page *Population*: schedules, lineage, diversity."""

from __future__ import annotations

from typing import Any

from daskhpo.plots.look import ACCENT, INK, Panel, flat_legend, new_figure, time_axis

MEMBER = "#999999"


def schedule_figure(lines: Any, name: str, y_type: str) -> Any:
    """Return one hyperparameter along the members' training; the winner's is thick."""
    from bokeh.models import CDSView, GroupFilter, HoverTool

    figure = new_figure("Resource [units of training]", name, y_axis_type=y_type, height=240)
    looks = {
        "member": {"line_color": MEMBER, "line_width": 1.0, "line_alpha": 0.6},
        "winner": {"line_color": ACCENT, "line_width": 4.0, "line_alpha": 1.0},
    }
    labels = {"member": "members", "winner": "the winner and its ancestors"}
    for kind, look in looks.items():
        made = figure.multi_line(
            "xs",
            "ys",
            source=lines,
            view=CDSView(filter=GroupFilter(column_name="kind", group=kind)),
            legend_label=labels[kind],
            **look,
        )
        figure.add_tools(HoverTool(renderers=[made], tooltips=[("trial", "@id"), ("", kind)]))
    flat_legend(figure)
    return figure


def schedules_panel(figures: list[Any]) -> Panel:
    """Return the schedules of all hyperparameters that changed."""
    return Panel(
        "schedules",
        "Schedules",
        "The hyperparameters with which each member trained, by resource. The thick line is the "
        "schedule that led to the best value.",
        figures,
    )


def lineage_panel(segments: Any, arrows: Any, members: list[int]) -> Panel:
    """Return the members as lines, with an arrow for each state that was taken over."""
    from bokeh.models import CDSView, GroupFilter, HoverTool

    figure = new_figure(
        "Resource [units of training]",
        "Member",
        height=max(200, min(620, 90 + 18 * len(members))),
    )
    figure.segment(
        x0="resource",
        x1="resource",
        y0="from_id",
        y1="id",
        source=arrows,
        line_color="#555555",
        line_alpha=0.6,
        legend_label="takes over a state (arrow: to the taker)",
    )
    figure.scatter("resource", "id", source=arrows, size=8, color="#333333", marker="marker")
    for kind, colour, width in (("member", MEMBER, 3), ("winner's ancestry", ACCENT, 7)):
        made = figure.segment(
            x0="left",
            x1="right",
            y0="id",
            y1="id",
            source=segments,
            view=CDSView(filter=GroupFilter(column_name="kind", group=kind)),
            line_color=colour,
            line_width=width,
            legend_label=kind,
        )
        tips = [("member", "@id"), ("units", "@left to @right"), ("config", "@config")]
        figure.add_tools(HoverTool(renderers=[made], tooltips=tips))
    flat_legend(figure)
    figure.yaxis.ticker.desired_num_ticks = 8
    return Panel(
        "lineage",
        "Lineage",
        "One line a member. A vertical line leads from the member whose state was taken to the "
        "one that took it. The thick lines led to the best value.",
        [figure],
        numbers=(
            segments,
            {
                "id": "member",
                "left": "from unit",
                "right": "to unit",
                "from_id": "state of member",
                "kind": "kind",
                "config": "configuration",
            },
        ),
    )


def diversity_figure(spread: Any, name: str, y_type: str) -> Any:
    """Return middle and extremes of one hyperparameter among members, over time."""
    figure = new_figure("Time since the study began", name, y_axis_type=y_type, height=220)
    time_axis(figure.xaxis[0])
    figure.varea(
        "hours",
        "low",
        "high",
        source=spread,
        fill_color=ACCENT,
        fill_alpha=0.15,
        legend_label="least to largest",
    )
    figure.line("hours", "middle", source=spread, color=INK, line_width=2, legend_label="median")
    flat_legend(figure)
    return figure


def diversity_panel(figures: list[Any]) -> Panel:
    """Return how different the members still are."""
    return Panel(
        "diversity",
        "Diversity",
        "The spread of each hyperparameter among the members, and of their last values of the "
        "metric. A band that has closed: the population explores no more.",
        figures,
    )
