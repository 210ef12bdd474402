"""Optuna's own loop in virtual time: its TPE and its Hyperband pruner."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Any

import optuna

from daskhpo.core.domains import Integer, Real
from daskhpo.core.space import Space
from daskhpo.core.types import Config
from experiments.default_rule.milestones import Milestones
from experiments.default_rule.tables import Table


def play(
    table: Table, workers: int, seed: int, horizon: float, target: float, found: Milestones
) -> None:
    """Play a study of Optuna until the target or the horizon, in seconds.

    Each worker asks for a trial, reports after each unit, and stops if the pruner says so, as an
    objective function of Optuna does.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    max_t, source = table.task.curves.max_t, table.source()
    study = optuna.create_study(
        study_name=f"{table.task.name} {table.variant} {workers} {seed}",  # it assigns brackets
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=workers > 1),
        pruner=optuna.pruners.HyperbandPruner(1, max_t, 3),
    )
    events: list[tuple[float, int, int, float, Any, Any]] = []  # the end of each unit

    def start(now: float) -> None:
        trial = study.ask()
        curve = source(_config(trial, table.space))
        found.n_trials += 1
        heappush(events, (now + curve.seconds(1), trial.number, 1, now, trial, curve))

    for _ in range(workers):
        start(0.0)
    while events:
        now, number, unit, zero, trial, curve = heappop(events)
        if now > horizon:
            break
        loss = curve.metric(unit)
        found.add(loss, now)
        if loss <= target:
            break
        if not math.isfinite(loss):
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            start(now)
            continue
        trial.report(loss, unit)
        if unit == max_t:
            study.tell(trial, loss)
            start(now)
        elif trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            start(now)
        else:
            end = zero + curve.seconds(unit + 1)
            heappush(events, (end, number, unit + 1, zero, trial, curve))


def _config(trial: Any, space: Space) -> Config:
    config: dict[str, Any] = {}
    for name, domain in space.domains.items():
        match domain:
            case Real():
                config[name] = trial.suggest_float(name, domain.low, domain.high, log=domain.log)
            case Integer():
                config[name] = trial.suggest_int(name, domain.low, domain.high, log=domain.log)
            case _:
                raise ValueError(f"{name} is {domain!r}: the recorded tables have only numbers")
    return config
