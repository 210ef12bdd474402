"""Handle of a study in the user's process: starts it on Dask, waits, stops it."""

from __future__ import annotations

import contextlib
import logging
import pickle
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from daskhpo.callbacks.base import Callback
from daskhpo.callbacks.follower import JournalFollower
from daskhpo.callbacks.values import StudyInfo
from daskhpo.cluster.network import ssh_tunnel
from daskhpo.cluster.security import warn_if_open
from daskhpo.core.arguments import check_text, shown
from daskhpo.core.errors import InvalidArgument, StudyFailed
from daskhpo.core.printable import shell_word
from daskhpo.core.tracebacks import BriefInterrupt
from daskhpo.dashboard.server import page_of
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.extension import extended
from daskhpo.engine.options import RunOptions
from daskhpo.engine.protocols import CheckpointStore
from daskhpo.engine.session import study_records
from daskhpo.executors.dask.environment import environment
from daskhpo.executors.dask.interrupts import completed
from daskhpo.executors.dask.local import local_cluster
from daskhpo.executors.dask.output import collected_output
from daskhpo.executors.dask.pickled_code import dump_code
from daskhpo.executors.dask.protocol import CLIENT_MESSAGES, ClientMessage, Poll, StopStudy
from daskhpo.results.progress import status_counts
from daskhpo.results.result import Result

if TYPE_CHECKING:
    from daskhpo.executors.dask.scheduler_plugin import StudySpec

logger = logging.getLogger("daskhpo")


class StudyHandle:
    """A handle on a study that was started."""

    def __init__(
        self,
        directory: Path,
        problem: Problem,
        remote: _RunningStudy,
        follower: JournalFollower,
        stack: contextlib.ExitStack,
    ) -> None:
        self.directory = directory
        self._objective = problem.objective
        self._remote, self._follower, self._stack = remote, follower, stack
        self._closed = False

    def __repr__(self) -> str:
        return f"StudyHandle({self.directory.name!r}{', ended' if self._closed else ''})"

    def _repr_html_(self) -> str:
        """Return the study as a notebook shows it: where it stands now."""
        return self._result()._repr_html_()

    def wait(self) -> Result:
        """Wait for the end.

        The first Ctrl-C stops the study cleanly, a second one at once.

        Raises
        ------
        StudyFailed, NoSuitableWorkers : the study could not continue; its directory has all that
            was reported.
        """
        with BriefInterrupt():
            try:
                if self._is_interrupted():
                    logger.warning(
                        "stopping: trials end at their next report and are kept "
                        "(Ctrl-C again: at once)"
                    )
                    self.stop("Ctrl-C")
                    if self._is_interrupted():
                        raise KeyboardInterrupt
            finally:
                self._close()
        if (error := self._remote.error) is not None:
            raise error
        return self._result()

    def _result(self) -> Result:
        return Result(study_records(self.directory), self._objective, self.directory)

    def stop(self, reason: str = "stopped by the user") -> None:
        """Ask the study to end: running trials are preempted at their next report."""
        self._remote.stop(check_text("reason", reason))

    def status(self) -> dict[str, int]:
        """Return the number of trials by status."""
        return status_counts(study_records(self.directory), self._objective)

    def _is_interrupted(self) -> bool:
        """Wait for the end; return True after Ctrl-C."""
        try:
            while not self._remote.is_finished(0.25):
                pass
        except KeyboardInterrupt:
            return True
        return False

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            with self._stack:
                self._follower.finish()


class _RunningStudy(Protocol):
    """A study plugin, in this process or in another one."""

    @property
    def error(self) -> BaseException | None:
        """The error that ended the study, or None; set when it has finished."""

    def is_finished(self, seconds: float) -> bool:
        """True if the study has finished; waits at most ``seconds``."""

    def stop(self, reason: str) -> None:
        """Ask the study to end."""


class _LocalStudy:
    """A study plugin in this process."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def begin(self, spec: StudySpec) -> None:
        from distributed.utils import sync

        from daskhpo.executors.dask.scheduler_plugin import StudyPlugin

        self._plugin = StudyPlugin(spec)
        register = self._scheduler.register_scheduler_plugin
        sync(self._scheduler.loop, register, self._plugin, idempotent=False)

    @property
    def error(self) -> BaseException | None:
        return self._plugin.error

    def is_finished(self, seconds: float) -> bool:
        return self._plugin.finished.wait(seconds)

    def stop(self, reason: str) -> None:
        self._plugin.stop(reason)


class _RemoteStudy:
    """A study plugin in another process, the scheduler's, and a connection to it."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.error: BaseException | None = None

    def begin(self, spec: StudySpec) -> None:
        from daskhpo.executors.dask.scheduler_plugin import StudyPlugin

        self._directory = spec.directory
        plugin = StudyPlugin(spec, is_remote=True)
        self._client.register_plugin(plugin, name=plugin.name)
        self._comm = self._sync(self._connect, plugin.name)

    def is_finished(self, seconds: float) -> bool:
        try:
            outcome = self._sync(self._call, Poll())
        except OSError as error:  # Dask's, of connections, are
            self.error = StudyFailed(
                f"Dask's scheduler at {self._client.scheduler.address} is gone, and the study with "
                f"it ({error}). All that was reported is in {self._directory}: resume it on "
                f"another cluster, study.resume() or `daskhpo resume {shell_word(self._directory)}`"
            )
            self.error.__cause__ = error
            return True
        if outcome is None:
            time.sleep(seconds)
            return False
        (self.error,) = pickle.loads(outcome)
        self._client.loop.add_callback(self._comm.abort)
        return True

    def stop(self, reason: str) -> None:
        with contextlib.suppress(OSError):  # `is_finished` tells that the scheduler is gone
            self._sync(self._call, StopStudy(reason))

    def _sync(self, call: Any, *args: Any) -> Any:
        from distributed.utils import sync

        return sync(self._client.loop, call, *args)

    async def _connect(self, channel: str) -> Any:
        from distributed.comm import connect

        address, how = self._client.scheduler.address, self._client.connection_args
        comm = await connect(address, **how)
        await comm.write({"op": channel, "slot": -1, "reply": False})
        return comm

    async def _call(self, message: ClientMessage) -> Any:
        await self._comm.write(CLIENT_MESSAGES.encode(message))
        return await self._comm.read()


def start(
    *,
    problem: Problem,
    directory: Path,
    store: CheckpointStore,
    trainable: Any,
    options: RunOptions,
    resume: bool,
    source: str | None,
    client: Any,
    callbacks: Sequence[Callback],
    retry_failed: bool = False,
    max_t: int | None = None,
) -> StudyHandle:
    """Start a session of a study; see :meth:`daskhpo.Study.start`."""
    from distributed import Scheduler

    from daskhpo.executors.dask.respawn import WorkerRespawner
    from daskhpo.executors.dask.scheduler_plugin import StudySpec

    pickled = _pickled(trainable)
    with contextlib.ExitStack() as stack:
        if client is None:
            env = stack.enter_context(collected_output())
            cluster = local_cluster(options.resources, options.max_concurrent, env)
            client = stack.enter_context(cluster)
            WorkerRespawner(client)
            options = replace(options, max_concurrent=len(client.worker_spec))
        client = _client(client, stack)
        warn_if_open(client.scheduler.address)
        spec = StudySpec(
            directory,
            store,
            problem,
            options,
            resume,
            retry_failed,
            max_t,
            source,
            environment(),
            pickled,
        )
        scheduler = getattr(client.cluster, "scheduler", None)
        is_here = isinstance(scheduler, Scheduler)
        remote = _LocalStudy(scheduler) if is_here else _RemoteStudy(client)
        try:
            completed(partial(remote.begin, spec))
        except KeyboardInterrupt:
            remote.stop("Ctrl-C")
            raise
        info = StudyInfo(
            directory.name,
            directory,
            problem.objective,
            options.limits,
            repr(extended(problem.scheduler, directory)),
            _dashboard(client, scheduler, directory),
            source,
        )
        follower = JournalFollower(info, callbacks)
        return StudyHandle(directory, problem, remote, follower, stack.pop_all())


def _dashboard(client: Any, scheduler: Any, directory: Path) -> str | None:
    """Return the address of the study's page, with an SSH tunnel if it is local."""
    if "dashboard" not in client.scheduler_info().get("services", {}):
        return None
    page = page_of(directory)
    server = getattr(scheduler, "http_server", None)  # None if the scheduler is in another process
    if server is None or server.address != "127.0.0.1" or "://127.0.0.1:" in scheduler.address:
        return str(client.dashboard_link).partition("?")[0].removesuffix("status") + page
    host = socket.gethostname()
    tunnel = ssh_tunnel(host, server.port, host)
    return f"http://localhost:8787/{page}, after `{tunnel}` on your own machine"


def _pickled(trainable: Any) -> bytes:
    try:
        return dump_code(trainable)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise TypeError(
            f"trainable={trainable!r} cannot be sent to workers ({error}); create what it "
            "closes over (files, locks, models) inside setup() or the function"
        ) from error


def check_client(given: Any) -> None:
    """Check what a user gives as ``client``; None: workers on this machine."""
    if given is None:
        return
    from distributed import Client

    if isinstance(given, Client):
        if given.asynchronous:
            raise InvalidArgument("client= is asynchronous; give a Client(asynchronous=False)")
    elif isinstance(given, type) or not hasattr(given, "scheduler_address"):
        raise InvalidArgument(
            f"client={shown(given)} must be a distributed.Client, a Dask cluster, or None for "
            "worker processes on this machine"
        )


def _client(given: Any, stack: contextlib.ExitStack) -> Any:
    from distributed import Client

    if isinstance(given, Client):
        return given
    client = completed(partial(Client, given, set_as_default=False))
    stack.callback(completed, client.close)  # half closed, it would wait for the cluster's end
    return client
