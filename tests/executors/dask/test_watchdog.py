"""Limits that a trial's code cannot be asked to keep."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from daskhpo.core.out_of_memory import MemoryKind
from daskhpo.core.tracebacks import headline
from daskhpo.executors.dask.children import ChildProcesses
from daskhpo.executors.dask.watchdog import Breach, Watchdog


class Using(ChildProcesses):
    """Processes that use so many bytes."""

    def __init__(self, n_bytes: int) -> None:
        super().__init__(is_own=True)
        self.used = n_bytes

    def n_bytes(self) -> int:
        return self.used


def test_nothing_is_limited_while_no_code_of_the_user_runs() -> None:
    watchdog = Watchdog(1.0, 10, Using(1000))
    assert watchdog.check(time.monotonic() + 100) is None


def test_the_time_without_a_report_is_limited() -> None:
    watchdog = Watchdog(10.0, None, Using(0))
    with watchdog.code_runs():
        assert watchdog.check(time.monotonic() + 9) is None
        found = watchdog.check(time.monotonic() + 11)
        assert found is not None
        error = found.error
        assert found.lacked is None
        assert headline(error) == "StepTimeout: 11 s without a report; step_timeout=10 s"
        assert "test_the_time_without_a_report_is_limited" in error, "the stack of this thread"
    assert watchdog.check(time.monotonic() + 11) is None


def test_each_report_starts_the_time_anew() -> None:
    watchdog = Watchdog(10.0, None, Using(0))
    watchdog.unit_ended()  # of nothing
    with watchdog.code_runs():
        watchdog._since = time.monotonic() - 9
        watchdog.unit_ended()
        assert watchdog.check(time.monotonic() + 9) is None


def test_the_stack_is_that_of_a_functions_own_thread() -> None:
    began, go_on = threading.Event(), threading.Event()

    def deep_inside() -> None:
        began.set()
        go_on.wait(30)

    thread = threading.Thread(target=deep_inside, name="trial-3")
    thread.start()
    began.wait(30)
    watchdog = Watchdog(1.0, None, Using(0))
    with watchdog.code_runs():
        found = watchdog.check(time.monotonic() + 2)
    go_on.set()
    thread.join()
    assert found is not None
    assert "deep_inside" in found.error


def test_memory_is_limited_and_tried_once() -> None:
    watchdog = Watchdog(None, 2_000_000_000, Using(2_500_000_000))
    with watchdog.code_runs():
        found = watchdog.check(time.monotonic())
    assert found == Breach(
        "MemoryLimit: the trial's processes use 2.50 GB; memory_limit=2.00 GB",
        MemoryKind.LIMIT,
    )


class Listener:
    def __init__(self) -> None:
        self.heard: list[Breach] = []
        self.was_told = threading.Event()

    def on_breach(self, breach: Breach) -> None:
        self.heard.append(breach)
        self.was_told.set()


@pytest.mark.parametrize("limits", [(0.05, None), (None, 10)])
def test_a_slot_is_told_once(limits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daskhpo.executors.dask.watchdog.CHECK_LIMITS_SECONDS", 0.01)
    listener = Listener()
    watchdog = Watchdog(*limits, Using(1000))
    with watchdog.watching(listener), watchdog.code_runs():
        assert listener.was_told.wait(30)
    assert len(listener.heard) == 1


def test_without_limits_there_is_no_thread() -> None:
    before = threading.active_count()
    with Watchdog(None, None, Using(0)).watching(Listener()):
        assert threading.active_count() == before
