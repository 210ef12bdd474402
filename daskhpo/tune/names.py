"""Ray Tune's words for a trial, its state and its progress."""

from collections.abc import Iterator, Mapping
from typing import Any

from daskhpo.core.types import Status

ITERATION = "training_iteration"
STATUS = {
    Status.QUEUED: "PENDING",
    Status.RUNNING: "RUNNING",
    Status.PAUSED: "PAUSED",
    Status.COMPLETED: "TERMINATED",
    Status.STOPPED: "TERMINATED",
    Status.FAILED: "ERROR",
}


def trial_name(trial: int) -> str:
    """Return the id of a trial, as Ray writes it."""
    return f"{trial:05d}"


def flat(
    nested: Mapping[Any, Any], delimiter: str = "/", prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested dicts, by names such as ``"model/lr"``."""
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, delimiter, f"{prefix}{name}{delimiter}")
        else:
            yield f"{prefix}{name}", value
