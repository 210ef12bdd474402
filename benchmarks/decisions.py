"""Studies by promotion in virtual time, with a given checkpoint policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from daskhpo.core.commands import Command, Save
from daskhpo.core.domains import Real
from daskhpo.core.events import Launched, Record, Reported, Saved, SessionStarted, Suggested
from daskhpo.core.objective import Objective
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Continue, Limits, Pause
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.drive import drive
from daskhpo.schedulers import ASHA
from daskhpo.searchers import RandomSearch
from daskhpo.virtual.executor import SimulatedExecutor

SPACE = {"floor": Real(0.0, 1.0), "speed": Real(0.2, 1.2), "step": Real(10.0, 100.0, log=True)}
NOISE = 0.1


class Curve:
    """A power law with noise that depends only on the configuration."""

    def __init__(self, config: Any) -> None:
        self._floor, self._speed, self._step = config["floor"], config["speed"], config["step"]
        draws = np.random.default_rng(int(self._floor * 2**52)).normal(size=256)
        self._noise = config["noise"] * draws

    def metric(self, resource: int) -> float:
        return float(self._floor + self._speed / resource + self._noise[resource - 1])

    def seconds(self, resource: int) -> float:
        return float(self._step * resource)


class Tape:
    """A journal in memory."""

    def __init__(self) -> None:
        self.records: list[Record | Save] = []
        self.append = self.records.append

    def flush(self) -> None:
        pass


class Watched:
    """An executor that also records `Save` commands on the tape."""

    def __init__(self, executor: SimulatedExecutor, tape: Tape) -> None:
        self._executor, self._tape = executor, tape
        self.now, self.poll, self.close = executor.now, executor.poll, executor.close

    def perform(self, commands: Iterable[Command]) -> None:
        commands = list(commands)
        self._tape.records += [command for command in commands if isinstance(command, Save)]
        self._executor.perform(commands)


def simulate(
    policy: CheckpointPolicy,
    n_slots: int,
    eta: int,
    seed: int,
    *,
    noise: float = NOISE,
    max_t: int = 256,
    n_trials: int = 512,
) -> list[Record | Save]:
    """Run a study; return its records and its `Save` commands."""
    objective, tape = Objective("loss"), Tape()
    scheduler = ASHA(max_t, 1, eta, variant="promotion")
    space = Space(SPACE | {"noise": noise})
    coordinator = Coordinator(Problem(space, objective, scheduler, RandomSearch(), seed), tape)
    executor = Watched(SimulatedExecutor(Curve, objective, n_slots), tape)
    executor.perform(coordinator.handle(SessionStarted(Limits(n_trials), policy, 0.0)))
    drive(coordinator, executor, tape)
    return tape.records


def decisions(records: Sequence[Record | Save]) -> list[tuple[Any, ...]]:
    """Return the decisions in order, without times."""
    made: list[tuple[Any, ...]] = []
    for record in records:
        match record:
            case Suggested(trial, config):
                made.append(("suggested", trial, tuple(config.items())))
            case Launched(trial, _, _, until):  # its start depends on the kept state
                made.append(("launched", trial, until))
            case Reported(trial, decision=decision) if decision is not None:
                made.append(("reported", trial, record.steps[-1].resource, decision))
    return made


def eventful(records: Sequence[Record | Save]) -> Counter[str]:
    """Count segments, continuations, pauses by probability, resumptions and states."""
    counts: Counter[str] = Counter(
        [
            *("taken", "written", "at once", "later"),
            *("LIKELY", "UNLIKELY", "LIKELY resumed", "UNLIKELY resumed"),
        ]
    )
    counts.subtract(list(counts))
    paused: dict[int, str] = {}
    for record in records:
        match record:
            case Reported(trial, decision=Pause(keep)):
                counts["segments"] += 1
                paused[trial] = "LIKELY" if keep else "UNLIKELY"
                counts[paused[trial]] += 1
            case Reported(decision=decision) if decision is not None:
                counts["segments"] += 1
                counts["at once"] += isinstance(decision, Continue)
            case Launched(trial) if trial in paused:
                counts["later"] += 1
                counts[f"{paused.pop(trial)} resumed"] += 1
            case Save():
                counts["taken"] += 1
            case Saved():
                counts["written"] += 1
    return counts
