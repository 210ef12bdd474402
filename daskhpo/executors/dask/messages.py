"""What reaches the coordinator's thread from the event loop and from the lines to leases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """A lease says something and waits for a reply."""

    slot: int
    say: str
    data: dict[str, Any]
    reply: Any  # a line's socket, or an asyncio future of the event loop
    at: float


@dataclass(frozen=True, slots=True)
class LiveUpdate:
    """Metrics from the middle of a segment, or notes on states; nobody waits."""

    data: dict[str, Any]
    at: float


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """A slot is no more: its worker left, or its lease came to an end."""

    slot: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseSlot:
    """This slot's worker is needed elsewhere, or goes: it shall leave when its trial does."""

    slot: int


@dataclass(frozen=True, slots=True)
class RequestStop:
    """Somebody wants the study to end."""

    reason: str


@dataclass(frozen=True, slots=True)
class FatalError:
    """The study cannot go on."""

    error: Exception


Message = Call | LiveUpdate | LeaseLost | ReleaseSlot | RequestStop | FatalError
