"""The shape of a job of workers: its nodes, its GPUs, and how trials share them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daskhpo.core.arguments import check_int, optional

NODES = "DASKHPO_NODES_PER_TRIAL"  # variable of a worker whose trials have several
SHAPE_OPTIONS = (
    *("gpus_per_job", "trials_per_gpu", "gpus_per_trial", "nodes_per_trial", "processes"),
)


@dataclass(frozen=True)
class JobShape:
    """Nodes, GPUs and worker processes of a job.

    Attributes
    ----------
    gpus : GPUs of the job; 0: none.
    trials_per_gpu : worker processes that share a GPU.
    gpus_per_trial : GPUs of one worker process, on all its nodes.
    nodes : nodes of the job; if more than one, all of them are for one worker process.
    processes : worker processes.
    """

    gpus: int
    trials_per_gpu: int
    gpus_per_trial: int
    nodes: int
    processes: int

    @property
    def gpus_per_node(self) -> int:
        """GPUs of the job on each of its nodes."""
        return self.gpus // self.nodes

    @property
    def gpu(self) -> float:
        """GPUs, or the part of one, that a worker process offers to a trial."""
        return self.gpus_per_trial / self.trials_per_gpu if self.gpus else 0.0


def job_shape(given: Mapping[str, Any], form: str = "{}") -> JobShape:
    """Return the shape of a job by the options of `SHAPE_OPTIONS`, or their defaults.

    Parameters
    ----------
    form : how messages name an option, such as ``"workers[{!r}]"``.

    Raises
    ------
    TypeError, ValueError : an option is not valid, or two contradict each other.
    """
    named = form.format

    def count(option: str, default: int, at_least: int = 1) -> int:
        return check_int(named(option), given.get(option, default), at_least=at_least)

    per_trial, nodes = count("gpus_per_trial", 1), count("nodes_per_trial", 1)
    if given.get("gpus_per_job") is None:
        given = {**given, "gpus_per_job": per_trial}
    gpus, shared = count("gpus_per_job", per_trial, at_least=0), count("trials_per_gpu", 1)
    processes = optional(check_int, named("processes"), given.get("processes"), at_least=1)
    if gpus and processes is not None:
        raise ValueError(
            f"{named('processes')}={processes!r} is for jobs without GPUs; a job with GPUs has "
            "gpus_per_job / gpus_per_trial * trials_per_gpu worker processes"
        )
    if per_trial > 1 and shared > 1:
        raise ValueError(
            f"{named('gpus_per_trial')}={per_trial} and {named('trials_per_gpu')}={shared}: trials "
            "have several GPUs, or share one; give one of these"
        )
    if gpus % per_trial or (per_trial > 1 and not gpus):
        raise ValueError(
            f"{named('gpus_per_job')}={gpus} must be a multiple of gpus_per_trial={per_trial}, so "
            "that trials use all of them"
        )
    n = gpus // per_trial * shared or processes or 1
    if nodes > 1 and n > 1:
        raise ValueError(
            f"{named('nodes_per_trial')}={nodes}: a job is one trial's then, and this one would "
            f"have {n}: give gpus_per_trial={gpus or per_trial}, the GPUs on all its nodes"
            + ("" if gpus else ", and no processes=")
        )
    if gpus % nodes:
        raise ValueError(
            f"{named('gpus_per_trial')}={per_trial} must be a multiple of nodes_per_trial={nodes}: "
            "each node has as many GPUs"
        )
    return JobShape(gpus, shared, per_trial, nodes, n)


def nodes_per_trial() -> int:
    """Return the number of nodes of a trial in this worker process."""
    return int(os.environ.get(NODES, "1"))
