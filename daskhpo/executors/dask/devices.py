"""The GPU of each worker's trials: of the workers of a machine, each has its own.

Only a worker knows which GPUs it sees, and in which order it numbers them: all of the machine, its
own one, or all with its own one first (dask-cuda). So each tells, and the scheduler chooses.
"""

from __future__ import annotations

import math
import os
from collections.abc import Container
from dataclasses import dataclass

from daskhpo.cluster.gpus import Gpus, visible_gpus

UNKNOWN = tuple(map(str, range(64)))  # no variable and no tool says what there is


class NoGpu(Exception):
    """A worker that offers a GPU sees none."""


@dataclass(frozen=True)
class SeenGpus:
    """GPUs of a worker, in the order in which its process numbers them.

    Attributes
    ----------
    ids : names that mean the same in all workers with the same ``scope``.
    devices : torch's names of them.
    scope : Slurm job of the worker: jobs may number the GPUs of a machine each from 0.
    """

    ids: tuple[str, ...]
    devices: tuple[str, ...]
    scope: str = ""


def see_gpus() -> SeenGpus:
    """Return the GPUs that this worker sees.

    Raises
    ------
    NoGpu : its environment says that it has none.
    """
    return seen_gpus(visible_gpus(), os.environ.get("SLURM_JOB_ID", ""))


def seen_gpus(found: Gpus, job: str) -> SeenGpus:
    """Return what a worker of a Slurm job (or ``""``) tells of its GPUs."""
    if found.source and not found.names:
        raise NoGpu(f"it offers a GPU, but sees none: {found.source}")
    ids = found.usable_ids or UNKNOWN
    return SeenGpus(ids, tuple(map(found.device, range(len(ids)))), job)


class GpuShares:
    """The GPUs of all workers of a Dask cluster, and those that are in use.

    Parameters
    ----------
    alive : addresses of the workers that there are; the others are forgotten.
    """

    def __init__(self, alive: Container[str]) -> None:
        self._alive = alive
        self._seen: dict[str, tuple[str, SeenGpus, float]] = {}
        self._chosen: dict[str, tuple[str, ...]] = {}  # ids by worker

    def __contains__(self, worker: str) -> bool:
        return worker in self._seen

    def learn(self, worker: str, host: str, seen: SeenGpus, offered: float) -> None:
        """Receive what a worker sees, and how many GPUs (or which part of one) it offers."""
        self._seen[worker] = (host, seen, offered)

    def ids_of(self, worker: str) -> tuple[str, ...]:
        """Return names of a worker's chosen GPUs that all workers of its machine share."""
        if worker not in self._chosen:
            return ()
        scope = self._seen[worker][1].scope
        return tuple(f"{scope}/{name}" for name in self._chosen[worker])

    def choose(self, worker: str) -> str:
        """Return the device of a worker's trials: the first of as many as it offers.

        The least used ones; of these, those that fewest others could use; of these, the first that
        the worker names.
        """
        for gone in [other for other in self._seen if other not in self._alive]:
            del self._seen[gone]
            self._chosen.pop(gone, None)
        host, seen, offered = self._seen[worker]
        used = dict.fromkeys(seen.ids, 0.0)
        wanted = dict.fromkeys(seen.ids, 0.0)
        for other, (its_host, its_seen, its_offered) in self._seen.items():
            if other == worker or (its_host, its_seen.scope) != (host, seen.scope):
                continue
            chosen = self._chosen.get(other)
            for name in chosen or its_seen.ids:
                if name not in used:
                    continue
                if chosen:
                    used[name] += min(1.0, its_offered)
                else:
                    wanted[name] += 1 / len(its_seen.ids)
        n = min(max(1, math.ceil(offered)), len(seen.ids))
        windows = [seen.ids[first : first + n] for first in range(len(seen.ids) - n + 1)]

        def cost(window: tuple[str, ...]) -> tuple[float, float]:
            return sum(map(used.__getitem__, window)), sum(map(wanted.__getitem__, window))

        best = min(windows, key=cost)
        self._chosen[worker] = best
        return seen.devices[seen.ids.index(best[0])]
