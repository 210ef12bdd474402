"""Pages through a real Jupyter server, and a study in a real notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from distributed import LocalCluster

from tests.browser import Browser
from tests.dashboard.shown import READY, Shown

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]

START_SECONDS = 120.0


@contextmanager
def jupyter_server(folder: Path, port: int) -> Iterator[str]:
    """Run a Jupyter server with its proxy; yield its address."""
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", f"--port={port}"]
    command += ["--allow-root", "--IdentityProvider.token=secret", f"--ServerApp.root_dir={folder}"]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    log = folder / "jupyter.log"
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=folder) as process,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            until = time.monotonic() + START_SECONDS
            while not _answers(f"{address}/api"):
                assert process.poll() is None and time.monotonic() < until, log.read_text()  # noqa: PT018
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_pages_work_behind_jupyter_server_proxy(tmp_path: Path, browser: Browser) -> None:
    pytest.importorskip("jupyter_server_proxy", reason="jupyter-server-proxy is not installed")
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        jupyter_server(tmp_path, _free_port()) as address,
        browser.page() as page,
    ):
        shown = Shown(cluster, tmp_path)
        port = cluster.scheduler.http_server.port
        page.open(f"{address}/lab?token=secret")  # signs in; there may be no JupyterLab
        page.wait_for("document.cookie !== undefined && document.readyState == 'complete'")
        base = f"{address}/proxy/{port}"
        page.open(f"{base}/daskhpo?token={shown.pages.token}&study=net")
        page.wait_for(READY)
        page.wait_for("Bokeh.documents[0]._all_models.size > 20")
        before = page.run("source('slot_hours', 'id').data.value.length")
        shown.go_on(60)
        page.wait_for(f"source('slot_hours', 'id').data.value.length > {before}")
        link = page.run(
            "(() => { for (const div of models('Div')) { const found ="
            ' /href="(daskhpo-trials[^"]*)"/.exec(div.text); if (found) return found[1] } })()'
        )
        page.open(f"{base}/{link}".replace("&amp;", "&"))  # the cookie has the token
        page.wait_for(READY)
        page.wait_for("models('DataTable').length == 1")
        assert [each for each in page.problems if "favicon" not in each] == []


CELLS = {
    "study": """
import time
from daskhpo import Study
from daskhpo.schedulers import ASHA
from daskhpo.space import Real

def train(config, trial):
    for n in range(trial.resource, trial.max_t):
        time.sleep(0.3)
        trial.report({"loss": config["x"] + 1 / (n + 1)}, state=lambda n=n: n)

study = Study(train, {"x": Real(0, 1)}, "loss", scheduler=ASHA(max_t=9), name="cells")
study
""",
    "run": "result = study.run(num_trials=8)",
    "result": "result",
    "plot": """
from bokeh.embed import components
len(components(result.plot_best())[0])
""",
}


def test_a_notebook_shows_a_running_study_in_one_output(tmp_path: Path) -> None:
    for name in ("nbformat", "nbclient", "ipykernel"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    cells, outputs = tmp_path / "cells.json", tmp_path / "outputs.json"
    cells.write_text(json.dumps([*CELLS.values()]))
    command = [sys.executable, "-m", "tests.dashboard.run_notebook", str(cells), str(outputs)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = json.loads(outputs.read_text())
    shown = dict(zip(CELLS, made["outputs"], strict=True))
    assert "ASHA" in shown["study"][0]["data"]["text/html"]
    displays = [each for each in shown["run"] if each["output_type"] == "display_data"]
    assert len(displays) == 1, shown["run"]
    assert len(set(made["updates"])) >= 2
    assert "best loss" in shown["result"][0]["data"]["text/html"]
    assert int(shown["plot"][0]["data"]["text/plain"]) > 1000
