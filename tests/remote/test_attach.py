"""A study that another process of this machine runs: followed, looked at, stopped."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daskhpo import load_study
from daskhpo.callbacks import (
    Callback,
    ConsoleProgress,
    FrozenReport,
    FrozenTrial,
    StudySummary,
)
from daskhpo.core.errors import StudyNotRunning
from daskhpo.core.events import Reported
from daskhpo.engine.session import study_records
from daskhpo.remote.attach import attach
from daskhpo.study.study import load_source

FILE = """
import time
from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

def train(config, trial):
    for n in range(trial.resource, trial.max_t):
        time.sleep(0.05)
        trial.report({"loss": config["x"] + 1 / (n + 1)}, state=lambda n=n: n)

study = Study(train, {"x": Real(0, 1)}, "loss", scheduler=FIFO(10), storage="runs", name="first")
"""


class Notes(Callback):
    """Which of its last words a callback heard."""

    def __init__(self) -> None:
        self.last = ""
        self.heard = threading.Event()

    def on_report(self, trial: FrozenTrial, report: FrozenReport) -> None:
        self.heard.set()

    def on_study_end(self, study: StudySummary) -> None:
        self.last = "end"

    def on_detach(self, study: StudySummary) -> None:
        self.last = "detach"


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """``daskhpo run`` of a long study, in the folder where we are then."""
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    process = subprocess.Popen(
        [sys.executable, "-m", "daskhpo.cli", "run", "mine.py:study", "--num-trials", "10000"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not any(isinstance(r, Reported) for r in study_records(Path("runs/first"))):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.cluster
def test_a_study_is_followed_and_left_and_stopped(running: subprocess.Popen[str]) -> None:
    study = load_source("mine.py:study")
    notes, told = Notes(), io.StringIO()
    attached = attach(Path("runs/first"), [notes, ConsoleProgress(told)])
    assert attached.job is None
    assert sum(attached.status().values()) > 0
    interrupt = threading.Thread(
        target=lambda: notes.heard.wait(30) and os.kill(os.getpid(), signal.SIGINT)
    )
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        attached.wait()
    interrupt.join()
    assert notes.last == "detach"
    assert "first continues; stop it with `daskhpo stop runs/first`" in told.getvalue()
    assert running.poll() is None, "it was only watched"

    again = study.attach([notes], progress=False)
    again.stop("enough of it")
    result = again.wait()
    assert notes.last == "end"
    assert result.stop_reason == "enough of it"
    assert running.wait(30) == 0
    assert running.stderr is not None
    assert "stopped, because enough of it" in running.stderr.read()
    with pytest.raises(StudyNotRunning, match=r"`daskhpo resume .*runs/first` continues it"):
        study.attach()
    with pytest.raises(StudyNotRunning):
        again.stop()
    assert not (load_study("runs/first").trials()["status"] == "failed").any()


def test_what_is_no_study_cannot_be_followed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no study"):
        attach(tmp_path)
