"""Start of a trial's ranks, and their conversation with the study."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from daskhpo.checkpoints.codec import Snapshot, decode_row, snapshot
from daskhpo.core.arguments import check_bool, check_callable, check_int, optional, shown
from daskhpo.core.errors import InvalidArgument, ShapeMismatch
from daskhpo.distributed.messages import (
    CheckpointAnswer,
    CountCalls,
    GoAhead,
    LeaveNow,
    MakeState,
    Raised,
    Setting,
    StopFrom,
    ToRank,
    UnitDone,
    WantCheckpoint,
)
from daskhpo.distributed.processes import (
    Output,
    RankProcess,
    rank_environment,
    rank_gpus,
    reserved_port,
)
from daskhpo.distributed.rank import RankTrial
from daskhpo.distributed.ranks import (
    AllReturned,
    AttemptFailed,
    Died,
    KeepListening,
    Ranks,
    ReportUnit,
)
from daskhpo.executors.dask.pickled_code import dump_code
from daskhpo.trainable import State, TrialContext, check_runs, n_arguments

LOOK_SECONDS = 0.1  # between two looks at the processes, and at a request to stop
LEAVE_SECONDS = 10.0  # for functions to return after their trial was stopped, then to exit
logger = logging.getLogger("daskhpo.worker")

Reshard = Callable[[Sequence[State], int], Sequence[State]]
SHARDS = "daskhpo.shards"  # the key of a state that has one part for each rank


def launch(
    function: Callable[[Any, Any], Any],
    trial: TrialContext,
    n_processes: int | None = None,
    *,
    sharded: bool = False,
    reshard: Reshard | None = None,
) -> None:
    """Run a function in several processes, the ranks, which train a trial together.

    To be called in the function of a trial. Each rank calls ``function(config, trial)`` with a
    trial of its own (:class:`RankTrial`) and torchrun's environment, so that
    torch's process group needs no arguments. It returns when the function has
    returned in all ranks.

    Parameters
    ----------
    function : takes ``(config, trial)``; ``trial.report`` must be called equally often in all
        ranks, and returns or leaves the function at the same unit in all of them.
    trial : the trial that your function got.
    n_processes : number of ranks; None: one for each of ``trial.devices``.
    sharded : each rank has its own part of the state; it is given to the same rank of the same
        number of ranks. False: rank 0's state is kept, and given to all ranks.
    reshard : with ``sharded``: turns the parts of another number of ranks into those of
        ``n_processes`` ranks: ``reshard(parts, n_processes)`` returns a list of that length.

    Raises
    ------
    RankFailed : a rank raised an error or died; no rank is left.
    InvalidArgument : an argument is not valid; nothing was started.
    ShapeMismatch : the checkpoint has another form: sharded, or not, or in another number of parts.
    """
    check_callable("function", function, "a function of (config, trial)")
    if isinstance(function, type) or n_arguments(function) != 2:
        raise InvalidArgument(f"function={shown(function)} must be a function of (config, trial)")
    check_runs(f"function={shown(function)}", function)
    if isinstance(trial, RankTrial):
        raise InvalidArgument(f"trial={trial!r} is a rank's: a rank cannot launch further ranks")
    if not callable(getattr(trial, "report", None)) or not hasattr(trial, "devices"):
        raise InvalidArgument(
            f"trial={shown(trial)} must be the trial that a study gives to your function"
        )
    n = optional(check_int, "n_processes", n_processes, at_least=1)
    check_bool("sharded", sharded)
    optional(check_callable, "reshard", reshard, such_as="a function of (parts, n_processes)")
    if reshard is not None and not sharded:
        raise InvalidArgument("reshard= is for parts of a state: it needs sharded=True")
    n_gpus = sum(device != "cpu" for device in trial.devices)
    n = n or len(trial.devices)
    if 0 < n_gpus < n:
        raise InvalidArgument(
            f"n_processes={n} is more than the trial's GPUs, {', '.join(trial.devices)}: each rank "
            f"needs one. Run the study with resources={{'gpu': {n}}}"
        )
    try:
        code = dump_code(function)
    except Exception as error:
        raise InvalidArgument(
            f"function={shown(function)} cannot be sent to another process ({error}): define it "
            "at the top of a file, and what it needs inside it or in its arguments"
        ) from error
    _Launch(trial, n, sharded, reshard).run(code)


class _Launch:
    def __init__(
        self,
        trial: Any,
        n: int,
        sharded: bool,
        reshard: Reshard | None,
    ) -> None:
        self._trial, self._n = trial, n
        self._is_sharded, self._reshard = sharded, reshard
        self._ranks = Ranks(n, sharded=sharded)
        self._processes: list[RankProcess] = []
        self._output: Output | None = None
        self._selector = selectors.DefaultSelector()
        self._ended: set[int] = set()  # ranks that returned or died
        self._has_returned = self._is_asked = self._is_agreed = False
        self._checkpoints: list[Snapshot | None] = []  # for the ranks; filled when one asks

    def run(self, code: bytes) -> None:
        """Run all ranks until their functions have returned, or one has failed."""
        if self._is_sharded:
            self._load_checkpoints()
        with contextlib.ExitStack() as stack:  # at its end no rank is left
            stack.enter_context(self._selector)
            self._start(code, stack)
            while not self._has_returned:
                self._listen()
                self._act()
            self._wait_for_exit()

    def _start(self, code: bytes, stack: contextlib.ExitStack) -> None:
        trial, gpus = self._trial, rank_gpus(os.environ, self._trial.devices)
        port = stack.enter_context(reserved_port())
        stack.callback(self._close_output)
        n_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        for rank in range(self._n):
            process = RankProcess(rank_environment(os.environ, rank, self._n, port, gpus, n_cpus))
            stack.callback(process.close)
            self._processes.append(process)
            self._selector.register(process.link, selectors.EVENT_READ, rank)
        self._output = Output(trial.id, self._processes)
        for rank in range(self._n):
            setting = Setting(
                code,
                trial.id,
                trial.config,
                trial.resource,
                trial.max_t,
                trial.seed,
                gpus.device(rank),
                rank,
                self._n,
            )
            self._tell(rank, setting)

    # -- listening ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Take in what ranks say within a moment; look which of them have ended."""
        for key, _ in self._selector.select(LOOK_SECONDS):
            self._receive(key.data)
        for rank, process in enumerate(self._processes):
            if rank not in self._ended and (status := process.status()) is not None:
                process.kill()  # its children, which might hold the link
                while self._receive(rank):  # what it said before
                    pass
                if rank not in self._ended:
                    self._ended.add(rank)
                    self._hear(rank, Died(status, self._last_lines(rank)))

    def _receive(self, rank: int) -> bool:
        """Take in a message of a rank; return False if there are no more."""
        process = self._processes[rank]
        try:
            said = process.link.receive()
        except (EOFError, OSError):
            with contextlib.suppress(KeyError):
                self._selector.unregister(process.link)
            if not self._ranks.is_over(rank):
                process.kill()  # it could not be reached
            return False
        match said:
            case WantCheckpoint():
                self._load_checkpoints()
                self._tell(rank, CheckpointAnswer(self._checkpoints[rank]))
            case _:
                self._hear(rank, said)
        return True

    def _hear(self, rank: int, said: Any) -> None:
        self._ranks.hear(rank, said, time.monotonic())

    def _tell(self, rank: int, message: ToRank) -> None:
        with contextlib.suppress(OSError):  # it has ended: its status says so
            self._processes[rank].link.send(message)

    def _tell_all(self, message: ToRank) -> None:
        for rank in range(self._n):
            self._tell(rank, message)

    def _close_output(self) -> None:
        if self._output is not None:
            self._output.close()

    def _last_lines(self, rank: int) -> str:
        return "" if self._output is None else self._output.last_lines(rank)

    # -- acting ------------------------------------------------------------------------------------

    def _act(self) -> None:
        match self._ranks.following(time.monotonic()):
            case KeepListening():
                self._pass_request_on()
            case ReportUnit(unit):
                self._report(unit)
            case AllReturned():
                self._has_returned = True
            case AttemptFailed(error):
                raise error

    def _report(self, unit: UnitDone) -> None:
        self._checkpoints = []
        if unit.completes:
            self._trial.complete()
        try:
            self._trial.report(unit.metrics, state=self._state if unit.has_state else None)
        except BaseException:  # the trial leaves here, and all ranks do
            if not isinstance(self._ranks.following(time.monotonic()), AttemptFailed):
                self._tell_all(LeaveNow())
                self._wait_for_exit()
            raise
        self._ranks.go_ahead()
        self._tell_all(GoAhead())

    def _pass_request_on(self) -> None:
        """Let all ranks see a request to stop at the same call of `should_stop`."""
        if not self._is_asked:
            if self._trial.should_stop():
                self._is_asked = True
                self._tell_all(CountCalls())
        elif not self._is_agreed and (call := self._ranks.stop_from()) is not None:
            self._is_agreed = True
            self._tell_all(StopFrom(call))

    def _wait_for_exit(self) -> None:
        """Wait until all processes have ended by themselves, but not for long."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while time.monotonic() < deadline:
            if all(process.status() is not None for process in self._processes):
                return
            time.sleep(0.01)
        logger.warning(
            "%s: a rank has not ended after %g s, and is killed", self._trial, LEAVE_SECONDS
        )

    # -- states ------------------------------------------------------------------------------------

    def _state(self) -> State:
        """Return the state of all ranks as one tree; called if a checkpoint is needed."""
        made = self._ranks.last_states() if self._has_returned else self._made_states()
        trees = []
        for rank, state in made.items():
            if isinstance(state, Raised):
                raise self._ranks.error_of(rank, state)
            if state is not None:
                trees.append(decode_row(state.buffer, state.layout))
        if self._is_sharded and trees:
            return {SHARDS: trees}
        return trees[0] if trees else None

    def _made_states(self) -> Mapping[int, Snapshot | None]:
        self._ranks.states.clear()
        asked = self._ranks.with_state()
        for rank in asked:
            self._tell(rank, MakeState(keep=self._is_sharded or rank == 0))
        while len(self._ranks.states) < len(asked):
            self._listen()
            if isinstance(failed := self._ranks.following(time.monotonic()), AttemptFailed):
                raise failed.error
        return dict(sorted(self._ranks.states.items()))

    def _load_checkpoints(self) -> None:
        """Read the trial's checkpoint once, for all ranks."""
        if self._checkpoints:
            return
        trial, n = self._trial, self._n
        state = trial.checkpoint
        if state is None:
            self._checkpoints = [None] * n
        elif self._is_sharded:
            parts = parts_of(state, n, self._reshard)
            self._checkpoints = [snapshot(part, trial.id, trial.resource) for part in parts]
        elif is_sharded(state):
            raise ShapeMismatch(
                f"the checkpoint of trial {trial.id} has {len(state[SHARDS])} parts, one for each "
                "rank: continue it with launch(..., sharded=True)"
            )
        else:
            self._checkpoints = [snapshot(state, trial.id, trial.resource)] * n


def is_sharded(state: State) -> bool:
    """Return True for a state that has a part for each rank."""
    return isinstance(state, dict) and state.keys() == {SHARDS}


def parts_of(state: State, n: int, reshard: Reshard | None) -> Sequence[State]:
    """Return the parts of a sharded state for n ranks.

    Raises
    ------
    ShapeMismatch : it has no parts, or another number of them and no function says what to do.
    """
    if not is_sharded(state):
        raise ShapeMismatch(
            "the checkpoint is a state of rank 0 alone: continue it with launch(..., sharded=False)"
        )
    parts: Sequence[State] = state[SHARDS]
    if len(parts) == n:
        return parts
    if reshard is None:
        raise ShapeMismatch(
            f"the checkpoint has the parts of {len(parts)} ranks, and {n} are to continue it: "
            f"launch(..., n_processes={len(parts)}), or turn the parts into those of other ranks "
            "by launch(..., reshard=lambda parts, n_processes: ...)"
        )
    parts = list(reshard(parts, n))
    if len(parts) != n:
        raise ShapeMismatch(
            f"reshard returned {len(parts)} parts for {n} ranks: it must return {n}"
        )
    return parts
