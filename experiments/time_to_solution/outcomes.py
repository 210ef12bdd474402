"""Results of a profile's studies, read from disk and cut at the budget."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from daskhpo import Result, load_study
from daskhpo.core.events import Record, SlotsChanged
from daskhpo.core.types import Status
from daskhpo.engine.session import read_manifest, study_records
from experiments.time_to_solution import machine
from experiments.time_to_solution.methods import METHODS, REFERENCE, Method
from experiments.time_to_solution.profiles import Profile
from experiments.time_to_solution.runner import ENOUGH, TEST_FILE, spent, study_name

K = 6  # number of best trials whose mean is compared, as in the reference study


@dataclass(frozen=True)
class Outcome:
    """One finished study.

    Attributes
    ----------
    cut : result at the end of the budget. Units that were finished later are not included.
    result : the complete result.
    slot_seconds : time of all slots together within the budget.
    test : test error (eV) of the best trial's best epoch; NaN: not known.
    machine : records of the machine; None: there are none.
    """

    method: Method
    seed: int
    seconds: float
    cut: Result
    result: Result
    slot_seconds: float
    test: float
    machine: machine.Record | None

    @cached_property
    def curve(self) -> pd.DataFrame:
        """``seconds``, ``mean`` and ``std`` of the best :data:`K`, once there are as many."""
        return self.cut.top_k_curve(K)

    @cached_property
    def best_curve(self) -> pd.DataFrame:
        """``seconds``, and ``mean``: the error of the best trial."""
        return self.cut.top_k_curve(1)

    @property
    def top(self) -> float:
        """Mean error (eV) of the best :data:`K` at the end of the budget; NaN: fewer."""
        return float(self.curve["mean"].iloc[-1]) if len(self.curve) else math.nan

    @property
    def best(self) -> float:
        """Validation error (eV) of the best trial at the end of the budget; NaN: none."""
        return self.cut.best_value if self.cut.has_reports else math.nan

    @property
    def n_finished(self) -> int:
        """Number of completed, stopped and paused trials."""
        done = (Status.COMPLETED, Status.STOPPED, Status.PAUSED)
        return sum(self.cut.trial(n).status in done for n in range(self.cut.num_trials))

    @property
    def n_failed(self) -> int:
        """Number of trials whose code raised, or whose error was not finite."""
        trials = (self.cut.trial(n) for n in range(self.cut.num_trials))
        return sum(trial.status is Status.FAILED for trial in trials)

    def time_to(self, error: float, curve: pd.DataFrame | None = None) -> float:
        """Return the seconds until ``curve`` reached ``error``; inf: never.

        ``curve`` is by default that of the best :data:`K`.
        """
        curve = self.curve if curve is None else curve
        reached = curve["seconds"][curve["mean"] <= error]
        return float(reached.min()) if len(reached) else math.inf


@dataclass(frozen=True)
class Outcomes:
    """All finished studies of a profile.

    Attributes
    ----------
    missing : names of the studies that were started, but have not used their whole budget.
    """

    profile: Profile
    all: tuple[Outcome, ...]
    missing: tuple[str, ...]

    @property
    def seeds(self) -> list[int]:
        """Seeds with at least one finished study."""
        return sorted({outcome.seed for outcome in self.all})

    def of(self, method: Method) -> list[Outcome]:
        """Return a method's outcomes, ordered by seed."""
        found = [outcome for outcome in self.all if outcome.method == method]
        return sorted(found, key=lambda outcome: outcome.seed)

    def get(self, method: Method, seed: int) -> Outcome | None:
        """Return the outcome of a method and a seed, or None."""
        return next((o for o in self.of(method) if o.seed == seed), None)

    def speedup(self, outcome: Outcome) -> float:
        """Return the speedup to random search's last mean of the best trials.

        The time of random search is that at which its mean first reached this value, not its whole
        budget. 0: the method never reached it; NaN: random search of this seed is missing, or has
        too few trials.
        """
        reference = self.get(REFERENCE, outcome.seed)
        if reference is None or math.isnan(reference.top):
            return math.nan
        return reference.time_to(reference.top) / outcome.time_to(reference.top)

    @property
    def fastest_probe(self) -> float:
        """Smallest CPU seconds of the fixed piece of work over all studies."""
        found = [o.machine.probe for o in self.all if o.machine is not None]
        return min(found, default=math.nan)

    def troubles(self, outcome: Outcome) -> list[str]:
        """Return the reasons why the times of a study are unreliable."""
        if outcome.machine is None:
            return ["the machine was not monitored"]
        held = outcome.result.cost()["device_seconds"]
        return outcome.machine.troubles(held, self.fastest_probe, not self.profile.gpus)

    def table(self) -> pd.DataFrame:
        """Return a row per study: definition, results, machine. Errors in eV."""
        rows = [self._row(outcome) for outcome in self.all]
        return pd.DataFrame(rows)

    def _row(self, outcome: Outcome) -> dict[str, Any]:
        cost = outcome.result.cost()
        watched = outcome.machine
        speedup = self.speedup(outcome)
        return {
            "profile": self.profile.name,
            "seed": outcome.seed,
            "method": outcome.method.name,
            "label": outcome.method.label,
            "seconds": outcome.seconds,
            "slot_seconds": outcome.slot_seconds,
            "trials_started": outcome.cut.num_trials,
            "trials_finished": outcome.n_finished,
            "trials_failed": outcome.n_failed,
            "epochs": len(outcome.cut.history()),
            "top6_mean": outcome.top,
            "top6_std": outcome.curve["std"].iloc[-1] if len(outcome.curve) else math.nan,
            "best_validation": outcome.best,
            "best_test": outcome.test,
            "seconds_to_target": outcome.time_to(self.profile.target, outcome.best_curve),
            "speedup_to_rs_top6": speedup,
            "checkpoints": cost["checkpoint_files"],
            "checkpoint_bytes": cost["checkpoint_bytes"],
            "search_seconds": cost["search_seconds"],
            "fallback_trials": cost["fallback_trials"],
            "sessions": watched.sessions if watched else math.nan,
            "worker_cpu_seconds": watched.worker_cpu if watched else math.nan,
            "own_cpu_seconds": watched.own_cpu if watched else math.nan,
            "device_seconds": cost["device_seconds"],
            "probe_seconds": watched.probe if watched else math.nan,
            "load": watched.load if watched else math.nan,
            "troubles": "; ".join(self.troubles(outcome)),
        }


def read(profile: Profile, storage: Path) -> Outcomes:
    """Read the studies of a profile in a directory.

    Raises
    ------
    ValueError : none of them is finished.
    """
    found, missing = [], []
    for path in sorted(storage.glob(f"{profile.name}-*")):
        method, seed = _named(profile, path)
        if method is None or not (path / "study.json").exists():
            continue
        if spent(path) < profile.seconds - ENOUGH:
            missing.append(path.name)
        else:
            found.append(_outcome(profile, method, seed, path))
    if not found:
        started = f"; started: {', '.join(missing)}" if missing else ""
        raise ValueError(
            f"{storage} contains no study of profile {profile.name!r} that has run for "
            f"{profile.seconds:g} s{started}. Run the same command without --report"
        )
    order = list(METHODS.values())
    found.sort(key=lambda outcome: (outcome.seed, order.index(outcome.method)))
    return Outcomes(profile, tuple(found), tuple(missing))


def _named(profile: Profile, path: Path) -> tuple[Method | None, int]:
    seed, _, name = path.name.removeprefix(f"{profile.name}-").partition("-")
    if name not in METHODS or not seed.isdecimal():
        return None, 0
    assert path.name == study_name(profile, int(seed), METHODS[name]), path
    return METHODS[name], int(seed)


def _outcome(profile: Profile, method: Method, seed: int, path: Path) -> Outcome:
    within = takewhile(lambda record: record.seconds <= profile.seconds, study_records(path))
    records: list[Record] = list(within)
    tested = path / TEST_FILE
    return Outcome(
        method=method,
        seed=seed,
        seconds=profile.seconds,
        cut=Result(records, read_manifest(path).objective, path),
        result=load_study(path),
        slot_seconds=_slot_seconds(records, profile.seconds),
        test=json.loads(tested.read_text())["test"] if tested.exists() else math.nan,
        machine=machine.read(path),
    )


def _slot_seconds(records: Iterable[Record], until: float) -> float:
    """Return the time of all slots of a study together."""
    total, n_slots, since = 0.0, 0, 0.0
    for record in records:
        if isinstance(record, SlotsChanged):
            total += n_slots * (record.seconds - since)
            n_slots, since = record.n_slots, record.seconds
    return total + n_slots * (until - since)


def on_grid(curves: Sequence[pd.DataFrame], column: str, grid: Any) -> Any:
    """Return values of step curves at times, (n curves, n times); NaN before a start."""
    values = np.full((len(curves), len(grid)), np.nan)
    for row, curve in zip(values, curves, strict=True):
        place = np.searchsorted(curve["seconds"].to_numpy(), grid, side="right") - 1
        begun = place >= 0
        row[begun] = curve[column].to_numpy()[place[begun]]
    return values
