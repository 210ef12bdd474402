"""One session of a study that the chaos runner disturbs; run as a program."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from daskhpo import Study
from daskhpo.core.scheduler import Scheduler
from daskhpo.schedulers import ASHA, FIFO, MedianStopping
from daskhpo.space import Real

N_TRIALS, MAX_T = 4, 4
UNIT_SECONDS = 0.05


def loss_of(config: dict[str, Any], unit: int) -> float:
    """What every report must say, however often its trial has moved."""
    return float(config["x"]) + 1 / unit


def scheduler_of(name: str) -> Scheduler:
    match name:
        case "asha":
            return ASHA(MAX_T, grace_period=1, reduction_factor=2)
        case "promotion":
            return ASHA(MAX_T, grace_period=1, reduction_factor=2, variant="promotion")
    # It decides on each report, so each one that a trial has been told of must be recorded.
    return MedianStopping(FIFO(MAX_T), interval=1, min_samples=10**9)


def train(config: dict[str, Any], trial: Any) -> None:
    total = trial.checkpoint or 0
    for unit in range(trial.resource + 1, trial.max_t + 1):
        time.sleep(UNIT_SECONDS)
        total += unit
        trial.report({"loss": loss_of(config, unit)}, state=lambda total=total: total)
        if told := os.environ.get("CHAOS_TOLD"):
            line = f"{trial.id} {unit}\n".encode()
            handle = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, line)
            os.close(handle)


def study_of(folder: Path, scheduler: str) -> Study:
    return Study(
        train,
        {"x": Real(0, 1)},
        "loss",
        scheduler=scheduler_of(scheduler),
        storage=folder,
        name="s",
    )


class TroubledOs:
    """The module ``os`` of the journal: its disk is slow, fails or is full for a while."""

    def __init__(self, kind: str, began: float) -> None:
        self._kind, self._began = kind, began

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, handle: int, data: bytes) -> int:
        is_bad = 0.5 < time.monotonic() - self._began < 2.0
        if self._kind == "slow disk":
            time.sleep(0.05)
        elif is_bad and self._kind == "failing disk":
            raise OSError(errno.EIO, "the disk fails")
        elif is_bad and self._kind == "full disk":
            if len(data) > 1:
                os.write(handle, data[: len(data) // 2])  # a torn line
            raise OSError(errno.ENOSPC, "no space left")
        return os.write(handle, data)


def trouble(kind: str) -> None:
    """Let this process have a bad disk, or a clock that jumps."""
    began = time.monotonic()
    if kind == "clock jump":
        true = time.time
        time.time = lambda: true() + (3600 if (time.monotonic() - began) % 2 < 1 else -3600)
    elif kind:
        import daskhpo.engine.journal

        daskhpo.engine.journal.os = TroubledOs(kind, began)  # type: ignore[attr-defined]


def main(task: dict[str, Any]) -> None:
    trouble(task["trouble"])
    client = None
    if task["scheduler_file"]:
        from distributed import Client

        client = Client(scheduler_file=task["scheduler_file"], set_as_default=False)
    study = study_of(Path(task["folder"]), task["scheduler"])
    study.run(
        num_trials=N_TRIALS,
        if_exists="resume",
        client=client,
        progress=False,
        max_concurrent=2,
        checkpoint=task["checkpoint"],
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
