"""A Dask cluster in one Slurm job: scheduler in this process, workers as steps."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from daskhpo.atomic_files import write_private
from daskhpo.cluster.network import named_address, reachable_address
from daskhpo.cluster.security import credentials
from daskhpo.remote.submission import JobDirectory, WorkerSteps

logger = logging.getLogger("daskhpo")

STEP_POLL_SECONDS = 1.0
MAX_RESTARTS = 5  # of each step
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

    security = credentials(folder.path / "tls")
    with LocalCluster(
        n_workers=0,
        host=_host(steps, queue),
        protocol="tls://",
        security=security,
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        address = {"address": cluster.scheduler_address}
        write_private(folder.scheduler_file, json.dumps(address) + "\n")
        numbers = range(steps.nodes * steps.per_node)
        running = StepSupervisor([step_command(steps, folder, number) for number in numbers])
        try:
            yield cluster
        finally:
            running.stop_restarting()
            workers = list(cluster.scheduler.workers)
            cluster.sync(cluster.scheduler.retire_workers, workers, close_workers=True)
            running.close()
            folder.scheduler_file.unlink(missing_ok=True)


class StepSupervisor:
    """One process per step, such as ``srun``; steps that fail are restarted.

    Parameters
    ----------
    commands : command line of each step.
    """

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self._commands = commands
        self._running = {number: _start(argv) for number, argv in enumerate(commands)}
        self._restarts_left = [MAX_RESTARTS] * len(commands)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="daskhpo-steps", daemon=True)
        self._thread.start()

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
            for number, step in list(self._running.items()):
                if not step.poll():
                    continue  # running, or ended without error
                if not self._restarts_left[number]:
                    logger.warning("worker step %s failed too often: not restarted", number)
                    del self._running[number]
                    continue
                self._restarts_left[number] -= 1
                logger.warning(
                    "worker step %s failed with exit code %s: restarted", number, step.returncode
                )
                self._running[number] = _start(self._commands[number])


def step_command(steps: WorkerSteps, folder: JobDirectory, number: int) -> list[str]:
    """Return the command line of one step: ``srun`` and a Dask worker."""
    tls = folder.path / "tls"
    share = f"--resources=GPU={1 / steps.processes:g}"
    return [
        "srun",
        "--exact",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={steps.cores}",
        f"--mem={steps.megabytes}M",
        *(["--gres=gpu:1"] if steps.gpus else []),
        "--export=ALL",
        f"--output={str(folder.path).replace('%', '%%')}/%j-worker-{number}.log",
        "--open-mode=append",
        sys.executable,
        "-m",
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
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL)


def _host(steps: WorkerSteps, queue: str | None) -> str:
    """Return an address of this machine that the workers can reach."""
    if steps.interface is not None:
        return named_address(steps.interface)
    return "127.0.0.1" if steps.nodes == 1 else reachable_address(queue)
