"""The program of a rank: runs the user's function for its trial's process."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from daskhpo.checkpoints.codec import Snapshot, decode_row, snapshot
from daskhpo.cluster.walltime import remaining_walltime
from daskhpo.core.errors import DaskhpoError, MetricError
from daskhpo.core.objective import plain_metrics, single_number
from daskhpo.core.plain import short
from daskhpo.core.tracebacks import headline
from daskhpo.distributed.messages import (
    CallsCounted,
    CheckpointAnswer,
    CountCalls,
    GoAhead,
    LeaveNow,
    Link,
    MakeState,
    Raised,
    Returned,
    Setting,
    StateMade,
    StopFrom,
    UnitDone,
    WantCheckpoint,
)
from daskhpo.distributed.steps import connect_to_trial
from daskhpo.executors.dask.pickled_code import load_code, traceback_of

_PR_SET_PDEATHSIG = 1  # of Linux's prctl

_current: RankTrial | None = None


def current_trial() -> RankTrial | None:
    """Return the trial of this process if it is a rank, else None.

    For code that does not get it as an argument: a script that torchrun runs as well, a callback.
    """
    return _current


class RankStopped(BaseException):  # not an Exception, which user code may catch
    """A signal that ends a rank's function with its trial; users never see it."""


class RankTrial:
    """The trial as one of its ranks sees it.

    It is a :class:`daskhpo.trainable.TrialContext`.

    Attributes
    ----------
    rank, world_size : number of this process, and of all.
    local_rank : number of this process among those of its node.
    device : the device of this rank.
    """

    def __init__(self, setting: Setting, link: Link) -> None:
        self.id, self.config = setting.id, setting.config
        self.resource, self.max_t = setting.resource, setting.max_t
        self.seed, self.device = setting.seed, setting.device
        self.rank, self.world_size = setting.rank, setting.world_size
        self.local_rank = setting.local_rank
        self._link = link
        self._inbox: queue.SimpleQueue[CheckpointAnswer | MakeState | GoAhead | LeaveNow] = (
            queue.SimpleQueue()
        )
        self._checkpoint: Any = None
        self._has_asked = self._has_reported = self._completes = self._has_left = False
        self._state: Callable[[], Any] | None = None
        self._calls, self._holds = 0, False
        self._stop_from: int | None = None
        self._stopping = threading.Condition()

    def __repr__(self) -> str:
        return (
            f"<trial {self.id} at resource {self.resource} of {self.max_t}, "
            f"rank {self.rank} of {self.world_size}>"
        )

    @property
    def devices(self) -> tuple[str, ...]:
        """The device of this rank, alone."""
        return (self.device,)

    @property
    def checkpoint(self) -> Any:
        """The state to continue from, or None; fetched when it is first read."""
        if not self._has_asked and not self._has_reported:
            self._has_asked = True
            self._link.send(WantCheckpoint())
            answer = self._inbox.get()
            assert isinstance(answer, CheckpointAnswer), answer
            if answer.state is not None:
                self._checkpoint = decode_row(answer.state.buffer, answer.state.layout)
        return self._checkpoint

    def report(
        self, metrics: Mapping[str, Any] | float, state: Callable[[], Any] | None = None
    ) -> None:
        """Report one unit of training; all ranks must, and wait here for each other.

        The metrics of rank 0 count. If a checkpoint is needed, ``state`` is called in all ranks
        that gave one; the result of rank 0 is kept, or with ``sharded=True`` each rank's own.
        """
        if self._has_left:
            raise RankStopped
        if state is not None and not callable(state):
            raise MetricError(
                f"report(state={type(state).__name__}) must be callable, such as "
                "state=lambda: {'model': model.state_dict()}; it is called only if it is needed"
            )
        plain = _plain(metrics) if self.rank == 0 else {}
        self._checkpoint, self._has_reported, self._state = None, True, state
        self._link.send(UnitDone(plain, state is not None, self._completes))
        while True:
            match self._inbox.get():
                case MakeState(keep):
                    self._link.send(_tried(lambda: StateMade(self._made(keep))))
                case GoAhead():
                    self.resource += 1
                    return
                case LeaveNow():
                    self._has_left = True
                    raise RankStopped

    def complete(self) -> None:
        """Complete the trial after this unit, if rank 0 says so."""
        self._completes = True

    def should_stop(self) -> bool:
        """Return True if the trial will be preempted at its next report.

        Ranks that call it equally often get the same answers, so that all of them may leave a loop
        at the same step. It costs no message.
        """
        with self._stopping:
            while self._holds:
                self._stopping.wait()
            self._calls += 1
            return self._stop_from is not None and self._calls >= self._stop_from

    def remaining_walltime(self) -> float | None:
        """Return the seconds until the trial's job ends; None: not known."""
        return remaining_walltime()

    def listen(self) -> None:
        """Receive messages; end, with all children, if the trial's process is gone."""
        while True:
            try:
                message = self._link.receive()
            except (EOFError, OSError):
                os.killpg(0, signal.SIGKILL)
            match message:
                case CountCalls():
                    with self._stopping:
                        self._holds = True
                        self._link.send(CallsCounted(self._calls))
                case StopFrom(call):
                    with self._stopping:
                        self._stop_from, self._holds = call, False
                        self._stopping.notify_all()
                case _:
                    self._inbox.put(message)

    def returned(self) -> Returned:
        """Return the last message; before the trial's last unit, with its state."""
        if self._has_left or self._state is None or self.resource >= self.max_t:
            return Returned()
        made = _tried(lambda: StateMade(self._made(keep=True)))
        return Returned(made.state if isinstance(made, StateMade) else made)

    def _made(self, keep: bool) -> Snapshot | None:
        assert self._state is not None
        state = self._state()
        return snapshot(state, self.id, self.resource + 1) if keep else None


def _plain(metrics: Any) -> dict[str, float] | float:
    if isinstance(metrics, Mapping):
        return plain_metrics(metrics)
    if (number := single_number(metrics)) is None:
        raise MetricError(
            f"reported {short(metrics)}, a {type(metrics).__name__}; report a dict of numbers"
        )
    return number


def _tried(make: Callable[[], StateMade]) -> StateMade | Raised:
    try:
        return make()
    except BaseException as error:
        return raised(error)


def raised(error: BaseException) -> Raised:
    """Return an error of the user's code as a message."""
    text = traceback_of(error)
    return Raised(headline(text), text, error if isinstance(error, DaskhpoError) else None)


def main(number: int, parent: int) -> None:
    """Run a rank.

    Parameters
    ----------
    number : of its socket.
    parent : process id of its trial.
    """
    _die_with(parent)
    os.set_inheritable(number, False)
    _ignore_sigterm()
    _run(socket.socket(fileno=number))


def main_of_step() -> None:
    """Run a rank that is a task of a Slurm step, see `daskhpo.distributed.steps`."""
    os.setpgid(0, 0)  # of all it leads, it ends its own group
    _ignore_sigterm()
    _run(connect_to_trial())


def _run(end: socket.socket) -> None:
    number = end.fileno()
    os.register_at_fork(after_in_child=lambda: _in_child(number))
    faulthandler.enable()
    link = Link(end)
    setting = link.receive()
    trial = RankTrial(setting, link)
    global _current
    _current = trial
    threading.Thread(target=trial.listen, name="daskhpo-rank", daemon=True).start()
    try:
        with contextlib.suppress(RankStopped):
            load_code(setting.code)(setting.config, trial)
    except BaseException as error:
        link.send(raised(error))
        sys.exit(1)
    link.send(trial.returned())


def _die_with(parent: int) -> None:
    """Let the kernel kill this process if its parent dies; it may have died already."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _ignore_sigterm() -> None:
    """Ignore SIGTERM, but not in children.

    Slurm's reaches all processes of a job. The trial's process knows of it, and ends this one in
    time. An ignored signal would remain so in children; a handler is inherited by forked ones.
    """
    masks = threading.local()

    def handler(signum: int, frame: Any) -> None:
        pass

    def before() -> None:  # one that comes to a child at once must find the default
        masks.old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.old)

    def in_child() -> None:
        if signal.getsignal(signal.SIGTERM) is handler:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        in_parent()

    signal.signal(signal.SIGTERM, handler)
    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def _in_child(number: int) -> None:
    """Let a forked child be an ordinary process: it has no part in the trial."""
    global _current
    _current = None
    with contextlib.suppress(OSError):
        os.close(number)
