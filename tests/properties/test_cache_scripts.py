"""Any events in any order, to the decisions of a worker's cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from daskhpo.checkpoints.cache_entries import MAX_BUFFERS
from daskhpo.checkpoints.cache_protocol import (
    BufferWanted,
    ClearRequested,
    CloseRequested,
    Discarded,
    FlushRequested,
    Lend,
    Notify,
    Settle,
    StagingFailed,
    StartStaging,
    StartWrite,
    StatePut,
    StateStaged,
    Tick,
    Unlink,
    WriteFailed,
    WriteFinished,
    WriteRequested,
)
from daskhpo.checkpoints.cache_state import MAX_OVERRUN, CacheState
from daskhpo.checkpoints.codec import Layout, Snapshot
from daskhpo.core.events import Dropped, Saved, SaveFailed
from daskhpo.core.types import CheckpointRef, ReuseProbability

pytestmark = pytest.mark.slow

UNIT = 1000  # bytes
MOST_ROWS = 30
LARGEST = 5  # units


@cache
def layout(n_units):
    return Layout.of({}, n_units * UNIT, n_units * UNIT)


@dataclass
class Row:
    """What a listener and the caller know of a state."""

    number: int
    snapshot: Snapshot
    must_be_written: bool
    is_discarded: bool = False
    is_saved: bool = False
    n_failed: int = 0
    file: Path | None = None
    dropped: str = ""  # why

    @property
    def is_held(self):
        return not (self.is_discarded or self.dropped)


class CacheScript(RuleBasedStateMachine):
    """A caller, a thread and a listener, who note what they see and compare."""

    @initialize(
        n_units=st.sampled_from([0, 1, 2, 3, 7, 100]),
        durability=st.sampled_from([0.0, 100.0, 1e12]),
        staging=st.booleans(),
        disk_works=st.booleans(),
    )
    def open(self, n_units, durability, staging, disk_works):
        self.capacity = n_units * UNIT
        self.state = CacheState(self.capacity, durability, staging=staging)
        self.now = 0.0
        self.rows = {}
        self.job = None  # StartWrite or StartStaging in flight
        self.writing = None  # its row
        self.lent = []  # buffers that the caller has
        self.files = set()  # in the staging folder
        self.requests = {}  # that wait, by number
        self.n_requests = 0
        self.n_bytes = 0
        self.pinned = []  # buffers that a peer may still read
        self.disk_works = disk_works  # in the end

    # -- events ----------------------------------------------------------------------------------

    def say(self, event):
        """Feed an event; note and check each action."""
        self.event = event
        actions = self.state.handle(event, self.now)
        for action in actions:
            match action:
                case Notify(told):
                    assert told.seconds == self.now
                    self.hear(told)
                case StartStaging() | StartWrite():
                    self.start(action)
                case Unlink(file):
                    self.files.remove(file)
                    assert not any(row.file == file for row in self.rows.values() if row.is_held)
                    assert self.writing is None or self.writing.file != file
                case Settle(number):
                    self.settle(self.requests.pop(number))
                case Lend(buffer):
                    self.lend(buffer)
        if not isinstance(event, StatePut):
            assert self.state.n_bytes <= self.n_bytes, "it needs more memory, for nothing"
        self.n_bytes = self.state.n_bytes
        return actions

    def hear(self, told):
        number = told.ref.id if isinstance(told, Saved) else told.checkpoint_id
        row = self.rows[number]
        assert (told.trial, told.attempt) == (number, 7)
        assert not row.dropped, "told of a state that was dropped"
        match told:
            case Saved(ref=ref):
                assert isinstance(self.event, WriteFinished)
                assert not row.is_saved, "saved twice"
                assert ref.array, "the reference is not complete"
                row.is_saved = True
            case SaveFailed():
                assert row.is_held
                assert row.n_failed == 1, "only the first failure is told"
                assert not row.is_saved
            case Dropped(reason=reason):
                assert row.is_held
                assert row is not self.writing, "dropped while it is being written"
                row.dropped = reason
                self.check_reason(row, reason)

    def check_reason(self, row, reason):
        """A state is dropped for the reason that is told; if it is sure, only for good reasons."""
        clears = [r for r in self.requests.values() if not isinstance(r, FlushRequested)]
        match reason.partition(":")[0]:
            case "evicted for other states":
                assert row.is_saved
                return
            case "not worth a write when it had to leave memory":
                assert not row.must_be_written
            case "could not be written":
                assert row.n_failed > 1
                assert clears
            case "memory was full of states that waited to be written":
                assert isinstance(self.event, StatePut)
                assert row.file is None
            case "all states were dropped":
                assert self.waits_without_write
            case "its worker's cache was closed":
                assert self.state.is_closed
            case _:
                raise AssertionError(f"unknown reason {reason!r}")
        assert not row.is_saved

    def start(self, job):
        assert self.job is None, "two writes at once"
        (row,) = (row for row in self.rows.values() if row.snapshot is job.snapshot)
        assert row.is_held, "writes what has left"
        assert not row.is_saved, "written twice"
        if isinstance(job, StartStaging):
            assert row.file is None, "staged twice"
        else:
            assert self.rows[job.ref.id] is row
        assert not self.waits_without_write
        self.job, self.writing = job, row

    def settle(self, request):
        if isinstance(request, FlushRequested):
            return
        assert self.state.ids == []
        assert self.job is None
        if isinstance(request, CloseRequested):
            assert self.state.is_closed

    def lend(self, buffer):
        assert isinstance(self.event, BufferWanted)
        assert buffer.nbytes == self.event.n_bytes
        assert buffer.flags.writeable
        assert not any(buffer is other for other in self.lent), "lent twice"
        assert not any(buffer is other for other in self.pinned), "a peer may read it"
        assert self.writing is None or self.writing.snapshot.buffer is not buffer
        self.lent.append(buffer)

    # -- the caller ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.rows) < MOST_ROWS)
    @rule(
        probability=st.sampled_from(ReuseProbability),
        unsaved=st.sampled_from([0.0, 0.5, 5.0, 500.0, 1e6]),
        n_units=st.sampled_from([1, 1, 1, 2, LARGEST]),
        takes_buffer=st.booleans(),
    )
    def put(self, probability, unsaved, n_units, takes_buffer):
        if takes_buffer:
            self.take_buffer(n_units)
        fitting = [buffer for buffer in self.lent if buffer.nbytes == n_units * UNIT]
        buffer = fitting[0] if fitting else np.zeros(n_units * UNIT, np.uint8)
        self.lent = [other for other in self.lent if other is not buffer]
        number = len(self.rows)
        # a layout of its own, so that the cache's own copy of a snapshot is not needed
        snapshot = Snapshot(buffer, replace(layout(n_units), name=f"{number}"))
        self.rows[number] = Row(number, snapshot, probability is ReuseProbability.CERTAIN)
        largest = max(row.snapshot.n_bytes for row in self.held if row.file is None)
        self.say(StatePut(CheckpointRef(number, number, 1), 7, snapshot, probability, unsaved))
        overrun = max(MAX_OVERRUN * largest, self.ghost_bytes)
        assert self.state.n_bytes <= self.capacity + overrun

    def pick(self, which):
        """A row: of those that are held if ``which`` is odd, else of all; the newest first."""
        rows = self.held if which % 2 else list(self.rows.values())
        return rows[-1 - which // 2 % len(rows)] if rows else None

    @rule(which=st.integers(0, MOST_ROWS))
    def look_up(self, which):
        if (row := self.pick(which)) is None:
            return
        found = self.state.get(row.number)
        assert (found is not None) == row.is_held
        if found is not None:
            assert found.snapshot is row.snapshot
            assert not (row.is_saved and found.unsaved_seconds)
            self.pinned.append(found.snapshot.buffer)

    @rule(which=st.integers(0, MOST_ROWS))
    def write(self, which):
        if (row := self.pick(which)) is not None:
            row.must_be_written = True
            self.say(WriteRequested(row.number))
            if row.is_held and not row.is_saved:
                assert self.job is not None, "nothing is written, although something is asked for"

    @rule(which=st.integers(0, MOST_ROWS))
    def discard(self, which):
        if (row := self.pick(which)) is not None:
            row.is_discarded |= row.is_held
            actions = self.say(Discarded(row.number))
            assert not any(isinstance(action, Notify) for action in actions)

    @rule(n_units=st.sampled_from([1, 1, 2, LARGEST]))
    def take_buffer(self, n_units):
        self.say(BufferWanted(n_units * UNIT))

    @rule(write=st.sampled_from([None] * 5 + [True, False]))
    def flush_or_clear(self, write):
        if write is None:
            self.wait_for(FlushRequested)
        else:
            self.wait_for(lambda number: ClearRequested(number, write))
        if write is False:
            assert all(row is self.writing for row in self.held)

    @precondition(lambda self: len(self.rows) > 15)  # rarely: nothing happens afterwards
    @rule()
    def close(self):
        self.wait_for(CloseRequested)

    def wait_for(self, make):
        request = self.requests[self.n_requests] = make(self.n_requests)
        self.n_requests += 1
        self.say(request)

    # -- the thread ------------------------------------------------------------------------------

    def end(self):
        """Take what was in flight; return the action and its row."""
        ended = self.job, self.writing
        self.job = self.writing = None
        return ended

    @precondition(lambda self: self.job is not None)
    @rule(seconds=st.sampled_from([1e-4, 0.02, 0.02, 50.0]), n=st.integers(1, 5))
    def land_several(self, seconds, n):
        for _ in range(n):
            if self.job is not None:
                self.land(seconds)

    def land(self, seconds=0.02):
        match self.end():
            case StartWrite(ref, snapshot), row:
                complete = replace(ref, array="a", n_bytes=snapshot.n_bytes, checksum=1)
                self.say(WriteFinished(complete, seconds))
                assert row.is_saved
                files = [row for row in self.held if row.file and row.is_saved]
                assert sum(row.snapshot.n_bytes for row in files) <= self.capacity
            case StartStaging(snapshot), row:
                mapped = snapshot.buffer.copy()
                mapped.flags.writeable = False
                row.snapshot, row.file = Snapshot(mapped, snapshot.layout), Path(f"{row.number}")
                self.files.add(row.file)
                self.say(StateStaged(row.snapshot, row.file))

    @precondition(lambda self: self.job is not None)
    @rule()
    def fail(self):
        job, row = self.end()
        if isinstance(job, StartStaging):
            self.say(StagingFailed())
        else:
            row.n_failed += 1
            self.say(WriteFailed("disk on fire"))

    @rule(
        seconds=st.sampled_from([0.0, 1.0, 10.0, 100.0]),
        left=st.sampled_from([None, None, 1e6, 10.0]),
    )
    def tick(self, seconds, left):
        self.now += seconds
        self.say(Tick(left))

    # -- always, and in the end ------------------------------------------------------------------

    @property
    def waits_without_write(self):
        """True while a clear waits that allows no write."""
        return any(isinstance(r, ClearRequested) and not r.write for r in self.requests.values())

    @property
    def held(self):
        return [row for row in self.rows.values() if row.is_held]

    @property
    def ghost_bytes(self):
        """Memory of a state that was discarded while it is being written."""
        row = self.writing
        return 0 if row is None or row.is_held or row.file else row.snapshot.n_bytes

    @invariant()
    def what_is_held_is_what_neither_left_nor_was_discarded(self):
        assert self.state.ids == [n for n, row in self.rows.items() if row.is_held]

    @invariant()
    def memory_is_that_of_states_and_a_few_buffers(self):
        used = sum(row.snapshot.n_bytes for row in self.held if not row.file) + self.ghost_bytes
        assert used <= self.state.n_bytes <= used + MAX_BUFFERS * LARGEST * UNIT
        if self.state.n_bytes > used:
            assert self.state.n_bytes <= self.capacity, "buffers above the capacity"

    @invariant()
    def no_two_states_share_memory(self):
        buffers = [id(row.snapshot.buffer) for row in self.held]
        buffers += [id(buffer) for buffer in self.lent]
        if self.ghost_bytes:
            buffers.append(id(self.writing.snapshot.buffer))
        assert len(set(buffers)) == len(buffers)

    def teardown(self):
        if not hasattr(self, "state"):
            return
        for _ in range(6 * MOST_ROWS):  # stage, and at most two attempts or so of each
            if not self.requests or self.job is None:
                break
            self.land() if self.disk_works else self.fail()
        assert not self.requests, "nothing is in flight, and there is still something to wait for"
        self.close()
        while self.job is not None:
            self.land() if self.disk_works else self.fail()
        assert not self.requests
        assert self.state.is_closed
        assert self.state.n_bytes == 0
        assert self.files == set()
        for row in self.rows.values():
            assert row.is_discarded != bool(row.dropped), "not exactly one end"
            assert row.is_discarded or row.is_saved or row.dropped != "evicted for other states"


CacheScript.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestCacheScripts = CacheScript.TestCase
