"""The study plugin of Dask's scheduler: a session from its start to its end."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.diagnostics.plugin import SchedulerPlugin

from daskhpo.cluster.jobs import is_over
from daskhpo.core.errors import StudyFailed
from daskhpo.dashboard.server import show_study
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.options import RunOptions
from daskhpo.engine.protocols import CheckpointStore
from daskhpo.engine.session import Session
from daskhpo.executors.dask.channel import FatalError, Inbox, RequestEdit, RequestStop
from daskhpo.executors.dask.environment import WrongEnvironment, check_environment
from daskhpo.executors.dask.executor import DaskExecutor
from daskhpo.executors.dask.killed_workers import MEMORY_RESTARTS
from daskhpo.executors.dask.lease import LeaseSpec
from daskhpo.executors.dask.lease_manager import LeaseManager
from daskhpo.executors.dask.server import Server

logger = logging.getLogger("daskhpo")

CLIENT_SECONDS = 60.0  # for a client in another process to connect to a session that has ended


@dataclass(frozen=True)
class StudySpec:
    """All that a study plugin needs; may be sent to a scheduler in another process."""

    directory: Path
    store: CheckpointStore
    problem: Problem
    options: RunOptions
    resume: bool
    retry_failed: bool
    max_t: int | None
    source: str | None
    environment: str  # of the process that began the session
    trainable: bytes


class StudyPlugin(SchedulerPlugin):  # type: ignore[misc]
    """One session of a study inside a Dask scheduler.

    Parameters
    ----------
    is_remote : True: the user's process is another one than the scheduler's.
    """

    def __init__(self, spec: StudySpec, *, is_remote: bool = False) -> None:
        self.spec, self.is_remote = spec, is_remote
        self.name = f"daskhpo-{spec.directory.name}-{uuid.uuid4().hex[:8]}"

    # -- in the scheduler's event loop -----------------------------------------------------------

    async def start(self, scheduler: Any) -> None:
        """Open the study and begin; raise an error if its directory cannot be used."""
        spec = self.spec
        try:
            check_environment(spec.environment)
        except WrongEnvironment as error:
            raise StudyFailed(f"the scheduler cannot run this study: {error}") from None
        self._scheduler = scheduler
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._ending: asyncio.Task[None] | None = None
        self.error: BaseException | None = None
        self.finished = threading.Event()
        self._session = await asyncio.to_thread(
            Session,
            spec.directory,
            spec.problem,
            spec.options.limits,
            spec.options.policy,
            resume=spec.resume,
            retry_failed=spec.retry_failed,
            max_t=spec.max_t,
            source=spec.source,
            on_lock_lost=self._on_lock_lost,
            on_stop=self.stop,
            on_edit=lambda edit: self._inbox.put(RequestEdit(edit)),
            job_is_over=is_over,
            ahead=spec.options.max_concurrent != 1,
        )
        try:
            await asyncio.to_thread(self._session.clean, spec.store)
            self._client = await Client(
                scheduler.address,
                asynchronous=True,
                set_as_default=False,
                security=scheduler.security,
            )
            # It counts as a user of the scheduler's loop, and its `close` does not count it out:
            # the loop of a cluster would run on after the cluster's end.
            self._client._loop_runner.stop()
        except BaseException:
            self._session.close()
            raise
        lease_spec = LeaseSpec(
            self.name,
            spec.environment,
            spec.trainable,
            spec.problem.objective,
            spec.problem.seed,
            self._session.coordinator.scheduler.max_t,
            spec.store,
            spec.options,
            self._session.directory,
        )
        self._leases = LeaseManager(scheduler, self._client, lease_spec, self._inbox)
        self._server = Server(self._inbox, self._leases, self._outcome, self.stop)
        scheduler.handlers[self.name] = self._server.serve
        show_study(scheduler, spec.directory, spec.problem.objective)
        executor = DaskExecutor(
            self._inbox, self._leases, spec.store.delete, self._session.began_at
        )
        self._leases.set_wanted(self._session.coordinator.n_slots_wanted)
        self._leases.open()
        threading.Thread(
            target=self._coordinate, args=(executor,), name=self.name, daemon=True
        ).start()

    def add_worker(self, scheduler: Any, worker: str) -> None:
        self._leases.on_worker_added()

    def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:
        self._leases.on_worker_removed(worker)

    def valid_workers_downscaling(self, scheduler: Any, workers: list[Any]) -> list[Any]:
        """Return the workers that adaptive scaling may close: those without a lease."""
        return self._leases.removable(workers)

    def log_event(self, topic: str, msg: Any) -> None:
        if topic == self.name:
            self._server.on_news(msg)
        elif topic == MEMORY_RESTARTS:
            self._leases.on_memory_restart(msg)

    async def close(self) -> None:
        """Stop the study because the scheduler shuts down."""
        self._inbox.put(FatalError(StudyFailed("the Dask cluster was closed while the study ran")))
        while not self.finished.is_set():
            await asyncio.sleep(0.01)

    async def _finish(self) -> None:
        """Release everything after the coordinator has finished."""
        try:
            await self._release()
        except Exception as error:
            self.error = self.error or error
        finally:
            self.finished.set()

    async def _release(self) -> None:
        self._server.close()
        await self._leases.close()
        if self.error is None and not self._leases.busy_workers:
            # a write that was in flight when its trial ended belongs to no trial
            await asyncio.to_thread(self._session.clean, self.spec.store)
        try:
            await asyncio.to_thread(self._session.close)
        except Exception as error:  # such as a full disk; earlier records are intact
            self.error = self.error or error
        if busy := self._leases.busy_workers:
            logger.warning("the code of ended trials still runs on %s", ", ".join(busy))
            self.finished.set()
            await self._leases.wait()
        # A client in another process may connect only now, to hear how the session has ended.
        self._loop.call_later(
            CLIENT_SECONDS if self.is_remote else 0, self._scheduler.handlers.pop, self.name, None
        )
        self._scheduler.plugins.pop(self.name, None)
        await self._client.close()

    def _begin_to_finish(self) -> None:
        self._ending = self._loop.create_task(self._finish())

    def _outcome(self) -> tuple[BaseException | None] | None:
        return (self.error,) if self.finished.is_set() else None

    # -- in other threads ------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Ask the study to end. Thread-safe."""
        self._inbox.put(RequestStop(reason))

    def _coordinate(self, executor: DaskExecutor) -> None:
        run = functools.partial(self._session.run, executor, after_turn=self._publish_wanted)
        for act in (run, executor.close, self._inbox.close):
            try:
                act()
            except BaseException as error:  # whatever it is, the study ends with it
                self.error = self.error or error
        self._loop.call_soon_threadsafe(self._begin_to_finish)

    def _publish_wanted(self, coordinator: Coordinator) -> None:
        self._leases.set_wanted(coordinator.n_slots_wanted)

    def _on_lock_lost(self) -> None:
        directory = self.spec.directory
        self._inbox.put(FatalError(StudyFailed(f"another process took over {directory}")))
