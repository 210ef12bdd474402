"""Schedulers from text, and those that need no argument but one."""

from __future__ import annotations

from collections.abc import Callable

from daskhpo.core.arguments import check_text
from daskhpo.core.parsing import parse_call
from daskhpo.core.scheduler import Scheduler
from daskhpo.schedulers.asha import ASHA, AsyncHyperband
from daskhpo.schedulers.fifo import FIFO
from daskhpo.schedulers.guarded import GuardedASHA
from daskhpo.schedulers.halving import Hyperband, SuccessiveHalving
from daskhpo.schedulers.median import MedianStopping
from daskhpo.schedulers.pasha import PASHA

PARSEABLE_SCHEDULERS: dict[str, Callable[..., Scheduler]] = {
    "FIFO": FIFO,
    "ASHA": ASHA,
    "AsyncHyperband": AsyncHyperband,
    "SuccessiveHalving": SuccessiveHalving,
    "Hyperband": Hyperband,
    "MedianStopping": MedianStopping,
    "PASHA": PASHA,
    "GuardedASHA": GuardedASHA,
}


def standard_schedulers(max_t: int) -> dict[str, Scheduler]:
    """Return the schedulers that need no argument except ``max_t``, by name."""
    return {
        "FIFO": FIFO(max_t),
        "ASHA": ASHA(max_t),
        "ASHA, promotion": ASHA(max_t, variant="promotion"),
        "AsyncHyperband": AsyncHyperband(max_t),
        "GuardedASHA": GuardedASHA(max_t),
        "Hyperband": Hyperband(max_t),
        "MedianStopping": MedianStopping(FIFO(max_t)),
    }


def parse_scheduler(text: str) -> Scheduler:
    """Make the scheduler that a text describes, such as ``"ASHA(max_t=81)"``.

    The text is parsed, never evaluated.

    Raises
    ------
    ValueError : the text is no call in `PARSEABLE_SCHEDULERS`, or has invalid arguments.
    """
    found = parse_call(check_text("text", text), PARSEABLE_SCHEDULERS)
    if not isinstance(found, Scheduler):
        raise ValueError(
            f"{text!r} is not a scheduler; write a call of one of {', '.join(PARSEABLE_SCHEDULERS)}"
        )
    return found
