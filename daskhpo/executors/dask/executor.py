"""Slots and their jobs: turns what leases say into events, and commands into replies to them."""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from daskhpo.core.errors import StudyFailed
from daskhpo.core.types import (
    CheckpointRef,
    Command,
    Delete,
    Event,
    Failed,
    Flush,
    Held,
    Interrupt,
    Lost,
    Release,
    Reported,
    Save,
    SlotsChanged,
    Step,
    StopRequested,
    Train,
    TrialId,
    Write,
)
from daskhpo.executors.dask.holdings import Holdings
from daskhpo.executors.dask.line import Inbox

logger = logging.getLogger("daskhpo")

EXIT = {"do": "exit", "write": False}  # nothing that a lease holds is of use any more
LEAVE = {"do": "exit", "write": True}  # another study gets the slot: what may be needed is written

# -- what reaches the coordinator's thread from the event loop -----------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """A lease says something and waits for a reply."""

    slot: int
    say: str
    data: dict[str, Any]
    reply: Any  # a line's socket, or an asyncio future of the event loop
    at: float


@dataclass(frozen=True, slots=True)
class Live:
    """Metrics from the middle of a segment, or notes on states; nobody waits."""

    data: dict[str, Any]
    at: float


@dataclass(frozen=True, slots=True)
class Gone:
    """A slot is no more: its worker left, or its lease came to an end."""

    slot: int
    reason: str


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Another study shall have this slot's worker."""

    slot: int


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody wants the study to end."""

    reason: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The study cannot go on."""

    error: Exception


Message = Call | Live | Gone | GiveBack | StopAsked | Broken


class Loop(Protocol):
    """What the executor asks of the event loop; both may be called from any thread."""

    def answer(self, replies: list[tuple[Any, dict[str, Any]]]) -> None:
        """Set each future's result."""

    def tell(self, slot: int, what: str, *numbers: int) -> None:
        """Say something to a lease that may be busy.

        ``"interrupt"`` (trial, attempt): hand over. ``"write"``, ``"forget"`` (row): a state.
        """


@dataclass(slots=True)
class _Slot:
    address: str  # of its worker
    reply: Any = None  # the lease waits for a command here
    trial: TrialId | None = None
    attempt: int = 0
    leaving: bool = False
    clock: float = 0.0  # of its last unit: units of a trial follow one another


class DaskExecutor:
    """The coordinator's executor; all of it runs in the coordinator's thread.

    Parameters
    ----------
    inbox : messages from the event loop.
    loop : the way back.
    delete : deletes a checkpoint; called in a thread of its own.
    began_at : seconds of the study that earlier sessions took.
    """

    def __init__(
        self,
        inbox: Inbox,
        loop: Loop,
        delete: Callable[[CheckpointRef], None],
        began_at: float,
    ) -> None:
        self._inbox, self._loop, self._delete_from_store = inbox, loop, delete
        self._zero = time.monotonic() - began_at
        self._slots: dict[int, _Slot] = {}
        self._slot_of: dict[TrialId, int] = {}
        self._unheard: set[int] = set()  # slots that were gone before they said hello
        self._holdings = Holdings()
        self._told: set[str] = set()  # reasons of deletions that were logged
        self._flush: Flush | None = None  # all is over: states are let go of
        self._idle: list[int] = []  # last in, first out: its process is the warmest
        self._waiting: deque[Train] = deque()
        self._later: list[Event] = []
        self._replies: list[tuple[Any, dict[str, Any]]] = []
        self._deleter = ThreadPoolExecutor(1, thread_name_prefix="daskhpo-delete")

    # -- Executor --------------------------------------------------------------------------------

    def now(self) -> float:
        return time.monotonic() - self._zero

    def poll(self, deadline: float | None) -> Sequence[Event]:
        events, self._later = self._later, []
        while not events:
            timeout = None if deadline is None else deadline - self.now()
            if timeout is not None and timeout <= 0:
                return []
            try:
                message = self._inbox.get(timeout=timeout)
            except queue.Empty:
                return []
            events += self._events(message)
            while not self._inbox.empty():
                events += self._events(self._inbox.get())
            self._assign()
        return events

    def perform(self, commands: Iterable[Command]) -> None:
        freed: list[int] = []
        for command in commands:
            match command:
                case Train(launch=True):
                    self._waiting.append(command)
                case Train(trial, attempt):
                    if (number := self._place(trial, attempt)) is not None:
                        self._reply(number, self._train(command, number))
                case Save(trial, attempt, ref, chance):
                    if (number := self._place(trial, attempt)) is not None:
                        message = {"do": "save", "trial": trial, "attempt": attempt}
                        self._reply(number, message | {"ref": ref.plain(), "chance": chance.name})
                case Write(ref):
                    if (number := self._holdings.home(ref)) is not None:
                        self._loop.tell(number, "write", ref.row)
                case Flush():
                    self._flush = command
                case Release(trial, attempt):
                    if (number := self._place(trial, attempt)) is not None:
                        del self._slot_of[trial]
                        self._slots[number].trial = None
                        freed.append(number)
                case Interrupt(trial, attempt):
                    if (number := self._place(trial, attempt)) is not None:
                        self._loop.tell(number, "interrupt", trial, attempt)
                    self._withdraw(trial)
                case Delete(ref, reason):
                    self._forget(ref, reason)
        self._idle += freed
        self._assign()
        for number in freed:  # what got no other job shall not hold the last one's memory
            if number in self._idle:
                self._idle.remove(number)
                self._reply(number, {"do": "idle"})
        self._empty_memories()
        self._send()

    def close(self) -> None:
        for number in self._slots:
            self._reply(number, EXIT)
        self._send()
        self._deleter.shutdown(wait=True)

    # -- messages to events ----------------------------------------------------------------------

    def _events(self, message: Message) -> list[Event]:
        match message:
            case Call():
                return self._heard(message)
            case Live(data, at):
                slot = self._slots.get(data["slot"])
                if "notes" in data:
                    return self._holdings.note(data["slot"], data["notes"], at - self._zero)
                return [] if slot is None else [self._reported(slot, data, at - self._zero)]
            case Gone(number, reason):
                return self._gone(number, reason)
            case GiveBack(number):
                slot = self._slots.get(number)
                if slot is None or slot.leaving:
                    return []
                slot.leaving = True
                if number in self._idle:
                    self._idle.remove(number)
                    self._reply(number, LEAVE)
                return [self._count()]
            case StopAsked(reason):
                return [StopRequested(reason, self.now())]
            case Broken(error):
                raise error

    def _heard(self, call: Call) -> list[Event]:
        at, data = call.at - self._zero, call.data
        if call.say == "broken":
            self._replies.append((call.reply, EXIT))
            raise StudyFailed(
                f"the trainable cannot be loaded in worker {data['worker']}:\n{data['error']}\n"
                "Install its module where the workers run, or define it in the script itself"
            )
        if call.say == "hello" and call.slot in self._unheard:
            self._replies.append((call.reply, EXIT))
            return []
        if call.say == "hello":
            self._slots[call.slot] = _Slot(data["worker"], call.reply)
            self._holdings.open(call.slot)
            self._idle.append(call.slot)
            return [self._count(data["job"])]
        events = self._holdings.note(call.slot, data["notes"], at)
        if (slot := self._slots.get(call.slot)) is None:  # it was given up: its worker seemed gone
            self._replies.append((call.reply, EXIT))
            return events
        slot.reply = call.reply
        match call.say:
            case "report":
                events.append(self._reported(slot, data, at))
            case "held":
                trial, attempt = data["trial"], data["attempt"]
                ref = None if data["ref"] is None else CheckpointRef(*data["ref"])
                if ref is not None:
                    self._holdings.add(call.slot, ref, attempt)
                events.append(Held(trial, attempt, ref, at))
            case "failed":
                if data["steps"]:
                    events.append(self._reported(slot, data, at))
                events.append(
                    Failed(
                        data["trial"],
                        data["attempt"],
                        data["error"],
                        at,
                        data["retry"],
                        data["fatal"],
                    )
                )
            case "unreadable":
                trial, attempt, reason = data["trial"], data["attempt"], data["reason"]
                logger.warning("a checkpoint of trial %s is not used: %s", trial, reason)
                events.append(Lost(trial, attempt, reason, at, blame=False, bad_checkpoint=True))
            case "ready":
                self._rest(call.slot, slot)
            case "flushed":
                events += self._holdings.empty(call.slot, "all states were let go of", at)
                self._rest(call.slot, slot)
            case "bye":
                self._reply(call.slot, EXIT)
            case other:
                raise AssertionError(f"a lease said {other!r}")
        return events

    def _rest(self, number: int, slot: _Slot) -> None:
        """A slot has nothing to do."""
        if slot.leaving:
            self._reply(number, LEAVE)
        else:
            self._idle.append(number)
            self._empty_memories()

    def _reported(self, slot: _Slot, data: dict[str, Any], at: float) -> Reported:
        steps = []
        for resource, metrics, age in data["steps"]:
            slot.clock = max(slot.clock, at - age)
            steps.append(Step(resource, metrics, slot.clock))
        outcome = data.get("outcome")
        return Reported(
            data["trial"],
            data["attempt"],
            tuple(steps),
            at,
            ended=outcome == "ENDED",
            yielded=outcome == "YIELDED",
        )

    def _gone(self, number: int, reason: str) -> list[Event]:
        slot = self._slots.pop(number, None)
        if slot is None:
            # Its hello may still be on its way: the two come from different threads.
            self._unheard.add(number)
            return []
        if number in self._idle:
            self._idle.remove(number)
        if slot.reply is not None:
            self._replies.append((slot.reply, EXIT))
        events: list[Event] = [] if slot.leaving else [self._count()]
        events += self._holdings.close(number, reason, self.now())
        if slot.trial is not None:
            del self._slot_of[slot.trial]
            events.append(Lost(slot.trial, slot.attempt, reason, self.now()))
        return events

    def _count(self, job: str = "") -> SlotsChanged:
        n_slots = sum(not slot.leaving for slot in self._slots.values())
        return SlotsChanged(n_slots, self.now(), job)

    # -- commands to replies ---------------------------------------------------------------------

    def _assign(self) -> None:
        while self._waiting and self._idle:
            job, number = self._match()
            slot = self._slots[number]
            if slot.leaving:
                self._reply(number, LEAVE)
                self._waiting.appendleft(job)
                continue
            slot.trial, slot.attempt = job.trial, job.attempt
            self._slot_of[job.trial] = number
            self._reply(number, self._train(job, number))
        self._send()

    def _match(self) -> tuple[Train, int]:
        """A job and a slot for it: the one that holds its state, if that is idle."""
        for job in self._waiting:
            home = self._holdings.home(job.checkpoint)
            if home is not None and home in self._idle:
                self._waiting.remove(job)
                self._idle.remove(home)
                return job, home
        return self._waiting.popleft(), self._idle.pop()

    def _empty_memories(self) -> None:
        """When all is over, have every idle slot let go of the states that it holds."""
        if self._flush is None:
            return
        for number in [n for n in self._idle if self._holdings.rows(n)]:
            self._idle.remove(number)
            rows = [row for row in self._holdings.rows(number) if row in self._flush.rows]
            self._reply(number, {"do": "flush", "rows": rows, "write": self._flush.write})

    def _forget(self, ref: CheckpointRef, reason: str) -> None:
        """Delete a checkpoint wherever it is."""
        if reason:  # the first time it is news, then it is what was to be expected
            level = logging.INFO if reason in self._told else logging.WARNING
            self._told.add(reason)
            what = "deleted the checkpoint of trial %s at resource %s: %s"
            logger.log(level, what, ref.trial, ref.resource, reason)
        if (number := self._holdings.forget(ref)) is not None:
            self._loop.tell(number, "forget", ref.row)
        if ref.array:
            self._deleter.submit(self._delete, ref)

    def _withdraw(self, trial: TrialId) -> None:
        """A trial that was launched and still waits for a slot will not get one."""
        for job in [job for job in self._waiting if job.trial == trial]:
            self._waiting.remove(job)
            reason = "the study stopped before a slot was free"
            self._later.append(Lost(trial, job.attempt, reason, self.now(), blame=False))

    def _place(self, trial: TrialId, attempt: int) -> int | None:
        """The slot where an attempt runs; None if the slot is gone, which its ``Lost`` will say."""
        number = self._slot_of.get(trial)
        return number if number is not None and self._slots[number].attempt == attempt else None

    def _reply(self, number: int, message: dict[str, Any]) -> None:
        slot = self._slots[number]
        if slot.reply is not None:
            self._replies.append((slot.reply, message))
            slot.reply = None

    def _send(self) -> None:
        if self._replies:
            self._loop.answer(self._replies)
            self._replies = []

    def _train(self, job: Train, number: int) -> dict[str, Any]:
        """The order to train; ``peer`` says which other worker holds the state, if one does."""
        ref, peer = job.checkpoint, None
        home = self._holdings.home(ref)
        if home is not None and home != number:
            peer = self._slots[home].address, home
        return {
            "do": "train",
            "trial": job.trial,
            "attempt": job.attempt,
            "config": dict(job.config),
            "resource": job.resource,
            "until": job.until,
            "checkpoint": None if ref is None else ref.plain(),
            "peer": peer,
            "launch": job.launch,
        }

    def _delete(self, ref: CheckpointRef) -> None:
        try:
            self._delete_from_store(ref)
        except OSError:
            logger.warning("checkpoint %s could not be deleted", ref, exc_info=True)
