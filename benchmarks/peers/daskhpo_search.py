"""Searchers of daskhpo, for ``benchmarks/search.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import searching
from searching import Choice, Config, Float, Int, Make

from daskhpo.core.searcher import Searcher
from daskhpo.core.types import Report, Status, Trial
from daskhpo.searchers import GPSearch, RandomSearch
from daskhpo.space import Categorical, Integer, Real, Space


class Daskhpo:
    """A searcher that is called for each trial as the coordinator does."""

    def __init__(self, space: searching.Space, seed: int, searcher: Searcher) -> None:
        self.searcher, self.n = searcher, 0
        searcher.setup(Space({name: domain(given) for name, given in space.items()}), seed)

    def ask(self) -> tuple[Any, Config]:
        config = self.searcher.suggest(self.n)
        assert config is not None
        token = self.n, config
        self.searcher.on_start(*token)
        self.n += 1
        return token, dict(config)

    def tell(self, token: Any, loss: float) -> None:
        number, config = token
        trial = Trial(number, config, Status.RUNNING, until=1, resource=1, best_loss=loss)
        self.searcher.observe(trial, Report(1, (loss,), loss))
        self.searcher.on_end(trial._replace(status=Status.COMPLETED))

    def feed(self, configs: Sequence[Config], losses: Sequence[float]) -> None:
        for config, loss in zip(configs, losses, strict=True):
            self.searcher.on_start(self.n, config)
            self.n += 1
            self.tell((self.n - 1, config), loss)


def domain(given: Float | Int | Choice) -> Any:
    match given:
        case Float(low, high, log):
            return Real(low, high, log=log)
        case Int(low, high):
            return Integer(low, high)
        case Choice(values):
            return Categorical(values)


def with_searcher(make: Callable[[], Searcher]) -> Make:
    return lambda space, seed: Daskhpo(space, seed, make())


METHODS = {
    "GPSearch()": with_searcher(GPSearch),
    'GPSearch("LCB")': with_searcher(lambda: GPSearch("LCB")),
    "RandomSearch()": with_searcher(RandomSearch),
}

if __name__ == "__main__":
    searching.run_case(METHODS)
