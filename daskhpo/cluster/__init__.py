"""Dask clusters for trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daskhpo.cluster.slurm import slurm_cluster

__all__ = ["slurm_cluster"]


def __getattr__(name: str) -> Any:  # what it needs takes a second to load
    if name == "slurm_cluster":
        from daskhpo.cluster.slurm import slurm_cluster

        return slurm_cluster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
