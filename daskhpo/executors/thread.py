"""Sessions on any executor, in a thread of this process."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.follower import JournalFollower
from daskhpo.callbacks.values import StudyInfo
from daskhpo.cluster.jobs import is_over
from daskhpo.core.commands import Command
from daskhpo.core.errors import StudyFailed
from daskhpo.core.events import Edit, Event, StopRequested
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.options import RunOptions
from daskhpo.engine.protocols import CheckpointStore, Executor, MakeExecutor, SessionSpec
from daskhpo.engine.session import Session
from daskhpo.executors.dask.handle import StudyHandle

INTERRUPT_POLL_SECONDS = 0.25  # longest wait in an executor before other threads are heard

# Reasons for a stop, and errors with which the session ends at once.
_Interrupts = queue.SimpleQueue[str | Edit | StudyFailed]


def start(
    *,
    problem: Problem,
    directory: Path,
    store: CheckpointStore,
    trainable: Any,
    options: RunOptions,
    resume: bool,
    source: str | None,
    executor: MakeExecutor,
    callbacks: Sequence[Callback],
    retry_failed: bool = False,
    max_t: int | None = None,
) -> StudyHandle:
    """Start a session of a study on an executor; see :meth:`daskhpo.Study.start`."""
    interrupts: _Interrupts = queue.SimpleQueue()
    taken_over = StudyFailed(f"another process took over {directory}")
    session = Session(
        directory,
        problem,
        options.limits,
        options.policy,
        resume=resume,
        retry_failed=retry_failed,
        max_t=max_t,
        source=source,
        on_lock_lost=lambda: interrupts.put(taken_over),
        on_stop=interrupts.put,
        on_edit=interrupts.put,
        job_is_over=is_over,
        ahead=options.max_concurrent != 1,
    )
    try:
        session.clean(store)
        spec = SessionSpec(
            trainable,
            problem.objective,
            session.coordinator.scheduler.max_t,
            problem.seed,
            options,
            store,
            session.began_at,
        )
        thread = SessionThread(session, executor(spec), interrupts)
    except BaseException:
        session.close()
        raise
    info = StudyInfo(
        directory.name,
        directory,
        problem.objective,
        options.limits,
        repr(session.coordinator.scheduler),
        None,
        source,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(thread.abort)
        follower = JournalFollower(info, callbacks)
        return StudyHandle(directory, problem, thread, follower, stack.pop_all())


class SessionThread:
    """A thread that runs a session to its end, and closes it and its executor.

    Attributes
    ----------
    error : the error that ended the session, or None; set when it has finished.
    """

    def __init__(self, session: Session, executor: Executor, interrupts: _Interrupts) -> None:
        self.error: BaseException | None = None
        self._session, self._interrupts = session, interrupts
        self._executor = _InterruptibleExecutor(executor, interrupts)
        name = f"daskhpo-{session.directory.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def is_finished(self, seconds: float) -> bool:
        """True if the session has finished; waits at most ``seconds``."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def stop(self, reason: str) -> None:
        """Ask the study to end. Thread-safe."""
        self._interrupts.put(reason)

    def abort(self) -> None:
        """End the session without waiting for reports. Thread-safe."""
        self._interrupts.put(StudyFailed("the session was aborted"))

    def _run(self) -> None:
        acts: list[Callable[[], None]] = [
            partial(self._session.run, self._executor),
            self._executor.close,
            self._session.close,
        ]
        for act in acts:
            try:
                act()
            except BaseException as error:
                self.error = self.error or error


class _InterruptibleExecutor:
    """An executor whose `poll` also returns, or raises, what other threads ask for."""

    def __init__(self, executor: Executor, interrupts: _Interrupts) -> None:
        self._executor, self._interrupts = executor, interrupts
        self.now, self.close = executor.now, executor.close

    def perform(self, commands: Iterable[Command]) -> None:
        self._executor.perform(commands)

    def poll(self, deadline: float | None) -> Sequence[Event]:
        while True:
            with contextlib.suppress(queue.Empty):
                interrupt = self._interrupts.get_nowait()
                if isinstance(interrupt, StudyFailed):
                    raise interrupt
                if isinstance(interrupt, str):
                    return [StopRequested(interrupt, self.now())]
                return [replace(interrupt, seconds=self.now())]
            soon = self.now() + INTERRUPT_POLL_SECONDS
            until = soon if deadline is None else min(soon, deadline)
            if (events := self._executor.poll(until)) or until == deadline:
                return events
