"""Real studies on a real cluster with optimisers in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest
from distributed import LocalCluster

from daskhpo import Study, load_study
from daskhpo.core.errors import OptimiserLost
from daskhpo.schedulers import ASHA
from daskhpo.searchers import DragonflySearch, OutOfProcess
from daskhpo.space import Categorical, Integer, Ordinal, Real
from tests.searchers.external.foreign import PYTHON, needs_foreign
from tests.searchers.external.shared import n_own, wait_for
from tests.searchers.external.test_dragonfly import QUICK
from tests.searchers.external.test_process import SCRIPT

pytestmark = pytest.mark.cluster

SPACE = {
    "lr": Real(1e-3, 1e-1, log=True),
    "units": Ordinal([8, 16, 64]),
    "layers": Integer(1, 4),
    "kind": Categorical(["a", "b"]),
}


def train(config, trial):
    for resource in range(trial.resource + 1, trial.max_t + 1):
        time.sleep(0.1)  # a training takes its time, in which the next suggestion can be made
        trial.report({"loss": abs(config["lr"] - 0.01) + config["layers"] / 10 + 1 / resource})


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def a_study(tmp_path, searcher):
    return Study(
        train,
        SPACE,
        "loss",
        scheduler=ASHA(9, grace_period=1, reduction_factor=3),
        searcher=searcher,
        storage=tmp_path,
        name="study",
    )


def running(name):
    """Processes of ours that run a script of that name."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and any(name in w for w in child.cmdline())
    ]


@needs_foreign
def test_dragonfly_runs_a_study_and_goes_on_with_it(tmp_path, cluster):
    points = [{"lr": 0.05, "units": 64, "layers": 4, "kind": "b"}]
    searcher = DragonflySearch(PYTHON, points_to_evaluate=points, options=QUICK)
    study = a_study(tmp_path, searcher)

    assert not running("dragonfly_child.py")  # making a study starts nothing
    for mode, n in [("error", 10), ("resume", 14)]:
        handle = study.start(time_budget="100s", client=cluster, progress=False, if_exists=mode)
        wait_for(lambda n=n: n_own(study.path) >= n, f"{n} suggestions of Dragonfly")
        handle.stop("enough was seen")
        handle.wait()
        wait_for(lambda: not running("dragonfly_child.py"), "the end of Dragonfly's process")
    frame = load_study(study.path).trials()
    assert "failed" not in set(frame.status)
    assert [frame[f"config/{name}"][0] for name in SPACE] == list(points[0].values())
    for name, domain in SPACE.items():
        assert all(domain.contains(value) for value in frame[f"config/{name}"].tolist())


def test_an_optimiser_that_cannot_be_made_ends_the_study(tmp_path, cluster):
    study = a_study(tmp_path, OutOfProcess(SCRIPT, options={"refuse": True}))
    with pytest.raises(OptimiserLost, match="it answered with an error: no such space"):
        study.run(num_trials=100_000, client=cluster, progress=False)


def test_an_optimiser_that_breaks_down_leaves_a_study_that_goes_on(tmp_path, cluster, caplog):
    study = a_study(tmp_path, OutOfProcess(SCRIPT, options={"do": "crash", "at": 3}))
    handle = study.start(time_budget="90s", client=cluster, progress=False)
    wait_for(
        lambda: "the search continues with random configurations" in caplog.text, "the breakdown"
    )
    n_begun = len(load_study(study.path).trials())
    wait_for(lambda: len(load_study(study.path).trials()) > n_begun + 5, "further trials")
    handle.stop("enough was seen")
    handle.wait()
    assert "it was all too much" in caplog.text


KILLED = """
import sys, time
from daskhpo import Study
from daskhpo.schedulers import ASHA
from daskhpo.searchers import OutOfProcess
from daskhpo.space import Real

def slow(config, trial):
    for n in range(trial.resource + 1, trial.max_t + 1):
        time.sleep(0.05)
        trial.report({"loss": config["x"] + 1 / n})

if __name__ == "__main__":
    storage, optimiser, log, method = sys.argv[1:]
    study = Study(slow, {"x": Real(0, 1)}, "loss", scheduler=ASHA(9), storage=storage, name="study",
                  searcher=OutOfProcess(optimiser, options={"log": log}))
    getattr(study, method)(num_trials=30, progress=False)
"""


def test_a_killed_study_goes_on_with_what_its_optimiser_was_told(tmp_path):
    script, log, path = tmp_path / "script.py", tmp_path / "log", tmp_path / "study"
    script.write_text(textwrap.dedent(KILLED))

    def begin(method):
        command = [sys.executable, str(script), str(tmp_path), str(SCRIPT), str(log), method]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )

    def told():
        text = log.read_text() if log.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        return [line for line in lines if line["do"] == "tell"]

    process = begin("run")
    wait_for(lambda: len(told()) >= 12, "reports")
    optimisers = running(SCRIPT.name)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(optimisers, timeout=30)  # each ends with the other end of its pipe
    assert not alive
    before = {line["values"]["x"]: line["loss"] for line in told()}
    log.unlink()

    process = begin("resume")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output.decode()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    words = [line["do"] for line in lines]
    first = {line["values"]["x"]: line["loss"] for line in lines[1 : words.index("ask")]}
    assert before.keys() <= first.keys()
    assert all(first[x] <= loss for x, loss in before.items())
    assert len(load_study(path).trials()) == 30
