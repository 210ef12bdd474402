"""Studies in the dashboard of a Dask scheduler: registration, and who may look."""

from __future__ import annotations

import hmac
import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import read_small, write_private
from daskhpo.cluster.guard import cookie_of, token_of
from daskhpo.cluster.supply import SUPPLY
from daskhpo.core.objective import Objective
from daskhpo.dashboard.studies import WatchedStudy
from daskhpo.plots.use_page import Gpu

logger = logging.getLogger("daskhpo")

EXTENSION = "daskhpo-pages"  # name of the studies among the extensions of Dask's scheduler
LINK_FILE = "dashboard.json"


def show_study(scheduler: Any, directory: Path, objective: Objective) -> None:
    """Show a study in the dashboard of a scheduler; in its event loop.

    A study is never stopped by its pages: without Bokeh, or with a dashboard that has changed, one
    line is logged. Nothing is read until someone opens a page.
    """
    try:
        shown = _pages_of(scheduler)
        if shown is not None:
            shown.add(directory, objective)
    except ImportError as error:
        logger.info("the dashboard shows no pages of studies: %s", error)
    except Exception as error:  # internal parts of Dask and Bokeh, which may change
        logger.warning("the dashboard shows no pages of studies: %r", error, exc_info=True)


def _pages_of(scheduler: Any) -> ClusterPages | None:
    """Return the pages of a scheduler, registered now if need be; None: no dashboard."""
    if EXTENSION not in scheduler.extensions:
        if "dashboard" not in scheduler.services and not _bokeh_applications(scheduler):
            return None
        scheduler.extensions[EXTENSION] = ClusterPages(scheduler)
    pages: ClusterPages = scheduler.extensions[EXTENSION]
    return pages


def _bokeh_applications(scheduler: Any) -> list[Any]:
    """Return the Bokeh applications of a scheduler's HTTP server; none: no dashboard."""
    applications = getattr(scheduler.http_application, "applications", [])
    return [found for found in applications if hasattr(found, "app_paths")]


def announce() -> None:
    """Add the pages to those of all schedulers that this process starts from now on.

    JupyterLab's extension for Dask lists only what is there when a scheduler starts. Without Bokeh
    nothing is added.
    """
    try:
        from distributed.dashboard.scheduler import applications
    except ImportError:
        return
    applications.update(_applications())


def _applications() -> dict[str, Any]:
    from daskhpo.dashboard.kinds import PAGES, SINGLE

    found = {f"/{kind.path}": partial(_page, kind.path, None) for kind in PAGES}
    for name, (path, panel) in SINGLE.items():
        found[f"/individual-daskhpo-{name}"] = partial(_page, path, panel)
    return found


class ClusterPages:
    """The studies of one cluster, and their pages.

    Attributes
    ----------
    studies : by name, in order of their beginning.
    token : what a browser must show, as with Jupyter.
    """

    def __init__(self, scheduler: Any) -> None:
        from distributed import Status
        from distributed.dashboard.scheduler import template_variables

        from daskhpo.dashboard.kinds import Surroundings
        from daskhpo.dashboard.watcher import Watcher

        self.studies: dict[str, WatchedStudy] = {}
        self.token = token_of(scheduler)
        self._scheduler = scheduler
        over = (Status.closed, Status.closing)
        self.watcher = Watcher(
            lambda: Surroundings(
                _outlook(scheduler), _used(scheduler), _jobs(scheduler), _gpus(scheduler)
            ),
            lambda: scheduler.status in over,
        )
        variables = template_variables(scheduler)
        there = {path for app in _bokeh_applications(scheduler) for path in app.app_paths}
        if "/daskhpo" not in there:
            self._register(scheduler, variables)
        if "daskhpo" not in variables["pages"]:
            variables["pages"].append("daskhpo")

    def _register(self, scheduler: Any, variables: dict[str, Any]) -> None:
        """Add the pages to a scheduler that has started without them."""
        from distributed.dashboard.core import BokehApplication
        from tornado.ioloop import IOLoop

        added = _applications()
        prefix = scheduler_prefix(scheduler)
        app = BokehApplication(added, scheduler, prefix=prefix, template_variables=variables)
        scheduler.http_application.add_application(app)
        app.initialize(IOLoop.current())
        app.start()
        for path in added:
            if path.startswith("/individual-"):
                name = path.removeprefix("/individual-").replace("-", " ").title()
                variables["plots"].append({"url": path.strip("/"), "name": name})
        variables["plots"].sort(key=lambda plot: plot["name"])

    def add(self, directory: Path, objective: Objective) -> None:
        """Add a study; one of the same directory is replaced."""
        for name in [n for n, study in self.studies.items() if study.directory == directory]:
            del self.studies[name]
        name = directory.name
        while name in self.studies:
            name += "'"
        self.studies[name] = WatchedStudy(name, directory, objective)
        link = {"port": self._scheduler.http_server.port, "token": self.token}
        write_private(directory / LINK_FILE, json.dumps(link) + "\n")

    def may_see(self, token: str) -> bool:
        """Return True if this is the token."""
        return hmac.compare_digest(token.encode(), self.token.encode())


def scheduler_prefix(scheduler: Any) -> str:
    """Return the prefix of a scheduler's dashboard: empty, or such as ``/prefix``."""
    prefixes = [app.prefix for app in _bokeh_applications(scheduler)]
    return "/" + prefixes[0].strip("/") if prefixes and prefixes[0].strip("/") else ""


def page_of(directory: Path) -> str:
    """Return the last part of the address of a study's page, with its token.

    It is Dask's own first page if the study has none.
    """
    try:
        found = json.loads(read_small(directory / LINK_FILE))
        return f"daskhpo?token={found['token']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "status"


def _outlook(scheduler: Any) -> str:
    supply = scheduler.extensions.get(SUPPLY)
    return "" if supply is None else str(supply.outlook().why)


def _used(scheduler: Any) -> str:
    from daskhpo.cluster.autoscaler import SlurmAutoscaler

    supply = scheduler.extensions.get(SUPPLY)
    if not isinstance(supply, SlurmAutoscaler):
        return ""
    most = "" if supply.max_gpu_hours is None else f" of {supply.max_gpu_hours:g}"
    return f"{supply.gpu_hours:.1f}{most} GPU-hours of Slurm jobs"


def _gpus(scheduler: Any) -> tuple[Gpu, ...]:
    """Return what workers say of their first GPU, where nvidia-ml-py is."""
    found = []
    for worker in list(scheduler.workers.values()):
        now, fixed = worker.metrics.get("gpu") or {}, worker.extra.get("gpu") or {}
        if (busy := now.get("utilization")) is not None or now.get("memory-used") is not None:
            name, total = fixed.get("name") or "", fixed.get("memory-total") or 0
            used = now.get("memory-used") or 0
            found.append(Gpu(str(worker.name), name, (busy or 0) / 100, used, total))
    return tuple(sorted(found))


def _jobs(scheduler: Any) -> tuple[tuple[str, ...], ...]:
    from daskhpo.cluster.autoscaler import SlurmAutoscaler

    supply = scheduler.extensions.get(SUPPLY)
    return supply.job_rows() if isinstance(supply, SlurmAutoscaler) else ()


def _page(path: str, panel: str | None, scheduler: Any, extra: dict[str, Any], doc: Any) -> None:
    """Make a document: Dask calls this for each browser that opens a page."""
    from distributed.dashboard.components.scheduler import env

    from daskhpo.dashboard.documents import OpenPage
    from daskhpo.dashboard.kinds import PAGES

    kind = next(kind for kind in PAGES if kind.path == path)
    doc.title = f"daskhpo: {kind.title}"
    doc.template = env.get_template("simple.html")
    doc.template_variables.update(extra)
    pages: ClusterPages | None = scheduler.extensions.get(EXTENSION)
    if pages is None or not pages.studies:
        _say(doc, "No study has run on this cluster yet. Load this page again when one runs.")
        return
    request = doc.session_context.request
    cookie = cookie_of(scheduler)
    given = _argument(request, "token")
    if given is None:
        given = request.cookies.get(cookie, "")
    elif pages.may_see(given):
        _remember(doc, given, cookie)
    if not pages.may_see(given):
        _ask(doc)
        return
    page = OpenPage(kind, doc, pages.studies, _argument(request, "study"), panel)
    doc.on_session_destroyed(lambda context: pages.watcher.close(page))
    pages.watcher.open(page)


def _argument(request: Any, name: str) -> str | None:
    values = request.arguments.get(name)
    return values[0].decode(errors="replace") if values else None


def _remember(doc: Any, token: str, cookie: str) -> None:
    """Let the browser keep the token as a cookie, and out of sight, as Jupyter does."""
    from bokeh.models import CustomJS

    keep = CustomJS(args={"token": token, "name": cookie}, code=_REMEMBER)
    doc.js_on_event("document_ready", keep)


_REMEMBER = """
document.cookie = `${name}=${token}; path=/; SameSite=Lax; max-age=2592000`
const address = new URL(window.location)
address.searchParams.delete("token")
window.history.replaceState(null, "", address)
"""


def _say(doc: Any, text: str) -> None:
    from daskhpo.plots import look

    doc.add_root(look.div(text))


def _ask(doc: Any) -> None:
    """Ask for the token; without it no byte of a study is sent."""
    from bokeh.layouts import column, row
    from bokeh.models import Button, CustomJS, PasswordInput

    from daskhpo.plots import look

    token = PasswordInput(placeholder="token", width=300)
    go = Button(label="open", button_type="primary", width=80)
    send = CustomJS(
        args={"token": token},
        code="""
        const address = new URL(window.location)
        address.searchParams.set("token", token.value)
        window.location = address
        """,
    )
    go.js_on_click(send)
    text = (
        "<b>This page needs a token</b>, because other users of the machine can open its address. "
        "The link that the study printed has it; so has the file <code>dashboard.json</code> in "
        "the study's directory."
    )
    doc.add_root(column(look.div(text), row(token, go), sizing_mode="stretch_width"))
