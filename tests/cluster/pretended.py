"""A pretended Slurm whose commands misbehave: what no real one can be made to do at will.

Its jobs are real processes. A thread starts them, ends them, and watches how many run.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster import pretended_commands as commands

COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "sinfo")
TICK_SECONDS = 0.1


class PretendedSlurm:
    """A Slurm in a folder; its commands are in ``bin``.

    Parameters
    ----------
    seed : of everything that happens at random.
    runs_jobs : False: jobs are only said to run.
    faults : probability of each fault, by the names in ``pretended_commands``, and of ``crashes``
        and ``preempted`` for each second of a job.

    Attributes
    ----------
    most_running : largest number of jobs of the user's clusters that ran at a time.
    """

    def __init__(
        self, folder: Path, seed: int = 0, *, runs_jobs: bool = False, **faults: float
    ) -> None:
        self.folder, self._runs_jobs = folder, runs_jobs
        self._dice = random.Random(seed)
        (folder / "jobs").mkdir(parents=True)
        (folder / "bin").mkdir()
        shutil.copy(commands.__file__, folder / "commands.py")
        for name in COMMANDS:
            path = folder / "bin" / name
            path.write_text(
                f'#!/bin/sh\nexec {sys.executable} -S -E {folder}/commands.py {name} "$@"\n'
            )
            path.chmod(0o755)
        (folder / "next").write_text("4710")
        self.misbehave(seed=seed, **faults)
        self.most_running, self.seconds = 0, 0.0
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._closed, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def path(self) -> str:
        """Value of ``PATH`` with which its commands are found first."""
        return f"{self.folder}/bin:{os.environ['PATH']}"

    def misbehave(self, **faults: float) -> None:
        """Set the probability of each fault; those that are not named do not happen."""
        self._faults = faults
        part = self.folder / "faults.part"
        part.write_text(json.dumps(faults))
        part.rename(self.folder / "faults.json")

    def add_foreign(self, number: int) -> None:
        """Add a job of the same user that belongs to nobody here."""
        commands.FOLDER = self.folder
        now = time.time()
        job = {"number": number, "name": "mine", "command": "x.sh", "script": "", "limit": 9e9}
        commands.write(job | {"submitted": now, "started": now, "state": "RUNNING", "foreign": 1})

    def end(self, number: int, state: str = "COMPLETED") -> None:
        """End a job."""
        with self._lock:
            self._end(next(job for job in self.jobs if job["number"] == number), state)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """Its own jobs, also those that have ended."""
        commands.FOLDER = self.folder
        return [job for job in commands.every_job() if not job.get("foreign")]

    @property
    def alive(self) -> list[int]:
        """Numbers of its own jobs that have not ended."""
        return [job["number"] for job in self.jobs if "ended" not in job]

    @property
    def cancelled(self) -> list[int]:
        """Numbers that ``scancel`` was called with."""
        path = self.folder / "cancelled"
        return [int(n) for n in path.read_text().split()] if path.exists() else []

    def wait_for(self, condition: Callable[[], Any], seconds: float = 30.0) -> Any:
        """Wait until a condition is true, and return its value."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {self.jobs}"
            time.sleep(0.02)
        return found

    def close(self) -> None:
        """End all jobs."""
        self._closed.set()
        self._thread.join()
        for child in self._children.values():
            _kill(child, signal.SIGKILL)

    def _run(self) -> None:
        while not self._closed.wait(TICK_SECONDS):
            running = 0
            with self._lock:
                for job in self.jobs:
                    if "ended" not in job:
                        self._look_after(job)
                        running += job["state"] == "RUNNING"
            self.most_running = max(self.most_running, running)
            self.seconds += running * TICK_SECONDS

    def _look_after(self, job: dict[str, Any]) -> None:
        number, now = job["number"], time.time()
        flag = self.folder / f"cancel.{number}"
        child = self._children.get(number)
        if flag.exists():
            self._end(job, "CANCELLED")
        elif job["state"] == "PENDING":
            if self._dice.random() < 0.3:
                self._start(job)
        elif job["state"] == "COMPLETING":
            if self._dice.random() < 0.2:
                commands.write(job | {"state": "PENDING"})
        elif child is not None and child.poll() is not None:
            self._end(job, "FAILED" if child.returncode else "COMPLETED")
        elif now - job["started"] > job["limit"]:
            self._end(job, "TIMEOUT")
        elif self._happens("crashes"):
            self._end(job, "NODE_FAIL")
        elif self._happens("preempted"):
            self._stop(number)
            if job["requeue"]:
                commands.write(job | {"state": "COMPLETING"})
            else:
                self._end(job, "PREEMPTED")

    def _happens(self, name: str) -> bool:
        return self._dice.random() < self._faults.get(name, 0.0) * TICK_SECONDS

    def _start(self, job: dict[str, Any]) -> None:
        number = job["number"]
        commands.FOLDER = self.folder
        commands.write(job | {"state": "RUNNING", "started": time.time()})
        if self._runs_jobs:
            script = self.folder / f"script.{number}"
            script.write_text(job["script"])
            log = (self.folder / f"log.{number}").open("ab")
            self._children[number] = subprocess.Popen(
                ["bash", str(script)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=job["environ"] | {"SLURM_JOB_ID": str(number), "PATH": self.path},
                start_new_session=True,
            )
            log.close()

    def _stop(self, number: int) -> None:
        if (child := self._children.pop(number, None)) is not None:
            _kill(child, signal.SIGKILL)

    def _end(self, job: dict[str, Any], state: str) -> None:
        self._stop(job["number"])
        commands.FOLDER = self.folder
        commands.write(job | {"state": state, "ended": time.time()})


def _kill(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
    child.wait()
