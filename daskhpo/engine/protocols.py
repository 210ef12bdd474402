"""Interfaces that executors, journals and checkpoint stores must provide."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from daskhpo.core.commands import Command
from daskhpo.core.events import Event, Record
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointRef
from daskhpo.engine.options import RunOptions

if TYPE_CHECKING:
    from daskhpo.checkpoints.codec import Snapshot
    from daskhpo.checkpoints.zarr import CleanupResult


class Executor(Protocol):
    """The interface between the coordinator and the slots: events in, commands out.

    The executor alone manages placement, leases and the locations of states. A ``Train`` that
    launches waits inside the executor until a slot is free. All methods are called in one thread.
    ``daskhpo.testing.executor.ExecutorContract`` tests what each command must lead to.
    """

    def now(self) -> float:
        """Return the seconds since the study began, summed over sessions."""

    def poll(self, deadline: float | None) -> Sequence[Event]:
        """Wait for events and return them; return none if the deadline passes first.

        A deadline is often near: stop requests from elsewhere are looked for in between.

        Parameters
        ----------
        deadline : a time of :meth:`now`, in seconds; None: no deadline.
        """

    def perform(self, commands: Iterable[Command]) -> None:
        """Carry out commands in order; skip those to an attempt that no slot runs."""

    def close(self) -> None:
        """Release all slots."""


@dataclass(frozen=True)
class SessionSpec:
    """All that a session tells its executor.

    Attributes
    ----------
    trainable : the user's class or function; None: the executor has the trials' code itself.
    objective : checks metrics, and tells finite ones from others.
    max_t : units at which a trial is fully trained.
    seed : the study's seed; ``daskhpo.core.random.trial_seed`` derives those of its trials.
    options : ``resources`` and ``max_concurrent`` are for the executor to keep to.
    store : the study's checkpoints.
    began_at : seconds of earlier sessions, from which :meth:`Executor.now` counts on.
    """

    trainable: Any
    objective: Objective
    max_t: int
    seed: int
    options: RunOptions
    store: CheckpointStore
    began_at: float


MakeExecutor = Callable[[SessionSpec], Executor]
"""Makes the executor of a session: a class, or a function, that takes a `SessionSpec`."""


class Journal(Protocol):
    """An ordered sequence of records."""

    def append(self, record: Record) -> None:
        """Append a record; it may stay in a buffer until :meth:`flush`."""

    def flush(self) -> None:
        """Make appended records survive the end of this process."""


class CheckpointStore(Protocol):
    """A study's checkpoints; it contains complete ones only.

    Each study has a store of its own, in which no two checkpoints have the same id. It is no option
    of a run: `daskhpo.checkpoints.open_store` opens the one in the study's directory, which is
    picklable and cheap to create, so that an executor may send it to its workers.
    ``daskhpo.testing.stores.CheckpointStoreContract`` tests what is said here.
    """

    def prepare(self) -> None:
        """Load what a write needs, without waiting for it.

        Called when there is a first state.
        """

    def write(self, ref: CheckpointRef, state: Any) -> CheckpointRef:
        """Write a state to its row; return the complete reference once it is durable.

        Raises
        ------
        StateNotSupported : the state has a part that a checkpoint cannot hold.
        OSError : the state cannot be written; nothing of it is left.
        """

    def write_snapshot(self, ref: CheckpointRef, snapshot: Snapshot) -> CheckpointRef:
        """Write a state that was copied before; otherwise as :meth:`write`."""

    def read(self, ref: CheckpointRef) -> Any:
        """Return a state that is equal to the written one.

        Raises
        ------
        CheckpointMissing, CheckpointCorrupt : the row is missing, or differs from the committed
            one.
        """

    def verify(self, ref: CheckpointRef) -> None:
        """Raise what :meth:`read` would raise."""

    def share(self, ref: CheckpointRef, other: Self) -> None:
        """Add a row to another store as well; each may then delete its own.

        Raises
        ------
        CheckpointMissing, CheckpointCorrupt : the row is missing, or differs from the committed
            one.
        """

    def delete(self, ref: CheckpointRef) -> None:
        """Remove a checkpoint, if it exists; from all arrays if ``ref.array`` is empty."""

    def clean(self, keep: Collection[CheckpointRef] | None = None) -> CleanupResult:
        """Remove all other rows and files of killed writers; return how much.

        None: keep all rows.
        """

    def list(self) -> builtins.list[CheckpointRef]:
        """Return the references of all rows, by id."""
