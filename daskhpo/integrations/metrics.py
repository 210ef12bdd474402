"""Which of a framework's metrics a trial reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daskhpo.core.arguments import shown
from daskhpo.core.errors import InvalidArgument, MetricError

MetricNames = str | Sequence[str] | Mapping[str, str] | None


def check_metrics(metrics: Any) -> dict[str, str] | None:
    """Return the framework's name of each metric to report; None: all numbers.

    Parameters
    ----------
    metrics : one name, several, or ``{reported name: the framework's}``.
    """
    if metrics is None:
        return None
    if isinstance(metrics, str):
        return {metrics: metrics}
    if isinstance(metrics, Mapping):
        chosen = dict(metrics)
    elif isinstance(metrics, Sequence):
        chosen = {name: name for name in metrics}
    else:
        chosen = {}
    if not chosen or not all(isinstance(name, str) for pair in chosen.items() for name in pair):
        raise InvalidArgument(
            f"metrics={shown(metrics)} must be a metric's name, a list of names, or a dict such as "
            "{'loss': 'val_loss'}; None: all"
        )
    return chosen


def selected(metrics: dict[str, str] | None, found: Mapping[str, Any]) -> dict[str, float]:
    """Return what to report of what a framework has.

    Raises
    ------
    MetricError : a name is not there; the message has those that are.
    """
    if metrics is None:
        numbers = {name: _number(value) for name, value in found.items()}
        return {name: number for name, number in numbers.items() if number is not None}
    missing = [name for name in metrics.values() if name not in found]
    if missing:
        raise MetricError(
            f"there is no metric {missing[0]!r} after this unit; there are {[*found]}"
        )
    return {name: float(found[there]) for name, there in metrics.items()}


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
