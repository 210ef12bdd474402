"""dask-jobqueue's cluster and job, with daskhpo's calls of Slurm's commands."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

from distributed import Status

from daskhpo.cluster.guard import token_of
from daskhpo.cluster.registry import JobRegistry

_handler = signal.getsignal(signal.SIGINT)
try:  # it replaces the handler of SIGINT, and can only be imported in the main thread
    from dask_jobqueue.slurm import SLURMCluster, SLURMJob
finally:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _handler)


class RegisteredJob(SLURMJob):  # type: ignore[misc]
    """A job that a registry submits and cancels."""

    def __init__(self, *args: Any, registry: JobRegistry, **options: Any) -> None:
        super().__init__(*args, **options)
        self._registry = registry

    async def _submit_job(self, script_filename: str) -> str:
        return await self._registry.submit(Path(script_filename))

    def _job_id_from_submit_output(self, out: str) -> str:
        return out

    async def close(self) -> None:
        if self.job_id:
            await self._registry.cancel(self.job_id)
        self.status = Status.closed


class RegisteredCluster(SLURMCluster):  # type: ignore[misc]
    """A cluster that leaves no job behind when it closes."""

    job_cls = RegisteredJob

    def __init__(self, *args: Any, registry: JobRegistry, **options: Any) -> None:
        self._registry = registry
        super().__init__(*args, registry=registry, **options)

    @property
    def dashboard_link(self) -> str:
        """The address of the dashboard, with the token that its pages ask for."""
        link: str = super().dashboard_link
        return f"{link}?token={token_of(self.scheduler)}" if link else link

    async def _close(self) -> None:
        try:
            await super()._close()
        finally:
            await self._registry.cancel_all()
