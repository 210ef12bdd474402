"""Registry of jobs that may be in Slurm's queue: none is lost before it ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from daskhpo.cluster import jobs
from daskhpo.cluster.shell import CommandError, in_thread

logger = logging.getLogger("daskhpo")

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0)  # pauses between attempts to cancel


class JobRegistry:
    """All jobs that ``sbatch`` took and that have not certainly ended.

    It runs in one event loop. Calls of Slurm's commands run in threads of their own.
    """

    def __init__(self) -> None:
        self._jobs: set[str] = set()
        self._unclear: set[Path] = set()  # scripts: sbatch did not say whether there is a job
        self._to_cancel: set[str] = set()
        self._cancelling: asyncio.Task[None] | None = None

    async def submit(self, script: Path) -> str:
        """Submit a script and return the job id, as `daskhpo.cluster.jobs.submit`."""
        try:
            job = await in_thread(jobs.submit, script)
        except jobs.SubmissionUnclear:
            self._unclear.add(script)
            raise
        self._jobs.add(job)
        return job

    def forget(self, job: str) -> None:
        """Forget a job that has certainly ended."""
        self._jobs.discard(job)

    async def cancel(self, job: str) -> bool:
        """Cancel a job; return False if Slurm refused, also after several attempts.

        Jobs that are cancelled at one moment go into one call.
        """
        self._to_cancel.add(job)
        if self._cancelling is None:
            self._cancelling = asyncio.ensure_future(self._cancel_waiting())
        await asyncio.shield(self._cancelling)
        return job not in self._jobs

    async def cancel_late(self) -> None:
        """Cancel jobs that have appeared in the queue after ``sbatch`` had failed."""
        for script in list(self._unclear):
            try:
                found = await in_thread(jobs.find_script, script)
            except CommandError:
                return  # it is asked again
            if found:
                logger.info("job %s is in the queue, although sbatch failed", ", ".join(found))
                self._jobs.update(found)
                await asyncio.gather(*(self.cancel(job) for job in found))
                self._unclear.discard(script)

    async def cancel_all(self) -> None:
        """Cancel all jobs, at the end of the cluster; those that cannot be are logged."""
        await self.cancel_late()
        left = sorted(self._jobs)
        await asyncio.gather(*(self.cancel(job) for job in left))
        if still := sorted(self._jobs):
            logger.warning(
                "jobs could not be cancelled, and may hold GPUs: scancel %s", " ".join(still)
            )
        if self._unclear:
            logger.warning(
                "sbatch failed %d times without saying whether there is a job: check squeue --me",
                len(self._unclear),
            )

    async def _cancel_waiting(self) -> None:
        await asyncio.sleep(0)  # others may be cancelled at this moment
        try:
            while self._to_cancel:
                some, self._to_cancel = self._to_cancel, set()
                await self._cancel(some)
        finally:
            self._cancelling = None

    async def _cancel(self, some: Iterable[str]) -> None:
        for pause in (*RETRY_SECONDS, None):
            try:
                await in_thread(jobs.cancel, some)
            except CommandError as error:
                if pause is None:
                    logger.warning("Slurm did not cancel jobs: %s", error)
                    return
                await asyncio.sleep(pause)
            else:
                self._jobs.difference_update(some)
                return
