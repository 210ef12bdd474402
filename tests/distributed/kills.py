"""Kill ranks of DDP trials, and their worker, at random moments.

``python -m tests.distributed.kills --trials 50`` does it by hand: every trial is hit once.
"""

from __future__ import annotations

import argparse
import random
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import psutil

from daskhpo import Result, Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real
from tests.distributed import ddp, exchange

MAX_T = 6
GONE_SECONDS = 5.0  # in which no other rank of the launch may be left


def ranks_of(process: psutil.Process) -> set[psutil.Process]:
    """All living ranks below a process."""
    found = set()
    for child in process.children(recursive=True):
        try:
            if any("daskhpo.distributed.rank" in word for word in child.cmdline()):
                found.add(child)
        except psutil.Error:  # it has just ended
            continue
    return found


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class Killer:
    """Hits each launch of ranks that comes after an undisturbed one."""

    seed: int
    window: float  # seconds after the start of the ranks, in which they are killed
    worker_share: float = 0.0
    hits: list[str] = field(default_factory=list)
    n_late: int = 0
    slowest: float = 0.0
    left: list[int] = field(default_factory=list)
    seen: set[psutil.Process] = field(default_factory=set)
    spares_next: bool = False
    is_over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        numbers, me = random.Random(self.seed), psutil.Process()
        while not self.is_over.is_set():
            launched = ranks_of(me) - self.seen
            if len(launched) < 2:
                self.is_over.wait(0.02)
                continue
            self.seen |= launched
            spares, self.spares_next = self.spares_next, not self.spares_next
            if spares:  # the second attempt of a trial
                continue
            delay = numbers.uniform(0.0, self.window)
            victim = numbers.choice(sorted(launched, key=lambda rank: rank.pid))
            name, kind = "rank", numbers.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
            if numbers.random() < self.worker_share:
                victim, name, kind = victim.parent(), "worker", signal.SIGKILL
            self.is_over.wait(delay)
            try:
                victim.send_signal(kind)
            except psutil.NoSuchProcess:
                self.n_late += 1
                self.spares_next = False  # its trial has ended
                continue
            at = time.monotonic()
            while any(map(is_alive, launched)) and time.monotonic() - at < GONE_SECONDS:
                time.sleep(0.01)
            seconds = time.monotonic() - at
            self.slowest = max(self.slowest, seconds)
            self.left += [rank.pid for rank in launched if is_alive(rank)]
            self.hits.append(f"{delay:.2f} s: {kind.name} to the {name}, gone in {seconds:.2f} s")


class Alone:
    """A trial in this process, to compare with."""

    def __init__(self, config: dict[str, Any], seed: int, max_t: int = MAX_T) -> None:
        self.config, self.seed, self.checkpoint = config, seed, None
        self.resource, self.max_t = 0, max_t
        self.losses: list[float] = []

    def report(self, metrics: Any, state: Any = None) -> None:
        self.losses.append(float(metrics["loss"]))


def run(
    code: ModuleType, folder: str, client: Any, trials: int, batches: int, killer: Killer
) -> Result:
    """Run a study of trials in ranks, of which each is hit once."""
    study = (
        Study(  # with larger rates it is chaotic: rounding grows, and other ranks round otherwise
            code.in_ranks,
            space={"lr": Real(0.003, 0.03), "batches": batches, "ranks": 2},
            metric="loss",
            scheduler=FIFO(MAX_T),
            storage=folder,
            name="kills",
        )
    )
    thread = threading.Thread(target=killer.run, name="killer")
    thread.start()
    try:
        return study.run(
            num_trials=trials,
            client=client,
            max_concurrent=1,
            max_failures=5,
            checkpoint="every:1",
            progress=False,
        )
    finally:
        killer.is_over.set()
        thread.join()


def check(code: ModuleType, result: Result, killer: Killer) -> None:
    """Check that no unit, no process and no state was lost."""
    from daskhpo.core.random import trial_seed

    assert not killer.left, f"{GONE_SECONDS} s after a kill these were alive: {killer.left}"
    assert not [process.pid for process in killer.seen if is_alive(process)]
    history = result.history()
    for row in result.trials().itertuples():
        own = history[history["trial"] == row.trial].sort_values("resource")
        assert row.status == "completed", row
        assert list(own["resource"]) == list(range(1, MAX_T + 1)), own
        alone = Alone(dict(result.trial(row.trial).config), trial_seed(0, row.trial))
        code.train(alone.config, alone)
        for found, expected in zip(own["loss"], alone.losses, strict=True):
            assert abs(found - expected) <= 1e-6 * expected, (row.trial, found, expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batches", type=int, default=150, help="of a unit of training")
    parser.add_argument("--window", type=float, default=7.0, help="seconds after a start")
    parser.add_argument("--without-torch", action="store_true", help="quicker, without DDP")
    parser.add_argument("--worker-share", type=float, default=0.2)
    args = parser.parse_args()
    import dask
    from distributed import LocalCluster

    # A cluster gives up a worker that is away so long after it was lost, though it has come back
    # and was killed again.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"})
    code = exchange if args.without_torch else ddp
    killer = Killer(args.seed, args.window, args.worker_share)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
    ):
        result = run(code, folder, cluster, args.trials, args.batches, killer)
        check(code, result, killer)
    for hit in killer.hits:
        print(hit)
    print(
        f"{len(killer.hits)} moments ({killer.n_late} more came too late) in "
        f"{time.monotonic() - began:.0f} s; the slowest end of other ranks took "
        f"{killer.slowest:.2f} s; no unit lost, no process left, all losses equal"
    )


if __name__ == "__main__":
    main()
