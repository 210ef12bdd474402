"""The lock: one process at a time, and a dead one is no hindrance."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from daskhpo.core.errors import StudyLocked
from daskhpo.engine import lock as lock_module
from daskhpo.engine.lock import SILENT_SECONDS, STALE_SECONDS, StudyLock, holder_of


def holding(directory, then="sys.stdin.read()", **options):
    """A process that takes the lock, says so, and does something then."""
    code = f"""
        import os, sys, time
        from pathlib import Path
        from daskhpo.core.errors import StudyLocked
        from daskhpo.engine.lock import StudyLock
        directory = Path({str(directory)!r})
        print("ready", flush=True)
        if sys.stdin.readline():
            try:
                lock = StudyLock(directory)
                print("held", flush=True)
                {then}
            except StudyLocked:
                print("refused", flush=True)
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def go(process):
    """Let a process try for the lock; what it says."""
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def write_lock(directory, age=0.0, **holder):
    """A lock file as some other process would have left it."""
    path = directory / "lock.json"
    holder = {"token": "other", "host": "elsewhere", "pid": 7, "since": "then"} | holder
    path.write_text(json.dumps(holder))
    os.utime(path, (time.time() - age, time.time() - age))


def files(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_lock_is_held_and_given_back(tmp_path):
    lock = StudyLock(tmp_path)
    assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    lock.release()
    assert files(tmp_path) == []
    StudyLock(tmp_path).release()


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path):
    with holding(tmp_path) as holder:
        assert go(holder) == "held"
        with pytest.raises(StudyLocked, match=f"process {holder.pid} on {socket.gethostname()}"):
            StudyLock(tmp_path)
        assert files(tmp_path) == ["lock.json"]
        holder.stdin.close()


def test_the_same_process_is_refused_too(tmp_path):
    lock = StudyLock(tmp_path)
    with pytest.raises(StudyLocked, match=f"process {os.getpid()}"):
        StudyLock(tmp_path)
    lock.release()


def test_a_killed_holder_is_succeeded_at_once(tmp_path):
    with holding(tmp_path) as holder:
        assert go(holder) == "held"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        lock = StudyLock(tmp_path)
    assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    lock.release()
    assert files(tmp_path) == []


def test_a_killed_holder_nobody_has_waited_for_is_succeeded(tmp_path):
    with holding(tmp_path) as holder:
        assert go(holder) == "held"
        holder.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # a zombie from now on
        StudyLock(tmp_path).release()


def own_lock(directory):
    """What this process writes into a lock."""
    lock = StudyLock(directory)
    holder = json.loads(lock.path.read_text())
    lock.release()
    return holder


def test_another_process_with_the_same_number_is_not_the_holder(tmp_path):
    write_lock(tmp_path, **own_lock(tmp_path) | {"process_started": "1"})
    StudyLock(tmp_path).release()


@pytest.mark.parametrize(
    "other",
    [
        {"machine": None},
        {"machine": "9f1d-0000 pid:[4026531836]"},  # a clone, or this one before it was booted
        {"host": "elsewhere"},
    ],
)
def test_a_process_that_may_run_on_another_machine_is_not_looked_for_here(tmp_path, other):
    holder = own_lock(tmp_path) | {"pid": 2**22 + 1} | other  # no such process here
    write_lock(tmp_path, **holder)
    with pytest.raises(StudyLocked, match="is in use by process"):
        StudyLock(tmp_path)
    write_lock(tmp_path, age=STALE_SECONDS + 1, **holder)
    StudyLock(tmp_path).release()


def test_a_lock_of_the_former_version_expires_by_its_heartbeat(tmp_path):
    holder = own_lock(tmp_path) | {"pid": 2**22 + 1}
    del holder["machine"]
    write_lock(tmp_path, **holder)
    with pytest.raises(StudyLocked, match=f"process {2**22 + 1} on {socket.gethostname()}"):
        StudyLock(tmp_path)
    write_lock(tmp_path, age=STALE_SECONDS + 1, **holder)
    StudyLock(tmp_path).release()


def test_a_process_that_does_not_show_when_it_started_is_believed(tmp_path):
    write_lock(tmp_path, **own_lock(tmp_path) | {"process_started": lock_module.RUNNING})
    with pytest.raises(StudyLocked, match=f"process {os.getpid()}"):
        StudyLock(tmp_path)


def test_where_proc_shows_other_processes_no_process_is_looked_for(tmp_path, monkeypatch):
    holder = own_lock(tmp_path)
    real = os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: "1" if path == "/proc/self" else real(path))
    assert own_lock(tmp_path)["machine"] is None
    write_lock(tmp_path, **holder | {"pid": 2**22 + 1})
    with pytest.raises(StudyLocked):
        StudyLock(tmp_path)


def no_links(number):
    def link(source, target, **options):
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    return link


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK])
def test_a_lock_needs_no_hard_links(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "link", no_links(number))
    lock = StudyLock(tmp_path)
    with pytest.raises(StudyLocked, match=f"process {os.getpid()} on"):
        StudyLock(tmp_path)
    assert files(tmp_path) == ["lock.json"]
    lock.release()
    write_lock(tmp_path, **own_lock(tmp_path) | {"process_started": "1"})
    StudyLock(tmp_path).release()  # taken over from a process that has exited
    assert files(tmp_path) == []


def test_a_holder_on_another_host_is_believed_while_it_shows_signs_of_life(tmp_path):
    write_lock(tmp_path, age=STALE_SECONDS - 20)
    with pytest.raises(StudyLocked, match=r"process 7 on elsewhere since then \(last heartbeat 40"):
        StudyLock(tmp_path)
    assert files(tmp_path) == ["lock.json"]


def test_a_holder_on_another_host_without_a_sign_of_life_is_succeeded(tmp_path):
    write_lock(tmp_path, age=STALE_SECONDS + 1)
    StudyLock(tmp_path).release()
    assert files(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_a_damaged_lock_expires(tmp_path, text):
    path = tmp_path / "lock.json"
    path.write_text(text)
    with pytest.raises(StudyLocked, match="an unknown host"):
        StudyLock(tmp_path)
    os.utime(path, (0, 0))
    StudyLock(tmp_path).release()


def test_a_running_holder_shows_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.01)
    lock = StudyLock(tmp_path)
    os.utime(lock.path, (0, 0))
    for _ in range(500):
        if lock.path.stat().st_mtime > 0:
            break
        threading.Event().wait(0.01)
    assert lock.path.stat().st_mtime > 0
    lock.release()


def test_the_holder_notices_that_it_was_succeeded_and_leaves_the_new_lock_alone(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.01)
    noticed = threading.Event()
    first = StudyLock(tmp_path, noticed.set)
    write_lock(tmp_path)
    assert noticed.wait(10)
    first.release()
    assert json.loads(first.path.read_text())["token"] == "other"


@pytest.mark.slow
def test_of_many_processes_after_a_dead_holder_exactly_one_wins(tmp_path):
    n = 4
    for round_ in range(3):
        directory = tmp_path / str(round_)
        directory.mkdir()
        here = {"host": socket.gethostname(), "machine": lock_module._machine()}
        write_lock(directory, **here, pid=2**22 + 1)
        racers = [holding(directory, stderr=subprocess.DEVNULL) for _ in range(n)]
        try:
            for racer in racers:
                assert racer.stdout.readline() == "ready\n"
            for racer in racers:
                racer.stdin.write("go\n")
                racer.stdin.flush()
            said = [racer.stdout.readline().strip() for racer in racers]
            assert sorted(said) == ["held"] + ["refused"] * (n - 1)
            winner = racers[said.index("held")]
            assert json.loads((directory / "lock.json").read_text())["pid"] == winner.pid
            assert files(directory) == ["lock.json"]
        finally:
            for racer in racers:
                racer.communicate()


def test_who_looked_before_another_took_over_removes_nothing(tmp_path, monkeypatch):
    """Between the look at a dead holder and the act, another process does both."""
    write_lock(tmp_path, age=STALE_SECONDS + 1)
    create, others = StudyLock._create, []

    def late(self, path):
        if path.name.startswith("lock.after") and not others:
            others.append(None)  # only once: the other one goes this way, too
            others[0] = StudyLock(tmp_path)
        return create(self, path)

    monkeypatch.setattr(StudyLock, "_create", late)
    with pytest.raises(StudyLocked, match=f"process {os.getpid()}"):
        StudyLock(tmp_path)
    assert others[0].is_mine()
    others[0].release()
    assert files(tmp_path) == []


def test_who_died_while_taking_over_is_no_hindrance(tmp_path):
    claim = own_lock(tmp_path) | {"token": "dead", "pid": 2**22 + 1}
    write_lock(tmp_path, age=STALE_SECONDS + 1)
    (tmp_path / "lock.after.other").write_text(json.dumps(claim))
    StudyLock(tmp_path).release()
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("age", "job", "over"),
    [(SILENT_SECONDS - 5, "12.0", True), (SILENT_SECONDS + 5, "12.0", False)]
    + [(SILENT_SECONDS + 5, job, True) for job in (None, 12)],
    ids=["shows signs of life", "its job is not over", "has no job", "is damaged"],
)
def test_a_holder_is_believed_that(tmp_path, age, job, over):
    write_lock(tmp_path, age=age, job=job)
    with pytest.raises(StudyLocked):
        StudyLock(tmp_path, job_is_over=lambda job: over)
    assert holder_of(tmp_path, lambda job: over)["token"] == "other"


def test_a_silent_holder_whose_job_is_over_is_succeeded_before_it_expires(tmp_path):
    asked = []

    def is_over(job):
        asked.append(job)
        return True

    write_lock(tmp_path, age=SILENT_SECONDS + 1, job="12.0")
    assert holder_of(tmp_path, is_over) is None
    StudyLock(tmp_path, job_is_over=is_over).release()
    assert set(asked) == {"12.0"}
    assert files(tmp_path) == []


def test_a_lock_says_which_job_holds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    StudyLock(tmp_path)  # of a process that forgets it
    assert holder_of(tmp_path)["job"] == "12.0"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    write_lock(tmp_path, age=STALE_SECONDS + 1)
    lock = StudyLock(tmp_path)
    assert holder_of(tmp_path)["job"] == "12.1"
    lock.release()
