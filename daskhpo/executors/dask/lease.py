"""The lease: a long Dask task that holds a slot and runs segments until released."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
import traceback
from dataclasses import dataclass
from typing import Any

from daskhpo.cluster.walltime import StepTimer
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
from daskhpo.core.types import CheckpointPolicy, CheckpointRef, ReuseProbability
from daskhpo.engine.protocols import CheckpointStore
from daskhpo.executors.dask.checkpoint_manager import CheckpointManager, install_handlers, mailboxes
from daskhpo.executors.dask.client import CoordinatorClient, Instruction
from daskhpo.executors.dask.context import Context, device_of
from daskhpo.executors.dask.runners import ClassRunner, FunctionRunner, Runner, SegmentOutcome
from daskhpo.executors.dask.shutdown import GracefulShutdown, shutdown_of
from daskhpo.trainable import Trainable

logger = logging.getLogger("daskhpo.worker")

LIVE_SECONDS = 0.25  # least time between messages with metrics of an unfinished segment


@dataclass(frozen=True)
class LeaseSpec:
    """Data of a study that each of its leases needs."""

    channel: str  # handler on the scheduler, and topic of one-way messages
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
    """Hold a slot until the study releases it; the body of a Dask task."""
    from distributed import get_worker

    worker = get_worker()
    install_handlers(worker)
    shutdown = shutdown_of(worker)
    try:
        client = CoordinatorClient(worker, spec.channel, slot, shutdown)
        with contextlib.closing(client):
            try:
                trainable = _load(spec.trainable)
            except BaseException:
                client.call("broken", worker=worker.address, error=traceback.format_exc())
                return
            checkpoints = CheckpointManager(worker, client, shutdown, spec.store, spec.policy)
            device = device_of(spec.gpus, device_index)
            host = _TrialHost(spec, client, shutdown, checkpoints, trainable, device)
            shutdown.register(host)
            if not shutdown.fits(0.0):
                shutdown.start("its Slurm job ends")
            try:
                _serve(host, client, checkpoints, worker.address)
            finally:
                shutdown.unregister(host)
    except OSError as error:  # the scheduler is gone, or closing
        logger.info("lease %s of %s ends: %r", slot, spec.channel, error)
    finally:
        mailboxes.pop((spec.channel, slot), None)


def _serve(
    host: _TrialHost, client: CoordinatorClient, checkpoints: CheckpointManager, address: str
) -> None:
    """Execute the study's commands until it sends ``"exit"``."""
    command: Instruction = {"do": "exit", "write": False}
    try:
        with contextlib.closing(host):
            job = os.environ.get("SLURM_JOB_ID", "")
            command = client.call("hello", worker=address, job=job)
            while command["do"] != "exit":
                command = host.execute(command)
    finally:
        if command["do"] == "exit" and command["write"]:
            checkpoints.close(command["rows"], write=True)
        else:  # if the scheduler is gone, what is written now would never be committed
            checkpoints.close(write=False)
    if command["write"]:
        client.call("bye")


@functools.lru_cache(maxsize=4)
def _load(trainable: bytes) -> Any:
    """Unpickle a trainable once per process, so that class attributes exist once."""
    import cloudpickle

    return cloudpickle.loads(trainable)


class _SegmentRecorder:
    """The units of one segment; sends their metrics to the study."""

    def __init__(
        self,
        objective: Objective,
        client: CoordinatorClient,
        shutdown: GracefulShutdown,
        timer: StepTimer,
        trial: int,
        attempt: int,
    ) -> None:
        self._objective, self._client, self._shutdown, self._timer = (
            objective,
            client,
            shutdown,
            timer,
        )
        self._key = (trial, attempt)
        self._interrupts = mailboxes[client.channel, client.slot].interrupts
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
        self._timer.observe(now - self._unit_began)
        self._unit_began = now
        self.steps.append((resource, plain, now))
        if resource < self.until and now - self._sent_at >= LIVE_SECONDS:
            self._sent_at = now
            trial, attempt = self._key
            fresh = self.steps[self._n_sent :]
            self._n_sent = len(self.steps)
            self._client.push(trial=trial, attempt=attempt, steps=_aged(fresh, now))

    def asked_to_stop(self) -> bool:
        return self._key in self._interrupts or self._shutdown.started

    def should_preempt(self) -> bool:
        if not self._shutdown.fits(self._timer.longest):
            self._shutdown.start("its Slurm job ends before another unit of training would")
        return self.asked_to_stop()

    def message(self) -> dict[str, Any]:
        trial, attempt = self._key
        return {"trial": trial, "attempt": attempt, "steps": _aged(self.steps, time.monotonic())}


class NotFinite(BaseException):  # not an Exception, which user code may catch
    """The end of a trial whose metric is not finite."""


def _aged(steps: list[tuple[int, dict[str, float], float]], now: float) -> list[Any]:
    """Return steps with their age in seconds: the clocks of two machines may differ."""
    return [(resource, metrics, now - at) for resource, metrics, at in steps]


class _TrialHost:
    """The content of a slot: one trial, and perhaps an object to reuse."""

    def __init__(
        self,
        spec: LeaseSpec,
        client: CoordinatorClient,
        shutdown: GracefulShutdown,
        checkpoints: CheckpointManager,
        trainable: Any,
        device: str,
    ) -> None:
        self._spec, self._client, self._shutdown, self._checkpoints = (
            spec,
            client,
            shutdown,
            checkpoints,
        )
        self._trainable, self._device = trainable, device
        self._runner: Runner | None = None
        self._used: Trainable | None = None
        self._recorder: _SegmentRecorder
        self._timer = StepTimer(keep=3)
        self._unsaved_seconds = 0.0  # training of this trial that no checkpoint has

    def execute(self, command: Instruction) -> Instruction:
        match command["do"]:
            case "train":
                return self._train(command)
            case "save":
                return self._save(command)
            case "idle":
                self._release_trial()
                return self._client.call("ready")
            case "flush":
                self._checkpoints.flush(command["rows"], write=command["write"])
                return self._client.call("flushed")
        raise AssertionError(f"unknown command {command}")

    def close(self) -> None:
        """Release the trial, and clean up an object that was kept for reuse."""
        self._release_trial()
        if self._used is not None:
            used, self._used = self._used, None
            _log_errors(used.cleanup)

    # Methods of a `ShutdownListener`; both run in the event loop.

    def on_shutdown(self) -> None:
        self._client.push(leaving=True)

    def write_seconds(self) -> float:
        return self._checkpoints.write_seconds()

    def _train(self, command: Instruction) -> Instruction:
        trial, attempt = command["trial"], command["attempt"]
        try:
            if command["launch"]:
                self._release_trial()
                self._recorder = _SegmentRecorder(
                    self._spec.objective, self._client, self._shutdown, self._timer, trial, attempt
                )
                self._recorder.should_preempt()  # checks the time left
                if self._shutdown.started:
                    return self._client.call("refused")
                state = self._restored(command)
                self._runner = self._begin(command, state)
            assert self._runner is not None, command
            self._recorder.begin(command["until"])
            began = time.monotonic()
            outcome = SegmentOutcome.PREEMPTED
            if not self._recorder.should_preempt():  # else preempted, or no time for a unit
                outcome = self._runner.run(self._recorder)
            self._unsaved_seconds += time.monotonic() - began
        except NotFinite:
            return self._fail(self._recorder.problem or "", retry=False)
        except (CheckpointMissing, CheckpointCorrupt) as error:
            reason, ref = f"{type(error).__name__}: {error}", command["checkpoint"]
            return self._client.call("unreadable", reason=reason, ref=ref)
        except (MetricError, ReuseMismatch, ShapeMismatch) as error:
            return self._fail(str(error), retry=False, fatal=True)
        except BaseException:  # SystemExit and KeyboardInterrupt, too, fail only the trial
            return self._fail(_trimmed(traceback.format_exc()))
        if outcome is SegmentOutcome.ENDED:
            self._runner = None
            if self._recorder.steps == [] and command["resource"] == 0 and command["launch"]:
                return self._fail("the function returned without a report()", retry=False)
        return self._client.call("report", outcome=outcome.name, **self._recorder.message())

    def _restored(self, command: Instruction) -> Any:
        if command["checkpoint"] is None:
            self._unsaved_seconds = 0.0
            return None
        ref = CheckpointRef(*command["checkpoint"])
        state, self._unsaved_seconds = self._checkpoints.restore(ref, command["peer"])
        return state

    def _begin(self, command: Instruction, state: Any) -> Runner:
        spec, recorder = self._spec, self._recorder
        context = Context(
            command["trial"],
            command["config"],
            command["resource"],
            spec.max_t,
            trial_seed(spec.seed, command["trial"]),
            self._device,
            recorder.asked_to_stop,
        )
        context.checkpoint = state
        if not isinstance(self._trainable, type):
            return FunctionRunner(self._trainable, context)
        used, self._used = self._used, None
        ref = command["checkpoint"]
        taken_over = ref is not None and CheckpointRef(*ref).trial != command["trial"]
        return ClassRunner(self._trainable, context, used, spec.verify_reuse, taken_over)

    def _save(self, command: Instruction) -> Instruction:
        assert self._runner is not None, command
        trial, attempt = command["trial"], command["attempt"]
        ref, probability = CheckpointRef(*command["ref"]), ReuseProbability[command["chance"]]
        try:
            state = self._runner.state()
            if state is not None:
                self._checkpoints.save(ref, attempt, state, probability, self._unsaved_seconds)
                if probability is ReuseProbability.CERTAIN:
                    self._unsaved_seconds = 0.0
        except StateNotSupported as error:
            return self._fail(str(error), retry=False, fatal=True)
        except BaseException:
            return self._fail(_trimmed(traceback.format_exc()))
        held = None if state is None else command["ref"]
        return self._client.call("held", trial=trial, attempt=attempt, ref=held)

    def _fail(self, error: str, *, retry: bool = True, fatal: bool = False) -> Instruction:
        logger.debug("trial failed: %s", error)
        runner, self._runner = self._runner, None
        if isinstance(runner, ClassRunner):
            _log_errors(runner.object.cleanup)
        if runner is not None:
            _log_errors(runner.close)
        if retry and self._shutdown.signalled:  # its own processes may have got SIGTERM, too
            return self._client.call("cut", error=error, **self._recorder.message())
        return self._client.call(
            "failed", error=error, retry=retry, fatal=fatal, **self._recorder.message()
        )

    def _release_trial(self) -> None:
        runner, self._runner = self._runner, None
        if runner is None:
            return
        _log_errors(runner.close)
        if isinstance(runner, ClassRunner):
            if self._spec.reuse:
                self._used = runner.object
            else:
                _log_errors(runner.object.cleanup)


def _log_errors(act: Any) -> None:
    """Call a clean-up function of a trial that has ended; log what it raises."""
    try:
        act()
    except BaseException:
        logger.warning("clean-up of a trial raised", exc_info=True)


def _trimmed(text: str) -> str:
    """Return a traceback without the frames of ``daskhpo/executors/dask/``."""
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
