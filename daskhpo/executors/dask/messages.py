"""Messages to the coordinator's thread, from the event loop and from channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """A message from a lease that waits for a reply."""

    slot: int
    say: str
    data: dict[str, Any]
    reply: Any  # a channel's socket, or an asyncio future of the event loop
    at: float


@dataclass(frozen=True, slots=True)
class LiveUpdate:
    """Metrics from within a segment, or notes on states; needs no reply."""

    data: dict[str, Any]
    at: float


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The loss of a slot: its worker left, or its lease ended."""

    slot: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseSlot:
    """A request to end a slot's lease when its trial leaves.

    The slot's worker is needed by another study, or is about to leave.
    """

    slot: int


@dataclass(frozen=True, slots=True)
class RequestStop:
    """A request to stop the study."""

    reason: str


@dataclass(frozen=True, slots=True)
class FatalError:
    """An error after which the study cannot continue."""

    error: Exception


Message = Call | LiveUpdate | LeaseLost | ReleaseSlot | RequestStop | FatalError
