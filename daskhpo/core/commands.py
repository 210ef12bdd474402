"""Commands of the coordinator to an executor: a closed union, read by ``match``."""

from __future__ import annotations

from dataclasses import dataclass

from daskhpo.core.out_of_memory import Placement
from daskhpo.core.types import CheckpointRef, Config, ReuseProbability, TrialId


@dataclass(frozen=True, slots=True)
class Train:
    """Train a trial until a resource, in its own slot or in a free one (``launch``).

    ``checkpoint`` may be held by a worker, committed, or both. ``placement``: which slot may run
    it; None: any.
    """

    trial: TrialId
    attempt: int
    config: Config
    resource: int
    until: int
    checkpoint: CheckpointRef | None
    launch: bool
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class Save:
    """Take the state of the trial in its slot as this checkpoint, and report ``Held``.

    ``probability`` decides whether and when it is written. ``Saved`` and ``Dropped`` report the
    outcome.
    """

    trial: TrialId
    attempt: int
    ref: CheckpointRef
    probability: ReuseProbability


@dataclass(frozen=True, slots=True)
class Write:
    """Write a held state, whatever the write costs."""

    ref: CheckpointRef


@dataclass(frozen=True, slots=True)
class Flush:
    """Remove all held states from memory, after writing these checkpoints.

    ``write``: first write those that may be needed again, too.
    """

    checkpoint_ids: tuple[int, ...]
    write: bool


@dataclass(frozen=True, slots=True)
class Release:
    """Take the trial out of its slot, which is then free."""

    trial: TrialId
    attempt: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Preempt the trial at its next report.

    ``alone``: other trials continue, so if its code does not come to a report, its slot's process
    has to be replaced. Otherwise the study is over.
    """

    trial: TrialId
    attempt: int
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a checkpoint that is no longer needed, wherever it is.

    ``reason`` is for the log; empty: an ordinary deletion, which is not logged. If the checkpoint
    is not committed yet, only the held state is discarded; a write in progress may still finish
    and report ``Saved``.
    """

    ref: CheckpointRef
    reason: str = ""


Command = Train | Save | Write | Flush | Release | Interrupt | Delete
