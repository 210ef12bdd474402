"""Values that a function draws, by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskhpo.core.domains import Domain
from daskhpo.core.plain import to_python


@dataclass(frozen=True)
class FromFunction(Domain):
    """Values that a function draws, as a population's mutations may be given.

    Attributes
    ----------
    function : returns a value; it may draw from `random` and from numpy's global generator.
    """

    function: Callable[[], Any]

    def __repr__(self) -> str:
        return f"FromFunction({getattr(self.function, '__name__', 'function')})"

    def from_unit(self, u: float) -> Any:
        with seeded(int(u * 2**32)):
            return to_python(self.function())

    def to_unit(self, value: Any) -> float:
        return 0.5  # the function does not tell

    def contains(self, value: Any) -> bool:
        return True

    def grid(self, n: int) -> list[Any]:
        return [self.from_unit((i + 0.5) / n) for i in range(n)]

    def perturb(self, value: Any, generator: np.random.Generator) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return self.sample(generator)
        moved = value * (1.2 if generator.random() < 0.5 else 0.8)
        return int(moved) if isinstance(value, int) else moved


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed `random` and numpy's global generator, and restore them afterwards."""
    state, state_of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(state_of_numpy)  # noqa: NPY002
