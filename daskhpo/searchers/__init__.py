"""Searchers: algorithms that propose configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daskhpo._lazy import lazy
from daskhpo.core.searcher import Searcher
from daskhpo.searchers.grid import GridSearch
from daskhpo.searchers.random import RandomSearch

if TYPE_CHECKING:
    from daskhpo.searchers.external.ax import AxSearch
    from daskhpo.searchers.external.dragonfly import DragonflySearch
    from daskhpo.searchers.external.hyperopt import HyperOptSearch
    from daskhpo.searchers.external.optuna import OptunaSearch
    from daskhpo.searchers.external.process import OutOfProcess
    from daskhpo.searchers.external.sigopt import SigOptSearch
    from daskhpo.searchers.external.skopt import SkoptSearch
    from daskhpo.searchers.forest.search import ForestSearch
    from daskhpo.searchers.gp.search import GPSearch
    from daskhpo.searchers.repeater import Repeater

__all__ = [
    "AxSearch",
    "DragonflySearch",
    "ForestSearch",
    "GPSearch",
    "GridSearch",
    "HyperOptSearch",
    "OptunaSearch",
    "OutOfProcess",
    "RandomSearch",
    "Repeater",
    "Searcher",
    "SigOptSearch",
    "SkoptSearch",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "AxSearch": "daskhpo.searchers.external.ax",
        "DragonflySearch": "daskhpo.searchers.external.dragonfly",
        "ForestSearch": "daskhpo.searchers.forest.search",
        "GPSearch": "daskhpo.searchers.gp.search",
        "HyperOptSearch": "daskhpo.searchers.external.hyperopt",
        "OptunaSearch": "daskhpo.searchers.external.optuna",
        "OutOfProcess": "daskhpo.searchers.external.process",
        "Repeater": "daskhpo.searchers.repeater",
        "SigOptSearch": "daskhpo.searchers.external.sigopt",
        "SkoptSearch": "daskhpo.searchers.external.skopt",
    },
)
