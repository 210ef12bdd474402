"""The compared methods; each makes a scheduler for trials of a given length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product

from daskhpo.core.scheduler import Scheduler
from daskhpo.schedulers import ASHA, FIFO, AsyncHyperband, Hyperband, MedianStopping


@dataclass(frozen=True)
class Method:
    """A scheduler with random search, and its colour in figures.

    Attributes
    ----------
    scheduler : makes the scheduler; its argument is ``max_t``.
    """

    name: str
    colour: str
    scheduler: Callable[[int], Scheduler]


def _median(max_t: int) -> Scheduler:
    return MedianStopping(FIFO(max_t), grace_period=3)


def _asha(max_t: int, grace: int = 1, eta: int = 3, brackets: int = 1, **more: str) -> Scheduler:
    return ASHA(max_t, grace, eta, brackets=brackets, compare="best", **more)  # type: ignore[arg-type]


def _hyperband(kind: Callable[..., Scheduler], max_t: int) -> Scheduler:
    return kind(max_t, 1, 3, compare="best")


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method("RS", "#555555", FIFO),
        Method("ASHA", "#0072B2", _asha),
        Method("ASHA, promotion", "#56B4E9", partial(_asha, variant="promotion")),
        Method("AHB", "#009E73", partial(_hyperband, AsyncHyperband)),
        Method("Hyperband", "#CC79A7", partial(_hyperband, Hyperband)),
        Method("Median stopping", "#B8860B", _median),
    )
}
REFERENCE = METHODS["RS"]
COUNTED = tuple(METHODS[name] for name in ("ASHA", "AHB", "RS"))

BRACKETS: Mapping[str, Method] = {
    method.name: method
    for method in (
        *(
            Method(f"ASHA, {n} bracket{'s' * (n > 1)}", "", partial(_asha, brackets=n))
            for n in (1, 2, 3)
        ),
        Method("AsyncHyperband (all brackets)", "", partial(_hyperband, AsyncHyperband)),
    )
}
LADDERS: Mapping[str, Method] = {
    method.name: method
    for grace, eta in product((1, 3, 9), (2, 3, 4))
    for method in [Method(f"grace {grace}, η {eta}", "", partial(_asha, grace=grace, eta=eta))]
}
EVERYTHING = {**METHODS, **BRACKETS, **LADDERS}
