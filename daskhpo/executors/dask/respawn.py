"""Replacement of workers of the embedded cluster that have ended."""

from __future__ import annotations

import logging
import time
from typing import Any

from distributed import Status
from tornado.ioloop import PeriodicCallback

from daskhpo.cluster.supply import SUPPLY, WorkerOutlook

logger = logging.getLogger("daskhpo")

CHECK_WORKERS_SECONDS = 1.0
MAX_RESPAWNS = 5  # in a row, of workers that end before a trial began; the pause doubles each time
SETTLED_SECONDS = 60.0  # a cluster whose workers stay so long has no trouble
ENDED = (Status.closed, Status.failed)


class WorkerRespawner:
    """Starts a worker again whose nanny has ended, such as after a SIGTERM.

    It runs in the cluster's event loop, and ends with it.
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._n_respawns = 0  # in a row
        self._not_before = 0.0
        cluster.scheduler.extensions[SUPPLY] = self
        check = PeriodicCallback(self._check, CHECK_WORKERS_SECONDS * 1000)
        cluster.periodic_callbacks["daskhpo-respawn"] = check
        cluster.loop.add_callback(check.start)

    def outlook(self) -> WorkerOutlook:
        """Return why no worker is there; hopeless: they ended too often."""
        if self._n_respawns <= MAX_RESPAWNS:
            return WorkerOutlook()
        why = f"the worker processes of this machine ended {self._n_respawns} times in a row"
        return WorkerOutlook(f"{why}: what they printed says why", is_hopeless=True)

    async def _check(self) -> None:
        cluster, now = self._cluster, time.monotonic()
        if cluster.status is not Status.running:
            return
        gone = [name for name, nanny in cluster.workers.items() if nanny.status in ENDED]
        if not gone and now >= self._not_before + SETTLED_SECONDS:
            self._n_respawns = 0
        if not gone or now < self._not_before or self._n_respawns > MAX_RESPAWNS:
            return
        self._n_respawns += 1
        self._not_before = now + CHECK_WORKERS_SECONDS * 2**self._n_respawns
        if self._n_respawns > MAX_RESPAWNS:
            return
        logger.warning("%d worker processes have ended, and are started again", len(gone))
        for name in gone:
            del cluster.workers[name]
        await cluster._correct_state()
