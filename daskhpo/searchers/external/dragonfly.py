"""The searcher that uses Dragonfly, in a separate Python environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daskhpo.core.arguments import check_mapping, check_number
from daskhpo.core.errors import OptimiserLost
from daskhpo.core.space import Space
from daskhpo.core.types import Config
from daskhpo.searchers.external.adapter import AskTellSearcher, Optimiser
from daskhpo.searchers.external.process import ProcessOptimiser, interpreter

CHILD = Path(__file__).with_name("dragonfly_child.py")
RECIPE = """Dragonfly 0.1.7 needs a separate Python environment, with numpy below 1.24:
    python3 -m venv dragonfly
    dragonfly/bin/pip install 'numpy<1.24' 'setuptools<60' wheel scipy
    dragonfly/bin/pip install --no-build-isolation dragonfly-opt
Then use DragonflySearch(python="dragonfly/bin/python")."""


class DragonflySearch(AskTellSearcher):
    """Dragonfly's Gaussian process bandit, in a separate process.

    Parameters
    ----------
    python : path of the interpreter of an environment with ``dragonfly-opt``.
    points_to_evaluate : configurations to try first, in this order.
    options : Dragonfly's options by name, such as ``{"acq": "ei"}``.
    timeout : seconds for each answer.

    Notes
    -----
    ``Real`` and ``Integer`` become Dragonfly's float and int. Logarithmic ones become floats of the
    logarithm, because Dragonfly has no logarithmic scale. ``Ordinal`` becomes ``discrete_numeric``,
    ``Categorical`` becomes ``discrete``. A trial's loss is its running best, at any resource; a
    failed trial gets the worst loss of the others. Running trials are hallucinated (Dragonfly's
    term). ``python`` and ``timeout`` are not part of a study's definition. For the rest see
    :class:`~daskhpo.searchers.external.process.OutOfProcess`.

    Raises
    ------
    ValueError : no such interpreter; the message explains how to create its environment.
    OptimiserLost : (when the study runs) Dragonfly is not installed in that environment.

    References
    ----------
    Kandasamy et al. 2020, *Tuning Hyperparameters without Grad Students: Scalable and Robust
    Bayesian Optimisation with Dragonfly*.
    """

    def __init__(
        self,
        python: str | os.PathLike[str],
        points_to_evaluate: Sequence[Config] | None = None,
        options: Mapping[str, Any] | None = None,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(points_to_evaluate)
        self.timeout = check_number("timeout", timeout, above=0, why="seconds")
        self.options = {} if options is None else check_mapping("options", options)
        try:
            self.python = interpreter(python)
        except ValueError as error:
            raise ValueError(f"{error}\n{RECIPE}") from None

    def described(self) -> list[str]:
        return [f"options={self.options!r}"] if self.options else []

    def optimiser(self, space: Space, seed: int) -> Optimiser:
        try:
            return ProcessOptimiser(
                [self.python, str(CHILD)], space, seed, self.options, self.timeout
            )
        except OptimiserLost as error:
            raise OptimiserLost(f"{error}\n{RECIPE}") from error
