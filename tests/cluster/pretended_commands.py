"""Slurm's commands on a folder of jobs, with the faults that its file ``faults.json`` names.

``sbatch``, ``squeue``, ``scontrol``, ``scancel`` and ``sinfo`` are links to a script that runs this
file. It needs only the standard library, and starts quickly.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
BANNERS = (
    b"   Welcome to the Cluster3 Supercomputer\n--> Checking allocation (AB-17)...OK\n",
    "Gr\u00fc\u00dfe vom Rechenzentrum\n".encode("latin-1"),
    b"12\n",
    b"CLUSTER: tests\n\n",
    b"Maintenance | on | 2026-12-01 | from | 8 | to | 12\n",
)
PURGE_SECONDS = 3.0  # after its end a job is no longer known
CACHE_SECONDS = 2.0


def main(name: str, argv: list[str]) -> int:
    with locked():
        dice = random.Random(f"{faults().get('seed')}{count()}")
    slow = chance(dice, f"{name}_slow")
    if slow:
        time.sleep(2.0)
    if chance(dice, f"{name}_fails"):
        say(f"{name}: error: Unable to contact slurm controller (connect failure)", error=True)
        return 1
    if chance(dice, "banners"):
        sys.stdout.buffer.write(dice.choice(BANNERS))
        sys.stdout.buffer.flush()
    code = {
        "sbatch": sbatch,
        "squeue": squeue,
        "scontrol": scontrol,
        "scancel": scancel,
        "sinfo": sinfo,
    }[name](argv, dice)
    if chance(dice, "banners"):
        sys.stdout.flush()
        sys.stdout.buffer.write(dice.choice(BANNERS))
    return code


def sbatch(argv: list[str], dice: random.Random) -> int:
    path = argv[-1]
    script = Path(path).read_text()
    options = dict(re.findall(r"^#SBATCH (-\w|--[\w-]+)[ =]?(.*)$", script, re.MULTILINE))
    if chance(dice, "sbatch_refuses"):
        say("sbatch: error: QOSMaxSubmitJobPerUserLimit", error=True)
        return 1
    if chance(dice, "sbatch_lost"):
        say("sbatch: error: Batch job submission failed: Socket timed out", error=True)
        return 1
    with locked():
        number = count("next")
        write(
            {
                "number": number,
                "name": options.get("-J", "sbatch"),
                "command": path,
                "script": script,
                "environ": dict(os.environ),
                "limit": seconds(options.get("-t", "0-01:00:00")),
                "requeue": "--requeue" in options,
                "submitted": time.time(),
                "state": "PENDING",
            }
        )
    if chance(dice, "sbatch_times_out"):
        say("sbatch: error: Batch job submission failed: Socket timed out", error=True)
        return 1
    say(f"Submitted batch job {number}")
    return 0


def squeue(argv: list[str], dice: random.Random) -> int:
    if any(name.startswith("SQUEUE_") for name in os.environ):
        return 0  # an option of somebody else: nothing matches
    options = values(argv)
    wanted = options.get("--jobs")
    numbers = None if wanted is None else {int(n) for n in wanted.split(",")}
    jobs = known()
    if chance(dice, "squeue_cached"):
        jobs = [job for job in jobs if time.time() - job["submitted"] > CACHE_SECONDS]
    if numbers is not None and len(numbers) == 1 and not numbers & {j["number"] for j in known()}:
        say("slurm_load_jobs error: Invalid job id specified", error=True)
        return 1
    for job in jobs:
        if numbers is not None and job["number"] not in numbers:
            continue
        if options.get("--name") not in (None, job["name"]):
            continue
        if is_over(job) and options.get("--states") != "all":
            continue
        if chance(dice, "squeue_hides"):
            continue
        number, node = job["number"], "n1" if job["state"] != "PENDING" else ""
        if options.get("--format") == "%A|%o":
            say(f"{number}|{job['command']}")
        else:
            left = int(job["limit"] - (time.time() - job.get("started", time.time())))
            clock = f"{left // 60}:{left % 60:02}"
            say(f"{number}|{number}|{number}|{job['state']}|{clock}|{node}|Priority")
    return 0


def scontrol(argv: list[str], dice: random.Random) -> int:
    if chance(dice, "scontrol_silent"):
        return 0
    for job in known():
        if str(job["number"]) == argv[-1]:
            node = "(null)" if job["state"] == "PENDING" else "n1"
            say(
                f"JobId={job['number']} JobName={job['name']} JobState={job['state']} "
                f"Reason=Priority Restarts=0 RunTime=00:00:00 TimeLimit=01:00:00 NodeList={node}"
            )
            return 0
    say("slurm_load_jobs error: Invalid job id specified", error=True)
    return 1


def scancel(argv: list[str], dice: random.Random) -> int:
    numbers = [int(word) for word in argv if word.isdecimal()]
    there, code = {job["number"] for job in known()}, 0
    with (FOLDER / "cancelled").open("a") as file:
        file.writelines(f"{number}\n" for number in numbers)
    for number in numbers:
        if number in there:
            (FOLDER / f"cancel.{number}").touch()
        else:
            say(f"scancel: error: Kill job error on job id {number}: Invalid job id", error=True)
            code = 1
    return code


def sinfo(argv: list[str], dice: random.Random) -> int:
    say("127.0.0.1" if any("%o" in word for word in argv) else "gpu*|infinite")
    return 0


# -- the folder ----------------------------------------------------------------------------------


@contextmanager
def locked() -> Iterator[None]:
    with (FOLDER / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def count(name: str = "calls") -> int:
    path = FOLDER / name
    number = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(number))
    return number


def faults() -> dict[str, Any]:
    path = FOLDER / "faults.json"
    return json.loads(path.read_text()) if path.exists() else {}


def chance(dice: random.Random, name: str) -> bool:
    return dice.random() < faults().get(name, 0.0)


def write(job: dict[str, Any]) -> None:
    path = FOLDER / "jobs" / f"{job['number']}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(job))
    part.rename(path)


def every_job() -> list[dict[str, Any]]:
    return [json.loads(p.read_text()) for p in sorted((FOLDER / "jobs").glob("*.json"))]


def known() -> list[dict[str, Any]]:
    now = time.time()
    return [job for job in every_job() if now - job.get("ended", now) < PURGE_SECONDS]


def is_over(job: dict[str, Any]) -> bool:
    return "ended" in job


def seconds(clock: str) -> float:
    days, _, rest = clock.rpartition("-")
    hours, minutes, left = map(int, rest.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + left


def values(argv: list[str]) -> dict[str, str]:
    found = {}
    for word, after in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        found[name] = value if equals else after
    return found


def say(text: str, error: bool = False) -> None:
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
