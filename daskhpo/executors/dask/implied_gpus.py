"""GPUs of workers that offer none by name, such as those of dask-cuda.

If no worker of a cluster has the Dask resource ``GPU``, those that see GPUs share the ones of their
machine evenly. A cluster in which some workers offer a GPU by name has others on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from daskhpo.executors.dask.devices import UNKNOWN, SeenGpus


@dataclass(frozen=True)
class Sight:
    """GPUs that a worker sees; ``host`` is its machine."""

    host: str
    seen: SeenGpus


def implied_gpus(sights: Mapping[str, Sight]) -> dict[str, float]:
    """Return the number of GPUs, or the part of one, that each worker may offer.

    >>> four = SeenGpus(("0", "1"), ("cuda:0", "cuda:1"))
    >>> implied_gpus({"a": Sight("host", four), "b": Sight("host", four)})
    {'a': 1.0, 'b': 1.0}
    """
    return {
        worker: _share(sight.seen, list(_neighbours(sight, sights.values())))
        for worker, sight in sights.items()
        if sight.seen.ids and sight.seen.ids != UNKNOWN
    }


def _neighbours(sight: Sight, others: Iterable[Sight]) -> Iterable[Sight]:
    """Yield the workers that see one of the same GPUs, with itself."""
    for other in others:
        same_place = (other.host, other.seen.scope) == (sight.host, sight.seen.scope)
        if same_place and set(other.seen.ids) & set(sight.seen.ids):
            yield other


def _share(seen: SeenGpus, neighbours: list[Sight]) -> float:
    n_gpus = len(set(seen.ids).union(*(other.seen.ids for other in neighbours)))
    share = n_gpus / len(neighbours)
    return float(min(int(share), len(seen.ids))) if share >= 1 else share
