"""Measure CPU and memory of the coordinator's process, by number of workers.

    python benchmarks/footprint.py [--workers 8 32 128] [--seconds 30] [--out FILE]

As with ``slurm_cluster`` on a login node, one process contains the user's script, Dask's scheduler,
a client and the coordinator, and connections are encrypted. The workers are real Dask workers, each
with its own connections, heartbeats and lease, but many share a process. A trial only sleeps, one
second per unit, and reports each unit. The numbers are of the coordinator's process only: its CPU
time over the wall clock, and its memory. Each row is measured in a fresh process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from showing import about, table

HERE = Path(__file__).resolve()
PER_PROCESS = 32  # workers that share one process
SETTLE_SECONDS = 10.0  # wait after all slots have started
MAX_SECONDS = 300.0  # timeout for the start of all workers


def main() -> None:
    """Measure each number of workers in a separate process, or run such a process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each measurement")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # run the coordinator: plain or TLS
    parser.add_argument("--serve", help=argparse.SUPPRESS)  # run workers: the scheduler's address
    parser.add_argument("--tls", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.serve, args.tls, args.workers[0]))
    elif args.measure:
        print(json.dumps(measured(args.workers[0], args.seconds, args.measure == "TLS")))
    else:
        report(args.workers, args.seconds, args.out)


def report(workers: list[int], seconds: float, out: Path | None) -> None:
    """Measure all cases and print a table."""
    cases = [(n, "TLS") for n in workers] + [(max(workers), "plain")]
    rows = []
    for n, kind in cases:
        own = ["--workers", str(n), "--seconds", str(seconds), "--measure", kind]
        run = subprocess.run([sys.executable, str(HERE), *own], stdout=subprocess.PIPE, check=True)
        found = json.loads(run.stdout.splitlines()[-1])
        row = [f"{n}, {kind}", *(f"{found[name]:.1f}" for name in COLUMNS)]
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
    text = table(["workers", *COLUMNS.values()], rows)
    where = about("python benchmarks/footprint.py", ["daskhpo", "distributed", "dask-jobqueue"])
    print(f"{text}\n\n{where}")
    if out is not None:
        begin, end = "<!-- measured -->\n", "<!-- end -->"
        before, _, rest = out.read_text().partition(begin)
        _, _, after = rest.partition(end)
        out.write_text(f"{before}{begin}\n{text}\n\n{where}\n\n{end}{after}")


COLUMNS = {
    "units": "units reported /s",
    "cpu": "CPU, % of a core",
    "idle": "the same before the study, %",
    "pss": "memory (PSS), MB",
    "rss": "memory (RSS), MB",
}


# -- the coordinator's process -------------------------------------------------------------------


def train(config: dict[str, Any], trial: Any) -> None:
    """Train with units of one second."""
    for n in range(trial.resource, trial.max_t):
        time.sleep(1.0)
        trial.report({"loss": config["x"] + 1 / (n + 1)})


def measured(n: int, seconds: float, tls: bool) -> dict[str, float]:
    """Measure this process while ``n`` workers train."""
    import dask_jobqueue  # noqa: F401  (as in a process that has called slurm_cluster)
    from distributed import LocalCluster, Security

    from daskhpo import Study
    from daskhpo.cluster.security import credentials
    from daskhpo.core.events import Reported, SlotsChanged
    from daskhpo.engine.session import study_records
    from daskhpo.schedulers import ASHA
    from daskhpo.space import Real

    with tempfile.TemporaryDirectory() as folder:
        security: Security | None = credentials(Path(folder) / "tls") if tls else None
        study = Study(
            train,
            {"x": Real(0.0, 1.0)},
            "loss",
            scheduler=ASHA(max_t=256, reduction_factor=4),
            storage=folder,
            name="footprint",
        )

        def count() -> tuple[int, int]:
            """Return the numbers of reported units and of slots."""
            units, slots = 0, 0
            for record in study_records(study.path):
                if isinstance(record, Reported):
                    units += len(record.steps)
                elif isinstance(record, SlotsChanged):
                    slots = record.n_slots
            return units, slots

        with (
            LocalCluster(
                n_workers=0,
                dashboard_address="127.0.0.1:0",
                security=security,
                protocol="tls://" if tls else "tcp://",
            ) as cluster,
            workers(n, cluster.scheduler_address, Path(folder) if tls else None),
        ):
            wait(lambda: len(cluster.scheduler.workers) == n)
            time.sleep(SETTLE_SECONDS)
            idle = cpu_percent(seconds / 2)
            handle = study.start(num_trials=100_000, client=cluster, progress=False)
            wait(lambda: count()[1] == n)
            time.sleep(SETTLE_SECONDS)
            cpu = cpu_percent(seconds)  # without calls of `count`, which take CPU time
            memory = memory_of_this_process()
            before, began = count()[0], time.monotonic()
            time.sleep(seconds)
            units = (count()[0] - before) / (time.monotonic() - began)
            handle.stop()
            with suppress(Exception):  # sleeping trials may end late
                handle.wait()
    return {"cpu": cpu, "idle": idle, "units": units, **memory}


def cpu_percent(seconds: float) -> float:
    """Return this process's CPU time in per cent of ``seconds``."""
    began, used = time.monotonic(), time.process_time()
    time.sleep(seconds)
    return 100 * (time.process_time() - used) / (time.monotonic() - began)


def memory_of_this_process() -> dict[str, float]:
    """Return PSS and RSS in MB, from the kernel."""
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Pss", "Rss"):
            found[name.lower()] = int(rest.split()[0]) * 1024 / 1e6
    return found


def wait(condition: Any) -> None:
    end = time.monotonic() + MAX_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not all workers started within {MAX_SECONDS:g} s")
        time.sleep(0.5)


@contextmanager
def workers(n: int, address: str, folder: Path | None) -> Iterator[None]:
    """Start processes with ``n`` workers in total; end them on exit."""
    tls = [] if folder is None else ["--tls", str(folder / "tls")]
    sizes = [min(PER_PROCESS, n - PER_PROCESS * k) for k in range(math.ceil(n / PER_PROCESS))]
    running = [
        subprocess.Popen(
            [sys.executable, str(HERE), "--serve", address, "--workers", str(size), *tls],
            stderr=subprocess.DEVNULL,
        )
        for size in sizes
    ]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


# -- the workers' processes ----------------------------------------------------------------------


async def serve(address: str, tls: str | None, n: int) -> None:
    """Run workers until their scheduler ends."""
    from distributed import Security, Worker

    security = None
    if tls is not None:
        files = {"cert": f"{tls}/certificate.pem", "key": f"{tls}/key.pem"}
        security = Security(
            require_encryption=True,
            tls_ca_file=files["cert"],
            tls_worker_cert=files["cert"],
            tls_worker_key=files["key"],
        )
    made = [Worker(address, nthreads=1, security=security, dashboard=False) for _ in range(n)]
    await asyncio.gather(*made)
    await asyncio.gather(*(worker.finished() for worker in made))


if __name__ == "__main__":
    main()
