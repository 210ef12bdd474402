"""What the coordinator tells an executor to do: a closed union, read by ``match``."""

from __future__ import annotations

from dataclasses import dataclass

from daskhpo.core.types import CheckpointRef, Config, ReuseProbability, TrialId


@dataclass(frozen=True, slots=True)
class Train:
    """Train a trial until a resource: go on in its slot, or begin in a free one (``launch``).

    ``checkpoint`` may be held by some worker, committed, or both.
    """

    trial: TrialId
    attempt: int
    config: Config
    resource: int
    until: int
    checkpoint: CheckpointRef | None
    launch: bool


@dataclass(frozen=True, slots=True)
class Save:
    """Take the state of the trial in its slot, as this row, and say ``Held``.

    Whether and when it is written then follows from ``chance``; ``Saved`` and ``Dropped`` say so.
    """

    trial: TrialId
    attempt: int
    ref: CheckpointRef
    probability: ReuseProbability


@dataclass(frozen=True, slots=True)
class Write:
    """Write a state that is held, whatever it costs."""

    ref: CheckpointRef


@dataclass(frozen=True, slots=True)
class Flush:
    """Let go of all held states. These rows are written first.

    ``write``: so are those that may be needed again.
    """

    checkpoint_ids: tuple[int, ...]
    write: bool


@dataclass(frozen=True, slots=True)
class Release:
    """The trial leaves its slot, which is free."""

    trial: TrialId
    attempt: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Ask the trial to hand over at its next report."""

    trial: TrialId
    attempt: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Nobody needs this checkpoint any more, wherever it is. ``reason``, if it is news.

    If the reference is not complete, only what is held of it goes: it may be being written, and
    ``Saved`` may be welcome.
    """

    ref: CheckpointRef
    reason: str = ""


Command = Train | Save | Write | Flush | Release | Interrupt | Delete
