"""`import ray`, for scripts that start Ray only for Tune."""

from __future__ import annotations

from typing import Any

from daskhpo import tune
from daskhpo.tune import air, train
from daskhpo.tune.messages import cannot, no_effect

__all__ = ["air", "get", "init", "is_initialized", "put", "shutdown", "train", "tune"]


class ObjectRef:
    """A reference that :func:`put` returns: the object itself travels with it."""

    def __init__(self, value: Any) -> None:
        self._value = value


def init(address: str | None = None, **kwargs: Any) -> dict[str, Any]:
    """Do nothing: a study starts its own workers, or gets them by ``client=``."""
    if address not in (None, "auto", "local"):
        cannot(f"ray.init(address={address!r})", "give tune.run or tune.Tuner client=")
    given = {f"ray.init({name}=)": value for name, value in kwargs.items()}
    no_effect(dict(given), "a study has a worker for each CPU; limit it by max_concurrent_trials")
    return {}


def shutdown(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def is_initialized() -> bool:
    """Return True."""
    return True


def put(value: Any) -> ObjectRef:
    """Return a reference, which travels with the trainable."""
    return ObjectRef(value)


def get(ref: Any) -> Any:
    """Return the object of a reference, or of each in a list."""
    if isinstance(ref, list):
        return [get(each) for each in ref]
    return ref._value if isinstance(ref, ObjectRef) else ref


def __getattr__(name: str) -> Any:
    if name in ("remote", "wait", "cluster_resources", "available_resources", "nodes", "util"):
        cannot(f"ray.{name}", "use Dask's own: distributed.Client")
    raise AttributeError(f"module 'daskhpo.tune.ray' has no attribute {name!r}")
