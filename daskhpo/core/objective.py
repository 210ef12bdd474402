"""From metrics to losses, once: inside the house every loss is minimised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from daskhpo.core.errors import MetricError
from daskhpo.core.types import Metrics

Mode = Literal["min", "max"]

# Columns of the tables that a study gives; a metric of that name would hide one.
RESERVED = frozenset({"trial", "attempt", "resource", "seconds", "status", "bracket", "reason"})


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

    def check(self, metrics: Any) -> dict[str, float]:
        """The metrics of one unit as plain Python numbers.

        Numpy scalars and tensors of one element are taken as numbers.

        Raises
        ------
        MetricError : they are no flat dict of numbers, or the study's metric is not among them.
        """
        if not isinstance(metrics, Mapping):
            raise MetricError(
                f"reported {metrics!r}, a {type(metrics).__name__}; "
                f"report a dict of numbers with {self.metric!r} in it"
            )
        plain = {}
        for name, value in metrics.items():
            number = value if type(value) in (float, int) else _number(value)
            if number is None or not isinstance(name, str):
                raise MetricError(
                    f"reported {name!r}: {value!r}, a {type(value).__name__}; "
                    "metrics are names with numbers (flat, no lists, no texts)"
                )
            if name in RESERVED:
                raise MetricError(
                    f"the metric name {name!r} is taken by a column of the study's tables; "
                    "give it another name"
                )
            plain[name] = number
        if self.metric not in plain:
            raise MetricError(
                f"the study's metric {self.metric!r} is missing from a report, "
                f"which has {sorted(plain)}; correct metric= or what is reported"
            )
        return plain

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


def _number(value: Any) -> float | None:
    """A Python number from anything that is one number, or None."""
    if isinstance(value, (int, float)):  # bools and subclasses, such as numpy.float64
        return float(value) if isinstance(value, float) else int(value)
    item = getattr(value, "item", None)  # numpy scalars, tensors of one element
    if item is None or getattr(value, "size", None) is None:
        return None
    try:
        plain = item()
    except (ValueError, RuntimeError, TypeError):
        return None
    return plain if isinstance(plain, (int, float)) else None
