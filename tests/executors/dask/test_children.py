"""Processes that a trial has started end with it, and with its worker."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from daskhpo.executors.dask.children import allow_children, child_processes

pytestmark = pytest.mark.slow


METHODS = ("fork", "spawn", "forkserver")


def sleep() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


def start_all() -> list[int]:
    """Start processes in every way; return their ids. A program of its own session, too."""
    allow_children()
    started = [multiprocessing.get_context(m).Process(target=sleep) for m in METHODS]
    for process in started:
        process.start()
    programs = [
        subprocess.Popen(["sleep", "600"]),
        subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 600 & sleep 600"]),
    ]
    orphan = subprocess.run(
        ["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True
    )
    mine = [process.pid for process in (*started, *programs)] + [int(orphan.stdout)]
    return [pid for pid in mine if pid is not None]


def worker(pipe: Any, ends: bool) -> None:
    children = child_processes(True)
    assert children.end() == 0
    pids = start_all()
    if ends:
        began = time.monotonic()
        n = children.end()
        pipe.send((pids, n, time.monotonic() - began, children.end()))
        assert multiprocessing.active_children() == []
        again = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(0,))
        again.start()
        again.join()
        assert again.exitcode == 0
        pipe.recv()
    else:
        pipe.send(pids)
        time.sleep(600)


@pytest.fixture
def started(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """A process as a nanny starts one, and a pipe to it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=worker, args=(there, request.param), daemon=True)
    process.start()
    yield process, here
    process.kill()
    process.join()


def are_gone(pids: list[int]) -> bool:
    return not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in pids
    )


@pytest.mark.parametrize("started", [True], indirect=True)
def test_at_the_end_of_a_trial_all_end(started: Any) -> None:
    process, pipe = started
    assert pipe.poll(60)
    pids, n, seconds, again = pipe.recv()
    assert n >= len(pids) == 6
    assert again == 0
    assert seconds < 4, "SIGTERM, a second, SIGKILL"
    assert are_gone(pids)
    pipe.send(None)
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.parametrize("started", [False], indirect=True)
def test_when_a_worker_is_killed_all_end(started: Any) -> None:
    process, pipe = started
    assert pipe.poll(60)
    pids = pipe.recv()
    assert not are_gone(pids)
    os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not are_gone(pids):
        assert time.monotonic() < deadline, [
            psutil.Process(p) for p in pids if psutil.pid_exists(p)
        ]
        time.sleep(0.05)


def test_the_children_of_a_process_that_is_not_ours_are_left_alone() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        assert child_processes(False).end() == 0
        assert child.poll() is None
        child.kill()


def test_memory_counts_children() -> None:
    code = "x = bytearray(200_000_000); print('ready', flush=True); input()"
    argv = [sys.executable, "-c", code]
    own = type(child_processes(False))(is_own=True)
    before = own.n_bytes()
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        n_bytes = own.n_bytes()
        child.kill()
    assert n_bytes - before > 190_000_000


def test_the_guardian_needs_nothing_but_python() -> None:
    from daskhpo.executors.dask import guardian

    ended = subprocess.Popen(["true"])
    ended.wait()
    argv = [sys.executable, "-S", "-E", "-I", guardian.__file__, str(ended.pid), "1", "m"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env={"HOME": "/"})
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(guardian.__file__).exists()


def test_a_worker_that_is_stopped_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    from daskhpo.executors.dask import guardian

    monkeypatch.setattr(guardian, "CHECK_PROCESS_SECONDS", 0.05)
    with subprocess.Popen(["sleep", "600"]) as child:
        start = guardian.start_of(child.pid)
        os.kill(child.pid, signal.SIGSTOP)
        guardian.wait_for(child.pid, start, patience=0.2)
        assert child.wait(30) == -signal.SIGKILL


def test_a_worker_that_goes_on_in_time_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    from daskhpo.executors.dask import guardian

    monkeypatch.setattr(guardian, "CHECK_PROCESS_SECONDS", 0.05)
    with subprocess.Popen(["sh", "-c", "kill -STOP $$; exit 3"]) as child:
        start = guardian.start_of(child.pid)
        wake = threading.Timer(0.3, os.kill, (child.pid, signal.SIGCONT))
        wake.start()
        guardian.wait_for(child.pid, start, patience=30)
        assert child.wait(30) == 3
