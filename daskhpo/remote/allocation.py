"""A Dask cluster in one Slurm job: scheduler in this process, workers as steps."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from daskhpo.atomic_files import write_private
from daskhpo.cluster.container import interpreter
from daskhpo.cluster.guard import guard_pages
from daskhpo.cluster.network import named_address, reachable_address
from daskhpo.cluster.security import credentials
from daskhpo.cluster.supply import SUPPLY, WorkerOutlook
from daskhpo.dashboard.server import announce
from daskhpo.remote.submission import JobDirectory, WorkerSteps

logger = logging.getLogger("daskhpo")

WORKER_PAGES = "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES"  # none: they would be open to all users
STEP_POLL_SECONDS = 1.0
RESTART_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)  # pauses before the restarts of each step
END_SECONDS = 20.0  # for a step to end before it is terminated


@contextlib.contextmanager
def allocation_cluster(
    steps: WorkerSteps, folder: JobDirectory, queue: str | None
) -> Iterator[Any]:
    """Yield a ``LocalCluster`` whose workers are steps of this process's job.

    Connections are encrypted. The scheduler's address and the credentials that workers need are in
    the study's directory, readable by its owner only.
    """
    from distributed import LocalCluster

    announce()
    security = credentials(folder.path / "tls", "the study's storage=")
    with LocalCluster(
        n_workers=0,
        host=_host(steps, queue),
        protocol="tls://",
        security=security,
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        guard_pages(cluster.scheduler)
        address = {"address": cluster.scheduler_address}
        write_private(folder.scheduler_file, json.dumps(address) + "\n")
        numbers = range(steps.nodes * steps.per_node)
        running = StepSupervisor([step_command(steps, folder, number) for number in numbers])
        cluster.scheduler.extensions[SUPPLY] = running
        try:
            yield cluster
        finally:
            running.stop_restarting()
            workers = list(cluster.scheduler.workers)
            cluster.sync(cluster.scheduler.retire_workers, workers, close_workers=True)
            running.close()
            folder.scheduler_file.unlink(missing_ok=True)


class StepSupervisor:
    """One process per step, such as ``srun``; failed ones restart after a pause.

    Parameters
    ----------
    commands : command line of each step.
    """

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self._commands = commands
        self._running = {number: _start(argv) for number, argv in enumerate(commands)}
        self._restarts: dict[int, float] = {}  # by step: the time of its next start
        self._n_failures = [0] * len(commands)
        self._last = ""  # how a step failed last
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="daskhpo-steps", daemon=True)
        self._thread.start()

    def outlook(self) -> WorkerOutlook:
        """Return why no worker is there; hopeless: no step runs or will, for they failed.

        Steps that have ended well have left before the job's end, as the study will.
        """
        has_given_up = any(n > len(RESTART_SECONDS) for n in self._n_failures)
        is_hopeless = has_given_up and not self._running and not self._restarts
        why = "every worker step of this job has ended" if is_hopeless else ""
        return WorkerOutlook("; ".join(filter(None, (why, self._last))), is_hopeless)

    def stop_restarting(self) -> None:
        """Stop restarting steps that end."""
        self._closed.set()
        self._thread.join()

    def close(self) -> None:
        """Wait for the steps to end, and terminate those that do not."""
        deadline = time.monotonic() + END_SECONDS
        for step in self._running.values():
            try:
                step.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                step.terminate()  # srun then kills the step's processes
                step.wait()

    def _watch(self) -> None:
        while not self._closed.wait(STEP_POLL_SECONDS):
            now = time.monotonic()
            for number, step in list(self._running.items()):
                if (code := step.poll()) is not None:
                    if code:
                        self._failed(number, code, now)
                    del self._running[number]
            for number in [number for number, at in self._restarts.items() if at <= now]:
                self._running[number] = _start(self._commands[number])
                del self._restarts[number]

    def _failed(self, number: int, code: int, now: float) -> None:
        self._last = f"worker step {number} failed with exit code {code}"
        n = self._n_failures[number]
        self._n_failures[number] += 1
        if n >= len(RESTART_SECONDS):
            logger.warning("%s, too often: it is given up", self._last)
            return
        logger.warning("%s: restarted in %g s", self._last, RESTART_SECONDS[n])
        self._restarts[number] = now + RESTART_SECONDS[n]


def step_command(steps: WorkerSteps, folder: JobDirectory, number: int) -> list[str]:
    """Return the command line of one step: ``srun`` and a Dask worker."""
    tls = folder.path / "tls"
    program = [sys.executable, "-m"]
    if steps.python is not None or steps.container is not None:
        own = interpreter(steps.python, steps.container, steps.gpus, [folder.path])
        program = own.argv("-m")
    share = f"--resources=GPU={steps.gpus / steps.processes:g}"
    return [
        "srun",
        "--exact",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={steps.cores}",
        f"--mem={steps.megabytes}M",
        *([f"--gres=gpu:{steps.gpus}"] if steps.gpus else []),
        "--export=ALL",
        f"--output={str(folder.path).replace('%', '%%')}/%j-worker-{number}.log",
        "--open-mode=append",
        *program,
        "distributed.cli.dask_worker",
        f"--scheduler-file={folder.scheduler_file}",
        f"--tls-ca-file={tls / 'certificate.pem'}",
        f"--tls-cert={tls / 'certificate.pem'}",
        f"--tls-key={tls / 'key.pem'}",
        f"--name=step-{number}",
        f"--nworkers={steps.processes}",
        f"--nthreads={max(1, steps.cores // steps.processes)}",
        f"--memory-limit={steps.megabytes // steps.processes}MiB",
        *([share] if steps.gpus else []),
        "--no-dashboard",
        "--dashboard-address=127.0.0.1:0",
        "--death-timeout=120",
    ]


def _start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {WORKER_PAGES: "[]"}
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=environment)


def _host(steps: WorkerSteps, queue: str | None) -> str:
    """Return an address of this machine that the workers can reach."""
    if steps.interface is not None:
        return named_address(steps.interface)
    return "127.0.0.1" if steps.nodes == 1 else reachable_address(queue)
