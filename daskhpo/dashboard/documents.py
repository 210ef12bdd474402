"""Open pages: Bokeh documents in browsers, and the thread that refreshes them."""

from __future__ import annotations

import html
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from daskhpo.dashboard.deltas import BUDGET, Delta, SentColumns
from daskhpo.dashboard.studies import Pace, WatchedStudy
from daskhpo.plots import look
from daskhpo.plots.advice_page import advice_data, build_advice
from daskhpo.plots.page import Page, PageData
from daskhpo.plots.population_page import build_population, population_data
from daskhpo.plots.space_page import build_space, space_data
from daskhpo.plots.study_page import build_study, study_data
from daskhpo.plots.trials_page import build_trials, detail_html, trials_data
from daskhpo.plots.use import LIVE_HOURS
from daskhpo.plots.use_page import build_use, use_data

logger = logging.getLogger("daskhpo")

LEAST_SECONDS, MOST_SECONDS = 0.5, 10.0  # between two refreshes
CATCH_UP_PAUSE = 0.02  # between two slices of a study's past
ROW_KEYS = {"trials": "id", "curves": "id", "timeline": "row", "slots": "slot"}


class Surroundings(NamedTuple):
    """The state of a cluster, as pages show it: not from a study's journal.

    Attributes
    ----------
    outlook : what is known of workers that are not there yet.
    jobs : rows of the table of Slurm jobs.
    """

    outlook: str = ""
    jobs: Sequence[Sequence[str]] = ()


class PageKind(NamedTuple):
    """A kind of page: its path and title, its data, its figures."""

    path: str
    title: str
    data: Callable[[WatchedStudy, Surroundings], PageData]
    build: Callable[[PageData], Page]


PAGES = (
    PageKind(
        "daskhpo",
        "Study",
        lambda study, around: study_data(study.tables, around.outlook),
        build_study,
    ),
    PageKind(
        "daskhpo-hyperparameters",
        "Hyperparameters",
        lambda study, around: space_data(study.tables, study.importance()),
        build_space,
    ),
    PageKind(
        "daskhpo-workers",
        "Workers and cost",
        lambda study, around: use_data(study.tables, around.jobs, LIVE_HOURS),
        build_use,
    ),
    PageKind(
        "daskhpo-trials",
        "Trials",
        lambda study, around: trials_data(study.tables),
        build_trials,
    ),
    PageKind(
        "daskhpo-population",
        "Population",
        lambda study, around: population_data(study.tables),
        build_population,
    ),
    PageKind(
        "daskhpo-advice",
        "Advice",
        lambda study, around: advice_data(study.tables),
        build_advice,
    ),
)
# Single plots, which JupyterLab's extension for Dask opens beside a notebook: page, panel.
SINGLE = {
    "best-so-far": ("daskhpo", "best"),
    "learning-curves": ("daskhpo", "curves"),
    "rungs": ("daskhpo", "rungs"),
    "slots": ("daskhpo", "slots"),
    "parallel-coordinates": ("daskhpo-hyperparameters", "parallel"),
    "importance": ("daskhpo-hyperparameters", "importance"),
    "timeline": ("daskhpo-workers", "timeline"),
}


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
        self._chosen = study
        self._page: Page | None = None
        self._key: object = None
        self._held: dict[str, SentColumns] = {}
        self._seen: tuple[object, ...] = ()
        self._cut: set[str] = set()  # sources of which the last message left something out
        self._is_updating = False
        self._is_behind = False  # a message was full: more is to be sent
        self.is_hidden = False
        self._links = Div(text="", stylesheets=[look.STYLE], sizing_mode="stretch_width")
        self._select = Select(title="", options=[], width=180, visible=False)
        self._select.on_change("value", self._choose)
        self._root = column(sizing_mode="stretch_width", styles={"padding": "4px 10px"})
        self._set_root(look.div("reading the study…"))
        document.add_root(self._root)
        self._report_visibility()

    # -- in the event loop -----------------------------------------------------------------------

    def _set_root(self, layout: Any) -> None:
        from bokeh.layouts import row

        top = [] if self._panel else [row(self._links, self._select, sizing_mode="stretch_width")]
        self._root.children = [*top, layout]

    def _report_visibility(self) -> None:
        """Let the browser say when the page is not visible: then nothing is sent."""
        from bokeh.models import CustomJS, Toggle

        hidden = Toggle(active=False, visible=False)
        hidden.on_change("active", self._set_hidden)
        self._root.children = [*self._root.children, hidden]
        self._hidden = hidden
        self._document.js_on_event(
            "document_ready",
            CustomJS(
                args={"hidden": hidden},
                code="""
                const report = () => { hidden.active = document.hidden }
                document.addEventListener("visibilitychange", report)
                """,
            ),
        )

    def _set_hidden(self, name: str, old: Any, new: Any) -> None:
        self.is_hidden = bool(new)

    def _choose(self, name: str, old: Any, new: Any) -> None:
        if new != self._chosen:
            self._chosen = new
            self._seen = ()

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
                    _apply(self._page.sources[kind], delta)
        finally:
            self._is_updating = False

    def _build(self, name: str, new: PageData) -> None:
        self._page, self._key = self.kind.build(new), (name, new.key)
        if self._panel:
            layout = self._page.panels[self._panel].layout
            layout.styles = {}  # those of its place among others
            self._set_root(layout)
        else:
            self._set_root(self._page.layout)
        self._root.children = [*self._root.children, self._hidden]
        if "detail" in self._page.divs:
            selected = self._page.sources["trials"].selected
            selected.on_change("indices", partial(self._show_detail, name))

    def _show_detail(self, name: str, attribute: str, old: Any, new: list[int]) -> None:
        """Show all that is known of the trial that was selected first."""
        assert self._page is not None
        numbers = self._page.sources["trials"].data["id"]
        study, text = self._studies[name], ""
        if new and new[0] < len(numbers):
            with study.lock:
                text = detail_html(study.tables, int(numbers[new[0]]))
        self._page.divs["detail"].text = text

    # -- in the thread that watches --------------------------------------------------------------

    def _changes(self, new: PageData) -> dict[str, Delta]:
        """Return the changes that fit into one message; first what was cut off before."""
        kinds = sorted(new.sources, key=lambda kind: kind not in self._cut)
        deltas, budget = {}, BUDGET
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
        seen = (study.name, study.version, len(self._studies), around)
        if seen == self._seen and not self._is_behind:
            return
        new = self.kind.data(study, around)
        deltas: dict[str, Delta] | None = None
        if self._page is None or (study.name, new.key) != self._key:
            self._held = {
                kind: SentColumns(columns, ROW_KEYS.get(kind))
                for kind, columns in new.sources.items()
            }
        else:
            deltas = self._changes(new)
        self._is_behind = any(delta.is_cut for delta in (deltas or {}).values())
        self._seen = seen
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


class Watcher:
    """The thread that reads studies and refreshes pages while any page is open.

    Parameters
    ----------
    surroundings : returns what is not in journals; called in the thread.
    is_over : returns True when the cluster has closed.
    """

    def __init__(
        self, surroundings: Callable[[], Surroundings], is_over: Callable[[], bool]
    ) -> None:
        self._surroundings, self._is_over = surroundings, is_over
        self._lock = threading.Lock()
        self._pages: set[OpenPage] = set()
        self._thread: threading.Thread | None = None
        self.pace = Pace(LEAST_SECONDS, MOST_SECONDS)
        self.n_refreshes = 0

    def open(self, page: OpenPage) -> None:
        """Keep a page up to date."""
        with self._lock:
            self._pages.add(page)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="daskhpo-pages", daemon=True)
                self._thread.start()

    def close(self, page: OpenPage) -> None:
        """Forget a page; without any the thread ends."""
        with self._lock:
            self._pages.discard(page)

    @property
    def is_running(self) -> bool:
        """True while it reads: some page is open."""
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._pages or self._is_over():
                    self._thread = None
                    return
                pages = [*self._pages]
            began = time.thread_time()
            try:
                is_behind = self._turn([page for page in pages if not page.is_hidden])
            except Exception:
                logger.exception("a page of the dashboard could not be refreshed")
                is_behind = False
            worked = time.thread_time() - began
            time.sleep(CATCH_UP_PAUSE if is_behind else self.pace.pause(worked))

    def _turn(self, pages: Sequence[OpenPage]) -> bool:
        """Read and refresh once; return True if a study's past is not read to its end."""
        is_behind = False
        for study in {page.study for page in pages}:
            is_behind |= study is not None and study.read()
        if is_behind:
            return True
        around = self._surroundings()
        for page in pages:
            page.prepare(around)
        self.n_refreshes += bool(pages)
        return False
