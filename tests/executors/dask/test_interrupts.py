"""Ctrl-C while a study starts and ends: a line or two, and no process remains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from daskhpo.core.tracebacks import BriefInterrupt
from daskhpo.executors.dask.interrupts import completed

SCRIPT = """
import signal, time
from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

def train(config, trial):
    open("began", "w").close()
    time.sleep(100)

signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
study = Study(train, {"x": Real(0, 1)}, "loss", scheduler=FIFO(3), name="slow")
if __name__ == "__main__":
    study.run(1, max_concurrent=1)
"""
COMMANDS = {
    "script": ["slow.py"],
    "command": [
        "-m",
        "daskhpo.cli",
        "run",
        "slow.py:study",
        "--num-trials=1",
        "--max-concurrent=1",
    ],
}


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_what_was_called_is_completed_and_then_the_interrupt_goes_on() -> None:
    hurried, done = threading.Event(), []

    def act() -> None:
        interrupt()
        assert hurried.wait(10)
        interrupt()
        done.append(True)

    with pytest.raises(KeyboardInterrupt):
        completed(act, hurried.set)
    assert done == [True]


def test_results_and_errors_come_back() -> None:
    assert completed(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        completed(lambda: 1 // 0)


def test_an_interrupt_is_stronger_than_an_error_that_it_may_have_caused() -> None:
    hurried = threading.Event()

    def act() -> None:
        interrupt()
        assert hurried.wait(10)
        raise OSError("the process was killed")

    with pytest.raises(KeyboardInterrupt):
        completed(act, hurried.set)


def test_processes_that_start_do_not_see_the_signal() -> None:
    code = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    seen = completed(lambda: subprocess.check_output([sys.executable, "-S", "-c", code]))
    assert b"SIGINT" in seen
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_an_interrupt_leaves_a_call_without_frames_of_ours() -> None:
    def called(error: BaseException, n: int = 5) -> None:
        with BriefInterrupt():
            if n == 0:
                raise error
            try:
                called(error, n - 1)
            except ValueError as cause:
                raise cause from None

    with pytest.raises(KeyboardInterrupt, match="why") as caught:
        called(KeyboardInterrupt("why"))
    assert len(caught.traceback) == 1  # this one
    assert caught.value.__context__ is None
    with pytest.raises(ValueError, match="why") as other:
        called(ValueError("why"), 0)
    assert len(other.traceback) == 2


def begin(folder: Path, arguments: list[str]) -> subprocess.Popen[str]:
    (folder / "slow.py").write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


def workers(session: int) -> list[int]:
    """Processes of a session that `multiprocessing` started, besides its tracker."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and "spawn_main" in " ".join(process.cmdline()):
                found.append(process.pid)
        except (psutil.Error, ProcessLookupError):
            continue
    return found


def check_end(kind: str, process: subprocess.Popen[str]) -> None:
    """Check that a process ends by Ctrl-C, and says no more than that."""
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    assert process.wait() in ((130,) if kind == "command" else (-signal.SIGINT, 1))
    assert not workers(process.pid)
    if kind == "command":
        assert lines.pop() == "daskhpo: interrupted; what was reported until now is kept"
    else:
        assert lines.pop() == "KeyboardInterrupt"
        began = lines.index("Traceback (most recent call last):")
        assert 'slow.py", line ' in lines[began + 1]
        assert sum("  File " in line for line in lines[began:]) == 1
        del lines[began:]
    end = ("time ", "cost ", "look ")  # of a study that was stopped
    assert [line for line in lines if not line.startswith(end)] == []


@pytest.mark.cluster
@pytest.mark.parametrize("kind", COMMANDS)
def test_control_c_while_workers_start_leaves_neither_noise_nor_processes(
    kind: str, tmp_path: Path, wait_for: Any
) -> None:
    with begin(tmp_path, COMMANDS[kind]) as process:
        wait_for(lambda: workers(process.pid), "a worker process")
        os.killpg(process.pid, signal.SIGINT)
        check_end(kind, process)


@pytest.mark.cluster
def test_control_c_three_times_ends_a_script_briefly(tmp_path: Path, wait_for: Any) -> None:
    with begin(tmp_path, COMMANDS["script"]) as process:
        assert process.stdout is not None
        wait_for((tmp_path / "began").exists, "a trial")
        for line in process.stdout:
            if "dashboard" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        for line in process.stdout:
            if "Ctrl-C again" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        for line in process.stdout:
            if "resume it with" in line:
                break
        os.killpg(process.pid, signal.SIGINT)  # while the cluster is closed
        check_end("script", process)
