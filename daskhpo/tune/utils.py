"""`ray.tune.utils`: what scripts use of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskhpo.core.errors import InvalidArgument
from daskhpo.tune.messages import cannot, say
from daskhpo.tune.names import ITERATION


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
