"""What studies leave in a process after their end: nothing."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster

from daskhpo import Study
from daskhpo.schedulers import ASHA
from daskhpo.space import Real

N_STUDIES = 20
POOLS = ("asyncio", "Dask-Offload")  # of an event loop; they grow to a fixed number of threads

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def train(config: Any, trial: Any) -> None:
    for _ in range(trial.resource, trial.max_t):
        trial.report({"loss": config["x"]}, state=lambda: 1)


def held() -> dict[str, Any]:
    """Return what this process holds: threads, descriptors, processes, temporary files."""
    gc.collect()
    here = psutil.Process()
    files = Path("/proc/self/fd")
    targets = [str(file.readlink()) for file in files.iterdir() if file.is_symlink()]
    names = [thread.name.rstrip("0123456789-_") for thread in threading.enumerate()]
    return {
        "threads": Counter(name for name in names if name not in POOLS),
        "descriptors": Counter(target.partition(":")[0] for target in targets),
        "processes": len(here.children(recursive=True)),
        "files": len([*Path(tempfile.gettempdir()).glob("daskhpo-*")]),
    }


def more(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return what there is more of."""
    found = {}
    for kind, n in now.items():
        added = n - before[kind]  # of counters: only what is above 0
        if added and (isinstance(added, Counter) or added > 0):
            found[kind] = added
    return found


def settled(before: dict[str, Any]) -> dict[str, Any]:
    """Return what there is more of than before, once that has ended which soon does."""
    for _ in range(100):
        if not (added := more(held(), before)):
            break
        time.sleep(0.1)
    return added


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for studies; temporary files are made beside it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path


def run(folder: Path, number: int, **options: Any) -> None:
    study = Study(
        train, {"x": Real(0, 1)}, "loss", scheduler=ASHA(3), storage=folder, name=f"s{number}"
    )
    assert study.run(num_trials=3, progress=False, **options).num_trials == 3


def test_studies_leave_no_thread_descriptor_process_or_file(folder: Path) -> None:
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        for number in range(3):  # what is made once, and kept
            run(folder, number, client=client)
        before = held()
        for number in range(3, N_STUDIES):
            run(folder, number, client=client)
        assert settled(before) == {}


def test_an_embedded_cluster_leaves_nothing(folder: Path) -> None:
    run(folder, 0, max_concurrent=1)
    before = held()
    for number in range(1, 3):
        run(folder, number, max_concurrent=1)
    assert settled(before) == {}


SCRIPT = """
import time
from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

def train(config, trial):
    while True:
        time.sleep(0.05)
        trial.report({"loss": 1.0})

if __name__ == "__main__":
    study = Study(train, {"x": Real(0, 1)}, "loss", scheduler=FIFO(10**6), storage=".", name="s")
    handle = study.start(num_trials=1, max_concurrent=1, progress=False)
    while "reported" not in (study.path / "journal.jsonl").read_text():
        time.sleep(0.05)
    raise ZeroDivisionError("the script ends")
"""


def test_a_script_that_raises_while_its_study_runs_ends(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1
    assert "ZeroDivisionError: the script ends" in done.stderr
