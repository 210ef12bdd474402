"""What the machine gave to a study: so that a run on a disturbed one is recognised.

One line of JSON at the beginning and one at the end of each session, in ``machine.jsonl`` beside
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
LEAST_SHARE = 0.9  # of the time that trials held their slots, which the processes must have run
MOST_SLOWDOWN = 1.15  # of a fixed piece of work, against the fastest of all studies


def reading() -> dict[str, Any]:
    """What a worker process says of itself; runs there."""
    return {
        "host": socket.gethostname(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        "probe": min(probe() for _ in range(3)),
        "cpu": time.process_time(),
    }


def probe() -> float:
    """CPU seconds that a fixed piece of work takes in this process, now."""
    import numpy as np

    block = np.linspace(0.0, 1.0, 40_000)
    began = time.process_time()
    for _ in range(60):
        block = np.exp(-block) * 0.5
    return time.process_time() - began


def about() -> dict[str, Any]:
    """This machine, and the versions of what runs."""
    return {
        "machine": f"{processor()}, {os.cpu_count()} CPUs, {platform.system()}",
        "versions": {"Python": platform.python_version()} | {n: version(n) for n in PACKAGES},
    }


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


@contextmanager
def watched(client: Any, path: Path) -> Iterator[None]:
    """Write down what the workers consume while this is open, in a study's directory."""
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
    """What the machine gave to a study.

    Attributes
    ----------
    sessions : how often it was begun or gone on with.
    whole : every session came to its end: none was killed.
    worker_cpu, own_cpu : seconds that the worker processes, and the study's own one, computed.
    probe : CPU seconds of a fixed piece of work, the mean of all readings.
    load : load average over a minute at the end, the mean of the hosts.
    about : the machine and the versions, as the last session said.
    began : when (seconds of the epoch).
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
        """Why the study's times are not to be trusted; empty: nothing is known against them.

        A session that was stopped in order handed its trials over, and is nothing against them.

        Parameters
        ----------
        slot_seconds : for which its trials held slots.
        on_cpu : trials compute on CPUs. Then worker processes that ran for less than nine tenths
            of it, together with the study's own process, had to wait for others.
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
    """What was written down of a study, or None."""
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
        elif opened is not None:  # a worker that was restarted meanwhile has begun from nothing
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
