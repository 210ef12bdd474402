"""Messages between a trial's process and its ranks, by a pair of sockets."""

from __future__ import annotations

import contextlib
import pickle
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daskhpo.checkpoints.codec import Snapshot, fresh_row
from daskhpo.core.errors import DaskhpoError
from daskhpo.core.types import Config

# -- from the trial's process to a rank ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """The first message: the user's function, and what its trial is."""

    code: bytes
    id: int
    config: Config
    resource: int
    max_t: int
    seed: int
    device: str
    rank: int
    world_size: int
    local_rank: int


@dataclass(frozen=True, slots=True)
class CheckpointAnswer:
    """The state to continue from; None: there is none."""

    state: Snapshot | None


@dataclass(frozen=True, slots=True)
class MakeState:
    """A checkpoint is needed.

    All ranks call their `state`, which may be a collective of its own.

    ``keep``: this rank's result counts.
    """

    keep: bool


@dataclass(frozen=True, slots=True)
class GoAhead:
    """The reported unit counts, and the next one begins."""


@dataclass(frozen=True, slots=True)
class LeaveNow:
    """The function must be left at this report."""


@dataclass(frozen=True, slots=True)
class CountCalls:
    """The trial is asked to stop: count calls of `should_stop`, hold the next."""


@dataclass(frozen=True, slots=True)
class StopFrom:
    """`should_stop` returns True from this call on: the same one in all ranks."""

    call: int


ToRank = Setting | CheckpointAnswer | MakeState | GoAhead | LeaveNow | CountCalls | StopFrom

# -- from a rank to the trial's process ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WantCheckpoint:
    """The function has read `checkpoint`."""


@dataclass(frozen=True, slots=True)
class UnitDone:
    """A rank waits in `report`; only metrics and ``completes`` of rank 0 count."""

    metrics: Mapping[str, float] | float
    has_state: bool
    completes: bool


@dataclass(frozen=True, slots=True)
class StateMade:
    """A rank's `state`; None if it is not kept."""

    state: Snapshot | None


@dataclass(frozen=True, slots=True)
class CallsCounted:
    """The answer to `CountCalls`."""

    calls: int


@dataclass(frozen=True, slots=True)
class Returned:
    """The function has returned; before the last unit, with its last state."""

    state: Snapshot | Raised | None = None


@dataclass(frozen=True, slots=True)
class Raised:
    """The user's code raised an error.

    Attributes
    ----------
    headline : the error in a line.
    traceback : of the user's code.
    error : the error itself, if it is one of daskhpo's.
    """

    headline: str
    traceback: str
    error: DaskhpoError | None = None


FromRank = WantCheckpoint | UnitDone | StateMade | CallsCounted | Returned | Raised

# -- the way ---------------------------------------------------------------------------------------

_LENGTHS = struct.Struct("<QQ")  # bytes of the message, number of its arrays
_N_BYTES = struct.Struct("<Q")


class Link:
    """One end of a pair of sockets; any thread may send, and one receives.

    What is sent is pickled: both ends are processes of one user, of which one started the other, or
    which have proved to each other that they know a key.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end, self._sending = end, threading.Lock()

    def fileno(self) -> int:
        """Return the number of the socket, for `selectors`."""
        return self._end.fileno()

    def send(self, message: ToRank | FromRank) -> None:
        """Send a message, arrays without a copy; raise OSError if the other end is closed."""
        arrays: list[pickle.PickleBuffer] = []
        text = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
        with self._sending:
            self._end.sendall(_LENGTHS.pack(len(text), len(arrays)) + text)
            for array in arrays:
                with array.raw() as raw:
                    self._end.sendall(_N_BYTES.pack(raw.nbytes))
                    self._end.sendall(raw)

    def receive(self) -> Any:
        """Wait for a message; raise EOFError or OSError if the other end is closed."""
        n_bytes, n_arrays = _LENGTHS.unpack(self._read(_LENGTHS.size))
        text = self._read(n_bytes)
        arrays = [self._read(*_N_BYTES.unpack(self._read(_N_BYTES.size))) for _ in range(n_arrays)]
        return pickle.loads(text, buffers=arrays)

    def shut_down(self) -> None:
        """End the connection; what receives at either end sees it."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def _read(self, n_bytes: int) -> memoryview:
        into = fresh_row(n_bytes).data
        done = 0
        while done < n_bytes:
            n = self._end.recv_into(into[done:])
            if n == 0:
                raise EOFError("the other process has closed its end")
            done += n
        return into
