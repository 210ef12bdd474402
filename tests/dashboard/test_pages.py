"""The pages in a real browser, on a real scheduler's dashboard, while a study goes on."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from distributed import LocalCluster

from daskhpo.dashboard import server
from daskhpo.dashboard.kinds import PAGES, SINGLE
from daskhpo.dashboard.server import LINK_FILE, page_of, show_study
from daskhpo.plots import trials_page
from tests.browser import Browser, Page
from tests.dashboard.shown import OBJECTIVE, READY, Shown
from tests.plots.made import asha_result

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


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


def halved(page: Page) -> Callable[[], tuple[tuple[float, float], tuple[float, float]]]:
    """Return how to drag the upper end of the first brush down to its middle."""

    def ends() -> tuple[tuple[float, float], tuple[float, float]]:
        x, top, bottom = page.settled("box(brushes()[0])")
        return (x, top), (x, (top + bottom) / 2)

    return ends


PASSING = """(() => {
  const lines = source("axes_y").data.axes_y, top = brushes()[0].top
  return lines.flatMap((line, i) => line.length > 0 && line[0] <= top ? [i] : [])
})()"""


def test_a_brush_selects_the_trials_that_pass(shown: Shown, browser: Browser) -> None:
    with browser.page(1280, 1000) as page:
        shown.open(page, "daskhpo-hyperparameters", study="net")
        page.wait_for("brushes().length >= 6")
        page.drag_until(halved(page), "brushes()[0].top < 0.7")
        page.wait_for("source('axes_y').selected.indices.length > 0")
        heights = page.run(
            "source('axes_y').selected.indices.map((i) => source('axes_y').data.axes_y[i][0])"
        )
        assert max(heights) <= page.run("brushes()[0].top")
        assert len(heights) < page.run("source('axes_y').data.axes_y.length")


def test_a_brush_stays_and_selects_trials_that_come_later(shown: Shown, browser: Browser) -> None:
    with browser.page(1280, 1000) as page:
        shown.open(page, "daskhpo-hyperparameters", study="net")
        page.wait_for("brushes().length >= 6")
        page.drag_until(halved(page), "brushes()[0].top < 0.7")
        top, before = page.run("brushes()[0].top"), page.run("source('axes_y').data.id.length")
        shown.go_on(60)
        page.wait_for(f"source('axes_y').data.id.length > {before}")
        page.wait_for(f"String(source('axes_y').selected.indices) == String({PASSING})")
        assert page.run("brushes()[0].top") == top
        assert page.problems == []


def test_axes_are_chosen_and_arranged(shown: Shown, browser: Browser) -> None:
    with browser.page(1280, 1000) as page:
        shown.open(page, "daskhpo-hyperparameters", study="net")
        page.wait_for("brushes().length >= 6")
        names = page.run("models('MultiChoice')[0].value")
        shown_names = [names[2], names[0]]
        page.run(f"models('MultiChoice')[0].value = {json.dumps(shown_names)}")
        page.wait_for("brushes().filter((b) => b.visible).length == 3")  # with the metric's
        lefts = page.run("brushes().map((b) => b.visible ? Math.round(b.left) : -1)")
        assert [lefts[2], lefts[0], lefts[-1]] == [0, 1, 2]
        page.drag_until(halved(page), "brushes()[0].top < 0.7")  # on the axis that moved
        page.wait_for("source('axes_y').selected.indices.length > 0")
        heights = page.run(
            "source('axes_y').selected.indices.map((i) => source('axes_y').data.axes_y[i][0])"
        )
        assert max(heights) <= page.run("brushes()[0].top")
        assert page.problems == []


def test_a_map_is_of_any_two_hyperparameters(shown: Shown, browser: Browser) -> None:
    with browser.page(1280, 1000) as page:
        shown.open(page, "daskhpo-hyperparameters", study="net")
        page.wait_for("models('Select').some((s) => s.title == 'Across')")
        page.run("void (window.across = models('Select').find((s) => s.title == 'Across'))")
        page.run("void (window.upwards = models('Select').find((s) => s.title == 'Upwards'))")
        cells = "Array.from(models('GlyphRenderer').find((r) => r.glyph.type == 'Image')"
        cells += ".data_source.data.image[0])"
        before = page.run(cells)
        first, second = page.run("[across.value, upwards.value]")
        page.run(f"across.value = {json.dumps(second)}")
        assert page.run("upwards.value") != second
        page.run(f"upwards.value = {json.dumps(first)}")
        n = round(len(before) ** 0.5)
        turned = [before[(k % n) * n + k // n] for k in range(n * n)]
        page.wait_for(f"{cells}.every((v, k) => v == {json.dumps(turned)}[k])")
        assert page.problems == []


def test_trials_are_filtered_compared_and_explained(shown: Shown, browser: Browser) -> None:
    with browser.page() as page:
        shown.open(page, "daskhpo-trials", study="net")
        page.wait_for("models('DataTable').length == 1")
        page.run("models('MultiChoice')[0].value = ['stopped']")
        page.wait_for("rowsShown() > 0 && rowsShown() < source('reason').data.id.length")
        page.run("source('reason').selected.indices = [0, 1]")
        page.wait_for("texts().includes('<th>trial 0</th><th>trial 1</th>')")
        page.wait_for("texts().includes('<b>Trial 0</b>')")  # from the scheduler


def test_a_heading_sorts_the_table_and_a_click_selects_a_row(
    shown: Shown, browser: Browser
) -> None:
    with browser.page() as page:
        shown.open(page, "daskhpo-trials", study="net")
        page.wait_for("cells(2).length > 5")
        page.click(*page.settled("heading('best error')"))
        page.wait_for("cells(2).every((v, i, all) => i == 0 || Number(all[i - 1]) <= Number(v))")
        page.click(*page.settled("cell(1, 0)"))
        page.wait_for("source('reason').selected.indices.length == 1")
        first = page.run("source('reason').data.id[source('reason').selected.indices[0]]")
        assert first == int(page.run("cells(0)[1]"))
        page.click(*page.settled("cell(3, 0)"), modifiers=2)  # with Ctrl
        page.wait_for("texts().includes('≠ best error')")
        page.wait_for(f"texts().includes('<b>Trial {first}</b>')")
        page.wait_for("source('xs').selected.indices.length > 0")


def test_what_a_trial_prints_is_followed(shown: Shown, browser: Browser) -> None:
    log = shown.folder / "net" / "logs" / "3.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("epoch 1 <b>\nbar 10 %\rbar 100 %\n")
    with browser.page() as page:
        shown.open(page, "daskhpo-trials", study="net")
        page.wait_for("models('DataTable').length == 1")
        page.run("source('reason').selected.indices = [source('reason').data.id.indexOf(3)]")
        page.wait_for("texts().includes('epoch 1 &lt;b&gt;\\nbar 100 %')")
        assert page.run("texts().includes('trial.seed')")
        with log.open("a") as file:
            file.write("epoch 2\n")
        page.wait_for("texts().includes('epoch 2')")


def test_numbers_of_a_plot_are_a_table(shown: Shown, browser: Browser) -> None:
    with browser.page() as page:
        shown.open(page, "daskhpo", study="net")
        page.wait_for("models('Toggle').some((t) => t.label == 'numbers')")
        n = page.run("source('slot_hours', 'value').data.value.length")
        page.run("models('Toggle').find((t) => t.label == 'numbers').active = true")
        page.wait_for("visibleTables().includes('<th>slot time [h]</th>')")
        assert page.run("visibleTables().split('<tr>').length") > min(n, 5)


def test_a_long_table_has_pages(
    shown: Shown, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials_page, "TABLE_TRIALS", 50)
    monkeypatch.setattr(trials_page, "PAGE_TRIALS", 20)
    with browser.page() as page:
        shown.open(page, "daskhpo-trials", study="net")
        page.wait_for("texts().includes('1 to 20 of ')")
        assert page.run("source('reason').data.id.length") == 20
        page.click(*page.settled("middle(models('Button').find((b) => b.label.includes('next')))"))
        page.wait_for("texts().includes('21 to 40 of ')")
        page.wait_for("source('reason').data.id[0] == 20")
        page.run("models('Select').find((s) => s.value == 'number').value = 'best'")
        page.wait_for("texts().includes('1 to 20 of ')")
        page.wait_for("source('reason').data.value.every((v, i, all) => i == 0 || all[i - 1] <= v)")
        page.run("models('MultiChoice')[0].value = ['failed']")
        page.wait_for("source('reason').data.state.every((state) => state == 'failed')")
        assert page.problems == []


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


def wait_until(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    """Wait for something on the scheduler, which keeps the session of a closed page for a while."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


# -- cost, and other places ----------------------------------------------------------------------


def test_nothing_is_read_while_nobody_looks(shown: Shown, browser: Browser) -> None:
    with browser.page() as page:
        shown.open(page, "daskhpo", study="net")
        assert shown.pages.watcher.is_running
    wait_until(lambda: not shown.pages.watcher.is_running)


def test_a_page_that_is_closed_says_nothing(shown: Shown, browser: Browser) -> None:
    """Bokeh would handle what it says when the connection is gone."""
    wait_until(lambda: not shown.pages.watcher.is_running)  # pages of other tests are gone
    with browser.page() as page:
        shown.open(page, "daskhpo", study="net")
        (open_page,) = shown.pages.watcher._pages
        page.run(
            "void (window.hide = (is_hidden) => {"
            " Object.defineProperty(document, 'hidden', {value: is_hidden, configurable: true});"
            " document.dispatchEvent(new Event('visibilitychange')) })"
        )
        toggle = "models('Toggle').find((t) => !t.visible).active"
        for event, is_hidden in (("visibilitychange", True), ("pagehide", False)):
            page.run(f"void window.dispatchEvent(new Event('{event}'))")
            page.run("void hide(true)")
            assert page.run(toggle) is is_hidden
            wait_until(lambda is_hidden=is_hidden: open_page.is_hidden == is_hidden)
            page.run("void (window.dispatchEvent(new Event('pageshow')), hide(false))")
            wait_until(lambda: not open_page.is_hidden)


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
        page.drag_until(halved(page), "brushes()[0].top < 0.7")
        page.wait_for("source('axes_y').selected.indices.length > 0")
        assert page.run("source('xs').selected.indices.length") > 0  # linked
        assert page.problems == []
        assert [url for url in page.requests if url.startswith(("http", "ws"))] == []
