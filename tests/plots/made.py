"""Studies in virtual time whose hyperparameters matter, for the tests of plots and pages."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

from daskhpo import Result
from daskhpo.core.objective import Mode, Objective
from daskhpo.core.random import rng
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.journal import encode_record, read_journal
from daskhpo.engine.session import create_directory
from daskhpo.plots.tables import StudyTables
from daskhpo.schedulers import ASHA, PBT
from daskhpo.searchers import RandomSearch
from daskhpo.simulation import Simulation
from daskhpo.space import Categorical, Integer, Ordinal, Real
from daskhpo.virtual.executor import SimulatedExecutor
from daskhpo.virtual.replay import simulate

SPACE: dict[str, Any] = {
    "lr": Real(1e-4, 1.0, log=True),
    "width": Ordinal([16, 32, 64, 128]),
    "dropout": Real(0.0, 0.5),
    "layers": Integer(1, 6),
    "optimizer": Categorical(["sgd", "adam", "lamb"]),
}


class Landscape:
    """A learning curve: "lr" matters most, "layers" not at all; some trials fail by NaN."""

    def __init__(self, config: Any) -> None:
        generator = rng(0, repr(sorted(config.items(), key=repr)))
        self._noise = 0.01 * generator.normal(size=100)
        self._floor = (
            0.05
            + 0.06 * (math.log10(config["lr"]) + 1) ** 2
            + 0.3 * config["dropout"] ** 2
            + 0.15 * (config["optimizer"] == "lamb")
            + 1.5 / config["width"]
        )
        fails = generator.random() < 0.05
        self._fails_at = int(generator.integers(1, 4)) if fails else None
        self._pace = 20 + config["width"] * config["layers"] / 4

    def metric(self, resource: int) -> float:
        if self._fails_at is not None and resource >= self._fails_at:
            return math.nan
        return max(1e-3, self._floor + 1.2 * resource**-0.6 + float(self._noise[resource]))

    def seconds(self, resource: int) -> float:
        return self._pace * resource


def population() -> PBT:
    """Return a scheduler that trains a population."""
    return PBT(40, 5, ["lr", "dropout"])


@cache
def asha_result(num_trials: int = 200, seed: int = 0) -> Result:
    """Return a finished study under ASHA; do not change it."""
    searcher, scheduler = RandomSearch(), ASHA(max_t=27)
    simulation = Simulation(
        Landscape, SPACE, "error", "min", scheduler, searcher, num_workers=8, seed=seed
    )
    return simulation.run(num_trials=num_trials)


@cache
def population_result(seed: int = 0) -> Result:
    """Return a finished population; do not change it."""
    simulation = Simulation(
        Landscape, SPACE, "error", "min", population(), RandomSearch(), num_workers=8, seed=seed
    )
    return simulation.run(num_trials=10)


class _Lines:
    """A journal that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def append(self, record: Any) -> None:
        self.lines.append(encode_record(record))

    def flush(self) -> None:
        pass


def write_study(
    directory: Path,
    scheduler: Scheduler | None = None,
    num_trials: int = 100,
    share: float = 1.0,
    mode: Mode = "min",
    seed: int = 0,
    num_workers: int = 8,
) -> list[str]:
    """Write a study's directory, with the first part of its journal; return the lines after it."""
    scheduler = ASHA(max_t=27) if scheduler is None else scheduler
    problem = Problem(Space(SPACE), Objective("error", mode), scheduler, RandomSearch(), seed)
    create_directory(directory, problem, None)
    journal = _Lines()
    executor = SimulatedExecutor(Landscape, problem.objective, num_workers)
    simulate(problem, executor, Limits(num_trials=num_trials), CheckpointPolicy(), journal)
    n = round(share * len(journal.lines))
    path = directory / "journal.jsonl"
    path.write_text("".join(f"{line}\n" for line in journal.lines[:n]))
    return journal.lines[n:]


def records_of(directory: Path) -> list[Any]:
    """Return the records of a study's journal."""
    return list(read_journal(directory / "journal.jsonl"))


def filled(losses: list[float], mode: Mode = "min") -> StudyTables:
    """Tables of trials with one unit each; inf: not reported."""
    tables = StudyTables(Objective("error", mode))
    for number, loss in enumerate(losses):
        tables.add_trial(0, float(number))
        tables.set_config(tables.n_trials - 1, {"x": number / 7})
        if math.isfinite(loss):
            tables.add_unit(number, 1, loss, number + 0.5)
            tables.best[number] = tables.last[number] = loss
            tables.at[number] = number + 0.5
    return tables
