"""Host of a slot's trials: carries out commands and answers with events."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from daskhpo.cluster.walltime import StepTimer
from daskhpo.core.commands import Delete, Flush, Interrupt, Release, Save, Train, Write
from daskhpo.core.errors import (
    CheckpointCorrupt,
    CheckpointMissing,
    MetricError,
    ReuseMismatch,
    ShapeMismatch,
    StateNotSupported,
)
from daskhpo.core.events import Erred, Held, Step, Trained
from daskhpo.core.objective import Objective
from daskhpo.core.out_of_memory import MemoryKind, OutOfMemory, memory_kind_of, tells_of_kill
from daskhpo.core.random import trial_seed
from daskhpo.core.types import ReuseProbability, TrialId
from daskhpo.executors.dask.channel import Channel
from daskhpo.executors.dask.checkpoint_manager import CheckpointManager
from daskhpo.executors.dask.children import ChildProcesses
from daskhpo.executors.dask.context import Context
from daskhpo.executors.dask.killed_workers import n_kills
from daskhpo.executors.dask.pickled_code import traceback_of
from daskhpo.executors.dask.placement import Site
from daskhpo.executors.dask.protocol import (
    Bye,
    CutOff,
    EndProcess,
    Exit,
    Flushed,
    Happened,
    Hello,
    Job,
    LeaseCommand,
    LeaseOrder,
    Peer,
    Ready,
    Refused,
    Unreadable,
)
from daskhpo.executors.dask.runners import (
    ClassRunner,
    CodeStillRuns,
    FunctionRunner,
    Runner,
    SegmentOutcome,
    log_errors,
)
from daskhpo.executors.dask.trial_memory import PeakMeter, forget_frames, free_caches
from daskhpo.executors.dask.watchdog import Breach, Watchdog
from daskhpo.trainable import Trainable
from daskhpo.trial_output import TrialOutput

logger = logging.getLogger("daskhpo.worker")

NOWHERE = Site()
LIVE_SECONDS = 0.25  # least time between messages with metrics of an unfinished segment


class Shutdown(Protocol):
    """The end of a worker, as its trials see it. Thread-safe."""

    signalled: bool  #: by SIGTERM, which other processes of the job may also get

    @property
    def started(self) -> bool:
        """True if the worker is about to leave."""

    def fits(self, seconds: float) -> bool:
        """True if ``seconds`` of training, and then preemption, still fit here."""

    def start(self, reason: str, *, restart: bool = False) -> None:
        """Stop taking work; ``restart``: begin again in a new process."""


class TrialHost:
    """The content of a slot: one trial, and perhaps an object to reuse.

    Parameters
    ----------
    channel : the study.
    shutdown : the end of this process.
    checkpoints : states of the slot's trials.
    trainable : the user's class or function.
    objective, seed, max_t : of the study.
    device, n_devices : the first device that a trial may use, such as ``"cuda:0"``, and how many.
    reuse, verify_reuse : reuse objects for several trials; compare them with new ones.
    children : processes that trials start; None: they are left alone.
    step_timeout, memory_limit : see `Watchdog`.
    output : what trials print; None: it goes to no file.
    """

    def __init__(
        self,
        channel: Channel,
        shutdown: Shutdown,
        checkpoints: CheckpointManager,
        trainable: Any,
        *,
        objective: Objective,
        seed: int,
        max_t: int,
        device: str = "cpu",
        n_devices: int = 1,
        reuse: bool = True,
        verify_reuse: bool = False,
        children: ChildProcesses | None = None,
        step_timeout: float | None = None,
        memory_limit: int | None = None,
        output: TrialOutput | None = None,
    ) -> None:
        self._output = output or TrialOutput()
        self._channel, self._shutdown = channel, shutdown
        self.checkpoints = checkpoints
        self._trainable, self._objective = trainable, objective
        self._seed, self._max_t = seed, max_t
        self._device, self._n_devices = device, n_devices
        self._reuse, self._verify_reuse = reuse, verify_reuse
        self._children = children or ChildProcesses(is_own=False)
        self._meter = PeakMeter(self._children)
        self._watchdog = Watchdog(step_timeout, memory_limit, self._children)
        self._runner: Runner | None = None
        self._used: Trainable | None = None
        self._recorder: SegmentRecorder
        self._timer = StepTimer(keep=3)
        self._n_kills = 0  # by the kernel for want of memory, when the trial was launched
        self._unsaved_seconds = 0.0  # training of this trial that no checkpoint has
        self._interrupts: set[tuple[TrialId, int]] = set()

    def serve(self, worker: str, job: str, site: Site = NOWHERE) -> None:
        """Carry out the study's commands until the study ends the lease.

        Parameters
        ----------
        worker, job : address of this worker, and id of its Slurm job ("": none).
        site : where it is, and its memory.

        Raises
        ------
        OSError : the study is gone.
        """
        command: LeaseCommand = Exit()
        try:
            try:
                with self._watchdog.watching(self):
                    command = self._channel.call(Hello(worker, job, site))
                    while not isinstance(command, Exit):
                        command = self.execute(command)
            finally:
                self.close()
        finally:
            # If the study is gone, what is written now would never be committed.
            last = command if isinstance(command, Exit) else Exit()
            self.checkpoints.close(last.checkpoint_ids, write=last.write)
        if last.write:
            self._channel.call(Bye())

    def execute(self, command: LeaseCommand) -> LeaseCommand:
        """Carry out one command, and return the study's next one."""
        match command:
            case Job(train, peer):
                return self._train(train, peer)
            case Save():
                return self._save(command)
            case Release():
                self._release_trial()
                return self._channel.call(Ready())
            case Flush(checkpoint_ids, write):
                self.checkpoints.flush(checkpoint_ids, write=write)
                return self._channel.call(Flushed())
        raise AssertionError(f"{command} does not leave the lease alive")

    def on_order(self, order: LeaseOrder) -> None:
        """Handle an order of the study, also while a trial runs. Thread-safe."""
        match order:
            case Interrupt(trial, attempt):
                self._interrupts.add((trial, attempt))
                if self._runner is not None:  # its code may not come to another report
                    self._recorder.send_ahead()
            case Write(ref):
                self.checkpoints.write(ref.id)
            case Delete(ref):
                self.checkpoints.discard(ref.id)
            case EndProcess(reason):
                self._children.end_process(reason)

    def on_breach(self, breach: Breach) -> None:
        """Tell the study that the trial has broken a limit. Thread-safe."""
        self._recorder.overrun(breach)

    def on_shutdown(self) -> None:
        """Tell the study that this slot is about to end. Thread-safe."""
        self._channel.push_leaving()

    def write_seconds(self) -> float:
        """Estimate the seconds that the writes before the end take. Thread-safe."""
        return self.checkpoints.write_seconds()

    def close(self) -> None:
        """Release the trial, and clean up an object that was kept for reuse."""
        self._release_trial()
        if self._used is not None:
            used, self._used = self._used, None
            log_errors(used.cleanup)
            self._children.end()

    def _train(self, job: Train, peer: Peer | None) -> LeaseCommand:
        try:
            if job.launch:
                self._release_trial()
                self._output.begin(job.trial, job.attempt)
                self._n_kills = n_kills()
                self._meter.begin()
                self._recorder = SegmentRecorder(
                    job.trial,
                    job.attempt,
                    self._objective,
                    self._channel,
                    self._timer,
                    self._shutdown,
                    self._interrupts,
                    self._watchdog.unit_ended,
                )
                self._recorder.should_preempt()  # checks the time left
                if self._shutdown.started:
                    return self._channel.call(Refused())
                state = self._restored(job, peer)
                with self._watchdog.code_runs():
                    self._runner = self._begin(job, state)
            assert self._runner is not None, job
            self._recorder.begin(job.until)
            began = time.monotonic()
            outcome = SegmentOutcome.PREEMPTED
            if not self._recorder.should_preempt():  # else preempted, or no time for a unit
                with self._watchdog.code_runs():
                    outcome = self._runner.run(self._recorder)
            self._unsaved_seconds += time.monotonic() - began
        except NotFinite as error:
            return self._fail(job, str(error), retry=False)
        except (CheckpointMissing, CheckpointCorrupt) as error:
            if job.checkpoint is None:  # the user's code raised it
                return self._fail(job, traceback_of(error))
            reason = f"{type(error).__name__}: {error}"
            return self._channel.call(Unreadable(job.checkpoint, reason))
        except (MetricError, ReuseMismatch, ShapeMismatch) as error:
            return self._fail(job, str(error), retry=False, fatal=True)
        except BaseException as error:  # SystemExit, KeyboardInterrupt, too, fail only the trial
            return self._fail(job, traceback_of(error), lacked=self._lacked(error))
        ended = outcome is SegmentOutcome.ENDED
        if ended and not self._recorder.steps and job.resource == 0 and job.launch:
            return self._fail(job, "the function returned without a report()", retry=False)
        trained = replace(self._recorder.trained(outcome), memory=self._meter.news())
        return self._channel.call(Happened((trained,)))

    def _restored(self, job: Train, peer: Peer | None) -> Any:
        if job.checkpoint is None:
            self._unsaved_seconds = 0.0
            return None
        state, self._unsaved_seconds = self.checkpoints.restore(job.checkpoint, peer)
        return state

    def _begin(self, job: Train, state: Any) -> Runner:
        context = Context(
            job.trial,
            job.config,
            job.resource,
            self._max_t,
            trial_seed(self._seed, job.trial),
            self._device,
            self._recorder.asked_to_stop,
            self._n_devices,
        )
        context.checkpoint = state
        if not isinstance(self._trainable, type):
            return FunctionRunner(self._trainable, context)
        used, self._used = self._used, None
        taken_over = job.checkpoint is not None and job.checkpoint.trial != job.trial
        end = self._children.end
        return ClassRunner(self._trainable, context, used, self._verify_reuse, taken_over, end)

    def _save(self, command: Save) -> LeaseCommand:
        assert self._runner is not None, command
        ref, probability = command.ref, command.probability
        try:
            with self._watchdog.code_runs():
                state = self._runner.state()
            if state is not None:
                self.checkpoints.save(
                    ref, command.attempt, state, probability, self._unsaved_seconds
                )
                if probability is ReuseProbability.CERTAIN:
                    self._unsaved_seconds = 0.0
        except StateNotSupported as error:
            return self._fail(command, str(error), retry=False, fatal=True)
        except BaseException as error:
            return self._fail(command, traceback_of(error), lacked=self._lacked(error))
        held = Held(
            command.trial, command.attempt, None if state is None else ref, time.monotonic()
        )
        return self._channel.call(Happened((held,)))

    def _lacked(self, error: BaseException) -> MemoryKind | None:
        """Return the memory that an error is about, and forget what the code had in it."""
        found = memory_kind_of(error)
        if found is None and tells_of_kill(error) and n_kills() > self._n_kills:
            found = MemoryKind.HOST  # one of the trial's own processes
        if found is not None:
            forget_frames(error)
        return found

    def _fail(
        self,
        job: Train | Save,
        error: str,
        *,
        retry: bool = True,
        fatal: bool = False,
        lacked: MemoryKind | None = None,
    ) -> LeaseCommand:
        logger.debug("trial failed: %s", error)
        runner, self._runner = self._runner, None
        if isinstance(runner, ClassRunner):
            log_errors(runner.object.cleanup)
        if runner is not None:
            self._close(runner)
        self._children.end()
        self._output.end()
        trained = replace(self._recorder.trained(SegmentOutcome.UNTIL), memory=self._meter.news())
        if lacked is not None:
            self._leave_clean_memory(job.trial, lacked)
        elif retry and self._shutdown.signalled:  # its own processes may have got SIGTERM, too
            return self._channel.call(CutOff(trained, error))
        found = None if lacked is None else OutOfMemory(lacked)
        erred = Erred(job.trial, job.attempt, error, trained.seconds, retry, fatal, found)
        return self._channel.call(Happened((trained, erred) if trained.steps else (erred,)))

    def _leave_clean_memory(self, trial: TrialId, lacked: MemoryKind) -> None:
        """Give the memory of a trial back; the process that lacked it is replaced.

        Parts of it may stay: pieces between blocks in use, workspaces of libraries, what the code
        keeps in globals.
        """
        free_caches()
        if self._children.is_own:
            reason = f"trial {trial} was {lacked.shown}: a new process follows"
            self._shutdown.start(reason, restart=True)

    def _release_trial(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            self._close(runner)
            if isinstance(runner, ClassRunner) and self._reuse:
                self._used = runner.object  # with the processes that it has started
            else:
                if isinstance(runner, ClassRunner):
                    log_errors(runner.object.cleanup)
                self._children.end()
        self._output.end()

    def _close(self, runner: Runner) -> None:
        try:
            runner.close()
        except CodeStillRuns as error:  # it keeps a core, or a GPU's memory
            logger.error("%s; the worker ends", error)
            self._shutdown.start(str(error), restart=True)
        except BaseException:
            logger.warning("clean-up of a trial raised", exc_info=True)


class SegmentRecorder:
    """The units of one segment; sends some of them ahead to the study."""

    def __init__(
        self,
        trial: TrialId,
        attempt: int,
        objective: Objective,
        channel: Channel,
        timer: StepTimer,
        shutdown: Shutdown,
        interrupts: set[tuple[TrialId, int]],
        on_unit: Callable[[], None] = lambda: None,
    ) -> None:
        self._key = (trial, attempt)
        self._objective, self._channel = objective, channel
        self._timer, self._shutdown, self._interrupts = timer, shutdown, interrupts
        self._on_unit = on_unit
        self._sent_at = 0.0
        self.begin(0)

    def begin(self, until: int) -> None:
        """Begin a segment."""
        self.until = until
        self._unit_began = time.monotonic()
        self.steps: list[Step] = []
        self._n_sent = 0

    def add(self, resource: int, metrics: Any) -> None:
        plain = self._objective.check(metrics)
        if self._objective.loss(plain) == float("inf"):
            name = self._objective.metric
            raise NotFinite(f"{name}={plain[name]!r} at resource {resource} is not finite")
        now = time.monotonic()
        self._timer.observe(now - self._unit_began)
        self._unit_began = now
        self.steps.append(Step(resource, plain, now))
        self._on_unit()
        if resource < self.until and now - self._sent_at >= LIVE_SECONDS:
            self._sent_at = now
            fresh, self._n_sent = tuple(self.steps[self._n_sent :]), len(self.steps)
            self._channel.push_live(Trained(*self._key, fresh, now))

    def asked_to_stop(self) -> bool:
        """True if the trial was interrupted, or its worker is about to leave. Thread-safe."""
        return self._key in self._interrupts or self._shutdown.started

    def should_preempt(self) -> bool:
        if not self._shutdown.fits(self._timer.longest):
            self._shutdown.start("its Slurm job ends before another unit of training would")
        return self.asked_to_stop()

    def send_ahead(self) -> None:
        """Send all units of the segment so far. Thread-safe."""
        if steps := tuple(self.steps):
            self._channel.push_live(Trained(*self._key, steps, time.monotonic()))

    def overrun(self, breach: Breach) -> None:
        """Send that a limit was broken, with all units of the segment. Thread-safe."""
        found = None if breach.lacked is None else OutOfMemory(breach.lacked)
        erred = Erred(*self._key, breach.error, time.monotonic(), found is None, False, found)
        self._channel.push_overrun(self.trained(SegmentOutcome.UNTIL), erred)

    def warn(self, text: str) -> None:
        self._channel.push_warning(text)

    def trained(self, outcome: SegmentOutcome) -> Trained:
        """Return all units of the segment as an event."""
        return Trained(
            *self._key,
            tuple(self.steps),
            time.monotonic(),
            ended=outcome is SegmentOutcome.ENDED,
            preempted=outcome is SegmentOutcome.PREEMPTED,
        )


class NotFinite(BaseException):  # not an Exception, which user code may catch
    """The end of a trial whose metric is not finite."""
