"""Compare rates on open clusters with those on clusters that ask for certificates.

    python benchmarks/protected.py [--repeats N] [--out FILE]

Two workers on this machine, an open ``LocalCluster`` and one with ``security=True``, which is what
``client=None`` starts. Both stand at the same time, and serve the same studies in turn: reports
that each wait for a decision, and trials of one report.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from showing import about, load, spread, table

from daskhpo import Study, Trainable
from daskhpo.schedulers import FIFO, MedianStopping
from daskhpo.space import Real

UNITS, N_TRIALS = 100, 8  # of the study of reports
N_SHORT = 400


class Noop(Trainable):
    """Trials that do nothing, with reused objects."""

    def setup(self, config: Any) -> None:
        """Keep nothing."""

    def step(self) -> dict[str, float]:
        """Report a constant."""
        return {"loss": 1.0}

    def save_checkpoint(self) -> None:
        """Keep nothing."""

    def load_checkpoint(self, state: Any) -> None:
        """Restore nothing."""

    def reset_config(self, config: Any) -> bool:
        """Serve the next trial."""
        return True


def rate(client: Any, folder: Path, scheduler: Any, n_trials: int, n_units: int) -> float:
    """Return units per second of a study, from its first report to its last."""
    space = {"x": Real(0, 1)}
    with tempfile.TemporaryDirectory(dir=folder) as storage:
        study = Study(Noop, space, "loss", scheduler=scheduler, storage=storage, name="s")
        result = study.run(n_trials, client=client, progress=False, checkpoint="never")
        seconds = result.history()["seconds"]
    return float((n_trials * n_units - 1) / (seconds.max() - seconds.min()))


def main() -> None:
    """Measure and print a table."""
    from distributed import Client, LocalCluster

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    where = about("python benchmarks/protected.py", ["daskhpo", "distributed"])
    every_unit = MedianStopping(FIFO(UNITS), min_samples=10**6)  # it decides on each report
    cases = {
        "reports with a decision on each, 1/s": (every_unit, N_TRIALS, UNITS),
        "trials of one report, 1/s": (FIFO(1), N_SHORT, 1),
    }
    rows, began = [], time.monotonic()
    options: dict[str, Any] = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "dashboard_address": None,
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(**options) as plain,
        LocalCluster(**options, security=True, protocol="tls://") as protected,
        Client(plain, set_as_default=False) as first,
        Client(protected, set_as_default=False) as second,
    ):
        for name, case in cases.items():
            found: dict[Any, list[float]] = {first: [], second: []}
            for turn in range(args.repeats + 1):
                for client in (first, second) if turn % 2 else (second, first):
                    measured = rate(client, Path(folder), *case)
                    if turn:  # the first one imports and connects
                        found[client].append(measured)
            ratios = [b / a for a, b in zip(found[first], found[second], strict=True)]
            rows.append(
                [
                    name,
                    spread(found[first], 0),
                    spread(found[second], 0),
                    f"{statistics.median(ratios):.2f}",
                ]
            )
    head = ["median (minimum)", "open", "certificates", "median ratio of turns"]
    text = (
        f"{table(head, rows)}\n\n{args.repeats} runs of each in turn, "
        f"{time.monotonic() - began:.0f} s.\n\n{where}\n- {load()}"
    )
    print(text)
    if args.out is not None:
        args.out.write_text(f"# Rates with and without certificates\n\n{text}\n")


if __name__ == "__main__":
    main()
