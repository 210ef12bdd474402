"""A study for unit tests of a lease: a list of commands for a channel, a shutdown by hand."""

from __future__ import annotations

from collections import deque
from typing import Any

from daskhpo.checkpoints.codec import Snapshot
from daskhpo.checkpoints.memory import MemoryStore
from daskhpo.core.commands import Save, Train
from daskhpo.core.events import Erred, Trained
from daskhpo.core.objective import Objective
from daskhpo.core.types import CheckpointPolicy, CheckpointRef, ReuseProbability
from daskhpo.executors.dask.checkpoint_manager import CheckpointManager
from daskhpo.executors.dask.protocol import (
    Exit,
    Happened,
    Job,
    LeaseCommand,
    LeaseMessage,
    Peer,
    StateEvent,
)
from daskhpo.executors.dask.trial_host import TrialHost


class ScriptedChannel:
    """Answers calls with the given commands, then with `Exit`; remembers what a lease says."""

    def __init__(self, *commands: LeaseCommand) -> None:
        self.commands = deque(commands)
        self.said: list[LeaseMessage] = []
        self.live: list[Trained] = []
        self.notes: list[StateEvent] = []
        self.warnings: list[str] = []
        self.overruns: list[tuple[Trained, Erred]] = []
        self.n_leaving = 0
        self.is_gone = False
        self.peers: dict[tuple[Peer, int], tuple[Snapshot, float] | OSError] = {}

    def call(self, message: LeaseMessage) -> LeaseCommand:
        if self.is_gone:
            raise ConnectionError("the study is gone")
        self.said.append(message)
        return self.commands.popleft() if self.commands else Exit()

    def push_live(self, trained: Trained) -> None:
        self.live.append(trained)

    def push_warning(self, text: str) -> None:
        self.warnings.append(text)

    def push_overrun(self, trained: Trained, erred: Erred) -> None:
        self.overruns.append((trained, erred))

    def push_leaving(self) -> None:
        self.n_leaving += 1

    def notify(self, event: StateEvent) -> None:
        self.notes.append(event)

    def fetch(self, peer: Peer, checkpoint_id: int) -> tuple[Snapshot, float] | None:
        found = self.peers.get((peer, checkpoint_id))
        if isinstance(found, OSError):
            raise found
        return found


class ManualShutdown:
    """A worker's end that a test begins, or brings near."""

    def __init__(self) -> None:
        self.signalled = False
        self.reason: str | None = None
        self.seconds_left = float("inf")

    @property
    def started(self) -> bool:
        return self.reason is not None

    def fits(self, seconds: float) -> bool:
        return not self.started and seconds < self.seconds_left

    def start(self, reason: str, *, restart: bool = False) -> None:
        self.reason, self.restart = self.reason or reason, restart


class Lease:
    """A trial host with a scripted study, a store in memory and a shutdown by hand."""

    def __init__(self, trainable: Any, *commands: LeaseCommand, **options: Any) -> None:
        self.channel = ScriptedChannel(*commands)
        self.shutdown = ManualShutdown()
        self.store = MemoryStore()
        self.checkpoints = CheckpointManager(
            self.store, CheckpointPolicy(), self.channel, memory=2**20
        )
        usual = {"objective": Objective("loss"), "seed": 0, "max_t": 100}
        self.host = TrialHost(
            self.channel, self.shutdown, self.checkpoints, trainable, **(usual | options)
        )

    def do(self, command: LeaseCommand) -> LeaseMessage:
        """Let the host carry out a command; return what it says to the study."""
        self.host.execute(command)
        return self.channel.said[-1]

    def train(self, trial: int = 0, until: int = 1, **options: Any) -> Trained:
        """Let a trial train; it must succeed."""
        said = self.do(job(trial, until, **options))
        assert isinstance(said, Happened), said
        (trained,) = said.events
        assert isinstance(trained, Trained), trained
        return trained

    def close(self) -> None:
        self.host.close()
        self.checkpoints.close(write=False)


def job(
    trial: int = 0,
    until: int = 1,
    *,
    launch: bool = True,
    config: dict[str, Any] | None = None,
    state: CheckpointRef | None = None,
    peer: Peer | None = None,
) -> Job:
    resource = 0 if state is None else state.resource
    return Job(Train(trial, 1, config or {}, resource, until, state, launch), peer)


def save(ref: CheckpointRef, probability: ReuseProbability = ReuseProbability.LIKELY) -> Save:
    return Save(ref.trial, 1, ref, probability)


def erred(said: Any) -> Erred:
    """Return the failure that a lease has told."""
    assert isinstance(said, Happened), said
    error = said.events[-1]
    assert isinstance(error, Erred), error
    return error
