"""The ranks of a trial, as its own process sees them.

Events come in, a decision comes out. There are no processes, sockets or clocks here.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daskhpo.checkpoints.codec import Snapshot
from daskhpo.core.errors import DaskhpoError, RankFailed
from daskhpo.distributed.messages import (
    CallsCounted,
    Raised,
    Returned,
    StateMade,
    UnitDone,
)

# A rank that fails tears the connections of the others, who may say so before it says why.
CONSEQUENCE_SECONDS = 2.0  # to wait for the cause after an error that looks like a consequence
_CONSEQUENCE = re.compile(
    r"^(?:[\w.]*\b(?:Dist(?:Backend|Network|Store)?Error|Connection\w*Error|BrokenPipeError)\b)"
    r"|gloo|NCCL|Connection (?:closed|reset) by|Broken pipe|recvValue failed|Socket closed",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Died:
    """A rank's process ended before its function returned.

    Attributes
    ----------
    status : of the process, as `subprocess` returns it: a signal is negative; None: not known.
    output : the last lines that it printed.
    """

    status: int | None
    output: str = ""


@dataclass(frozen=True, slots=True)
class KeepListening:
    """Nothing follows yet."""


@dataclass(frozen=True, slots=True)
class ReportUnit:
    """All ranks wait in `report`: their unit is reported to the study."""

    unit: UnitDone


@dataclass(frozen=True, slots=True)
class AllReturned:
    """All functions have returned."""


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt ends with an error."""

    error: DaskhpoError


Following = KeepListening | ReportUnit | AllReturned | AttemptFailed
Said = UnitDone | StateMade | CallsCounted | Returned | Raised | Died


class Ranks:
    """The ranks of one trial.

    Parameters
    ----------
    n : number of ranks.
    sharded : each rank has its own part of the state.
    """

    def __init__(self, n: int, *, sharded: bool = False) -> None:
        self._n, self._sharded = n, sharded
        self._units: dict[int, UnitDone] = {}  # of the ranks that wait in `report`
        self._returned: dict[int, Returned] = {}
        self._failures: list[tuple[int, Raised | Died, float]] = []  # as they came
        self._calls: dict[int, int] = {}
        self._n_units = 0
        self.states: dict[int, Snapshot | None] = {}  # made for the checkpoint that is needed

    def hear(self, rank: int, said: Said, now: float) -> None:
        """Take in what a rank said, or that it died. ``now``: a clock in seconds."""
        match said:
            case UnitDone():
                self._units[rank] = said
            case StateMade(state):
                self.states[rank] = state
            case CallsCounted(calls):
                self._calls[rank] = calls
            case Returned():
                self._returned[rank] = said
            case Raised() | Died() if not self.is_over(rank):
                self._failures.append((rank, said, now))

    def is_over(self, rank: int) -> bool:
        """Return True if a rank's function has returned, or failed."""
        return rank in self._returned or any(rank == failed for failed, _, _ in self._failures)

    def following(self, now: float) -> Following:
        """Return what follows from all that was said."""
        if self._failures:
            return self._after_failure(now)
        if self._returned and self._units:
            return AttemptFailed(self._uneven(min(self._returned), min(self._units)))
        if len(self._returned) == self._n:
            return AllReturned()
        if len(self._units) == self._n:
            return self._whole_unit()
        return KeepListening()

    def go_ahead(self) -> None:
        """Let the next unit begin."""
        self._units.clear()
        self._n_units += 1

    def with_state(self) -> list[int]:
        """Return the ranks that gave a `state` with the unit that they report."""
        return [rank for rank, unit in sorted(self._units.items()) if unit.has_state]

    def last_states(self) -> Mapping[int, Snapshot | Raised | None]:
        """Return the states with which the functions returned."""
        return {rank: returned.state for rank, returned in sorted(self._returned.items())}

    def stop_from(self) -> int | None:
        """Return the call of `should_stop` from which it is True.

        None: not all ranks have counted. No rank is past that call, because each holds its next
        one since it has counted.
        """
        waiting = set(range(self._n)) - self._calls.keys() - self._returned.keys()
        return None if waiting else max(self._calls.values(), default=0) + 1

    def _whole_unit(self) -> Following:
        unit = self._units[0]
        missing = set(range(self._n)) - set(self.with_state())
        if self._sharded and missing and len(missing) < self._n:
            rank = min(missing)
            return AttemptFailed(
                _broken(
                    f"rank {rank} of {self._n} gave no state= with unit {self._n_units + 1}, and "
                    "other ranks did. With sharded=True the state of every rank is kept: give "
                    "state= in all ranks",
                    rank,
                )
            )
        if not unit.has_state and len(missing) < self._n:
            return AttemptFailed(
                _broken(
                    f"rank 0 of {self._n} gave no state=, and other ranks did: the state of rank 0 "
                    "is what is kept. Give it there, or launch(..., sharded=True)",
                    0,
                )
            )
        return ReportUnit(unit)

    def _uneven(self, returned: int, reports: int) -> RankFailed:
        n = self._n_units
        return _broken(
            f"rank {returned} of {self._n} returned after {n} units, and rank {reports} reports "
            f"another one: report() must be called equally often in all ranks",
            returned,
        )

    def _after_failure(self, now: float) -> Following:
        causes = [failure for failure in self._failures if not _is_consequence(failure[1])]
        if not causes:
            is_over = len(self._failures) + len(self._returned) == self._n
            if not is_over and now - self._failures[0][2] < CONSEQUENCE_SECONDS:
                return KeepListening()
            causes = self._failures
        rank, said, _ = min(causes, key=lambda failure: isinstance(failure[1], Raised))
        others = [
            f"rank {other} then failed: {_headline(its)}"
            for other, its, _ in self._failures
            if other != rank
        ]
        return AttemptFailed(self.error_of(rank, said, others))

    def error_of(self, rank: int, said: Raised | Died, others: Sequence[str] = ()) -> DaskhpoError:
        """Return what a rank said, or its death, as an error."""
        name = f"rank {rank} of {self._n}"
        match said:
            case Raised(error=DaskhpoError() as error):
                return error
            case Raised(headline, traceback):
                story = "\n".join([traceback.rstrip(), f"(in {name})", *others])
                return RankFailed(f"{name} raised {headline}", rank, story)
            case Died(output=output):
                message = f"{name} {_headline(said)}"
                last = ["its last output:", output.rstrip()] if output.strip() else []
                return RankFailed(message, rank, "\n".join([message, *others, *last]))


def _broken(message: str, rank: int) -> RankFailed:
    return RankFailed(message, rank, message)


def _is_consequence(said: Raised | Died) -> bool:
    return isinstance(said, Raised) and _CONSEQUENCE.search(said.headline) is not None


def _headline(said: Raised | Died) -> str:
    match said:
        case Raised(headline=headline):
            return headline
        case Died(None):
            return "was lost: its connection ended"
        case Died(int(status)) if status < 0:
            try:
                name = signal.Signals(-status).name
            except ValueError:
                name = f"signal {-status}"
            return f"was killed by {name}" + (
                " (out of memory?)" if -status == signal.SIGKILL else ""
            )
        case Died(status):
            return f"exited with status {status} before its function returned"
