"""Conversion of metrics to losses, which are minimised; NaN is the worst."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from daskhpo.core.arguments import check_choice, shown
from daskhpo.core.errors import InvalidArgument, MetricError
from daskhpo.core.plain import LARGEST_INT, short, to_python, why_not_text
from daskhpo.core.types import Metrics

if TYPE_CHECKING:
    from daskhpo.core.events import Step

Mode = Literal["min", "max"]

# Columns of a study's tables and files; a metric with such a name would hide one.
RESERVED = frozenset(
    {"trial", "attempt", "resource", "seconds", "status", "bracket", "reason", "config"}
)
NOT_FINITE = "is not finite"  # ends the error of a trial whose metric is not finite
RESERVED_PREFIXES = ("config/", "best/", "seconds/", "peak_memory/")


@dataclass(frozen=True, slots=True)
class Objective:
    """The study's metric, and whether it is minimised or maximised.

    A non-finite value has the worst loss, ``inf``. A trial that reports one fails, so schedulers
    and searchers receive only finite losses.

    Raises
    ------
    ValueError : ``mode`` is neither ``"min"`` nor ``"max"``, or the metric has no name.
    """

    metric: str
    mode: Mode = "min"

    def __post_init__(self) -> None:
        mode = check_choice("mode", self.mode, ("min", "max"))
        if not isinstance(self.metric, str) or not self.metric:
            raise InvalidArgument(
                f"metric={shown(self.metric)} must be a str: the name of a reported number"
            )
        metric = str.__str__(self.metric)  # a new study checks more: see `check_parts`
        object.__setattr__(self, "mode", mode)  # a frozen object cannot be assigned to
        object.__setattr__(self, "metric", metric)

    def check(self, metrics: Any) -> dict[str, float]:
        """Return the metrics of one unit as plain Python numbers.

        Numpy scalars and tensors of one element count as numbers. A number alone is the study's
        metric.

        Raises
        ------
        MetricError : not a flat dict of numbers, or a dict without the study's metric.
        """
        if type(metrics) is not dict and not isinstance(metrics, Mapping):
            if single_number(metrics) is None:
                raise MetricError(
                    f"reported {short(metrics)}, a {type(metrics).__name__}; "
                    f"report a dict of numbers with {self.metric!r} in it"
                )
            metrics = {self.metric: metrics}
        plain = plain_metrics(metrics)
        if self.metric not in plain:
            raise MetricError(
                f"the study's metric {self.metric!r} is missing from a report, "
                f"which has {sorted(plain)}; change metric=, or report it"
            )
        return plain

    def loss(self, metrics: Metrics) -> float:
        """Return the loss of one unit's metrics; ``inf`` if the metric is not finite.

        The metric must be among them.
        """
        value = metrics[self.metric]
        if not math.isfinite(value):
            return math.inf
        return value if self.mode == "min" else -value

    def best_loss(self, steps: Sequence[Step]) -> float:
        """Return the smallest loss of one unit or more."""
        values = [step.metrics[self.metric] for step in steps]
        best = min(values) if self.mode == "min" else -max(values)
        return best if math.isfinite(best) else min(self.loss(step.metrics) for step in steps)

    def value(self, loss: float) -> float:
        """Convert a loss back to the user's metric."""
        return loss if self.mode == "min" else -loss

    def reached(self, loss: float, target: float) -> bool:
        """Return True if a loss is at least as good as a target for the user's metric."""
        return loss <= (target if self.mode == "min" else -target)


def plain_metrics(metrics: Mapping[Any, Any]) -> dict[str, float]:
    """Return metrics as plain Python numbers.

    Numpy scalars and tensors of one element count as numbers.

    Raises
    ------
    MetricError : not a flat dict of numbers.
    """
    plain = {}
    for name, value in metrics.items():
        number = value if type(value) in (float, int) else single_number(value)
        if number is None or type(name) is not str:
            raise MetricError(
                f"reported {short(name)}: {short(value)}, a {type(value).__name__}; "
                "report a dict of names to numbers (flat, no lists, no strings)"
            )
        if type(number) is int and abs(number) > LARGEST_INT:
            raise MetricError(
                f"reported {name!r} as an int that is larger than any float; scale it down"
            )
        check_metric_name(name)
        plain[name] = number
    return plain


@lru_cache(maxsize=1000)  # each report has the same names
def check_metric_name(name: str) -> None:
    """Refuse the name of a metric that would hide a column of the study's tables.

    Raises
    ------
    MetricError : the name is reserved, or begins with a reserved prefix, or is no text that a file
        can hold.
    """
    if reason := why_not_text(name):
        raise MetricError(f"the metric name {name!r} {reason}; rename the metric")
    if name in RESERVED:
        raise MetricError(
            f"the metric name {name!r} is reserved for a column of the study's tables; "
            "rename the metric"
        )
    if name.startswith(RESERVED_PREFIXES):
        prefix = next(prefix for prefix in RESERVED_PREFIXES if name.startswith(prefix))
        raise MetricError(
            f"the metric name {name!r} begins with {prefix!r}, as columns of the study's tables "
            "do; rename the metric"
        )


def single_number(value: Any) -> float | None:
    """Return a Python number for anything that is a single number, or None."""
    value = to_python(value)
    if isinstance(value, (int, float)):  # bools and other subclasses
        return float(value) if isinstance(value, float) else int(value)
    if isinstance(value, np.generic) or getattr(value, "size", None) is None:
        return None  # numpy's dates and durations, among others
    try:
        plain = to_python(value.item())  # tensors and arrays of one element
    except (ValueError, RuntimeError, TypeError, AttributeError):
        return None
    return plain if isinstance(plain, (int, float)) else None
