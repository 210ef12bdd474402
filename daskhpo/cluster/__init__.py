"""Slurm: clusters of worker jobs, Slurm's commands, and checks of a site."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daskhpo._lazy import lazy

if TYPE_CHECKING:
    from daskhpo.cluster.slurm import slurm_cluster

__all__ = ["slurm_cluster"]

__getattr__, __dir__ = lazy(__name__, {"slurm_cluster": "daskhpo.cluster.slurm"})
