"""Checks of records from a journal that accident or malice may have changed."""

from __future__ import annotations

import builtins
import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from daskhpo.core.events import (
    Exploited,
    Record,
    Reported,
    Suggested,
    TrialPauseRequested,
    TrialStopRequested,
)

MAX_INT = 2**63  # of numbers of trials, units and rows
_NUMBERS = (int, float)
_Check = Callable[[Any], bool]


class RecordChecker:
    """Checks the records of one journal, in order: types, and named trials.

    Parameters
    ----------
    metric : the study's metric, which each report has; None: not known.
    any_trial : True: trials that were never suggested may be named.
    """

    def __init__(self, metric: str | None = None, *, any_trial: bool = False) -> None:
        self._metric, self._any_trial = metric, any_trial
        self._trials: set[int] = set()

    def check(self, record: Record) -> None:
        """Check the next record.

        Raises
        ------
        ValueError : a field has a value that no session writes, or the trial was never suggested.
        """
        kind = type(record)
        if kind is Reported:
            _check_reported(record, self._metric)  # type: ignore[arg-type]
        else:
            check_fields(record)
            if not _is_time(record.seconds):
                raise ValueError(f"its time is {record.seconds!r:.80}")
        trial = getattr(record, "trial", None)
        by_hand = kind is TrialStopRequested or kind is TrialPauseRequested  # people may err
        if trial is None or self._any_trial or by_hand:
            return
        if kind is Suggested:
            if trial in self._trials:
                raise ValueError(f"trial {trial} is suggested again")
            self._trials.add(trial)
        elif trial not in self._trials:
            raise ValueError(f"trial {trial} was not suggested before")
        if type(record) is Exploited and record.source not in self._trials:
            raise ValueError(f"its source, trial {record.source}, was not suggested before")


def check_fields(value: Any) -> None:
    """Check that the fields of a dataclass have their types.

    Raises
    ------
    ValueError : one has not.
    """
    kind: Any = type(value)
    if _is_whole(kind)(value):
        return
    for name, is_valid in _checks_of(kind):
        if not is_valid(found := getattr(value, name)):
            raise ValueError(f"{name} is {found!r:.80}")


def _check_reported(record: Reported, metric: str | None) -> None:
    """Check nine records of ten, without a loop over their fields."""
    if not (
        _is_int(record.trial)
        and _is_int(record.attempt)
        and _is_time(record.seconds)
        and type(record.ended) is bool
        and type(record.preempted) is bool
    ):
        raise ValueError("a field has the wrong type")
    last = 0
    for resource, metrics, seconds in record.steps:
        if type(resource) is not int or not last < resource < MAX_INT:
            raise ValueError(f"its units are not in order: {resource!r:.80} after {last}")
        last = resource
        if not _is_time(seconds) or type(metrics) is not dict:
            raise ValueError("a step has the wrong type")
        if metric is not None and metric not in metrics:
            raise ValueError(f"a report lacks {metric!r:.80}, the metric that study.json names")
        for value in metrics.values():
            if type(value) is not float and not _is_metric(value):
                raise ValueError(f"a metric is {value!r:.80}")
    if record.decision is not None and not _checked(record.decision):
        raise ValueError(f"its decision is {record.decision!r:.80}")
    if record.memory is not None and not _checked(record.memory):
        raise ValueError(f"its memory is {record.memory!r:.80}")


def _is_int(value: Any) -> bool:
    return type(value) is int and -1 <= value < MAX_INT


def _is_time(value: Any) -> bool:
    return type(value) in _NUMBERS and -MAX_INT < value < MAX_INT


def _is_number(value: Any) -> bool:
    return type(value) is float or _is_metric(value)


def _is_metric(value: Any) -> bool:
    try:
        return type(value) is int and float(value) is not None
    except OverflowError:
        return False


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(type(name) is str for name in value)


def _checked(value: Any) -> bool:
    """Return True if all fields of a dataclass or a named tuple have their types."""
    kind: Any = type(value)
    return bool(_is_whole(kind)(value))


@functools.cache
def _checks_of(kind: type) -> list[tuple[str, _Check]]:
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)] if is_dataclass(kind) else kind._fields  # type: ignore[attr-defined]
    return [(name, _check_of(hints[name])) for name in names]


@functools.cache
def _is_whole(kind: type) -> _Check:
    """Return a function that tells whether all fields of a dataclass have their types.

    It is one expression, as a wire message's codec is: a loop over the fields takes three times as
    long, and there may be a million records.
    """
    known: dict[str, Any] = {"is_metric": _is_metric}
    parts = ["True"]
    hints = get_type_hints(kind)
    for name, is_valid in _checks_of(kind):
        match hints[name]:
            case builtins.int:
                parts.append(f"type(r.{name}) is int and -1 <= r.{name} < {MAX_INT}")
            case builtins.float:
                parts.append(f"(type(r.{name}) is float or is_metric(r.{name}))")
            case builtins.str | builtins.bool as plain:
                parts.append(f"type(r.{name}) is {plain.__name__}")
            case _:
                known[f"is_{name}"] = is_valid
                parts.append(f"is_{name}(r.{name})")
    check: _Check = eval(f"lambda r: {' and '.join(parts)}", known)
    return check


def _check_of(hint: Any) -> _Check:
    """Return the check of values of a type."""
    if hint is Any:  # also a class, since Python 3.11
        return lambda value: True
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        each = [_check_of(argument) for argument in arguments]
        return lambda value: any(is_valid(value) for is_valid in each)
    if origin is Literal:
        return lambda value: type(value) is str and value in arguments
    if origin is not None and issubclass(origin, Mapping):
        item = _check_of(arguments[1])
        return lambda value: _is_mapping(value) and all(map(item, value.values()))
    if hint is int:
        return _is_int
    if hint is float:
        return _is_number
    if is_dataclass(hint) or hasattr(hint, "_fields"):
        return lambda value: type(value) is hint and _checked(value)
    if isinstance(hint, type):
        return lambda value: type(value) is hint
    raise TypeError(f"no check for {hint}")
