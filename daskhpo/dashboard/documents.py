"""Open pages: Bokeh documents in browsers."""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from daskhpo.dashboard.deltas import BUDGET, Delta, SentColumns
from daskhpo.dashboard.kinds import PAGES, PageKind, Surroundings
from daskhpo.dashboard.studies import WatchedStudy
from daskhpo.plots import look
from daskhpo.plots.page import Page, PageData
from daskhpo.plots.trials_page import TableView

logger = logging.getLogger("daskhpo")

ROW_KEYS = {"trials": "id", "curves": "id", "timeline": "row", "slots": "slot"}


class OpenPage:
    """A page in a browser.

    It is built and changed in the event loop; :meth:`prepare` runs in the thread that watches.

    Parameters
    ----------
    kind : what it shows.
    document : its Bokeh document.
    studies : all studies of the cluster by name, in order of their beginning; may grow.
    study : name of the one to show; unknown: the newest.
    panel : name of the only panel to show; None: the whole page.
    """

    def __init__(
        self,
        kind: PageKind,
        document: Any,
        studies: Mapping[str, WatchedStudy],
        study: str | None,
        panel: str | None = None,
    ) -> None:
        from bokeh.layouts import column
        from bokeh.models import Div, Select

        self.kind, self._document, self._studies, self._panel = kind, document, studies, panel
        self._session = document.session_context
        self._chosen = study
        self._page: Page | None = None
        self._key: object = None
        self._held: dict[str, SentColumns] = {}
        self._seen: tuple[object, ...] = ()
        self._view = self._sent_view = TableView()
        self._selected: int | None = None  # the trial of which all is shown
        self._cut: set[str] = set()  # sources of which the last message left something out
        self._is_updating = False
        self._is_behind = False  # a message was full: more is to be sent
        self.is_hidden = False
        self.ask: Callable[[], None] = lambda: None
        self._links = Div(text="", stylesheets=[look.STYLE], sizing_mode="stretch_width")
        self._select = Select(title="", options=[], width=180, visible=False)
        self._select.on_change("value", self._choose)
        self._root = column(sizing_mode="stretch_width", styles={"padding": "4px 10px"})
        self._hidden = self._report_visibility()
        self._set_root(look.div("reading the study…"))
        document.add_root(self._root)

    @property
    def is_gone(self) -> bool:
        """True if its session has ended, because the browser has closed it."""
        return self._session is not None and bool(self._session.destroyed)

    # -- in the event loop -----------------------------------------------------------------------

    def _set_root(self, layout: Any) -> None:
        from bokeh.layouts import row

        top = [] if self._panel else [row(self._links, self._select, sizing_mode="stretch_width")]
        self._root.children = [*top, layout, self._hidden]  # at once: each change draws all again

    def _report_visibility(self) -> Any:
        """Let the browser say when the page is not visible: then nothing is sent.

        A page that is closed is hidden as well, but says nothing: Bokeh would still wait for its
        turn to handle that message when the connection is gone.
        """
        from bokeh.models import CustomJS, Toggle

        hidden = Toggle(active=False, visible=False)
        hidden.on_change("active", self._set_hidden)
        self._document.js_on_event(
            "document_ready",
            CustomJS(
                args={"hidden": hidden},
                code="""
                let is_left = false
                const report = () => { if (!is_left) hidden.active = document.hidden }
                document.addEventListener("visibilitychange", report)
                window.addEventListener("pagehide", () => { is_left = true })
                window.addEventListener("pageshow", () => { is_left = false; report() })
                """,
            ),
        )
        return hidden

    def _set_hidden(self, name: str, old: Any, new: Any) -> None:
        self.is_hidden = bool(new)

    def _choose(self, name: str, old: Any, new: Any) -> None:
        if new != self._chosen:
            self._chosen, self._selected, self._view = new, None, TableView()
            self._refresh()

    def _refresh(self) -> None:
        """Let the page be prepared now, also if nothing was read."""
        self._seen = ()
        self.ask()

    def _look_at(self, **changes: Any) -> None:
        """Show another part of the table of trials, from its first page on."""
        self._view = replace(self._view, **{"page": 0, **changes})
        self._refresh()

    def _describe(self, name: str) -> None:
        """Set the links to the other pages, and the selector of studies."""
        argument = f"?study={html.escape(_quoted(name))}" if len(self._studies) > 1 else ""
        links = " &ensp; ".join(
            f"<b>{kind.title}</b>"
            if kind.path == self.kind.path
            else f'<a href="{kind.path}{argument}">{kind.title}</a>'
            for kind in PAGES
        )
        text = f"{links} &emsp; {look.state_legend()}"
        if self._links.text != text:
            self._links.text = text
        options = [*self._studies][::-1]
        if self._select.options != options:
            self._select.update(options=options, value=name, visible=len(options) > 1)
        elif self._select.value != name:
            self._select.value = name

    def _show(self, name: str, new: PageData, deltas: Mapping[str, Delta] | None) -> None:
        """Show new data; without deltas the page is built again."""
        try:
            self._describe(name)
            if deltas is None or self._page is None:
                self._build(name, new)
            else:
                self._page.update(new)
                for kind, delta in deltas.items():
                    if delta.replace is not None and "id" in delta.replace:
                        self._page.sources[kind].selected.indices = []  # it is by place
                    _apply(self._page.sources[kind], delta)
        finally:
            self._is_updating = False

    def _build(self, name: str, new: PageData) -> None:
        self._page, self._key = self.kind.build(new), (name, new.key)
        self._selected, self._view = None, TableView()  # as its controls are now
        # Before it is shown: later, clicks on a button would not be sent.
        if "detail" in self._page.divs:
            self._page.sources["trials"].selected.on_change("indices", self._select_trial)
        for name, control in self._page.controls.items():
            match name:
                case "previous" | "next":
                    control.on_click(partial(self._turn, 1 if name == "next" else -1))
                case _:  # a filter, or the order
                    control.on_change("value", partial(self._filter, name))
        if self._panel:
            layout = self._page.panels[self._panel].layout
            layout.styles = {}  # those of its place among others
            self._set_root(layout)
        else:
            self._set_root(self._page.layout)

    def _turn(self, pages: int) -> None:
        self._look_at(page=max(0, self._view.page + pages))

    def _filter(self, name: str, attribute: str, old: Any, new: Any) -> None:
        self._look_at(**{name: tuple(new) if isinstance(new, list) else new})

    def _select_trial(self, attribute: str, old: Any, new: list[int]) -> None:
        """Show all that is known of the trial that was selected first."""
        assert self._page is not None
        numbers = self._page.sources["trials"].data["id"]
        known = [int(numbers[place]) for place in new[:1] if place < len(numbers)]
        self._selected = known[0] if known and known[0] >= 0 else None
        self._refresh()

    # -- in the thread that watches --------------------------------------------------------------

    def _changes(self, new: PageData, view: TableView) -> dict[str, Delta]:
        """Return the changes that fit into one message; first what was cut off before."""
        kinds = sorted(new.sources, key=lambda kind: kind not in self._cut)
        deltas, budget = {}, BUDGET
        if self._sent_view != view and "trials" in kinds:  # other rows: all at once
            kinds.remove("trials")
            columns = new.sources["trials"]
            self._held["trials"] = SentColumns(columns, ROW_KEYS["trials"])
            deltas["trials"] = Delta(replace=columns)
        for kind in kinds:
            delta = self._held[kind].update(new.sources[kind], budget)
            budget = max(0, budget - delta.n_bytes)
            if delta:
                deltas[kind] = delta
        self._cut = {kind for kind, delta in deltas.items() if delta.is_cut}
        return deltas

    @property
    def study(self) -> WatchedStudy | None:
        """The study that it shows; None: there is none yet."""
        if not self._studies:
            return None
        return self._studies.get(self._chosen or "") or [*self._studies.values()][-1]

    def prepare(self, around: Surroundings) -> None:
        """Compute what has changed, and hand it to the event loop."""
        study = self.study
        if study is None or self._is_updating:
            return
        seen: tuple[object, ...] = (
            study.name,
            study.version,
            len(self._studies),
            self.kind.sees(around),
            self._view,
        )
        if (number := self._selected) is not None:  # its log may grow between two records
            seen += (number, study.log_size(number))
        if seen == self._seen and not self._is_behind and not self.kind.is_behind(study):
            return
        view, self._seen = self._view, seen  # what raises is tried again when there is news
        new = self.kind.data(study, around, view)
        if self.kind.path == "daskhpo-trials":
            new.texts["detail"] = "" if number is None else study.detail(number)
        deltas: dict[str, Delta] | None = None
        if self._page is None or (study.name, new.key) != self._key:
            self._held = {
                kind: SentColumns(columns, ROW_KEYS.get(kind))
                for kind, columns in new.sources.items()
            }
        else:
            deltas = self._changes(new, view)
        self._sent_view = view
        self._is_behind = any(delta.is_cut for delta in (deltas or {}).values())
        self._is_updating = True
        self._document.add_next_tick_callback(partial(self._show, study.name, new, deltas))


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name)


def _apply(source: Any, delta: Delta) -> None:
    if delta.replace is not None:
        source.data = look.sent(delta.replace)
    if delta.patch:
        source.patch(
            {
                name: [(place, _plain(value)) for place, value in cells]
                for name, cells in delta.patch.items()
            }
        )
    if delta.append:
        source.stream(look.sent(delta.append))


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
