"""Samplers of Optuna, for ``benchmarks/search.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna
import searching
from searching import Choice, Config, Float, Int, Make, Space


class Optuna:
    def __init__(self, space: Space, sampler: Any) -> None:
        self.study = optuna.create_study(sampler=sampler)
        self.distributions = {name: distribution(domain) for name, domain in space.items()}

    def ask(self) -> tuple[Any, Config]:
        trial = self.study.ask(self.distributions)
        return trial, dict(trial.params)

    def tell(self, token: Any, loss: float) -> None:
        self.study.tell(token, loss)

    def feed(self, configs: Sequence[Config], losses: Sequence[float]) -> None:
        for config, loss in zip(configs, losses, strict=True):
            self.study.add_trial(
                optuna.trial.create_trial(
                    params=config, distributions=self.distributions, value=loss
                )
            )


def distribution(domain: Float | Int | Choice) -> Any:
    match domain:
        case Float(low, high, log):
            return optuna.distributions.FloatDistribution(low, high, log=log)
        case Int(low, high):
            return optuna.distributions.IntDistribution(low, high)
        case Choice(values):
            return optuna.distributions.CategoricalDistribution(values)


def with_sampler(sampler: Callable[..., Any]) -> Make:
    return lambda space, seed: Optuna(space, sampler(seed=seed))


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    searching.run_case(
        {
            "Optuna TPE": with_sampler(optuna.samplers.TPESampler),
            "Optuna GP": with_sampler(optuna.samplers.GPSampler),
        }
    )
