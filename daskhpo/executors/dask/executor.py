"""Slots and their jobs: from messages to events, and from commands to replies."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

from daskhpo.core.commands import Command, Delete, Flush, Interrupt, Release, Save, Train, Write
from daskhpo.core.events import (
    AttemptLost,
    Erred,
    Event,
    Held,
    SaveFailed,
    SlotsChanged,
    StopRequested,
    Trained,
)
from daskhpo.core.out_of_memory import MemoryKind, OutOfMemory
from daskhpo.core.tracebacks import headline
from daskhpo.core.types import CheckpointRef, TrialId
from daskhpo.executors.dask.channel import (
    FatalError,
    Inbox,
    LeaseLost,
    Message,
    Received,
    ReceivedNews,
    ReleaseSlot,
    Reply,
    RequestEdit,
    RequestStop,
)
from daskhpo.executors.dask.placement import Placements
from daskhpo.executors.dask.protocol import (
    Bye,
    CannotLoad,
    CutOff,
    EndProcess,
    Exit,
    Flushed,
    Happened,
    Hello,
    Job,
    LeaseCommand,
    LeaseOrder,
    Live,
    Note,
    Notes,
    Overrun,
    Peer,
    Ready,
    Refused,
    Unreadable,
    Warn,
    arrived,
    trained_at,
)
from daskhpo.executors.dask.state_locations import StateLocations
from daskhpo.executors.dask.waiting import WaitingLaunches, larger_may_come

logger = logging.getLogger("daskhpo")

INTERRUPT_SECONDS = 10.0  # shortest time in which an interrupted trial must reach its next report
LONGEST_UNITS = 2.0  # ... or so many times the longest unit of training that the study has seen


class LeaseOrders(Protocol):
    """The leases, as the executor sees them. Thread-safe."""

    def tell(self, slot: int, order: LeaseOrder) -> None:
        """Send an order to a lease, which may be busy."""

    def set_idle(self, slots: frozenset[int]) -> None:
        """Receive the slots that wait for a trial, whenever they change."""

    def refuse(self, slot: int, why: str, error: str, *, fatal: bool) -> None:
        """Use a slot's worker no more. ``fatal``: the study fails if no other worker fits."""


@dataclass(slots=True)
class _Slot:
    address: str  # of its worker
    job_id: str = ""  # ... and the id of its Slurm job
    reply: Reply | None = None  # where the lease waits for a command; None: it does not wait
    job: Train | None = None  # the command that launched its trial
    leaving: bool = False
    clock: float = 0.0  # of its last unit; keeps the units of a trial in order
    unit_began: float = 0.0  # ... or when its trial was launched
    lacks: str | None = None  # why its job's state is missing; it may yet reach the store
    deadline: float | None = None  # its trial was interrupted, and should have handed over by then
    is_alone: bool = False  # ... alone: the study continues
    is_overdue: bool = False  # ... but has not; its worker now writes what it holds
    overrun: Erred | None = None  # its trial has broken a limit, and is given up for that


class DaskExecutor:
    """The coordinator's executor on Dask; it runs in the coordinator's thread.

    Parameters
    ----------
    inbox : messages from the event loop and the leases.
    leases : passes orders on to leases that may be busy, and learns which slots are idle.
    delete : deletes a checkpoint from the store; called in a separate thread.
    began_at : seconds of the study that earlier sessions took.
    """

    def __init__(
        self,
        inbox: Inbox,
        leases: LeaseOrders,
        delete: Callable[[CheckpointRef], None],
        began_at: float,
    ) -> None:
        self._inbox, self._leases, self._delete_from_store = inbox, leases, delete
        self._zero = time.monotonic() - began_at
        self._slots: dict[int, _Slot] = {}
        self._slot_of: dict[TrialId, int] = {}
        self._served_at: float | None = None  # when the first slot came
        self._lost_before_hello: set[int] = set()  # slots lost before their `Hello` arrived
        self._locations = StateLocations()
        self._places = Placements()
        self._n_slots_told = 0
        self._has_closed = False  # some slots, so that a trial has its device or machine alone
        self._logged_reasons: set[str] = set()  # of deletions
        self._flush: Flush | None = None  # the study is over: idle slots empty their caches
        self._idle: list[int] = []  # last in, first out: the last one has the warmest process
        self._published_idle: list[int] = []
        self._waiting = WaitingLaunches(self._places, self._locations)
        self._later: list[Event] = []
        self._replies: list[tuple[Reply, LeaseCommand]] = []
        self._longest_unit = 0.0  # seconds
        self._warned: set[str] = set()  # kinds of warnings that were logged
        self._stateless: set[TrialId] = set()  # trials that had no state when it was wanted
        self._deleter = ThreadPoolExecutor(1, thread_name_prefix="daskhpo-delete")

    # -- Executor --------------------------------------------------------------------------------

    def now(self) -> float:
        return time.monotonic() - self._zero

    def poll(self, deadline: float | None) -> Sequence[Event]:
        events, self._later = self._later, []
        while not events:
            due = [slot.deadline for slot in self._slots.values() if slot.deadline is not None]
            due += self._waiting.deadlines
            until = min([*due, *([] if deadline is None else [deadline])], default=None)
            timeout = None if until is None else max(0.0, until - self.now())
            try:
                message = self._inbox.get(timeout=timeout)
            except queue.Empty:
                if deadline is not None and self.now() >= deadline:
                    return []
                events += self._give_up_overdue()
            else:
                events += self._events(message)
                while not self._inbox.empty():
                    events += self._events(self._inbox.get())
            self._assign()
            events += self._give_up_unplaced()
            later, self._later = self._later, []
            events += later
            self._publish_idle()
        return events

    def perform(self, commands: Iterable[Command]) -> None:
        freed: list[tuple[int, Release]] = []
        for command in commands:
            match command:
                case Train(launch=True):
                    self._flush = None  # a trial that was added came after all were over
                    self._waiting.add(command)
                    self._warn_if_trained_again(command)
                case Train(trial, attempt):
                    if (number := self._slot_running(trial, attempt)) is not None:
                        self._reply(number, self._job(command, number))
                case Save(trial, attempt):
                    if (number := self._slot_running(trial, attempt)) is not None:
                        self._reply(number, command)
                case Write(ref):
                    if (number := self._locations.who_has(ref)) is not None:
                        self._leases.tell(number, command)
                case Flush():
                    self._flush = command
                case Release(trial, attempt):
                    if (number := self._slot_running(trial, attempt)) is not None:
                        self._vacate(self._slots[number])
                        freed.append((number, command))
                case Interrupt(trial, attempt, alone):
                    if (number := self._slot_running(trial, attempt)) is not None:
                        self._leases.tell(number, command)
                        seconds = max(INTERRUPT_SECONDS, LONGEST_UNITS * self._longest_unit)
                        slot = self._slots[number]
                        slot.is_alone |= alone
                        if slot.deadline is None:  # else it is interrupted for the second time
                            slot.deadline = self.now() + seconds
                    self._withdraw(trial)
                case Delete(ref, reason):
                    self._delete_checkpoint(ref, reason)
        self._idle += [number for number, _ in freed]
        self._assign()
        for number, release in freed:  # a slot without a new job must free its trial's memory
            if number in self._idle:
                self._idle.remove(number)
                self._reply(number, release)
        self._flush_idle_slots()
        self._send()
        self._later += self._give_up_unplaced()
        self._publish_idle()

    def close(self) -> None:
        for number in self._slots:
            self._reply(number, Exit())
        self._send()
        self._deleter.shutdown(wait=True)

    # -- messages to events ----------------------------------------------------------------------

    def _events(self, message: Message) -> list[Event]:
        match message:
            case Received():
                return self._on_call(message)
            case ReceivedNews(news, at):
                return self._on_news(news, at - self._zero)
            case LeaseLost(number, reason, lacked):
                return self._on_lease_lost(number, reason, lacked=lacked)
            case ReleaseSlot(number):
                return self._release_slot(number)
            case RequestStop(reason):
                return [StopRequested(reason, self.now())]
            case RequestEdit(edit):
                return [replace(edit, seconds=self.now())]
            case FatalError(error):
                raise error

    def _on_news(self, news: Live | Notes | Warn | Overrun, at: float) -> list[Event]:
        match news:
            case Warn(_, text):
                self._warn_once(text, text)
                return []
            case Live(number, trained):
                slot = self._slots.get(number)
                return [] if slot is None else [self._trained(slot, trained, at)]
            case Notes(number, notes):
                return self._on_notes(number, notes, at)
            case Overrun(number, trained, erred):
                return self._on_overrun(number, trained, erred, at)

    def _on_overrun(self, number: int, trained: Trained, erred: Erred, at: float) -> list[Event]:
        """Give a slot up whose trial has broken a limit, after its states are written."""
        if self._slot_running(erred.trial, erred.attempt) != number:
            return []
        slot = self._slots[number]
        events: list[Event] = [self._trained(slot, trained, at)] if trained.steps else []
        slot.overrun, slot.deadline = arrived(erred, at), at
        return events + self._give_up_overdue()

    def _on_call(self, received: Received) -> list[Event]:
        at, number, call = received.at - self._zero, received.slot, received.call
        match call.message:
            case CannotLoad(error=error):
                self._replies.append((received.reply, Exit()))
                why = (
                    "the trainable cannot be loaded there. Install its module where the workers "
                    "run, or define it in the script itself"
                )
                fatal = self._served_at is None
                self._leases.refuse(number, why, f":\n{error}", fatal=fatal)
                return []
            case Hello() if number in self._lost_before_hello:
                self._replies.append((received.reply, Exit()))
                return []
            case Hello(worker, job, site):
                if self._served_at is None:
                    self._served_at = self.now()
                self._slots[number] = _Slot(worker, job, received.reply, leaving=call.leaving)
                self._locations.open(number)
                self._places.open(number, site)
                if call.leaving:  # the worker leaves before it could train
                    self._end_lease(number)
                    return []
                self._idle.append(number)
                return [self._slots_changed(job)]
        events = self._on_notes(number, call.notes, at)
        if call.leaving:  # first, so that a trial that leaves is launched elsewhere
            events += self._release_slot(number)
        if number not in self._slots:  # its worker was removed, perhaps because it retires
            self._replies.append((received.reply, Exit(write=True)))
            return events
        slot = self._slots[number]
        slot.reply = received.reply
        match call.message:
            case Happened(happened):
                for event in happened:
                    events += self._on_event(number, slot, event, at)
            case CutOff(trained, error):
                if trained.steps:
                    events.append(self._trained(slot, trained, at))
                self._vacate(slot)
                reason = f"its worker was terminated, and the trial raised: {error}"
                lost = AttemptLost(trained.trial, trained.attempt, reason, at, blame=False)
                events.append(lost)
                self._on_idle(number, slot)
            case Refused():
                if slot.job is not None:
                    self._waiting.add(slot.job, first=True)
                    self._vacate(slot)
                self._on_idle(number, slot)
            case Unreadable(ref, reason):
                events += self._unreadable(slot, ref, reason)
            case Ready():
                self._on_idle(number, slot)
            case Flushed():
                events += self._locations.empty(number, "all states were dropped", at)
                events += self._retry_missing_states()
                self._on_idle(number, slot)
            case Bye():
                self._reply(number, Exit())
            case _ as never:
                assert_never(never)
        return events

    def _on_event(
        self, number: int, slot: _Slot, event: Trained | Held | Erred, at: float
    ) -> list[Event]:
        match event:
            case Trained():
                return [self._trained(slot, event, at)]
            case Held(trial, attempt, ref):
                if ref is None:
                    self._stateless.add(trial)
                early = [] if ref is None else self._locations.add(number, ref, attempt, at)
                return [arrived(event, at), *early]
            case Erred(out_of_memory=OutOfMemory(of)):
                return [replace(event, seconds=at, out_of_memory=self._found(of, number))]
            case Erred():
                return [arrived(event, at)]

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
        return [self._slots_changed(slot.job_id)]

    def _end_lease(self, number: int) -> None:
        """End a lease after it has written its states, those that are needed now first."""
        jobs = [*self._waiting, *(slot.job for slot in self._slots.values())]
        refs = [job.checkpoint for job in jobs if job is not None]
        ids = [ref.id for ref in refs if ref is not None and self._locations.who_has(ref) == number]
        self._reply(number, Exit(tuple(ids), write=True))

    def _vacate(self, slot: _Slot) -> None:
        """Remove the trial from its slot."""
        if slot.job is not None:
            self._places.leave(slot.job.trial)
            del self._slot_of[slot.job.trial]
            slot.job, slot.lacks, slot.deadline, slot.is_overdue = None, None, None, False
            slot.overrun, slot.is_alone = None, False

    def _trained(self, slot: _Slot, trained: Trained, at: float) -> Trained:
        """Return the event as it arrives; the units of a slot stay in order."""
        event = trained_at(trained, at, slot.clock)
        for step in event.steps:
            self._longest_unit = max(self._longest_unit, step.seconds - slot.unit_began)
            slot.clock = slot.unit_began = step.seconds
        return event

    def _give_up_overdue(self) -> list[Event]:
        """Give up interrupted trials whose code does not return, and their slots.

        States of other trials in such a worker are first written: its other threads still work.
        """
        events: list[Event] = []
        now = self.now()
        for number, slot in [*self._slots.items()]:
            if slot.deadline is None or slot.deadline > now or slot.job is None:
                continue
            if not slot.is_overdue and (unsaved := self._locations.unsaved(number)):
                slot.is_overdue, slot.deadline = True, now + INTERRUPT_SECONDS
                for ref in unsaved:
                    self._leases.tell(number, Write(ref))
                continue
            if (erred := slot.overrun) is not None:
                self._vacate(slot)
                self._leases.tell(number, EndProcess(headline(erred.error)))
                events += [erred, *self._on_lease_lost(number, "its trial broke a limit")]
                continue
            if slot.is_alone:
                reason = "it was interrupted, and its code did not reach another report"
                self._leases.tell(number, EndProcess(reason))
            else:
                reason = "its code did not reach another report after the study was stopped"
            logger.warning("trial %s is given up: %s", slot.job.trial, reason)
            events += self._on_lease_lost(number, reason, blame=False)
        return events

    def _on_lease_lost(
        self, number: int, reason: str, *, blame: bool = True, lacked: MemoryKind | None = None
    ) -> list[Event]:
        slot = self._slots.pop(number, None)
        if slot is None:
            # Its "hello" may still arrive: the two messages come from different threads.
            self._lost_before_hello.add(number)
            return []
        if number in self._idle:
            self._idle.remove(number)
        if slot.reply is not None:  # a worker that retires may still write what it holds
            self._replies.append((slot.reply, Exit(write=True)))
        events: list[Event] = [] if slot.leaving else [self._slots_changed(slot.job_id)]
        events += self._locations.close(number, reason, self.now())
        if (job := slot.job) is not None:
            self._vacate(slot)
            events.append(self._lost(job, number, reason, blame, lacked))
        self._places.close(number)
        return events + self._retry_missing_states()

    def _lost(
        self, job: Train, number: int, reason: str, blame: bool, lacked: MemoryKind | None
    ) -> AttemptLost | Erred:
        if lacked is None:
            return AttemptLost(job.trial, job.attempt, reason, self.now(), blame=blame)
        killer = "Dask, over its limit" if lacked is MemoryKind.LIMIT else "the kernel"
        error = f"{reason}: its process was killed by {killer}, for want of memory"
        found = self._found(lacked, number)
        return Erred(job.trial, job.attempt, error, self.now(), False, out_of_memory=found)

    def _found(self, of: MemoryKind, number: int) -> OutOfMemory:
        """Return the outcome of a trial that lacked memory in a slot."""
        found = self._places.found(of, number)
        if self._served_at is None or not found.n_bytes or found.has_larger:
            return found
        return replace(found, has_larger=larger_may_come(self.now() - self._served_at))

    def _slots_changed(self, job: str = "") -> SlotsChanged:
        self._n_slots_told = self._n_slots()
        host, device = self._places.largest()
        return SlotsChanged(self._n_slots_told, self.now(), job, host, device)

    def _n_slots(self) -> int:
        """Return the number of slots that have a trial, or may have one now."""
        is_closed = self._places.is_closed if self._places.has_homes else lambda number: False
        return sum(
            not (slot.leaving or (slot.job is None and is_closed(number)))
            for number, slot in self._slots.items()
        )

    # -- states that move while their slots leave ------------------------------------------------

    def _on_notes(self, number: int, notes: Sequence[Note], at: float) -> list[Event]:
        """Apply a slot's notes on its states."""
        if not notes:
            return []
        events = self._locations.apply_notes(number, notes, at)
        failed = {event.checkpoint_id for event in events if isinstance(event, SaveFailed)}
        return [*events, *self._retry_missing_states(failed)]

    def _unreadable(self, slot: _Slot, given: CheckpointRef, reason: str) -> list[Event]:
        """Handle a lease that cannot read the state of its job.

        If a cache that is being emptied held the state, it may have reached the store meanwhile.
        """
        assert slot.job is not None, f"{given} was requested by a slot without a job"
        slot.lacks = reason
        if not given.array and (home := self._locations.who_has(given)) is not None:
            self._leases.tell(home, Write(given))
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
            if self._locations.newest(ref).array and ref.id not in failed:
                slot.lacks = None
                self._reply(number, self._job(slot.job, number))
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

    def _warn_if_trained_again(self, launch: Train) -> None:
        """Warn when a resumed trial trains again, because its code gave no state."""
        if launch.checkpoint is None and launch.trial in self._stateless:
            self._warn_once(
                "no state",
                f"trial {launch.trial} is resumed, but gave no state: it trains again from its "
                "start, as will others. Let report(..., state=...) or save_checkpoint() return one",
            )

    def _warn_once(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning("%s", text)

    def _assign(self) -> None:
        while self._waiting and self._idle and (match := self._match()) is not None:
            job, number = match
            self._idle.remove(number)
            slot = self._slots[number]
            if slot.leaving:
                self._end_lease(number)
                continue
            self._waiting.remove(job)
            slot.job, slot.unit_began = job, self.now()
            self._slot_of[job.trial] = number
            self._reply(number, self._job(job, number))
        if self._places.has_homes or self._has_closed:
            self._has_closed = self._places.has_homes
            if self._n_slots() != self._n_slots_told:
                self._later.append(self._slots_changed())
                self._withdraw_excess()
        self._send()

    def _match(self) -> tuple[Train, int] | None:
        """Return a launch, and the idle slot that runs it."""
        staying = [number for number in self._idle if not self._slots[number].leaving]
        return self._waiting.match(self._idle, staying, self._slot_of.values())

    def _give_up_unplaced(self) -> list[Event]:
        """Fail trials that wait for a larger worker, if the study has had none for long."""
        now = self.now()
        events: list[Event] = []
        for job, place in self._waiting.give_up(now):
            error = f"no worker with more than {place.n_bytes / 1e9:.3g} GB serves the study"
            found = OutOfMemory(place.of, place.n_bytes)
            events.append(Erred(job.trial, job.attempt, error, now, False, out_of_memory=found))
        return events

    def _withdraw_excess(self) -> None:
        """Give back the launches for which no slot is left, since some were closed."""
        for job in self._waiting.excess(self._n_slots_told - len(self._slot_of)):
            self._withdraw(job.trial, "its slot is closed while another trial runs alone")

    def _flush_idle_slots(self) -> None:
        """At the end of the study, let every idle slot empty its cache."""
        if self._flush is None:
            return
        for number in [n for n in self._idle if self._locations.held_by(n)]:
            self._idle.remove(number)
            held = set(self._locations.held_by(number))
            ids = tuple(i for i in self._flush.checkpoint_ids if i in held)
            self._reply(number, Flush(ids, self._flush.write))

    def _delete_checkpoint(self, ref: CheckpointRef, reason: str) -> None:
        """Delete a checkpoint from the store and from its slot's cache."""
        if reason:  # only the first deletion for a reason is a warning
            level = logging.INFO if reason in self._logged_reasons else logging.WARNING
            self._logged_reasons.add(reason)
            what = "deleted the checkpoint of trial %s at resource %s: %s"
            logger.log(level, what, ref.trial, ref.resource, reason)
        if (number := self._locations.discard(ref)) is not None:
            self._leases.tell(number, Delete(ref))
        if ref.array:
            self._deleter.submit(self._delete, ref)

    def _withdraw(
        self, trial: TrialId, reason: str = "it was interrupted before a slot was free"
    ) -> None:
        """Cancel the launch of a trial that still waits for a slot."""
        for job in [job for job in self._waiting if job.trial == trial]:
            self._waiting.remove(job)
            self._places.leave(trial)
            self._later.append(AttemptLost(trial, job.attempt, reason, self.now(), blame=False))

    def _slot_running(self, trial: TrialId, attempt: int) -> int | None:
        """Return the slot of an attempt; None if it is gone (``AttemptLost`` follows)."""
        number = self._slot_of.get(trial)
        job = None if number is None else self._slots[number].job
        return number if job is not None and job.attempt == attempt else None

    def _reply(self, number: int, command: LeaseCommand) -> None:
        slot = self._slots[number]
        if slot.reply is not None:
            self._replies.append((slot.reply, command))
            slot.reply = None

    def _send(self) -> None:
        replies, self._replies = self._replies, []
        for reply, command in replies:
            reply.send(command)

    def _job(self, train: Train, number: int) -> Job:
        """Return the job for a slot, with another slot that holds the state."""
        if train.checkpoint is None:
            return Job(train, None)
        ref = self._locations.newest(train.checkpoint)
        home, peer = self._locations.who_has(ref), None
        if home is not None and home != number and not (ref.array and self._slots[home].leaving):
            peer = Peer(self._slots[home].address, home)
        return Job(replace(train, checkpoint=ref), peer)

    def _publish_idle(self) -> None:
        if self._idle != self._published_idle:
            self._published_idle = [*self._idle]
            self._leases.set_idle(frozenset(self._idle))

    def _delete(self, ref: CheckpointRef) -> None:
        try:
            self._delete_from_store(ref)
        except OSError:
            logger.warning("checkpoint %s could not be deleted", ref, exc_info=True)
