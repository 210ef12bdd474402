"""The pages in a real browser, on a real scheduler's dashboard, while a study goes on."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from distributed import LocalCluster

from daskhpo.core.objective import Objective
from daskhpo.dashboard import server
from daskhpo.dashboard.kinds import PAGES, SINGLE
from daskhpo.dashboard.server import EXTENSION, LINK_FILE, ClusterPages, page_of, show_study
from tests.browser import Browser, Page
from tests.plots.made import asha_result, population, write_study

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

OBJECTIVE = Objective("error")
# Models of the only document on a page, by type or by name.
HELP = """
window.models = (type) => [...Bokeh.documents[0]._all_models.values()].filter((m) => m.type == type)
window.source = (...columns) =>
  models("ColumnDataSource").find((s) => columns.every((column) => column in s.data))
window.named = (name) => Bokeh.documents[0].get_model_by_name(name)
window.place = (model) => {
  const {x, y, width, height} = Bokeh.index.find_one(model).el.getBoundingClientRect()
  return [x, y, width, height]
}
window.box = (brush) => {
  const view = Bokeh.index.find_one(brush), {left, right, top, bottom} = view.bbox
  const {x, y} = view.parent.el.getBoundingClientRect()
  return [x + (left + right) / 2, y + top, y + bottom]
}
window.brushes = () => models("BoxAnnotation").filter((b) => b.editable && b.resizable == "y")
window.rowsShown = () => Bokeh.index.find_one(models("DataTable")[0]).data.index.length
window.drawn = () => source("xs").data.id[5]
window.texts = () => models("Div").map((div) => div.text).join(" ")
"""
READY = "window.Bokeh && Bokeh.documents.length > 0 && (() => {" + HELP + "; return true})()"


class Shown:
    """A cluster whose dashboard shows two studies: a population, and one that goes on."""

    def __init__(self, cluster: Any, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        write_study(folder / "population", population(), num_trials=10)
        self.rest = write_study(folder / "net", num_trials=120, share=0.6)
        for name in ("population", "net"):
            cluster.sync(self._show, folder / name)

    async def _show(self, directory: Path) -> None:
        show_study(self.cluster.scheduler, directory, OBJECTIVE)

    @property
    def pages(self) -> ClusterPages:
        pages: ClusterPages = self.cluster.scheduler.extensions[EXTENSION]
        return pages

    def go_on(self, n: int) -> None:
        """Write the next records of the study that goes on."""
        with (self.folder / "net" / "journal.jsonl").open("a") as file:
            file.write("".join(f"{line}\n" for line in self.rest[:n]))
        del self.rest[:n]

    def address(self, path: str, **arguments: str) -> str:
        port = self.cluster.scheduler.http_server.port
        given = "&".join(f"{key}={value}" for key, value in arguments.items())
        return f"http://127.0.0.1:{port}/{path}" + (f"?{given}" if given else "")

    def open(self, page: Page, path: str, **arguments: str) -> None:
        """Open a page and wait until it shows data."""
        page.open(self.address(path, token=self.pages.token, **arguments))
        page.wait_for(READY)
        page.wait_for("Bokeh.documents[0]._all_models.size > 20 || texts().includes('evidence')")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    with LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        yield Shown(cluster, tmp_path_factory.mktemp("studies"))


@pytest.mark.parametrize("kind", PAGES, ids=lambda kind: kind.path)
def test_a_page_shows_its_plots_without_an_error(kind: Any, shown: Shown, browser: Browser) -> None:
    study = "population" if kind.title == "Population" else "net"
    with browser.page() as page:
        shown.open(page, kind.path, study=study)
        panels = (
            page.wait_for("models('Column').filter((c) => c.name && c.visible).map((c) => c.name)")
            if (kind.title != "Advice")
            else []
        )
        for name in panels:
            page.wait_for(f"place(named('{name}'))[3] > 60")
        assert page.problems == []
        hosts = {urlsplit(url).netloc for url in page.requests if url.startswith(("http", "ws"))}
        assert hosts == {urlsplit(shown.address("")).netloc}


def test_a_page_follows_the_study(shown: Shown, browser: Browser) -> None:
    with browser.page() as page:
        shown.open(page, "daskhpo", study="net")
        before = page.run("source('slot_hours', 'id').data.value.length")
        shown.go_on(60)
        page.wait_for(f"source('slot_hours', 'id').data.value.length > {before}")
        assert page.problems == []


def test_clicks_change_what_they_should(shown: Shown, browser: Browser) -> None:
    with browser.page() as page:
        shown.open(page, "daskhpo", study="net")
        page.run("models('RadioButtonGroup')[0].active = 2")
        page.wait_for("models('LinearAxis').some((a) => a.axis_label == 'Trials started')")
        page.run(
            "(() => { const s = source('hours', 'id');"
            " s.selected.indices = [s.data.id.indexOf(drawn())] })()"
        )
        page.wait_for("source('xs').selected.indices.length == 1")
        assert page.run("place(models('Select')[0])[2]") > 100
        page.run("models('Select')[0].value = 'population'")
        page.wait_for("texts().includes('PBT')")


def test_a_brush_selects_the_trials_that_pass(shown: Shown, browser: Browser) -> None:
    with browser.page(1280, 1000) as page:
        shown.open(page, "daskhpo-hyperparameters", study="net")
        page.wait_for("brushes().length >= 6")
        x, top, bottom = page.wait_for("box(brushes()[0])")
        page.drag((x, top), (x, (top + bottom) / 2))
        page.wait_for("brushes()[0].top < 0.7")
        page.wait_for("source('axes_y').selected.indices.length > 0")
        heights = page.run(
            "source('axes_y').selected.indices.map((i) => source('axes_y').data.axes_y[i][0])"
        )
        assert max(heights) <= page.run("brushes()[0].top")
        assert len(heights) < page.run("source('axes_y').data.axes_y.length")


def test_trials_are_filtered_compared_and_explained(shown: Shown, browser: Browser) -> None:
    with browser.page() as page:
        shown.open(page, "daskhpo-trials", study="net")
        page.wait_for("models('DataTable').length == 1")
        page.run("models('MultiChoice')[0].value = ['stopped']")
        page.wait_for("rowsShown() > 0 && rowsShown() < source('reason').data.id.length")
        page.run("source('reason').selected.indices = [0, 1]")
        page.wait_for("texts().includes('<th>trial 0</th><th>trial 1</th>')")
        page.wait_for("texts().includes('<b>Trial 0</b>')")  # from the scheduler


# -- who may look --------------------------------------------------------------------------------


def test_without_the_token_nothing_is_shown(shown: Shown, browser: Browser) -> None:
    with browser.page() as page:
        for arguments in ({}, {"token": "wrong"}):
            page.open(shown.address("daskhpo", **arguments).replace("127.0.0.1", "localhost"))
            page.wait_for(READY)
            page.wait_for("texts().includes('needs a token')")
            assert page.run("models('ColumnDataSource').length") == 0


def test_a_browser_keeps_the_token_and_hides_it(shown: Shown, browser: Browser) -> None:
    with browser.page() as page:
        shown.open(page, "daskhpo")
        page.wait_for("!window.location.search.includes('token')")
        page.open(shown.address("daskhpo-advice"))
        page.wait_for(READY)
        page.wait_for("!texts().includes('needs a token') && texts().includes('Advice')")


def test_the_link_file_is_the_owners_alone(shown: Shown) -> None:
    path = shown.folder / "net" / LINK_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert page_of(shown.folder / "net") == f"daskhpo?token={shown.pages.token}"
    assert page_of(shown.folder) == "status"


# -- cost, and other places ----------------------------------------------------------------------


def test_nothing_is_read_while_nobody_looks(shown: Shown, browser: Browser) -> None:
    with browser.page() as page:
        shown.open(page, "daskhpo", study="net")
        assert shown.pages.watcher.is_running
    until = time.monotonic() + 90  # Bokeh keeps a session for some seconds
    while shown.pages.watcher.is_running:
        assert time.monotonic() < until
        time.sleep(0.1)


class StrippingProxy:
    """A proxy that forwards ``/proxy/PORT/...`` as ``/...``, as jupyter-server-proxy does."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            self._forward(client)

    def _forward(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := client.recv(65536)):
                return
            head += more
        prefix = f" /proxy/{self._target}/".encode()
        if prefix not in head.split(b"\r\n")[0]:
            client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        head = head.replace(prefix, b" /", 1)
        head = head.replace(b"Connection: keep-alive", b"Connection: close")  # a request each
        with socket.create_connection(("127.0.0.1", self._target)) as upstream:
            upstream.sendall(head)
            back = threading.Thread(target=self._pipe, args=(client, upstream), daemon=True)
            back.start()
            self._pipe(upstream, client)
            back.join()

    @staticmethod
    def _pipe(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def test_pages_work_behind_a_proxy_that_strips_its_prefix(shown: Shown, browser: Browser) -> None:
    port = shown.cluster.scheduler.http_server.port
    proxy = StrippingProxy(port)
    try:
        with browser.page() as page:
            base = f"http://127.0.0.1:{proxy.port}/proxy/{port}"
            page.open(f"{base}/daskhpo?token={shown.pages.token}&study=net")
            page.wait_for(READY)
            page.wait_for("Bokeh.documents[0]._all_models.size > 20")
            assert [p for p in page.problems if "favicon" not in p] == []
    finally:
        proxy.close()


def test_what_is_announced_before_a_scheduler_starts_is_listed_for_jupyterlab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Browser
) -> None:
    from distributed.dashboard import scheduler as dask_pages

    monkeypatch.setattr(dask_pages, "applications", dict(dask_pages.applications))
    server.announce()
    with LocalCluster(
        n_workers=0,
        processes=False,
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"http_prefix": "/deep/prefix"},
    ) as cluster:
        shown = Shown(cluster, tmp_path)
        port = cluster.scheduler.http_server.port
        base = f"http://127.0.0.1:{port}/deep/prefix"
        with urllib.request.urlopen(f"{base}/individual-plots.json", timeout=60) as answer:
            listed = json.load(answer)
        for name in SINGLE:
            assert any(uri.endswith(f"/individual-daskhpo-{name}") for uri in listed.values())
        with browser.page() as page:
            token = shown.pages.token
            page.open(f"{base}/individual-daskhpo-learning-curves?token={token}&study=net")
            page.wait_for(READY)
            page.wait_for("named('curves') && place(named('curves'))[3] > 60")
            page.open(f"{base}/status")
            page.wait_for("[...document.links].some((a) => a.innerText == 'Daskhpo')")


def test_without_bokeh_a_study_runs_and_one_line_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(scheduler: Any) -> Any:
        raise ImportError("No module named 'bokeh'")

    monkeypatch.setattr(server, "_pages_of", missing)
    with caplog.at_level(logging.INFO, logger="daskhpo"):
        show_study(None, tmp_path, OBJECTIVE)
    assert [record.getMessage() for record in caplog.records] == [
        "the dashboard shows no pages of studies: No module named 'bokeh'"
    ]


# -- the report ----------------------------------------------------------------------------------


def test_a_report_opens_without_a_network_and_can_be_brushed(
    tmp_path: Path, browser: Browser
) -> None:
    path = tmp_path / "report.html"
    asha_result().to_html(path)
    with browser.page(1280, 2600) as page:
        page.open(path.as_uri())
        page.wait_for(READY)
        page.wait_for("brushes().length >= 6 && box(brushes()[0])[1] > 0")
        x, top, bottom = page.run("box(brushes()[0])")
        page.drag((x, bottom), (x, (top + bottom) / 2))
        page.wait_for("source('axes_y').selected.indices.length > 0")
        assert page.run("source('xs').selected.indices.length") > 0  # linked
        assert page.problems == []
        assert [url for url in page.requests if url.startswith(("http", "ws"))] == []
