"""Records of the machine during a study, to detect disturbed runs.

Each session writes one line of JSON at its start and one at its end, to ``machine.jsonl`` next to
the study's journal.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

FILE = "machine.jsonl"
PACKAGES = ("daskhpo", "distributed", "torch", "numpy", "scipy")
LEAST_SHARE = 0.9  # smallest CPU time of an undisturbed study, as a share of its slot time
MOST_SLOWDOWN = 1.15  # largest time of a fixed piece of work, relative to the fastest study


def reading() -> dict[str, Any]:
    """Measure host, load, speed and CPU seconds of a worker process; runs there."""
    return {
        "host": socket.gethostname(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        "probe": min(probe() for _ in range(3)),
        "cpu": time.process_time(),
    }


def probe() -> float:
    """Measure the CPU seconds of a fixed piece of work in this process."""
    import numpy as np

    block = np.linspace(0.0, 1.0, 40_000)
    began = time.process_time()
    for _ in range(60):
        block = np.exp(-block) * 0.5
    return time.process_time() - began


def about() -> dict[str, Any]:
    """Return a description of this machine, and versions of Python and packages."""
    return {
        "machine": f"{processor()}, {os.cpu_count()} CPUs, {platform.system()}",
        "versions": {"Python": platform.python_version()} | {n: version(n) for n in PACKAGES},
    }


def processor() -> str:
    """Return the processor's name, or its architecture if the system gives no name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@contextmanager
def watched(client: Any, path: Path) -> Iterator[None]:
    """Record what the workers consume within the context, in a study's directory."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = time.process_time()
    workers = client.run(reading)
    _append(path / FILE, {"begins": time.time(), "workers": workers, **about()})
    yield
    workers = client.run(reading)
    own = time.process_time() - own
    _append(path / FILE, {"ends": time.time(), "workers": workers, "own": own})


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class Record:
    """Records of the machine during a study.

    Attributes
    ----------
    sessions : number of sessions.
    whole : True if no session was killed.
    worker_cpu, own_cpu : CPU seconds of the worker processes; of the study's process.
    probe : CPU seconds of a fixed piece of work, mean of all measurements.
    load : 1-minute load average at the end, mean over the hosts.
    about : machine and versions in the last session.
    began : start time (seconds since the epoch).
    """

    sessions: int
    whole: bool
    worker_cpu: float
    own_cpu: float
    probe: float
    load: float
    about: dict[str, Any]
    began: float

    def troubles(self, slot_seconds: float, fastest_probe: float, on_cpu: bool) -> list[str]:
        """Return the reasons why the study's times are unreliable; empty: none is known.

        A session that was stopped properly preempted its trials, and does not count.

        Parameters
        ----------
        slot_seconds : time that its trials held slots.
        fastest_probe : smallest CPU seconds of the fixed piece of work over all studies.
        on_cpu : True if trials compute on CPUs. If worker processes and the study's process then
            used less than 90 % of ``slot_seconds``, other programs had the CPUs.
        """
        found = []
        if not self.whole:
            found.append(f"a session of {self.sessions} was killed")
        share = (self.worker_cpu + self.own_cpu) / slot_seconds if slot_seconds else 1.0
        if on_cpu and self.whole and share < LEAST_SHARE:
            found.append(f"CPU {share:.0%} of slot time")
        if self.probe > MOST_SLOWDOWN * fastest_probe:
            found.append(f"{self.probe / fastest_probe:.1f} times slower")
        return found


def read(path: Path) -> Record | None:
    """Read the records of a study; None: there are none."""
    file = path / FILE
    if not file.exists():
        return None
    text = file.read_text()
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    begins = [line for line in lines if "begins" in line]
    if not begins:
        return None
    ends = [line for line in lines if "ends" in line]
    cpu, opened = 0.0, None
    for line in lines:
        if "begins" in line:
            opened = line["workers"]
        elif opened is not None:  # the CPU time of a worker that was restarted began at 0
            for address, end in line["workers"].items():
                cpu += end["cpu"] - opened.get(address, {"cpu": 0.0})["cpu"]
    readings = [reading for line in lines for reading in line["workers"].values()]
    last = {r["host"]: r["load"] for r in lines[-1]["workers"].values()}
    return Record(
        sessions=len(begins),
        whole=len(begins) == len(ends),
        worker_cpu=cpu,
        own_cpu=sum(line["own"] for line in ends),
        probe=sum(r["probe"] for r in readings) / max(1, len(readings)),
        load=sum(last.values()) / max(1, len(last)),
        about={name: begins[-1][name] for name in ("machine", "versions")},
        began=begins[0]["begins"],
    )
