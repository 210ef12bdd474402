"""Measure how long a large journal is read: status, best, trials, replay.

    python benchmarks/large_journals.py [--trials 100000] [--peer FOLDER] [--repeats N]
        [--out FILE]

A simulated study under ASHA (four hyperparameters, 64 workers, 1 to 81 units a trial) writes a
journal. Each reading runs in a fresh process; its time is that of its CPU, imports included, and
its memory is the largest resident size. ``--peer`` is a folder with another version of ``daskhpo``,
which reads the same journal in turn with this one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from showing import about, load, table

HERE = Path(__file__).resolve()
CODE = {
    "`daskhpo status`": "from daskhpo.cli import main; main(['status', PATH])",
    "`daskhpo best`": "from daskhpo.cli import main; main(['best', PATH])",
    "`load_study(path).trials()`": "import daskhpo; daskhpo.load_study(PATH).trials()",
    "`load_study(path).history()`": "import daskhpo; daskhpo.load_study(PATH).history()",
    "replay, as by `resume`": "import sys; sys.path.insert(0, HERE); import large_journals as own\n"
    "own.replayed(PATH)",
}


class Curve:
    """A loss that falls with training."""

    def __init__(self, config: Any) -> None:
        self.floor = abs(config["lr"] - 0.03) + config["width"] / 1e4
        self.pace = 1 + config["width"] / 100

    def metric(self, resource: int) -> float:
        return float(self.floor + 1 / resource)

    def seconds(self, resource: int) -> float:
        return float(self.pace * resource)


def definition() -> Any:
    """Return the study's definition."""
    from daskhpo.core.objective import Objective
    from daskhpo.core.space import Space
    from daskhpo.engine.coordinator import Problem
    from daskhpo.schedulers import ASHA
    from daskhpo.searchers import RandomSearch
    from daskhpo.space import Integer, Ordinal, Real

    space = {
        "lr": Real(1e-3, 1e-1, log=True),
        "width": Integer(8, 256),
        "batch": Ordinal([16, 32, 64]),
        "dropout": Real(0, 0.5),
    }
    return Problem(Space(space), Objective("loss", "min"), ASHA(81), RandomSearch(), 0)


def simulated(directory: Path, n_trials: int) -> None:
    """Write the directory of a simulated study."""
    from daskhpo.core.types import CheckpointPolicy, Limits
    from daskhpo.engine.journal import FileJournal
    from daskhpo.engine.session import create_directory
    from daskhpo.virtual.executor import IDEAL_CLUSTER, SimulatedExecutor
    from daskhpo.virtual.replay import simulate

    problem = definition()
    create_directory(directory, problem, None)
    journal = FileJournal(directory / "journal.jsonl")
    executor = SimulatedExecutor(Curve, problem.objective, 64, [], IDEAL_CLUSTER)
    simulate(problem, executor, Limits(num_trials=n_trials), CheckpointPolicy(), journal)
    journal.close()


def replayed(path: str) -> None:
    """Replay a journal, and keep nothing that follows."""
    from daskhpo.engine.journal import read_journal
    from daskhpo.engine.replay import replay
    from daskhpo.testing.journal import MemoryJournal

    replay(definition(), read_journal(Path(path, "journal.jsonl")), MemoryJournal())


def measured(code: str, path: Path, version: Path) -> tuple[float, float]:
    """Run code in a process; return its CPU time in seconds, and its memory in MB."""
    text = f"PATH, HERE = {str(path)!r}, {str(HERE.parent)!r}\n{code}"
    environment = os.environ | {"PYTHONPATH": str(version)}
    process = subprocess.Popen(
        [sys.executable, "-c", text], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{code!r} failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


def growth(n_trials: int) -> tuple[float, float]:
    """Return the coordinator's memory in MB for a tenth of the trials, and for all."""
    sizes = []
    for n in (n_trials // 10, n_trials):
        code = (
            "import sys, tempfile; sys.path.insert(0, HERE); import large_journals as own\n"
            "with tempfile.TemporaryDirectory() as folder:\n"
            f"    own.simulated(own.Path(folder), {n})"
        )
        sizes.append(measured(code, Path(), HERE.parents[1])[1])
    return sizes[0], sizes[1]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    where = about("python benchmarks/large_journals.py", ["daskhpo", "pandas"])
    versions = {"this version": HERE.parents[1]}
    if args.peer is not None:
        versions["before"] = args.peer.absolute()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "study")
        simulated(path, args.trials)
        size = (path / "journal.jsonl").stat().st_size / 1e6
        rows = []
        for name, code in CODE.items():
            found: dict[str, list[tuple[float, float]]] = {version: [] for version in versions}
            for _ in range(args.repeats):
                for version, at in versions.items():
                    found[version].append(measured(code, path, at))
            row = [name]
            for runs in found.values():
                row.append(f"{statistics.median(seconds for seconds, _ in runs):.1f}")
                row.append(f"{statistics.median(memory for _, memory in runs):.0f}")
            rows.append(row)
    head = ["reading", *(f"{v}, {unit}" for v in versions for unit in ("CPU s", "MB"))]
    early, late = growth(args.trials)
    text = (
        f"{args.trials:,} trials, {size:.0f} MB of journal; medians of {args.repeats} runs.\n\n"
        f"{table(head, rows)}\n\nThe process that simulated the study (coordinator, journal, "
        f"executor) took {early:.0f} MB at most for {args.trials // 10:,} trials, and "
        f"{late:.0f} MB for {args.trials:,}.\n\n{where}\n- {load()}"
    )
    print(text)
    if args.out is not None:
        begin, end = "<!-- measured -->\n", "<!-- end -->"
        before, _, rest = args.out.read_text().partition(begin)
        _, _, after = rest.partition(end)
        args.out.write_text(f"{before}{begin}\n{text}\n\n{end}{after}")


if __name__ == "__main__":
    main()
