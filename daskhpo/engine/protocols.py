"""What the study asks of its edges."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from daskhpo.core.commands import Command
from daskhpo.core.events import Event, Record
from daskhpo.core.types import CheckpointRef

if TYPE_CHECKING:
    from daskhpo.checkpoints.codec import Snapshot
    from daskhpo.checkpoints.zarr import CleanupResult


class Executor(Protocol):
    """Brings events to the coordinator and carries its commands to slots.

    Placement, leases and residency are its own affair. A ``Train`` that launches waits inside the
    executor until a slot is free.
    """

    def now(self) -> float:
        """Seconds since the study began, sessions added up."""

    def poll(self, deadline: float | None) -> Sequence[Event]:
        """Wait until something has happened; empty if nothing did before the deadline."""

    def perform(self, commands: Iterable[Command]) -> None:
        """Carry out commands, in their order."""

    def close(self) -> None:
        """Let go of all slots."""


class Journal(Protocol):
    """Keeps records in order."""

    def append(self, record: Record) -> None:
        """Take a record; it may stay in a buffer until :meth:`flush`."""

    def flush(self) -> None:
        """Make what was appended survive the end of this process."""


class CheckpointStore(Protocol):
    """Keeps checkpoints. What is not finished is absent.

    An executor hands it to its workers, so it is picklable and cheap to make.
    """

    def write_snapshot(self, ref: CheckpointRef, snapshot: Snapshot) -> CheckpointRef:
        """Write a state to the row; the reference comes back complete when it is durable.

        Raises
        ------
        OSError : it cannot be written; nothing is left of it.
        """

    def read(self, ref: CheckpointRef) -> Any:
        """The state, equal to what was written.

        Raises
        ------
        CheckpointMissing, CheckpointCorrupt : it is not there, or not what was committed.
        """

    def delete(self, ref: CheckpointRef) -> None:
        """Remove it; nothing happens if it is not there."""

    def clean(self, keep: Collection[CheckpointRef]) -> CleanupResult:
        """Remove all other rows, and what killed writers left; return how much."""
