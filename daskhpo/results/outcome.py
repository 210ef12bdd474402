"""A sentence that says what a study did."""

from __future__ import annotations

from daskhpo.core.printable import printable
from daskhpo.core.types import Status
from daskhpo.results.progress import StudyProgress


def describe_study(progress: StudyProgress, scheduler: str) -> str:
    """Return a sentence on a study of at least one trial, in all its sessions.

    Parameters
    ----------
    scheduler : its name, the subject of the sentence.
    """
    n = progress.n_trials
    n_failed, n_full = progress.counts[Status.FAILED], progress.counts[Status.COMPLETED]
    done = f"{scheduler} tried {_count(n, 'configuration')}"
    failed = f"; {n_failed:,} failed" if n_failed else ""
    if (best := progress.best) is None:
        if n_failed == n:
            return f"{done}, and {'it' if n == 1 else 'all'} failed"
        return f"{done}{failed}; none has reported a value"
    resumed = f", resumed paused trials {_times(progress.n_resumed)}" if progress.n_resumed else ""
    value = f"{printable(progress.objective.metric)}={progress.objective.value(best.best_loss):.5g}"
    return (
        f"{done}{resumed} and trained {_part(n_full, n)} to the end{failed}; the best is trial "
        f"{best.id}, with {value} after {_count(best.best_resource, 'unit')}"
    )


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n:,} times")


def _part(n: int, total: int) -> str:
    """Return so many of the configurations that were tried, as an object."""
    if n == total:
        return "it" if total == 1 else "all"
    return f"{n:,}" if n else "none"
