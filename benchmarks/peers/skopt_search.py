"""The optimiser of scikit-optimize, for ``benchmarks/search.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import searching
import skopt
from searching import Choice, Config, Float, Int, Make, Space
from skopt.space import Categorical, Integer, Real


class Skopt:
    def __init__(self, space: Space, seed: int, acquisition: str) -> None:
        self.names = list(space)
        dimensions = [dimension(domain) for domain in space.values()]
        # All options are defaults, except the model: in a mixed space the default is a forest.
        self.optimizer = skopt.Optimizer(
            dimensions, "GP", acq_func=acquisition, random_state=seed, n_initial_points=10
        )

    def ask(self) -> tuple[Any, Config]:
        point = self.optimizer.ask()
        return point, dict(zip(self.names, point, strict=True))

    def tell(self, token: Any, loss: float) -> None:
        self.optimizer.tell(token, loss)

    def feed(self, configs: Sequence[Config], losses: Sequence[float]) -> None:
        points = [[config[name] for name in self.names] for config in configs]
        self.optimizer.tell(points, list(losses))


def dimension(domain: Float | Int | Choice) -> Any:
    match domain:
        case Float(low, high, log):
            return Real(low, high, prior="log-uniform" if log else "uniform")
        case Int(low, high):
            return Integer(low, high)
        case Choice(values):
            return Categorical(values)


def with_acquisition(name: str) -> Make:
    return lambda space, seed: Skopt(space, seed, name)


if __name__ == "__main__":
    searching.run_case(
        {f"scikit-optimize {name}": with_acquisition(name) for name in ("EI", "LCB", "gp_hedge")}
    )
