"""Kill workers, and the processes of their DataLoaders, at random moments; none may be left.

``python -m tests.executors.dask.loader_kills --place embedded --form class --kills 50`` does it by
hand. Places: ``embedded``, ``local`` (a user's ``LocalCluster``), ``elsewhere`` (a scheduler and
workers in processes of their own).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from daskhpo import Study, Trainable
from daskhpo.executors.dask.handle import StudyHandle
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

GONE_SECONDS = 15.0  # in which the processes of a trial have to end
WAIT_SECONDS = 120.0  # for a loader to start
N_LOADERS = 2


def sign_in(folder: str, kind: str) -> None:
    """Leave this process's number and its parent's in a folder."""
    path = Path(folder, f"{kind}-{os.getpid()}-{os.getppid()}")
    if not path.exists():
        path.touch()


class Numbers:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return 32

    def __getitem__(self, number: int) -> Any:
        import torch

        sign_in(self.folder, "loader")
        time.sleep(0.005)
        return torch.tensor([float(number)])


def loader(folder: str) -> Any:
    import torch

    return torch.utils.data.DataLoader(Numbers(folder), batch_size=4, num_workers=N_LOADERS)  # type: ignore[arg-type]


def one_unit(folder: str) -> float:
    sign_in(folder, "worker")
    return float(sum(batch.sum() for batch in loader(folder)))


class LoaderTrainable(Trainable):
    def setup(self, config: Any) -> None:
        self.folder = config["folder"]

    def step(self) -> float:
        return one_unit(self.folder)

    def save_checkpoint(self) -> Any:
        return {}

    def load_checkpoint(self, state: Any) -> None: ...


def function(config: Any, trial: Any) -> None:
    for _ in range(trial.resource, trial.max_t):
        trial.report({"loss": one_unit(config["folder"])}, state=dict)


FORMS = {"class": LoaderTrainable, "function": function}


def signed_in(folder: Path) -> dict[int, int]:
    """Processes of loaders that live, and their parents."""
    found = {}
    for path in folder.glob("loader-*"):
        _, pid, parent = path.name.split("-")
        if is_alive(int(pid)):
            found[int(pid)] = int(parent)
    return found


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@dataclass
class Campaign:
    """Kills at random moments, and what came of them."""

    folder: Path
    numbers: random.Random
    hits: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def hit(self, window: float, handle: StudyHandle) -> bool:
        """Kill one process; return False if the study is over."""
        until = time.monotonic() + WAIT_SECONDS
        while not signed_in(self.folder):
            if handle._remote.is_finished(0.0):
                return False
            assert time.monotonic() < until, "no loader has started"
            time.sleep(0.01)
        time.sleep(self.numbers.uniform(0.0, window))  # the moment
        if not (living := signed_in(self.folder)):
            return True
        loader, worker = self.numbers.choice(sorted(living.items()))
        victim = self.numbers.choice([loader, worker])
        kind = self.numbers.choice([signal.SIGKILL, signal.SIGSEGV])
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, kind)
            at = time.monotonic()
            family = [pid for pid, parent in living.items() if parent == worker]
            while any(map(is_alive, family)):
                assert time.monotonic() - at < GONE_SECONDS, f"left of {worker}: {family}"
                time.sleep(0.01)
            seconds = time.monotonic() - at
            self.slowest = max(self.slowest, seconds)
            name = "worker" if victim == worker else "loader"
            self.hits.append(f"{kind.name} to the {name}, all gone in {seconds:.2f} s")
            print(f"{len(self.hits)}: {self.hits[-1]}", flush=True)
        return True


def run(client: Any, form: str, kills: int, seed: int, window: float, **options: Any) -> Campaign:
    """Run studies, and kill, until there were so many kills; check that nothing is left."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "processes")
        folder.mkdir()
        campaign, number = Campaign(folder, random.Random(seed)), 0
        while len(campaign.hits) < kills:
            number += 1
            study = Study(
                FORMS[form],
                {"x": Real(0, 1), "folder": str(folder)},
                "loss",
                scheduler=FIFO(10_000),
                storage=place,
                name=f"s{number}",
            )
            handle = study.start(
                num_trials=1000,
                client=client,
                max_concurrent=2,
                max_failures=1000,
                max_failed_trials=0,
                checkpoint="every:1",
                progress=False,
                **options,
            )
            try:
                while len(campaign.hits) < kills and campaign.hit(window, handle):
                    pass
            finally:
                handle.stop()
                with contextlib.suppress(Exception):  # too many of its workers were killed
                    handle.wait()
        until = time.monotonic() + GONE_SECONDS
        while left := signed_in(folder):
            assert time.monotonic() < until, f"left at the end: {left}"
            time.sleep(0.01)
        return campaign


@contextlib.contextmanager
def elsewhere(folder: Path) -> Iterator[Any]:
    """A client of a scheduler with two workers, all in processes of their own."""
    file = folder / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    start += ["--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    work = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1"]
    work += ["--scheduler-file", str(file), "--no-dashboard"]
    programs = (start, work, work)
    processes = [subprocess.Popen(argv, env=environment, cwd=folder) for argv in programs]
    try:
        from distributed import Client

        while not file.exists():
            time.sleep(0.05)
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            yield client
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(30)


@contextlib.contextmanager
def cluster_of(place: str) -> Iterator[Any]:
    """What a study runs on: None is the embedded cluster."""
    match place:
        case "embedded":
            yield None
        case "local":
            from distributed import LocalCluster

            with LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
            ) as cluster:
                yield cluster
        case "elsewhere":
            with tempfile.TemporaryDirectory() as folder, elsewhere(Path(folder)) as client:
                yield client


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", choices=("embedded", "local", "elsewhere"), default="embedded")
    parser.add_argument("--form", choices=FORMS, default="function")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--window", type=float, default=1.0, help="seconds after a loader's start")
    args = parser.parse_args()
    import dask

    dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"})
    began = time.monotonic()
    with cluster_of(args.place) as client:
        campaign = run(client, args.form, args.kills, args.seed, args.window)
    workers = sum("worker" in hit for hit in campaign.hits)
    print(
        f"{args.place}, {args.form}: {len(campaign.hits)} kills ({workers} of workers) in "
        f"{time.monotonic() - began:.0f} s; the slowest end of the others took "
        f"{campaign.slowest:.2f} s; no process left"
    )


if __name__ == "__main__":
    # the functions go to workers by name
    from tests.executors.dask import loader_kills

    loader_kills.main()
