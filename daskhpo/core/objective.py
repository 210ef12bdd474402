"""From metrics to losses, once: inside the house every loss is minimised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from daskhpo.core.types import Metrics

Mode = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class Objective:
    """Which metric counts, and which way is better.

    A non-finite value has the worst loss, ``inf``; the coordinator ends such a trial as failed,
    so that nothing non-finite reaches a scheduler or a searcher.

    Raises
    ------
    ValueError : ``mode`` is neither ``"min"`` nor ``"max"``, or the metric has no name.
    """

    metric: str
    mode: Mode = "min"

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode={self.mode!r} must be 'min' or 'max'")
        if not isinstance(self.metric, str) or not self.metric:
            raise ValueError(f"metric={self.metric!r} must be the name of a reported metric")

    def loss(self, metrics: Metrics) -> float:
        """Loss of one unit's metrics (which contain the metric); ``inf`` if it is not finite."""
        value = metrics[self.metric]
        if not math.isfinite(value):
            return math.inf
        return value if self.mode == "min" else -value

    def value(self, loss: float) -> float:
        """The metric as the user counts it."""
        return loss if self.mode == "min" else -loss

    def reached(self, loss: float, target: float) -> bool:
        """Whether a loss is at least as good as a target given in the user's units."""
        return loss <= (target if self.mode == "min" else -target)
