"""A page: the data of its plots, and its figures; for the dashboard and the report alike.

Functions that return :class:`PageData` need no Bokeh and may run in another thread; their result
is then given to a page that was built, see :meth:`Page.update`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from daskhpo.plots import look
from daskhpo.plots.data import Columns
from daskhpo.plots.look import Panel
from daskhpo.plots.space_figures import Ticks
from daskhpo.plots.tables import StudyTables

MAX_NAMES_SHOWN = 12  # hyperparameters with an axis or a slice of their own


@dataclass
class PageData:
    """All that a page shows, as plain values.

    Attributes
    ----------
    key : what decides which figures there are; if it changes, the page is built again.
    sources : columns by kind.
    notes : of each panel the line beside its heading, and whether there is something to see.
    factors : names along categorical axes.
    scales : ends of colour scales and of axes.
    texts : HTML.
    names, ticks : hyperparameters that are drawn; where their axes have ticks.
    """

    key: Hashable = ()
    sources: dict[str, Columns] = field(default_factory=dict)
    notes: dict[str, tuple[str, bool]] = field(default_factory=dict)
    factors: dict[str, list[str]] = field(default_factory=dict)
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    ticks: dict[str, Ticks] = field(default_factory=dict)
    metric: str = ""
    log: bool = False


@dataclass
class Page:
    """A page's figures, and all in them that changes."""

    layout: Any
    sources: dict[str, Any]
    panels: dict[str, Panel] = field(default_factory=dict)
    ranges: dict[str, Any] = field(default_factory=dict)
    mappers: dict[str, Any] = field(default_factory=dict)
    divs: dict[str, Any] = field(default_factory=dict)
    controls: dict[str, Any] = field(default_factory=dict)  # that the server answers

    def update(self, new: PageData) -> None:
        """Show new data, except for the columns of the sources."""
        for name, (note, has_data) in new.notes.items():
            self.panels[name].show(note, has_data=has_data)
        for name, factors in new.factors.items():
            if name in self.ranges and list(self.ranges[name].factors) != factors:
                self.ranges[name].factors = factors
        for name, (low, high) in new.scales.items():
            scale = self.mappers.get(name)
            if isinstance(scale, Window):
                scale.move(low, high)
            elif scale is not None and (scale.low, scale.high) != (low, high):
                scale.update(low=low, high=high)
        for name, text in new.texts.items():
            if name in self.divs and self.divs[name].text != text:
                self.divs[name].text = text


Sources = dict[str, Any]


def make_sources(new: PageData, there: Sources | None = None) -> Sources:
    """Return a Bokeh source for each kind; existing ones are used again."""
    there = {} if there is None else there
    for kind, columns in new.sources.items():
        if kind not in there:
            there[kind] = look.source(columns)
    return there


class Window:
    """The ends of an axis; they follow the study until the user moves them."""

    def __init__(self, axis: Any) -> None:
        self._axis = axis
        self._set = (axis.start, axis.end)

    def move(self, low: float, high: float) -> None:
        """Show this part, unless the user has chosen another."""
        if (self._axis.start, self._axis.end) == self._set != (low, high):
            self._axis.update(start=low, end=high)
            self._set = (low, high)


def take_ranges(page: Page) -> None:
    """Find the categorical axes of a page's panels, by the panel's name."""
    from bokeh.models import FactorRange, Plot

    for name, panel in page.panels.items():
        for figure in panel.layout.select({"type": Plot}):
            for axis in (figure.x_range, figure.y_range):
                if isinstance(axis, FactorRange):
                    page.ranges[name] = axis


def axis_label(metric: str) -> str:
    return metric if len(metric) <= 30 else metric[:29] + "…"


def nothing_yet(tables: StudyTables) -> str:
    return "no trial has reported yet" if tables.n_trials else "no trial was started yet"
