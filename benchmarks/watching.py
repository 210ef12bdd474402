"""Measure what the dashboard's pages and the loggers cost.

python benchmarks/watching.py [--trials N] [--running N] [--seconds S] [--pairs N]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from showing import about, load, spread, table

from daskhpo import Study
from daskhpo.callbacks import (
    Callback,
    CSVLogger,
    JSONLogger,
    MLflowLogger,
    OptunaJournal,
    StudyInfo,
    TensorBoardLogger,
    WandbLogger,
)
from daskhpo.callbacks.follower import CallbackList
from daskhpo.core.domains import Categorical, Real
from daskhpo.core.objective import Objective
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.dashboard.kinds import PAGES
from daskhpo.dashboard.server import EXTENSION, show_study
from daskhpo.dashboard.studies import WatchedStudy
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.journal import encode_record, read_journal
from daskhpo.engine.session import create_directory
from daskhpo.schedulers import ASHA, FIFO
from daskhpo.searchers import RandomSearch
from daskhpo.virtual.executor import SimulatedExecutor
from daskhpo.virtual.replay import simulate

SPACE = {
    "floor": Real(0.01, 1.0),
    "speed": Real(0.2, 1.2),
    "step": Real(10.0, 100.0, log=True),
    "kind": Categorical(["a", "b", "c"]),
}
OBJECTIVE = Objective("loss")
REPORTS_PER_SECOND = 100.0  # of the study while it is watched: 128 trials, a unit a second or so


class PowerLaw:
    """A learning curve that falls to its floor."""

    def __init__(self, config: Any) -> None:
        self._floor, self._speed, self._step = config["floor"], config["speed"], config["step"]

    def metric(self, resource: int) -> float:
        return float(self._floor + self._speed / resource)

    def seconds(self, resource: int) -> float:
        return float(self._step * resource)


class Lines:
    """A journal that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def append(self, record: Any) -> None:
        self.lines.append(encode_record(record))

    def flush(self) -> None:
        pass


def make_journal(directory: Path, n_trials: int, n_running: int) -> list[str]:
    """Create a study's directory; return the lines of its journal."""
    problem = Problem(Space(SPACE), OBJECTIVE, ASHA(max_t=81), RandomSearch(), 0)
    create_directory(directory, problem, None)
    journal = Lines()
    executor = SimulatedExecutor(PowerLaw, OBJECTIVE, n_running)
    simulate(problem, executor, Limits(num_trials=n_trials), CheckpointPolicy(), journal)
    return journal.lines


class Player:
    """Writes the rest of a journal at a steady pace."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self._path, self._lines = path, lines
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def _play(self) -> None:
        began, n = time.monotonic(), 0
        with self._path.open("a") as file:
            while not self._stop.wait(0.1) and n < len(self._lines):
                due = min(len(self._lines), int((time.monotonic() - began) * REPORTS_PER_SECOND))
                file.write("".join(f"{line}\n" for line in self._lines[n:due]))
                file.flush()
                n = due

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def watch_page(path: str, lines: list[str], begin: int, seconds: float, cluster: Any) -> list[Any]:
    """Open one page in a session of its own; return a row of the table."""
    from bokeh.client import pull_session

    scheduler = cluster.scheduler
    with TemporaryDirectory() as folder:
        directory = Path(folder) / "study"
        make_journal(directory, 2, 1)
        (directory / "journal.jsonl").write_text("".join(f"{line}\n" for line in lines[:begin]))

        async def add() -> None:
            show_study(scheduler, directory, OBJECTIVE)

        cluster.sync(add)
        pages = scheduler.extensions[EXTENSION]
        n_bytes = count_bytes()
        began = time.perf_counter()
        token = pages.token
        url = f"http://127.0.0.1:{scheduler.http_server.port}/{path}"
        session = pull_session(url=url, arguments={"token": token, "study": directory.name})
        while len(session.document.roots) == 0 or pages.watcher.n_refreshes == 0:
            time.sleep(0.05)
        while all(page._page is None for page in pages.watcher._pages):
            time.sleep(0.05)
        opened = time.perf_counter() - began
        time.sleep(3)
        first, n_bytes[0] = n_bytes[0], 0
        player = Player(directory / "journal.jsonl", lines[begin:])
        busy, n, cpu = pages.watcher.pace.busy, pages.watcher.n_refreshes, time.process_time()
        time.sleep(seconds)
        busy = pages.watcher.pace.busy - busy
        n = max(1, pages.watcher.n_refreshes - n)
        cpu = time.process_time() - cpu
        sent = n_bytes[0]
        player.stop()
        session.close()
        page = next(iter(pages.watcher._pages), None)
        if page is not None:
            pages.watcher.close(page)
        while pages.watcher.is_running:
            time.sleep(0.05)
        pages.studies.clear()
        pages.watcher.n_refreshes = 0
    return [
        f"/{path}",
        f"{opened:.1f}",
        f"{first / 1000:.0f}",
        f"{seconds / n:.1f}",
        f"{sent / n / 1000:.1f}",
        f"{100 * busy / seconds:.1f}",
        f"{100 * cpu / seconds:.1f}",
    ]


def count_bytes() -> list[int]:
    """Count the bytes that Bokeh's server sends from now on."""
    from bokeh.server.views.ws import WSHandler

    total = [0]
    real = getattr(WSHandler.write_message, "real", WSHandler.write_message)

    async def write_message(self: Any, message: Any, *more: Any, **named: Any) -> Any:
        total[0] += len(message)
        return await real(self, message, *more, **named)

    write_message.real = real  # type: ignore[attr-defined]
    WSHandler.write_message = write_message
    return total


def memory(lines: list[str]) -> tuple[int, float, float]:
    """Return trials, megabytes and seconds of reading a whole journal into tables."""
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "journal.jsonl").write_text("".join(f"{line}\n" for line in lines))
        gc.collect()
        tracemalloc.start()
        study = WatchedStudy("study", directory, OBJECTIVE)
        while study.read():
            pass
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] / 1e6
        tracemalloc.stop()
        study = WatchedStudy("study", directory, OBJECTIVE)
        began = time.process_time()
        while study.read():
            pass
        return study.tables.n_trials, used, time.process_time() - began


# -- loggers ---------------------------------------------------------------------------------------


def loggers() -> dict[str, Callable[[], Callback]]:
    """Return the loggers whose libraries are installed, by name."""
    found: dict[str, Callable[[], Callback]] = {
        "JSONLogger": JSONLogger,
        "CSVLogger": CSVLogger,
        "TensorBoardLogger": TensorBoardLogger,
        "OptunaJournal": OptunaJournal,
    }
    if find_spec("mlflow"):
        found["MLflowLogger"] = MLflowLogger
    if find_spec("wandb"):
        found["WandbLogger(trials=20)"] = lambda: WandbLogger(mode="offline", trials=20)
    return found


def cost_of_loggers(lines: list[str]) -> list[list[str]]:
    """Return each logger's CPU time of a record, and its share of a core."""
    rows = []
    for name, make in loggers().items():
        with TemporaryDirectory() as folder:
            directory = Path(folder) / "study"
            make_journal(directory, 2, 1)
            (directory / "journal.jsonl").write_text("".join(f"{line}\n" for line in lines))
            records = list(read_journal(directory / "journal.jsonl"))
            info = StudyInfo(
                "study", directory, OBJECTIVE, Limits(), "ASHA(max_t=81)", None, None, 1
            )
            followers = CallbackList([make()], info)
            began = time.process_time()
            for record in records:
                followers.apply(record)
            followers.end()
            spent = time.process_time() - began
            if not followers.callbacks:
                raise RuntimeError(f"{name} raised")
        per_record = spent / len(records)
        share = f"{100 * per_record * REPORTS_PER_SECOND:.2f}"
        rows.append([name, f"{len(records):,}", f"{1e6 * per_record:.0f}", share])
    return rows


def sleeping(config: dict[str, Any], trial: Any) -> None:
    """Train as a job on a GPU does, for the coordinator: by waiting."""
    for n in range(trial.resource, trial.max_t):
        time.sleep(0.05)
        trial.report({"loss": config["floor"] + 1 / (n + 1)}, state=lambda n=n: n)


def seconds_of_study(callbacks: Sequence[Callback], client: Any) -> float:
    """Return the seconds that a real study takes with these loggers."""
    with TemporaryDirectory() as folder:
        scheduler = FIFO(max_t=9)  # all studies then train the same
        study = Study(
            sleeping, SPACE, "loss", scheduler=scheduler, storage=folder, name="logged", seed=0
        )
        result = study.run(num_trials=80, client=client, callbacks=callbacks, progress=False)
        return result.tables().facts.seconds


def compare_studies(n_pairs: int) -> list[list[str]]:
    """Return the seconds of a real study without and with all loggers, in turn."""
    chosen = {name: make for name, make in loggers().items() if "MLflow" not in name}
    plain, logged = [], []
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=8, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        seconds_of_study([], client)  # imports, and what else comes once
        for _ in range(n_pairs):
            plain.append(seconds_of_study([], client))
            logged.append(seconds_of_study([make() for make in chosen.values()], client))
    ratios = [b / a for a, b in zip(plain, logged, strict=True)]
    return [
        ["no logger", spread(plain, 2), ""],
        [", ".join(chosen), spread(logged, 2), f"{statistics.median(ratios):.3f}"],
    ]


def main() -> None:
    from distributed import LocalCluster

    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--trials", type=int, default=10_000)
    arguments.add_argument("--running", type=int, default=128)
    arguments.add_argument("--seconds", type=float, default=30.0)
    arguments.add_argument("--pairs", type=int, default=5)
    options = arguments.parse_args()
    print("# Watching a study: measured\n")
    print(about("python benchmarks/watching.py", ["bokeh", "distributed", "tornado", "numpy"]))
    with TemporaryDirectory() as folder:
        lines = make_journal(Path(folder), options.trials, options.running)
        begin = int(0.8 * len(lines))
        print(
            f"\n{options.trials:,} trials under ASHA, {options.running} running; "
            f"{len(lines):,} records, of which 80 % are there when a page is opened; then "
            f"{REPORTS_PER_SECOND:.0f} a second for {options.seconds:.0f} s. The browser is a "
            "session of Bokeh in the same process: its share of the CPU is in the last column.\n"
        )
        print("## One page open\n")
        rows = []
        with LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster:
            for kind in PAGES:
                rows.append(watch_page(kind.path, lines, begin, options.seconds, cluster))
            cpu = time.process_time()
            time.sleep(5)
            idle = (time.process_time() - cpu) / 5
        head = ["page", "opened: s", "first: kB", "between refreshes: s", "kB a refresh"]
        print(table([*head, "thread's CPU: %", "process with browser: %"], rows))
        print(f"\nNo page open: {100 * idle:.1f} % of a core, with Dask's own scheduler.\n")
        print("## Memory of what the pages need\n")
        n, used, seconds = memory(lines)
        sizes = [[f"{n:,}", f"{len(lines):,}", f"{used:.1f}", f"{seconds:.1f}"]]
        large = make_journal(Path(folder) / "large", 10 * options.trials, options.running)
        n, used, seconds = memory(large)
        sizes.append([f"{n:,}", f"{len(large):,}", f"{used:.1f}", f"{seconds:.1f}"])
        print(table(["trials", "records", "memory: MB", "reading all: CPU s"], sizes))
        print("\n## Loggers\n")
        print(
            "Each follows the whole journal; the last column is at "
            f"{REPORTS_PER_SECOND:.0f} records a second.\n"
        )
        head = ["logger", "records", "CPU a record: µs", "of a core: %"]
        print(table(head, cost_of_loggers(lines[: options.trials])))
        print(
            "\nA real study of 80 trials on 8 workers in this process, with units of 50 ms, from "
            "its first record to its last: median (minimum), and the median of the ratios of "
            "neighbours.\n"
        )
        print(table(["loggers", "seconds", "ratio"], compare_studies(options.pairs)))
    print(f"\n{load()}")


if __name__ == "__main__":
    main()
