"""Measure the writes of studies by promotion under each checkpoint policy.

ASHA pauses and resumes trials. The studies run first in virtual time, where only decisions count.
Then they run on two worker processes, with a state of 240 tensors (3 MB) and units that sleep.

    python benchmarks/promotion.py [--path FOLDER_ON_THE_DISK_TO_MEASURE] [--repeat N] [--out FILE]
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from decisions import SPACE, Curve, decisions, eventful, simulate
from distributed import Client, LocalCluster
from showing import about, among, inodes, load, slow_flush, table

from daskhpo import Study, Trainable
from daskhpo.core.events import Deleted, Launched, Reported, Saved, Suggested
from daskhpo.core.types import CheckpointPolicy
from daskhpo.engine.checkpoint_policy import check_policy
from daskhpo.engine.session import study_records
from daskhpo.schedulers import ASHA

N_TRIALS, MAX_T, ETA = 512, 256, 4
SEEDS = range(8)
OWN = "own torch.save at every unit"

# -- in virtual time -----------------------------------------------------------------------------


def policies(seeds: Iterable[int]) -> tuple[str, str]:
    """Compare policies: states taken and written, and if their decisions agree."""
    rows = []
    eager: dict[tuple[int, int], list[Any]] = {}
    differing = []
    for n_slots in (8, 32):
        for name in ("rung", "end", "auto", "never"):
            counts: dict[str, list[float]] = {}
            for seed in seeds:
                records = simulate(check_policy(name), n_slots, ETA, seed)
                made = decisions(records)
                if made != eager.setdefault((n_slots, seed), made):
                    differing.append((name, n_slots, seed))
                for what, n in eventful(records).items():
                    counts.setdefault(what, []).append(n)
            shown = ("segments", "at once", "later", "taken", "written")
            rows.append([n_slots, name, *(among(counts[what]) for what in shown)])
    unexpected = [which for which in differing if which[0] != "never"]
    n_never = len(differing) - len(unexpected)
    verdict = (
        f"Suggestions, launches and decisions of `rung`, `end` and `auto`, in order and without "
        f"times, are {f'**DIFFERENT** in {unexpected}' if unexpected else 'identical'} in each "
        f"of {len(eager)} studies. `never` trains resumed trials again from the start, which takes "
        f"time: its order differs in {n_never}."
    )
    head = ["slots", "policy", "segments", "continued at once", "resumed from a pause"]
    return table([*head, "states taken", "mandatory writes"], rows), verdict


def chances(seeds: Iterable[int]) -> str:
    """Count how often pauses of each reuse probability are resumed."""
    rows = []
    for eta, max_t in ((4, 256), (3, 243), (2, 256)):
        for n_slots in (8, 32):
            for noise in (0.02, 0.1, 0.3):
                total: Counter[str] = Counter()
                for seed in seeds:
                    records = simulate(
                        CheckpointPolicy(), n_slots, eta, seed, noise=noise, max_t=max_t
                    )
                    total.update(eventful(records))
                row: list[Any] = [eta, n_slots, noise]
                for kind in ("LIKELY", "UNLIKELY"):
                    n, resumed = total[kind], total[f"{kind} resumed"]
                    row += [n, resumed, f"{resumed / n:.4f}"]
                share = total["LIKELY"] / (total["LIKELY"] + total["UNLIKELY"])
                rows.append([*row[:3], f"{share:.2f}", *row[3:]])
    head = ["η", "slots", "noise", "share of likely", "likely", "resumed", "probability"]
    return table([*head, "unlikely", "resumed", "probability"], rows)


# -- really --------------------------------------------------------------------------------------


def sleeper(unit: float, own: str | None = None, *, flush: bool = False) -> type[Trainable]:
    """Return a trainable with 3 MB of tensors whose units take ``unit`` seconds.

    With ``own`` it writes its state to that folder at each unit, as code for other systems does;
    its checkpoint is then the name of that file. ``flush``: flush the file, as an NFS client does
    when it closes one.
    """

    class Sleeper(Trainable):
        def setup(self, config: Any) -> None:
            import torch

            torch.set_num_threads(1)
            self.tensors = [torch.zeros(12_500 // 4) for _ in range(240)]
            self.reset_config(config)

        def reset_config(self, config: Any) -> bool:
            for tensor in self.tensors:
                tensor.zero_()
            self.curve, self.n_units = Curve(config), 0
            return True

        def step(self) -> dict[str, Any]:
            time.sleep(unit)
            self.n_units += 1
            for tensor in self.tensors:
                tensor += 1.0
            if own is not None:
                self.save()
            if float(self.tensors[-1][-1]) != self.n_units:
                raise RuntimeError("the state is not the trial's")
            return {"loss": self.curve.metric(self.n_units)}

        def save(self) -> None:
            import torch

            with open(f"{self.file}.partial", "wb") as file:
                torch.save({"tensors": self.tensors, "n_units": self.n_units}, file)
                if flush:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(f"{self.file}.partial", self.file)

        @property
        def file(self) -> str:
            return f"{own}/{self.trial.id}.pt"

        def save_checkpoint(self) -> Any:
            if own is not None:
                return {"file": self.file}
            return {"tensors": self.tensors, "n_units": self.n_units}

        def load_checkpoint(self, state: Any) -> None:
            if own is not None:
                import torch

                state = torch.load(state["file"], weights_only=True)
            for tensor, saved in zip(self.tensors, state["tensors"], strict=True):
                tensor.copy_(saved)
            self.n_units = state["n_units"]

    return Sleeper


class Run:
    """A study on real workers, with its measurements."""

    def __init__(
        self,
        client: Client,
        folder: Path,
        policy: str,
        unit: float,
        *,
        flush: bool = False,
        max_t: int = MAX_T,
        **limits: Any,
    ) -> None:
        storage = Path(tempfile.mkdtemp(dir=folder))
        own = storage / "own"
        own.mkdir()
        is_own = policy == OWN
        study = Study(
            sleeper(unit, str(own), flush=flush) if is_own else sleeper(unit),
            SPACE | {"noise": 0.1},
            "loss",
            scheduler=ASHA(max_t, 1, ETA, variant="promotion"),
            storage=storage,
            name="study",
        )
        began = time.perf_counter()
        result = study.run(
            client=client, checkpoint="auto" if is_own else policy, progress=False, **limits
        )
        self.seconds = time.perf_counter() - began
        self.records = list(study_records(study.path))
        failed = result.trials().query("status == 'failed'")
        if len(failed):
            raise RuntimeError(f"{policy}: {len(failed)} trials failed: {failed.iloc[0]}")
        self.best = result.best_trial.id, result.best_value
        self.n_trials = result.num_trials
        trained = [len(r.steps) for r in self.records if isinstance(r, Reported)]
        self.n_retrained = sum(result.trial(t).n_retrained for t in range(self.n_trials))
        self.n_units = sum(trained) - self.n_retrained
        saved = [r.ref for r in self.records if isinstance(r, Saved)]
        self.rungs = Counter(ref.resource for ref in saved)
        self.n_writes, self.n_bytes = len(saved), sum(ref.n_bytes for ref in saved)
        self.n_peak = n_now = 0
        for record in self.records:
            n_now += isinstance(record, Saved) - isinstance(record, Deleted)
            self.n_peak = max(self.n_peak, n_now)
        self.n_inodes, _ = inodes(study.path / "checkpoints.zarr")
        if is_own:
            n_files, n_bytes = inodes(own)
            self.n_writes += sum(trained)
            self.n_bytes += sum(trained) * n_bytes // n_files
            self.n_inodes += n_files
            self.n_peak += n_files  # no file is removed before the end
        shutil.rmtree(storage)


def summary(found: dict[str, list[Run]]) -> str:
    """Format a row per policy: medians, and extremes where they differ."""
    eager = statistics.median(run.n_writes for run in found["rung"])
    rows = []
    for policy, runs in found.items():
        n = statistics.median(run.n_writes for run in runs)
        rows.append(
            [
                policy,
                among([run.seconds for run in runs], 1),
                among([run.n_trials for run in runs]),
                among([run.n_units for run in runs]),
                among([run.n_retrained for run in runs]),
                among([run.n_writes for run in runs]),
                f"{eager / n:,.1f}" if n else "—",
                among([run.n_bytes / 1e6 for run in runs]),
                among([run.n_peak for run in runs]),
                among([run.n_inodes for run in runs]),
            ]
        )
    head = ["policy", "seconds", "trials", "units", "trained again", "writes"]
    head += ["writes of `rung` / its writes", "MB written", "checkpoints at peak"]
    return table([*head, "files and folders at the end"], rows)


def compare(
    client: Client, folder: Path, names: Iterable[str], n: int, unit: float, **options: Any
) -> dict[str, list[Run]]:
    """Run each policy ``n`` times, taking turns."""
    found: dict[str, list[Run]] = {name: [] for name in names}
    for _ in range(n):
        for name, runs in found.items():
            runs.append(Run(client, folder, name, unit, **options))
    return found


def path_of(run: Run) -> list[Any]:
    """Return the decisions, launches and suggestions of a study."""
    return [
        (r.trial, r.until) if isinstance(r, Launched) else (r.trial, r.decision)
        for r in run.records
        if isinstance(r, Launched) or (isinstance(r, Reported) and r.decision is not None)
    ] + [(r.trial, r.config) for r in run.records if isinstance(r, Suggested)]


def by_rung(runs: list[Run]) -> str:
    total: Counter[int] = sum((run.rungs for run in runs), Counter())
    return ", ".join(f"{n} at {resource}" for resource, n in sorted(total.items())) or "none"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--path", help="folder on the disk to measure; default: temporary files")
    arguments.add_argument(
        "--repeat", type=int, default=3, help="runs of each policy in the first real comparison"
    )
    arguments.add_argument(
        "--seconds", type=float, default=15, help="length of the studies of equal time"
    )
    arguments.add_argument("--out", type=Path, help="file for the report; default: standard output")
    options = arguments.parse_args()
    logging.getLogger("distributed").setLevel(logging.ERROR)
    parts = ["# Checkpoints of whole studies: measured", ""]
    packages = ["daskhpo", "distributed", "torch", "numpy"]
    parts += [about("python benchmarks/promotion.py --out FILE", packages), INTRODUCTION]
    shown, verdict = policies(SEEDS)
    parts += [VIRTUAL, shown, "", verdict, "", CHANCES, chances(SEEDS)]
    print("\n".join(parts), flush=True)
    folder = Path(tempfile.mkdtemp(dir=options.path))
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    try:
        with Client(cluster) as client:
            for part in real(client, folder, options.repeat, options.seconds):
                parts.append(part)
                print(part, flush=True)
    finally:
        cluster.close()
        shutil.rmtree(folder)
    parts += [NOTES, f"{load()}.\n"]
    if options.out is not None:
        options.out.write_text("\n".join(parts))


def real(client: Client, folder: Path, n: int, seconds: float) -> Iterable[str]:
    """Run the studies on workers; yield the sections of the report."""
    everyone = ("rung", "auto", "never", OWN)
    Run(client, folder, "rung", 0.0, num_trials=16)  # workers load torch
    yield "\n## One slot: decisions\n"
    alone = [
        Run(client, folder, policy, 0.0, num_trials=N_TRIALS, max_concurrent=1)
        for policy in ("rung", "auto", "never")
    ]
    same = all(path_of(run) == path_of(alone[0]) and run.best == alone[0].best for run in alone)
    yield (
        f"{N_TRIALS} trials on one worker, so that the order of events is the same: `rung`, "
        f"`auto` and `never` {'agree' if same else '**DISAGREE**'} on all suggestions, launches, "
        f"decisions and the best trial (number {alone[0].best[0]}). They wrote "
        f"{', '.join(str(run.n_writes) for run in alone)} states."
    )
    yield f"\n## {N_TRIALS} trials, units of 4 ms; n = {n} (own `torch.save`: 1)\n"
    found = compare(client, folder, everyone[:3], n, 0.004, num_trials=N_TRIALS)
    yield summary(found | compare(client, folder, [OWN], 1, 0.004, num_trials=N_TRIALS))
    yield f"\n## Studies of {seconds:.0f} s, units of 4 ms; n = 2\n"
    yield summary(compare(client, folder, everyone, 2, 0.004, time_budget=seconds))
    yield "\n## 64 trials of up to 64 units of 250 ms: training worth a write; n = 1\n"
    long = compare(client, folder, ("rung", "auto"), 1, 0.25, num_trials=64, max_t=64)
    yield summary(long)
    yield f"\nWrites of `auto`, by units of training: {by_rung(long['auto'])}."
    yield f"\n## {N_TRIALS} trials, units of 4 ms, each flush takes 100 ms more; n = 1\n"
    yield SLOW
    client.run(slow_flush, 0.1)
    yield summary(compare(client, folder, everyone, 1, 0.004, num_trials=N_TRIALS, flush=True))
    client.run(slow_flush, 0.0)


INTRODUCTION = f"""
ASHA by promotion, η = {ETA}, 1 to {MAX_T} units, noisy curves. Policies: `rung` writes after every
segment (eager), `end` at every pause and end, `auto` what is worth a write, `never` nothing.
Numbers are medians, with the smallest and the largest in brackets where they differ."""

VIRTUAL = f"""
## In virtual time: {N_TRIALS} trials, 8 seeds

Memory is unlimited and writes take no time, so `auto` makes only mandatory writes here.
"""

CHANCES = """\
## Probability that a paused trial is resumed

The policy assumes 0.2 for `ReuseProbability.LIKELY` and 0.001 for `ReuseProbability.UNLIKELY`.
Counted over 8 seeds; *noise* is the standard deviation of a report; losses of full training lie
between 0 and 1.
"""

SLOW = """\
`os.fsync` in the workers makes the real flush, then sleeps 100 ms, like a parallel file system
under load. Our writer flushes the file and its folder; the own `torch.save` flushes its file, as an
NFS client does when it closes one.
"""

NOTES = """
How to read it:

- Seconds are of the whole study, until the last state is durable. The slots sleep in their units,
  so policies differ in the work of taking and writing states, on two cores that also run the
  coordinator. It is most of the time here because units are so short.
- With units of 4 ms a copy at each pause (see `checkpoints.md` for its time) takes longer than the
  units that `never` trains again. With longer units this is reversed; `never` was not run with
  units of 250 ms.
- Trained again: units of trials that were resumed without a state.
- The own `torch.save` overwrites one file per trial; keeping each would take as many files as
  writes. What the engine writes for such trials (a file's name) is counted, too.
- A state has 240 tensors in 3 MB; the files at the end include folders and metadata.
"""


if __name__ == "__main__":
    main()
