"""Dragonfly, in a Python environment of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daskhpo.core.errors import OptimiserLost
from daskhpo.core.space import Space
from daskhpo.core.types import Config
from daskhpo.searchers.external.adapter import AskTellSearcher, Optimiser
from daskhpo.searchers.external.process import ProcessOptimiser, interpreter

CHILD = Path(__file__).with_name("dragonfly_child.py")
RECIPE = """Dragonfly 0.1.7 needs a Python environment of its own, with numpy below 1.24:
    python3 -m venv dragonfly
    dragonfly/bin/pip install 'numpy<1.24' 'setuptools<60' wheel scipy
    dragonfly/bin/pip install --no-build-isolation dragonfly-opt
and then DragonflySearch(python="dragonfly/bin/python")"""


class DragonflySearch(AskTellSearcher):
    """Dragonfly's Gaussian process bandit, in a process of its own.

    Parameters
    ----------
    python : the interpreter of an environment where ``dragonfly-opt`` is installed.
    points_to_evaluate : configurations to try first, in this order.
    options : Dragonfly's own, by their names, such as ``{"acq": "ei"}``.
    timeout : seconds that an answer may take.

    Notes
    -----
    ``Real`` and ``Integer`` are Dragonfly's float and int; logarithmic ones are floats of the
    logarithm, which Dragonfly does not have. ``Ordinal`` is ``discrete_numeric``, ``Categorical``
    is ``discrete``. The loss of a trial is its running best, whatever its resource; that of a
    failed one is the worst of the others. Trials that run are hallucinated, as Dragonfly calls it.
    ``python`` and ``timeout`` are not part of a study's definition. For the rest see
    :class:`~daskhpo.searchers.external.process.OutOfProcess`.

    Raises
    ------
    ValueError : there is no such interpreter; the message tells how to make its environment.
    OptimiserLost : (when the study runs) there is no Dragonfly in its environment.

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
        if not timeout > 0:
            raise ValueError(f"timeout={timeout!r} must be a number of seconds above 0")
        try:
            self.python = interpreter(python)
        except ValueError as error:
            raise ValueError(f"{error}\n{RECIPE}") from None
        self.options, self.timeout = dict(options or {}), timeout

    def described(self) -> list[str]:
        return [f"options={self.options!r}"] if self.options else []

    def optimiser(self, space: Space, seed: int) -> Optimiser:
        try:
            return ProcessOptimiser(
                [self.python, str(CHILD)], space, seed, self.options, self.timeout
            )
        except OptimiserLost as error:
            raise OptimiserLost(f"{error}\n{RECIPE}") from error
