"""Outcomes of the comparison in virtual time: for tests of what is drawn and written of them."""

from __future__ import annotations

import math
from dataclasses import replace

from daskhpo.searchers import RandomSearch
from daskhpo.simulation import Simulation
from experiments.time_to_solution.methods import METHODS
from experiments.time_to_solution.outcomes import Outcome, Outcomes
from experiments.time_to_solution.profiles import PROFILES

PROFILE = replace(PROFILES["laptop"], seconds=300.0)


class Net:
    """A network that learns the sooner and the further, the nearer its rate is to 0.01."""

    def __init__(self, config):
        off = abs(math.log10(config["lr"]) + 2)
        self.floor, self.speed = 0.06 + 0.2 * off, 0.2 * (1 - off / 2)

    def metric(self, resource):
        return self.floor + 0.6 * math.exp(-self.speed * resource)

    def seconds(self, resource):
        return 0.4 * resource


def outcome(method, seed, seconds=PROFILE.seconds, machine=None):
    """A study of random configurations under a method's scheduler."""
    method = METHODS[method]
    task = PROFILE.task
    simulation = Simulation(
        Net,
        task.space(),
        "val_mae",
        "min",
        method.scheduler(task),
        RandomSearch(),
        num_workers=2,
        seed=seed,
    )
    result = simulation.run(time_budget=seconds)
    test = 1.1 * result.best_value
    return Outcome(method, seed, seconds, result, result, 2 * seconds, test, machine)


def outcomes(n_seeds=3, methods=tuple(METHODS), **options):
    """Every method with so many seeds."""
    found = [outcome(m, seed, **options) for seed in range(n_seeds) for m in methods]
    return Outcomes(PROFILE, tuple(found), ())
