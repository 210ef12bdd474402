"""Slots and their jobs: from messages to events, and from commands to replies."""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from daskhpo.core.commands import Command, Delete, Flush, Interrupt, Release, Save, Train, Write
from daskhpo.core.errors import StudyFailed
from daskhpo.core.events import (
    AttemptLost,
    Erred,
    Event,
    Held,
    Saved,
    SaveFailed,
    SlotsChanged,
    Step,
    StopRequested,
    Trained,
)
from daskhpo.core.types import CheckpointRef, TrialId
from daskhpo.executors.dask.channel import Inbox
from daskhpo.executors.dask.client import StateNote
from daskhpo.executors.dask.messages import (
    Call,
    FatalError,
    LeaseLost,
    LiveUpdate,
    Message,
    ReleaseSlot,
    RequestStop,
)
from daskhpo.executors.dask.state_locations import StateLocations

logger = logging.getLogger("daskhpo")

EXIT = {"do": "exit", "write": False}  # no state in the lease's cache is needed


class Loop(Protocol):
    """The event loop, as the executor uses it. Both methods are thread-safe."""

    def answer(self, replies: list[tuple[Any, dict[str, Any]]]) -> None:
        """Send each reply to the socket or future that waits for it."""

    def tell(self, slot: int, what: str, *numbers: int) -> None:
        """Send a message to a lease that may be busy.

        ``"interrupt"`` (trial, attempt): preempt the trial. ``"write"`` and ``"forget"``
        (checkpoint id): write or discard a state.
        """


@dataclass(slots=True)
class _Slot:
    address: str  # of its worker
    reply: Any = None  # where the lease waits for a command; None: it does not wait
    job: Train | None = None  # the command that launched its trial
    leaving: bool = False
    clock: float = 0.0  # of its last unit; keeps the units of a trial in order
    lacks: str | None = None  # why its job's state is missing; it may yet reach the store


class DaskExecutor:
    """The coordinator's executor on Dask; it runs in the coordinator's thread.

    Parameters
    ----------
    inbox : messages from the event loop and the channels.
    loop : sends replies and messages to leases.
    delete : deletes a checkpoint from the store; called in a separate thread.
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
        self._lost_before_hello: set[int] = set()  # slots lost before their "hello" arrived
        self._locations = StateLocations()
        self._logged_reasons: set[str] = set()  # of deletions
        self._flush: Flush | None = None  # the study is over: idle slots empty their caches
        self._idle: list[int] = []  # last in, first out: the last one has the warmest process
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
                    if (number := self._slot_running(trial, attempt)) is not None:
                        self._reply(number, self._train(command, number))
                case Save(trial, attempt, ref, probability):
                    if (number := self._slot_running(trial, attempt)) is not None:
                        message = {"do": "save", "trial": trial, "attempt": attempt}
                        self._reply(
                            number, message | {"ref": ref.plain(), "chance": probability.name}
                        )
                case Write(ref):
                    if (number := self._locations.who_has(ref)) is not None:
                        self._loop.tell(number, "write", ref.id)
                case Flush():
                    self._flush = command
                case Release(trial, attempt):
                    if (number := self._slot_running(trial, attempt)) is not None:
                        self._vacate(self._slots[number])
                        freed.append(number)
                case Interrupt(trial, attempt):
                    if (number := self._slot_running(trial, attempt)) is not None:
                        self._loop.tell(number, "interrupt", trial, attempt)
                    self._withdraw(trial)
                case Delete(ref, reason):
                    self._delete_checkpoint(ref, reason)
        self._idle += freed
        self._assign()
        for number in freed:  # a slot without a new job must free its last trial's memory
            if number in self._idle:
                self._idle.remove(number)
                self._reply(number, {"do": "idle"})
        self._flush_idle_slots()
        self._send()

    def close(self) -> None:
        for number in self._slots:
            self._reply(number, EXIT)
        self._send()
        self._deleter.shutdown(wait=True)

    def is_idle(self, number: int) -> bool:
        """True if a slot waits for a trial. Thread-safe, but may be out of date."""
        return number in self._idle

    # -- messages to events ----------------------------------------------------------------------

    def _events(self, message: Message) -> list[Event]:
        match message:
            case Call():
                return self._on_call(message)
            case LiveUpdate(data, at):
                slot = self._slots.get(data["slot"])
                if "notes" in data:
                    return self._on_notes(data["slot"], data["notes"], at - self._zero)
                return [] if slot is None else [self._reported(slot, data, at - self._zero)]
            case LeaseLost(number, reason):
                return self._on_lease_lost(number, reason)
            case ReleaseSlot(number):
                return self._release_slot(number)
            case RequestStop(reason):
                return [StopRequested(reason, self.now())]
            case FatalError(error):
                raise error

    def _on_call(self, call: Call) -> list[Event]:
        at, data = call.at - self._zero, call.data
        if call.say == "broken":
            self._replies.append((call.reply, EXIT))
            raise StudyFailed(
                f"the trainable cannot be loaded in worker {data['worker']}:\n{data['error']}\n"
                "Install its module where the workers run, or define it in the script itself"
            )
        if call.say == "hello" and call.slot in self._lost_before_hello:
            self._replies.append((call.reply, EXIT))
            return []
        if call.say == "hello":
            self._slots[call.slot] = _Slot(data["worker"], call.reply, leaving=data["leaving"])
            self._locations.open(call.slot)
            if data["leaving"]:  # the worker leaves before it could train
                self._end_lease(call.slot)
                return []
            self._idle.append(call.slot)
            return [self._slots_changed(data["job"])]
        events = self._on_notes(call.slot, data["notes"], at)
        if data["leaving"]:  # first, so that a trial that leaves is launched elsewhere
            events += self._release_slot(call.slot)
        if call.slot not in self._slots:  # it was removed: its worker seemed gone
            self._replies.append((call.reply, EXIT))
            return events
        slot = self._slots[call.slot]
        slot.reply = call.reply
        match call.say:
            case "report":
                events.append(self._reported(slot, data, at))
            case "held":
                trial, attempt = data["trial"], data["attempt"]
                ref = None if data["ref"] is None else CheckpointRef(*data["ref"])
                events.append(Held(trial, attempt, ref, at))
                if ref is not None:
                    events += self._locations.add(call.slot, ref, attempt, at)
            case "failed":
                if data["steps"]:
                    events.append(self._reported(slot, data, at))
                events.append(
                    Erred(
                        data["trial"],
                        data["attempt"],
                        data["error"],
                        at,
                        data["retry"],
                        data["fatal"],
                    )
                )
            case "cut":
                if data["steps"]:
                    events.append(self._reported(slot, data, at))
                self._vacate(slot)
                reason = f"its worker was terminated, and the trial raised: {data['error']}"
                events.append(AttemptLost(data["trial"], data["attempt"], reason, at, blame=False))
                self._on_idle(call.slot, slot)
            case "refused":
                if slot.job is not None:
                    self._waiting.appendleft(slot.job)
                    self._vacate(slot)
                self._on_idle(call.slot, slot)
            case "unreadable":
                events += self._unreadable(slot, CheckpointRef(*data["ref"]), data["reason"])
            case "ready":
                self._on_idle(call.slot, slot)
            case "flushed":
                events += self._locations.empty(call.slot, "all states were dropped", at)
                events += self._retry_missing_states()
                self._on_idle(call.slot, slot)
            case "bye":
                self._reply(call.slot, EXIT)
            case other:
                raise AssertionError(f"a lease sent the unknown message {other!r}")
        return events

    def _on_idle(self, number: int, slot: _Slot) -> None:
        """Handle a slot that has nothing to do."""
        if slot.leaving:
            self._end_lease(number)
        else:
            self._idle.append(number)
            self._flush_idle_slots()

    def _release_slot(self, number: int) -> list[Event]:
        """Mark a slot as leaving; its lease ends as soon as no trial is in it."""
        slot = self._slots.get(number)
        if slot is None or slot.leaving:
            return []
        slot.leaving = True
        if number in self._idle:
            self._idle.remove(number)
            self._end_lease(number)
        return [self._slots_changed()]

    def _end_lease(self, number: int) -> None:
        """End a lease after it has written its states, those that are needed now first."""
        jobs = [*self._waiting, *(slot.job for slot in self._slots.values())]
        refs = [job.checkpoint for job in jobs if job is not None]
        rows = [
            ref.id for ref in refs if ref is not None and self._locations.who_has(ref) == number
        ]
        self._reply(number, {"do": "exit", "write": True, "rows": rows})

    def _vacate(self, slot: _Slot) -> None:
        """Remove the trial from its slot."""
        if slot.job is not None:
            del self._slot_of[slot.job.trial]
            slot.job, slot.lacks = None, None

    def _reported(self, slot: _Slot, data: dict[str, Any], at: float) -> Trained:
        steps = []
        for resource, metrics, age in data["steps"]:
            slot.clock = max(slot.clock, at - age)
            steps.append(Step(resource, metrics, slot.clock))
        outcome = data.get("outcome")
        return Trained(
            data["trial"],
            data["attempt"],
            tuple(steps),
            at,
            ended=outcome == "ENDED",
            preempted=outcome == "PREEMPTED",
        )

    def _on_lease_lost(self, number: int, reason: str) -> list[Event]:
        slot = self._slots.pop(number, None)
        if slot is None:
            # Its "hello" may still arrive: the two messages come from different threads.
            self._lost_before_hello.add(number)
            return []
        if number in self._idle:
            self._idle.remove(number)
        if slot.reply is not None:
            self._replies.append((slot.reply, EXIT))
        events: list[Event] = [] if slot.leaving else [self._slots_changed()]
        events += self._locations.close(number, reason, self.now())
        if (job := slot.job) is not None:
            self._vacate(slot)
            events.append(AttemptLost(job.trial, job.attempt, reason, self.now()))
        return events + self._retry_missing_states()

    def _slots_changed(self, job: str = "") -> SlotsChanged:
        n_slots = sum(not slot.leaving for slot in self._slots.values())
        return SlotsChanged(n_slots, self.now(), job)

    # -- states that move while their slots leave ------------------------------------------------

    def _on_notes(self, number: int, notes: Sequence[StateNote], at: float) -> list[Event]:
        """Apply a slot's notes on its states; update jobs whose state was saved."""
        if not notes:
            return []
        events = self._locations.apply_notes(number, notes, at)
        saved = {event.ref.id: event.ref for event in events if isinstance(event, Saved)}
        if saved:
            self._waiting = deque(_with_saved_ref(job, saved) for job in self._waiting)
            for slot in self._slots.values():
                if slot.job is not None:
                    slot.job = _with_saved_ref(slot.job, saved)
        failed = {event.checkpoint_id for event in events if isinstance(event, SaveFailed)}
        return events + self._retry_missing_states(failed)

    def _unreadable(self, slot: _Slot, given: CheckpointRef, reason: str) -> list[Event]:
        """Handle a lease that cannot read the state of its job.

        If a cache that is being emptied held the state, it may have reached the store meanwhile.
        """
        assert slot.job is not None, f"{given} was requested by a slot without a job"
        slot.lacks = reason
        if not given.array and (home := self._locations.who_has(given)) is not None:
            self._loop.tell(home, "write", given.id)
            return []
        return self._retry_missing_states({given.id} if given.array else frozenset())

    def _retry_missing_states(self, failed: Set[int] = frozenset()) -> list[Event]:
        """Start jobs whose missing state was saved; give up those whose state is lost.

        Parameters
        ----------
        failed : ids of checkpoints that could not be written or read.
        """
        events: list[Event] = []
        for number, slot in self._slots.items():
            if slot.lacks is None or slot.job is None or (ref := slot.job.checkpoint) is None:
                continue
            if ref.array and ref.id not in failed:
                slot.lacks = None
                self._reply(number, self._train(slot.job, number))
            elif ref.id in failed or self._locations.who_has(ref) is None:
                trial, attempt, reason = slot.job.trial, slot.job.attempt, slot.lacks
                slot.lacks = None
                logger.warning("a checkpoint of trial %s cannot be used: %s", trial, reason)
                lost = AttemptLost(
                    trial, attempt, reason, self.now(), blame=False, bad_checkpoint=True
                )
                events.append(lost)
        return events

    # -- commands to replies ---------------------------------------------------------------------

    def _assign(self) -> None:
        while self._waiting and self._idle:
            job, number = self._match()
            slot = self._slots[number]
            if slot.leaving:
                self._waiting.appendleft(job)
                self._end_lease(number)
                continue
            slot.job = job
            self._slot_of[job.trial] = number
            self._reply(number, self._train(job, number))
        self._send()

    def _match(self) -> tuple[Train, int]:
        """Return a job and a slot for it: the one that holds its state, if that is idle."""
        for job in self._waiting:
            home = self._locations.who_has(job.checkpoint)
            if home is not None and home in self._idle:
                self._waiting.remove(job)
                self._idle.remove(home)
                return job, home
        return self._waiting.popleft(), self._idle.pop()

    def _flush_idle_slots(self) -> None:
        """At the end of the study, let every idle slot empty its cache."""
        if self._flush is None:
            return
        for number in [n for n in self._idle if self._locations.held_by(n)]:
            self._idle.remove(number)
            rows = [
                row for row in self._locations.held_by(number) if row in self._flush.checkpoint_ids
            ]
            self._reply(number, {"do": "flush", "rows": rows, "write": self._flush.write})

    def _delete_checkpoint(self, ref: CheckpointRef, reason: str) -> None:
        """Delete a checkpoint from the store and from its slot's cache."""
        if reason:  # only the first deletion for a reason is a warning
            level = logging.INFO if reason in self._logged_reasons else logging.WARNING
            self._logged_reasons.add(reason)
            what = "deleted the checkpoint of trial %s at resource %s: %s"
            logger.log(level, what, ref.trial, ref.resource, reason)
        if (number := self._locations.discard(ref)) is not None:
            self._loop.tell(number, "forget", ref.id)
        if ref.array:
            self._deleter.submit(self._delete, ref)

    def _withdraw(self, trial: TrialId) -> None:
        """Cancel the launch of a trial that still waits for a slot."""
        for job in [job for job in self._waiting if job.trial == trial]:
            self._waiting.remove(job)
            reason = "the study stopped before a slot was free"
            self._later.append(AttemptLost(trial, job.attempt, reason, self.now(), blame=False))

    def _slot_running(self, trial: TrialId, attempt: int) -> int | None:
        """Return the slot of an attempt; None if it is gone (``AttemptLost`` follows)."""
        number = self._slot_of.get(trial)
        job = None if number is None else self._slots[number].job
        return number if job is not None and job.attempt == attempt else None

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
        """Return the reply ``"train"``; ``peer``: another slot that holds the state."""
        ref, peer = job.checkpoint, None
        home = self._locations.who_has(ref)
        is_safe = ref is not None and ref.array
        if home is not None and home != number and not (is_safe and self._slots[home].leaving):
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


def _with_saved_ref(job: Train, saved: Mapping[int, CheckpointRef]) -> Train:
    """Return the job with the complete reference to its state, if that was just saved."""
    ref = job.checkpoint
    return replace(job, checkpoint=saved[ref.id]) if ref is not None and ref.id in saved else job
