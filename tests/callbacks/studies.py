"""A study's directory with a manifest, for loggers that read its space."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from daskhpo.core.objective import Objective
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.session import create_directory
from daskhpo.schedulers import FIFO
from daskhpo.searchers import RandomSearch
from daskhpo.space import Categorical, Integer, Real, Space
from daskhpo.testing.callback import an_info

SPACE = Space(
    {
        "lr": Real(0.01, 1.0, log=True),
        "layers": Categorical([(3, 4), (5, 6)]),
        "optimizer": Categorical(["adam", "sgd"]),
        "depth": Integer(1, 9),
        "constant": 3,
    }
)


def a_study(directory: Any, records: Any, mode: str = "min") -> Any:
    """Return the description of a study whose manifest is there."""
    objective = Objective("loss", mode)  # type: ignore[arg-type]
    create_directory(directory, Problem(SPACE, objective, FIFO(9), RandomSearch(), 0), None)
    return replace(an_info(directory, records), objective=objective)
