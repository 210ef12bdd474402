"""Comparison of array shapes in two states: why one does not fit the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_SHOWN = 3


def differing_shapes(here: Any, there: Any) -> list[str]:
    """List arrays whose shape differs between two states; the first few, as text.

    Arrays that only one state has are ignored: an optimiser has none before its first step.
    """
    mine, theirs = dict(_shapes(here)), dict(_shapes(there))
    lines = [
        f"{path} is {mine[path]} here and {theirs[path]} there"
        for path in mine
        if path in theirs and mine[path] != theirs[path]
    ]
    return lines[:MAX_SHOWN] + ([f"and {len(lines) - MAX_SHOWN} more"] * (len(lines) > MAX_SHOWN))


def _shapes(state: Any, path: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    items: Any = ()
    if isinstance(state, Mapping):
        items = state.items()
    elif isinstance(state, (list, tuple)):
        items = enumerate(state)
    elif hasattr(state, "shape"):  # an array or a tensor
        yield path or "the state", tuple(state.shape)
    for key, value in items:
        yield from _shapes(value, f"{path}.{key}" if path else str(key))
