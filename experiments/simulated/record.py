"""Record learning curves of random configurations of the adsorption network."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.simulation.curves import CurveTable
from experiments.adsorption.data import prepare
from experiments.adsorption.profiles import PROFILES
from experiments.adsorption.trainable import AdsorptionNet

METRIC = "val_mae"
CPU_SECONDS = "cpu_seconds"


class Timed(AdsorptionNet):
    """A trial that reports the CPU seconds of each unit, however busy the machine is."""

    def step(self) -> dict[str, Any]:
        begin = time.process_time()
        return super().step() | {CPU_SECONDS: time.process_time() - begin}


def record(profile_name: str, n: int, workers: int, storage: Path) -> CurveTable:
    """Train ``n`` random configurations to the end, or resume; return their curves.

    Seconds in the table are CPU seconds: each worker has one thread and runs only this training.
    """
    profile = PROFILES[profile_name]
    prepare(profile.name)
    study = Study(
        Timed,
        profile.space(),
        METRIC,
        "min",
        scheduler=FIFO(profile.max_t),
        storage=storage,
        name=f"curves-{profile.name}",
    )
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        known = study.path.exists() and study.result().num_trials
        (study.resume if known else study.run)(num_trials=n, client=client, checkpoint="never")
    frame = study.result().curves().drop(columns="config/profile")
    frame["seconds"] = frame.groupby("trial")[CPU_SECONDS].cumsum()
    frame = frame.round({"seconds": 3, METRIC: 5})
    return CurveTable.of(frame, METRIC)


def main() -> None:
    """Record the curves and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=sorted(PROFILES), default="short")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--storage", type=Path, default=Path("runs/simulated"))
    parser.add_argument("path", type=Path, help="table to write: .csv or .csv.gz")
    options = parser.parse_args()
    table = record(options.profile, options.trials, options.workers, options.storage)
    table.write(options.path)
    print(f"{len(table)} curves of up to {table.max_t} units in {options.path}")


if __name__ == "__main__":
    main()
