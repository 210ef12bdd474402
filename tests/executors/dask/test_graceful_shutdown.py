"""The end of a worker, step by step: a loop that is a list, a clock by hand, no worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from daskhpo.cluster.walltime import STEP_MARGIN
from daskhpo.executors.dask.shutdown import (
    CLOCK_CHECK_SECONDS,
    RESERVE_SECONDS,
    WRITE_TIMES,
    GracefulShutdown,
)


class OneLease:
    def __init__(self, write_seconds: float = 0.0) -> None:
        self.n_told = 0
        self.seconds = write_seconds

    def on_shutdown(self) -> None:
        self.n_told += 1

    def write_seconds(self) -> float:
        return self.seconds


class Worker:
    """An event loop that runs when the test says so, and a clock."""

    def __init__(self, left: float | None = None) -> None:
        self.left = left
        self.soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.retired: list[str] = []
        self.restarts: list[bool] = []
        self.shutdown = GracefulShutdown(
            lambda call, *args: self.soon.append((call, args)),
            self.retire,
            lambda: self.left,
        )

    def retire(self, reason: str, restart: bool) -> None:
        self.retired.append(reason)
        self.restarts.append(restart)

    def run_loop(self) -> None:
        while self.soon:
            call, args = self.soon.pop(0)
            call(*args)


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_leases_are_told_and_the_worker_retires_after_the_last(worker: Worker) -> None:
    first, second = OneLease(), OneLease()
    worker.shutdown.register(first)
    worker.shutdown.register(second)
    worker.run_loop()
    worker.shutdown.start("its Slurm job ends")
    assert worker.shutdown.started
    worker.run_loop()
    assert (first.n_told, second.n_told) == (1, 1)
    worker.shutdown.unregister(first)
    worker.run_loop()
    assert worker.retired == []
    worker.shutdown.unregister(second)
    worker.run_loop()
    assert worker.retired == ["its Slurm job ends"]


def test_an_idle_worker_retires_at_once_and_only_once(worker: Worker) -> None:
    worker.shutdown.start("its Slurm job ends")
    worker.shutdown.start("SIGTERM")
    worker.run_loop()
    worker.shutdown.unregister(OneLease())
    worker.run_loop()
    assert worker.retired == ["its Slurm job ends"]


def test_a_lease_that_begins_too_late_is_told_at_once(worker: Worker) -> None:
    early, late = OneLease(), OneLease()
    worker.shutdown.register(early)
    worker.shutdown.start("its Slurm job ends")
    worker.run_loop()
    worker.shutdown.register(late)
    worker.run_loop()
    assert late.n_told == 1


def test_sigterm_is_remembered(worker: Worker) -> None:
    assert not worker.shutdown.signalled
    worker.shutdown.on_sigterm()
    worker.run_loop()
    assert worker.shutdown.signalled
    assert worker.retired == ["SIGTERM"]


def test_without_a_known_end_everything_fits_and_no_clock_is_watched(worker: Worker) -> None:
    assert worker.shutdown.fits(1e9)
    assert worker.shutdown.seconds_left() is None
    assert worker.shutdown.check_clock() is None
    assert not worker.shutdown.started


def test_training_fits_if_a_margin_and_the_reserve_are_left() -> None:
    worker = Worker(left=RESERVE_SECONDS + 10 * STEP_MARGIN + 0.1)
    assert worker.shutdown.fits(10.0)
    worker.left -= 0.2
    assert not worker.shutdown.fits(10.0)
    assert worker.shutdown.fits(9.0)


def test_nothing_fits_once_it_has_started() -> None:
    worker = Worker(left=3600.0)
    worker.shutdown.start("SIGTERM")
    assert not worker.shutdown.fits(0.0)
    assert worker.shutdown.seconds_left() == 0.0


def test_the_clock_is_looked_at_until_the_reserve_is_all_that_is_left() -> None:
    worker = Worker(left=RESERVE_SECONDS + 100.0)
    assert worker.shutdown.check_clock() == CLOCK_CHECK_SECONDS
    worker.left = RESERVE_SECONDS + 1.5
    assert worker.shutdown.check_clock() == pytest.approx(1.5)
    worker.left = RESERVE_SECONDS
    assert worker.shutdown.check_clock() is None
    assert worker.shutdown.started


def test_time_for_the_writes_of_all_leases_is_reserved() -> None:
    worker = Worker(left=RESERVE_SECONDS + 20.0)
    for _ in range(2):
        worker.shutdown.register(OneLease(write_seconds=4.0))
    worker.run_loop()
    assert WRITE_TIMES * 8.0 > 20.0
    assert worker.shutdown.check_clock() is None
    assert worker.shutdown.started


def test_a_worker_whose_code_hangs_gets_a_new_process(worker: Worker) -> None:
    worker.shutdown.start("its code does not return", restart=True)
    worker.shutdown.start("its Slurm job ends")
    worker.run_loop()
    assert worker.retired == ["its code does not return"]
    assert worker.restarts == [True]
