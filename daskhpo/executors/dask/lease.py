"""The lease: one long Dask task that holds a slot and runs segments until it is told to leave."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
import traceback
from dataclasses import dataclass
from typing import Any

from daskhpo.core.errors import (
    CheckpointCorrupt,
    CheckpointMissing,
    MetricError,
    ReuseMismatch,
    ShapeMismatch,
    StateNotSupported,
)
from daskhpo.core.objective import Objective
from daskhpo.core.random import trial_seed
from daskhpo.core.types import Chance, CheckpointPolicy, CheckpointRef
from daskhpo.engine.protocols import CheckpointStore
from daskhpo.executors.dask.checkpoint_manager import Keeper, install, mailboxes
from daskhpo.executors.dask.client import Command, Link
from daskhpo.executors.dask.context import Context, device_of
from daskhpo.executors.dask.runners import ClassRunner, FunctionRunner, Outcome, Runner
from daskhpo.executors.dask.shutdown import Ending, Pace, ending_of
from daskhpo.trainable import Trainable

logger = logging.getLogger("daskhpo.worker")

LIVE_SECONDS = 0.25  # metrics within a segment are sent ahead of its report at most this often


@dataclass(frozen=True)
class LeaseSpec:
    """What every lease of a study needs to know."""

    channel: str  # handler on the scheduler, and topic of live metrics
    trainable: bytes
    objective: Objective
    seed: int
    max_t: int
    store: CheckpointStore
    policy: CheckpointPolicy
    gpus: float
    reuse: bool
    verify_reuse: bool


def lease(spec: LeaseSpec, slot: int, device_index: int) -> None:
    """Hold a slot: the body of a Dask task. Returns when the study has no use for the slot."""
    from distributed import get_worker

    worker = get_worker()
    install(worker)
    ending = ending_of(worker)
    try:
        link = Link(worker, spec.channel, slot, ending)
        with contextlib.closing(link):
            try:
                trainable = _load(spec.trainable)
            except BaseException:
                link.call("broken", worker=worker.address, error=traceback.format_exc())
                return
            keeper = Keeper(worker, link, ending, spec.store, spec.policy)
            device = device_of(spec.gpus, device_index)
            holder = _Holder(spec, link, ending, keeper, trainable, device)
            ending.enter(holder)
            if not ending.fits(0.0):
                ending.begin("its Slurm job ends")
            try:
                _hold(holder, link, keeper, worker.address)
            finally:
                ending.leave(holder)
    except OSError as error:  # the scheduler is gone, or closing
        logger.info("lease %s of %s ends: %r", slot, spec.channel, error)
    finally:
        mailboxes.pop((spec.channel, slot), None)


def _hold(holder: _Holder, link: Link, keeper: Keeper, address: str) -> None:
    """Do what the study says until it says to leave."""
    command: Command = {"do": "exit", "write": False}
    try:
        with contextlib.closing(holder):
            job = os.environ.get("SLURM_JOB_ID", "")
            command = link.call("hello", worker=address, job=job)
            while command["do"] != "exit":
                command = holder.obey(command)
    finally:
        if command["do"] == "exit" and command["write"]:
            keeper.close(command["rows"], write=True)
        else:  # if the scheduler is gone, what is written now would never be committed
            keeper.close(write=False)
    if command["write"]:
        link.call("bye")


@functools.lru_cache(maxsize=4)
def _load(trainable: bytes) -> Any:
    """Once per process: a class that is unpickled twice has its class attributes twice."""
    import cloudpickle

    return cloudpickle.loads(trainable)


class _Units:
    """The units of one segment, and their way to the study."""

    def __init__(
        self,
        objective: Objective,
        link: Link,
        ending: Ending,
        pace: Pace,
        trial: int,
        attempt: int,
    ) -> None:
        self._objective, self._link, self._ending, self._pace = objective, link, ending, pace
        self._key = (trial, attempt)
        self._interrupts = mailboxes[link.channel, link.slot].interrupts
        self.begin(0)
        self._sent_at = 0.0

    def begin(self, until: int) -> None:
        self.until = until
        self._unit_began = time.monotonic()
        self.steps: list[tuple[int, dict[str, float], float]] = []
        self._n_sent = 0
        self.problem: str | None = None

    def add(self, resource: int, metrics: Any) -> None:
        plain = self._objective.check(metrics)
        if self._objective.loss(plain) == float("inf"):
            name = self._objective.metric
            self.problem = f"{name}={plain[name]!r} at resource {resource} is not finite"
            raise NotFinite
        now = time.monotonic()
        self._pace.saw(now - self._unit_began)
        self._unit_began = now
        self.steps.append((resource, plain, now))
        if resource < self.until and now - self._sent_at >= LIVE_SECONDS:
            self._sent_at = now
            trial, attempt = self._key
            fresh = self.steps[self._n_sent :]
            self._n_sent = len(self.steps)
            self._link.send(trial=trial, attempt=attempt, steps=_aged(fresh, now))

    def asked_to_stop(self) -> bool:
        return self._key in self._interrupts or self._ending.begun

    def interrupted(self) -> bool:
        if not self._ending.fits(self._pace.longest):
            self._ending.begin("its Slurm job ends before another unit of training would")
        return self.asked_to_stop()

    def message(self) -> dict[str, Any]:
        trial, attempt = self._key
        return {"trial": trial, "attempt": attempt, "steps": _aged(self.steps, time.monotonic())}


class NotFinite(BaseException):  # passes through user code that catches Exception
    """Ends a trial whose metric is not finite."""


def _aged(steps: list[tuple[int, dict[str, float], float]], now: float) -> list[Any]:
    """Steps with their age in seconds: the clocks of two machines need not agree."""
    return [(resource, metrics, now - at) for resource, metrics, at in steps]


class _Holder:
    """What a slot holds: one trial, and perhaps an object that can be used again."""

    def __init__(
        self,
        spec: LeaseSpec,
        link: Link,
        ending: Ending,
        keeper: Keeper,
        trainable: Any,
        device: str,
    ) -> None:
        self._spec, self._link, self._ending, self._keeper = spec, link, ending, keeper
        self._trainable, self._device = trainable, device
        self._runner: Runner | None = None
        self._used: Trainable | None = None
        self._units: _Units
        self._pace = Pace()
        self._unsaved_seconds = 0.0  # of training, by this trial, that no checkpoint has

    def obey(self, command: Command) -> Command:
        match command["do"]:
            case "train":
                return self._train(command)
            case "save":
                return self._save(command)
            case "idle":
                self._leave_trial()
                return self._link.call("ready")
            case "flush":
                self._keeper.flush(command["rows"], write=command["write"])
                return self._link.call("flushed")
        raise AssertionError(f"unknown command {command}")

    def close(self) -> None:
        """The slot is given back."""
        self._leave_trial()
        if self._used is not None:
            used, self._used = self._used, None
            _quietly(used.cleanup)

    # As a tenant of the worker's ending; both in the event loop.

    def leaves(self) -> None:
        self._link.send(leaving=True)

    def write_seconds(self) -> float:
        return self._keeper.write_seconds()

    def _train(self, command: Command) -> Command:
        trial, attempt = command["trial"], command["attempt"]
        try:
            if command["launch"]:
                self._leave_trial()
                self._units = _Units(
                    self._spec.objective, self._link, self._ending, self._pace, trial, attempt
                )
                self._units.interrupted()  # looks at the clock
                if self._ending.begun:
                    return self._link.call("refused")
                state = self._restored(command)
                self._runner = self._begin(command, state)
            assert self._runner is not None, command
            self._units.begin(command["until"])
            began = time.monotonic()
            outcome = Outcome.YIELDED
            if not self._units.interrupted():  # else another unit would not fit
                outcome = self._runner.run(self._units)
            self._unsaved_seconds += time.monotonic() - began
        except NotFinite:
            return self._fail(self._units.problem or "", retry=False)
        except (CheckpointMissing, CheckpointCorrupt) as error:
            reason, ref = f"{type(error).__name__}: {error}", command["checkpoint"]
            return self._link.call("unreadable", reason=reason, ref=ref)
        except (MetricError, ReuseMismatch, ShapeMismatch) as error:
            return self._fail(str(error), retry=False, fatal=True)
        except BaseException:  # SystemExit and KeyboardInterrupt, too, are the trial's own affair
            return self._fail(_trimmed(traceback.format_exc()))
        if outcome is Outcome.ENDED:
            self._runner = None
            if self._units.steps == [] and command["resource"] == 0 and command["launch"]:
                return self._fail("the function returned without a report()", retry=False)
        return self._link.call("report", outcome=outcome.name, **self._units.message())

    def _restored(self, command: Command) -> Any:
        if command["checkpoint"] is None:
            self._unsaved_seconds = 0.0
            return None
        ref = CheckpointRef(*command["checkpoint"])
        state, self._unsaved_seconds = self._keeper.give(ref, command["peer"])
        return state

    def _begin(self, command: Command, state: Any) -> Runner:
        spec, units = self._spec, self._units
        context = Context(
            command["trial"],
            command["config"],
            command["resource"],
            spec.max_t,
            trial_seed(spec.seed, command["trial"]),
            self._device,
            units.asked_to_stop,
        )
        context.checkpoint = state
        if not isinstance(self._trainable, type):
            return FunctionRunner(self._trainable, context)
        used, self._used = self._used, None
        ref = command["checkpoint"]
        taken_over = ref is not None and CheckpointRef(*ref).trial != command["trial"]
        return ClassRunner(self._trainable, context, used, spec.verify_reuse, taken_over)

    def _save(self, command: Command) -> Command:
        assert self._runner is not None, command
        trial, attempt = command["trial"], command["attempt"]
        ref, chance = CheckpointRef(*command["ref"]), Chance[command["chance"]]
        try:
            state = self._runner.state()
            if state is not None:
                self._keeper.take(ref, attempt, state, chance, self._unsaved_seconds)
                if chance is Chance.SURE:
                    self._unsaved_seconds = 0.0
        except StateNotSupported as error:
            return self._fail(str(error), retry=False, fatal=True)
        except BaseException:
            return self._fail(_trimmed(traceback.format_exc()))
        held = None if state is None else command["ref"]
        return self._link.call("held", trial=trial, attempt=attempt, ref=held)

    def _fail(self, error: str, *, retry: bool = True, fatal: bool = False) -> Command:
        logger.debug("trial failed: %s", error)
        runner, self._runner = self._runner, None
        if isinstance(runner, ClassRunner):
            _quietly(runner.object.cleanup)
        if runner is not None:
            _quietly(runner.close)
        if retry and self._ending.signalled:  # its own processes were told to go, too
            return self._link.call("cut", error=error, **self._units.message())
        return self._link.call(
            "failed", error=error, retry=retry, fatal=fatal, **self._units.message()
        )

    def _leave_trial(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        _quietly(runner.close)
        if isinstance(runner, ClassRunner):
            if self._spec.reuse:
                self._used = runner.object
            else:
                _quietly(runner.object.cleanup)


def _quietly(act: Any) -> None:
    """The trial is over: what its clean-up raises is told, and changes nothing."""
    try:
        act()
    except BaseException:
        logger.warning("clean-up of a trial raised", exc_info=True)


def _trimmed(text: str) -> str:
    """A traceback without the frames of this file and of the runner."""
    lines = text.splitlines(keepends=True)
    kept, skipping = [], False
    for line in lines:
        if line.startswith('  File "'):
            skipping = "daskhpo/executors/dask/" in line.replace("\\", "/")
        elif not line.startswith("    "):
            skipping = False
        if not skipping:
            kept.append(line)
    return "".join(kept).strip()
