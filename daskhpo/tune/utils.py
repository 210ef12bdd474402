"""`ray.tune.utils`: what scripts use of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum
from typing import Any

import numpy as np

from daskhpo.core.errors import InvalidArgument
from daskhpo.tune.messages import cannot, no_effect, say
from daskhpo.tune.names import ITERATION, flat
from daskhpo.tune.ray import get as get_pinned_object
from daskhpo.tune.ray import put as pin_in_object_store

__all__ = ["get_pinned_object", "pin_in_object_store"]


class Verbosity(IntEnum):
    """Values of ``verbose=``; only 0 differs from the others here."""

    V0_MINIMAL, V1_EXPERIMENT, V2_TRIAL_NORM, V3_TRIAL_DETAILS = range(4)


def set_verbosity(level: int) -> None:
    """Do nothing: ``verbose=0`` of a study shows no progress."""
    no_effect({"set_verbosity()": level}, "give the study verbose=")


def date_str() -> str:
    """Return the time as text that may be in a file's name."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def flatten_dict(dt: Mapping[Any, Any], delimiter: str = "/", **kwargs: Any) -> dict[str, Any]:
    """Return a nested dict as one of flat names."""
    return dict(flat(dt, delimiter))


def unflattened_lookup(flat_key: str, lookup: Any, delimiter: str = "/", **kwargs: Any) -> Any:
    """Return the value of a flat name in nested dicts and lists."""
    for key in flat_key.split(delimiter):
        lookup = lookup[key] if isinstance(lookup, Mapping) else lookup[int(key)]
    return lookup


def deep_update(
    original: dict[Any, Any], new_dict: Mapping[Any, Any], *args: Any, **kwargs: Any
) -> dict[Any, Any]:
    """Put the values of one nested dict in another, and return this."""
    for name, value in new_dict.items():
        inner = original.get(name)
        if isinstance(inner, dict) and isinstance(value, Mapping):
            deep_update(inner, value)
        else:
            original[name] = value
    return original


def merge_dicts(d1: Mapping[Any, Any], d2: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a nested dict with the values of two; those of the second come first."""
    return deep_update(copy.deepcopy(dict(d1)), d2)


def validate_save_restore(
    trainable_cls: Any, config: dict[str, Any] | None = None, num_gpus: int = 0, **kwargs: Any
) -> bool:
    """Return True if an object continues from another one's checkpoint.

    It says which of its numbers differ from those of the object that was saved: an object whose
    data are shuffled may be right nevertheless.

    Raises
    ------
    InvalidArgument : it does not count on.
    """
    first = trainable_cls(config or {})
    first.train()
    saved = first.save()
    second = trainable_cls(config or {})
    second.restore(saved)
    one, other = first.train(), second.train()
    differing = [
        name
        for name, value in one.items()
        if isinstance(value, (int, float)) and not np.isclose(value, other.get(name, np.nan))
    ]
    for each in (first, second):
        each.stop()
    if ITERATION in differing:
        raise InvalidArgument(f"{trainable_cls.__name__} does not count on after load_checkpoint")
    if differing:
        say(
            f"{trainable_cls.__name__}: after load_checkpoint, {', '.join(differing)}",
            "not as of the object that was saved. Save all that changes, and seed what is random",
        )
    return True


def wait_for_gpu(*args: Any, **kwargs: Any) -> bool:
    """Return True: a trial begins when its GPU is free."""
    return True


def diagnose_serialization(trainable: Any) -> None:
    """Refuse: a study says what cannot be sent when it begins."""
    cannot("diagnose_serialization", "a study says what cannot be sent before its first trial")
