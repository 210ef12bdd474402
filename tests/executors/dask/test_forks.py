"""Processes that a worker forks, or gives classes of the user's script to."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import threading
import time
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest

from daskhpo.executors.dask.forks import start_processes_as_scripts_do

pytestmark = pytest.mark.slow

SCRIPT = """
class Data:
    def __init__(self, n):
        self.n = n

    def __call__(self):
        return square(self.n)

def square(n):
    return n * n
"""


def script() -> dict[str, Any]:
    """What a user's script defines, as it comes to a worker: by value."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(SCRIPT, names)
    return names


def pickled(obj: Any) -> bytes:
    buffer = io.BytesIO()
    ForkingPickler(buffer).dump(obj)
    return buffer.getvalue()


def in_a_worker(pipe: Any, method: str) -> None:
    """As in a worker of Dask: spawned, and SIGTERM wakes an event loop."""
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.set_wakeup_fd(wakes)
    assert multiprocessing.get_start_method() == "spawn"
    start_processes_as_scripts_do()
    default = multiprocessing.get_start_method()
    names = script()
    try:
        pickled(names["Data"](3))
        with multiprocessing.get_context(method).Pool(1) as pool:  # its end is a SIGTERM
            results = pool.map(names["square"], [3]), pool.apply(names["Data"](4))
    except Exception as error:
        results = error  # type: ignore[assignment]
    os.set_blocking(woken, False)
    try:
        heard = os.read(woken, 100)
    except BlockingIOError:
        heard = b""
    pipe.send((default, results, heard))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_works_on_what_a_script_defines_and_its_end_is_not_the_workers(method: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=in_a_worker, args=(there, method))
    process.start()
    try:
        assert here.poll(100)
        default, results, heard = here.recv()
    finally:
        process.kill()
        process.join()
    platform = multiprocessing.get_all_start_methods()[0]
    assert default == platform
    assert results == ([9], 16)
    assert heard == b"", "a child's SIGTERM woke the worker's event loop"


def test_what_has_a_name_is_pickled_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from daskhpo.executors.dask import forks

    monkeypatch.setattr(
        ForkingPickler, "reducer_override", forks._by_value_if_needed, raising=False
    )
    assert pickle.loads(pickled(threading.Thread)) is threading.Thread
    assert pickle.loads(pickled(time.sleep)) is time.sleep
    assert pickle.loads(pickled(lambda: 7))() == 7
    assert pickle.loads(pickled(script()["Data"]))(5)() == 25
