"""A trial in its slot: one interface for classes and functions."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from daskhpo.core.errors import MetricError, ReuseMismatch, ShapeMismatch
from daskhpo.executors.dask.context import Context
from daskhpo.executors.dask.shapes import differing_shapes
from daskhpo.trainable import Trainable, n_arguments

logger = logging.getLogger("daskhpo.worker")

STOP_SECONDS = 30.0  # for a function to return after it was stopped, such as for its `finally:`


class SegmentOutcome(Enum):
    """The outcome of a stretch of training."""

    UNTIL = "the segment is done"
    PREEMPTED = "asked to hand over"
    ENDED = "the code returned, or said that the trial is complete"


class Segment(Protocol):
    """The receiver of a segment's units."""

    until: int

    def add(self, resource: int, metrics: Any) -> None:
        """Add the metrics of one unit.

        Raises
        ------
        MetricError : the metrics are not a flat dict of numbers with the study's metric in it.
        """

    def should_preempt(self) -> bool:
        """Return True if the trial must be preempted before its next unit."""

    def warn(self, text: str) -> None:
        """Tell the user something about the trial's code."""


class CodeStillRuns(Exception):
    """The trial's code did not return `STOP_SECONDS` after it was stopped."""


class Runner(Protocol):
    """A trial in this process."""

    context: Context

    def run(self, segment: Segment) -> SegmentOutcome:
        """Train until the segment's end; raise what the user's code raises."""

    def state(self) -> Any:
        """Return the state for a checkpoint, or None."""

    def close(self) -> None:
        """Remove the trial from this process and free what it holds.

        Raises
        ------
        CodeStillRuns : the user's code does not return, although it was stopped.
        """


class ClassRunner:
    """A trial whose code is a :class:`daskhpo.trainable.Trainable`.

    Parameters
    ----------
    cls : the user's class.
    used : an object of an earlier trial, for reuse; None: make a new one.
    verify : compare a reused object with a new one during its first segment.
    taken_over : True if the context's checkpoint is another trial's.
    on_drop : called after a used object was cleaned up, because it cannot be reset.
    """

    def __init__(
        self,
        cls: type[Trainable],
        context: Context,
        used: Trainable | None,
        verify: bool,
        taken_over: bool = False,
        on_drop: Callable[[], object] = lambda: None,
    ) -> None:
        self.context = context
        self._cls, self._taken_over = cls, taken_over
        self._twin: Trainable | None = None
        with contextlib.ExitStack() as made:  # no object stays behind if one raises
            if used is not None:
                made.callback(log_errors, used.cleanup)
                used.trial = context
                if not used.reset_config(context.config):
                    made.close()
                    on_drop()
                    used = None
            self.object = self._fresh(made) if used is None else used
            if used is not None and verify:
                self._twin = self._fresh(made)
            if context.checkpoint is not None:
                for each in filter(None, (self.object, self._twin)):
                    self._load(each, context.checkpoint)
                context.checkpoint = None  # free it: it may be large
            made.pop_all()

    def run(self, segment: Segment) -> SegmentOutcome:
        context = self.context
        while context.resource < segment.until:
            if segment.should_preempt():
                return SegmentOutcome.PREEMPTED
            metrics = self.object.step()
            if self._twin is not None:
                self._compare(metrics, self._twin.step())
            context.resource += 1
            segment.add(context.resource, metrics)
            if context.is_complete:
                self._drop_twin()
                return SegmentOutcome.ENDED
        self._drop_twin()
        return SegmentOutcome.UNTIL

    def state(self) -> Any:
        return self.object.save_checkpoint()

    def close(self) -> None:
        self._drop_twin()

    def _load(self, into: Trainable, state: Any) -> None:
        try:
            into.load_checkpoint(state)
        except Exception as error:
            differing = differing_shapes(into.save_checkpoint(), state) if self._taken_over else []
            if not differing:
                raise
            raise ShapeMismatch(
                f"trial {self.context.id} with {dict(self.context.config)} cannot take over the "
                f"state of another one: {'; '.join(differing)}. A hyperparameter that changes "
                "shapes must not be mutated: remove it from the mutations (and name it in "
                f"{self._cls.__name__}.shape_hyperparameters), or make load_checkpoint adapt such "
                f"states. load_checkpoint raised {type(error).__name__}: {error}"
            ) from error

    def _fresh(self, made: contextlib.ExitStack) -> Trainable:
        fresh = self._cls()
        fresh.trial = self.context
        made.callback(log_errors, fresh.cleanup)
        fresh.setup(self.context.config)
        return fresh

    def _compare(self, reused: Any, fresh: Any) -> None:
        if not (isinstance(reused, Mapping) and isinstance(fresh, Mapping)):
            reused, fresh = {"step()": reused}, {"step()": fresh}
        differing = [name for name in reused if reused[name] != fresh.get(name)]
        if differing:
            shown = ", ".join(f"{n}: {reused[n]!r} against {fresh.get(n)!r}" for n in differing)
            raise ReuseMismatch(
                f"trial {self.context.id}, resource {self.context.resource + 1}: an object after "
                f"reset_config differs from a new one in {shown}. Either reset_config keeps "
                "something of the earlier trial: reset it, or return False. Or step() is not "
                "deterministic: seed it from self.trial.seed"
            )

    def _drop_twin(self) -> None:
        if self._twin is not None:
            log_errors(self._twin.cleanup)
            self._twin = None


def log_errors(act: Callable[[], None]) -> None:
    """Call a clean-up function of a trial that has ended; log what it raises."""
    try:
        act()
    except BaseException:
        logger.warning("clean-up of a trial raised", exc_info=True)


class TrialStopped(BaseException):  # not an Exception, which user code may catch
    """A signal that ends a trial's function with its trial; users never see it."""


@dataclass(frozen=True, slots=True)
class _ErrorAnswer:
    """An error of the function, its `state` or its report."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class _StateAnswer:
    """The result of the function's `state`."""

    value: Any


_Answer = SegmentOutcome | _ErrorAnswer | _StateAnswer


class FunctionRunner:
    """A trial whose code is a function, in a separate thread.

    Between segments the thread waits inside ``report``. Two queues hold one message each: orders
    to the function's thread, and its answers. Only one of the two threads runs at any time.

    What ends a trial reaches the lease as an answer, never only as an exception inside the
    function, whose code may catch it. From then on every ``report`` raises `TrialStopped`.
    """

    def __init__(self, function: Callable[[Any, Any], Any], context: Context) -> None:
        self.context = context
        self._function = function
        self._orders: queue.SimpleQueue[Callable[[], bool]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        self._segment: Segment | None = None
        self._state: Callable[[], Any] | None = None
        self._resumed = context.resource > 0 and context.checkpoint is not None
        context.checkpoint_was_read = self._has_reported = False
        self._closing = False
        self._stopped_at: float | None = None  # when report() began to refuse
        self._thread_failed: BaseException | None = None
        self._thread: threading.Thread | None = None
        context.report = self._report  # type: ignore[method-assign]

    def run(self, segment: Segment) -> SegmentOutcome:
        self._segment = segment
        if self._thread is None:
            context = contextvars.copy_context()  # Dask's get_worker() needs it to find the worker
            self._thread = threading.Thread(
                target=context.run,
                args=(self._main,),
                name=f"trial-{self.context.id}",
                daemon=True,
            )
            self._thread.start()
        else:
            self._orders.put(lambda: True)
        outcome: SegmentOutcome = self._answer()
        return outcome

    def state(self) -> Any:
        if self._thread is None:
            return self.context.checkpoint  # preempted before the function began
        if (make := self._state) is None:
            return None
        if not self._thread.is_alive():  # it has returned; what `make` refers to still exists
            return make()

        def order() -> bool:
            try:
                self._answers.put(_StateAnswer(make()))
            except BaseException as error:
                self._answers.put(_ErrorAnswer(error))
            return False

        self._orders.put(order)
        return self._answer()

    def close(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            return
        self._closing = self.context.is_stopped = True
        self._orders.put(lambda: True)
        # A trained function may take its time: it saves a model, or evaluates it once more.
        if self.context.resource < self.context.max_t:
            self._stopped_at = time.monotonic()
        while self._thread.is_alive():
            stopped_at = self._stopped_at  # a report that was refused sets it, too
            if stopped_at is not None and time.monotonic() - stopped_at > STOP_SECONDS:
                raise CodeStillRuns(
                    f"trial {self.context.id} was stopped, but its code still runs after "
                    f"{STOP_SECONDS:g} s. Does a bare `except:` catch what report() raises?"
                )
            self._thread.join(0.5)
        if self._thread_failed is not None:
            raise self._thread_failed

    def _answer(self) -> Any:
        match self._answers.get():
            case _StateAnswer(value):
                return value
            case _ErrorAnswer(error):
                try:
                    raise error
                finally:  # else a reference cycle would remain: error, traceback, frame
                    del error
            case outcome:
                return outcome

    def _main(self) -> None:
        try:
            takes_trial = n_arguments(self._function) == 2
            returned = self._function(*(self.context.config, self.context)[: 1 + takes_trial])
            if returned is not None and not self._has_reported:
                self._report(returned)
        except TrialStopped:
            if not self._closing:  # fully trained: it was resumed only so that it could return
                self._answers.put(SegmentOutcome.ENDED)
        except BaseException as error:
            if self._closing:
                self._thread_failed = error
            else:
                self._answers.put(_ErrorAnswer(error))
        else:
            if not self._closing:
                self._answers.put(SegmentOutcome.ENDED)

    def _report(
        self, metrics: Mapping[str, Any] | float, state: Callable[[], Any] | None = None
    ) -> None:
        """Implement ``trial.report``; runs in the function's thread."""
        segment, context = self._segment, self.context
        assert segment is not None, "the function runs only after a segment was given"
        if self._closing or context.resource >= context.max_t:
            if self._stopped_at is None:
                self._stopped_at = time.monotonic()
            raise TrialStopped
        try:
            if state is not None and not callable(state):
                raise MetricError(
                    f"report(state={type(state).__name__}) must be callable, such as "
                    "state=lambda: {'model': model.state_dict()}; it is called only if it is "
                    "needed"
                )
            if not self._has_reported:
                self._has_reported = True
                self._check_use(segment)
                context.checkpoint = None  # free it: it may be large
            segment.add(context.resource + 1, metrics)
        except BaseException as error:
            self._wait(_ErrorAnswer(error))
        context.resource += 1
        self._state = state
        if context.is_complete:
            self._wait(SegmentOutcome.ENDED)
        elif context.resource >= segment.until:
            self._wait(SegmentOutcome.UNTIL)
        elif segment.should_preempt():
            self._wait(SegmentOutcome.PREEMPTED)

    def _check_use(self, segment: Segment) -> None:
        """Warn if the function was given a state and did not look at it."""
        if self._resumed and not self.context.checkpoint_was_read:
            name = getattr(self._function, "__name__", "the function")
            segment.warn(
                f"{name} was resumed in mid-training, but did not read "
                "trial.checkpoint: it reports units that it trained from its start. Begin with the "
                "state in trial.checkpoint, if that is not None"
            )

    def _wait(self, answer: _Answer) -> None:
        self._answers.put(answer)
        while not self._orders.get()():
            pass
        if self._closing and self.context.resource < self.context.max_t:
            raise TrialStopped
