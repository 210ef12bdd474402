"""Measure the cost of checkpoints in the adsorption experiment, by policy.

ASHA by promotion runs with each policy for the same time on two worker processes. The policies take
turns, each in a new folder.

    python benchmarks/adsorption_checkpoints.py [--seconds S] [--repeat N] [--out FILE]
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster
from showing import about, among, load, slow_flush, table

from daskhpo import Study
from daskhpo.core.events import Reported, Saved
from daskhpo.engine.session import study_records
from daskhpo.schedulers import ASHA
from experiments.adsorption.data import prepare
from experiments.adsorption.profiles import PROFILES
from experiments.adsorption.trainable import AdsorptionNet

POLICIES = ("every:1", "auto", "never")
MEASURES = {  # measure: digits
    "seconds until all was written": 1,
    "trials": 0,
    "fully trained": 0,
    "epochs": 0,
    "trained again": 0,
    "checkpoints": 0,
    "MB written": 1,
    "best error: eV": 3,
}


def measure(
    client: Client, profile_name: str, policy: str, seconds: float, seed: int, path: str | None
) -> dict[str, float]:
    """Run a study for ``seconds``; return its measures."""
    profile = PROFILES[profile_name]
    storage = Path(tempfile.mkdtemp(dir=path))
    try:
        study = Study(
            AdsorptionNet,
            space=profile.space(),
            metric="val_mae",
            scheduler=ASHA(
                profile.max_t,
                profile.grace_period,
                profile.eta,
                variant="promotion",
                compare="best",
            ),
            storage=storage,
            name="adsorption",
            seed=seed,
        )
        began = time.perf_counter()
        result = study.run(time_budget=seconds, client=client, checkpoint=policy, progress=False)
        took = time.perf_counter() - began
        records: list[Any] = list(study_records(study.path))
        saved = [record.ref for record in records if isinstance(record, Saved)]
        trials = [result.trial(number) for number in range(result.num_trials)]
        n_again = sum(trial.n_retrained for trial in trials)
        n_epochs = sum(len(record.steps) for record in records if isinstance(record, Reported))
        statuses = Counter(trial.status.value for trial in trials)
        return dict(
            zip(
                MEASURES,
                (
                    took,
                    len(trials),
                    statuses["completed"],
                    n_epochs - n_again,
                    n_again,
                    len(saved),
                    sum(ref.n_bytes for ref in saved) / 1e6,
                    result.best_value,
                ),
                strict=True,
            )
        )
    finally:
        shutil.rmtree(storage)


def compare(client: Client, options: argparse.Namespace, n: int, seconds: float) -> str:
    """Run all policies in turns, with one seed per turn; format a table."""
    found: dict[str, list[dict[str, float]]] = {policy: [] for policy in POLICIES}
    for seed in range(n):
        for policy in POLICIES:
            run = measure(client, options.profile, policy, seconds, seed, options.path)
            found[policy].append(run)
            print(f"{policy}, seed {seed}: {run}", flush=True)
    rows = [
        [policy, *(among([run[name] for run in runs], n) for name, n in MEASURES.items())]
        for policy, runs in found.items()
    ]
    return table(["policy", *MEASURES], rows)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--profile", choices=sorted(PROFILES), default="laptop")
    arguments.add_argument("--seconds", type=float, default=90.0, help="length of each study")
    arguments.add_argument("--repeat", type=int, default=2, help="studies of each policy")
    arguments.add_argument("--path", help="folder on the disk to measure; default: temporary files")
    arguments.add_argument("--out", type=Path, help="file for the report; default: standard output")
    options = arguments.parse_args()
    logging.getLogger("distributed").setLevel(logging.ERROR)
    prepare(options.profile)
    command = (
        f"python benchmarks/adsorption_checkpoints.py --seconds {options.seconds:g} "
        f"--repeat {options.repeat} --out FILE"
    )
    parts = [
        "# Checkpoints of the adsorption study: measured\n",
        about(command, ["daskhpo", "distributed", "torch", "numpy"]),
        INTRODUCTION.format(options.profile, options.seconds),
    ]
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    try:
        with Client(cluster) as client:
            # workers load torch and the data before anything is measured
            measure(client, options.profile, "auto", 10.0, 0, options.path)
            parts.append(f"\n## This machine's disk; n = {options.repeat}\n")
            parts.append(compare(client, options, options.repeat, options.seconds))
            client.run(slow_flush, 0.1)
            parts.append("\n## Each flush takes 100 ms more; n = 1\n")
            parts.append(compare(client, options, 1, options.seconds))
            client.run(slow_flush, 0.0)
    finally:
        cluster.close()
    parts += [NOTES, f"{load()}.\n"]
    text = "\n".join(parts)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text)


INTRODUCTION = """
Profile `{}`: a crystal graph network, ASHA by promotion with `compare="best"`, {:g} s for each
study on two worker processes. `every:1` writes after each epoch, `auto` what is worth a write,
`never` nothing. A study's seed is the number of its turn, the same for all policies. So the
configurations are the same, but the number of trials that fit in the time is not. Numbers are
medians, with the smallest and the largest in brackets where they differ.

In the second table `os.fsync` in the workers makes the real flush, then sleeps 100 ms, as a
parallel file system under load may."""

NOTES = """
How to read it:

- A state has 0.2 MB, so a write takes some milliseconds in the background. An epoch takes about a
  second on average, up to several for a wide network. `auto` saves files; there is no visible gain
  in time, even if each flush takes 100 ms more.
- The trials that fit in the time depend on the times of reports, and epochs differ much in length.
  Two turns of such short studies say nothing about small differences in trials, epochs or the best
  error.
"""


if __name__ == "__main__":
    main()
