"""Options of a study in Ray Tune's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any

from daskhpo.tune.messages import cannot


@dataclass
class CheckpointConfig:
    """Which states are written.

    Attributes
    ----------
    checkpoint_frequency : units between two of a class's; 0: when the study needs one.
    checkpoint_at_end : also at the end of each trial.
    num_to_keep, checkpoint_score_attribute, checkpoint_score_order : a study keeps the newest of
        each trial.
    """

    num_to_keep: int | None = None
    checkpoint_score_attribute: str | None = None
    checkpoint_score_order: str = "max"
    checkpoint_frequency: int = 0
    checkpoint_at_end: bool | None = None


@dataclass
class FailureConfig:
    """Consequences of an error of a trial's code; ``max_failures=-1``: always retry."""

    max_failures: int = 0
    fail_fast: bool | str = False


@dataclass
class SyncConfig:
    """Options of copies to a storage; without effect: a study has one directory."""

    upload_dir: str | None = None
    syncer: Any = None
    sync_period: float = 0
    sync_timeout: float = 0
    sync_artifacts: bool = False
    sync_on_checkpoint: bool = True


@dataclass
class RunConfig:
    """Place of a study, and options of its run."""

    name: str | None = None
    storage_path: str | None = None
    storage_filesystem: Any = None
    failure_config: FailureConfig | None = None
    checkpoint_config: CheckpointConfig | None = None
    sync_config: SyncConfig | None = None
    stop: Any = None
    callbacks: Sequence[Any] | None = None
    progress_reporter: Any = None
    verbose: int | None = None
    log_to_file: Any = False
    local_dir: str | None = None


@dataclass
class TuneConfig:
    """Method of a search, and its limits."""

    metric: str | None = None
    mode: str | None = None
    search_alg: Any = None
    scheduler: Any = None
    num_samples: int = 1
    max_concurrent_trials: int | None = None
    time_budget_s: float | timedelta | None = None
    reuse_actors: bool | None = None
    trial_name_creator: Callable[..., str] | None = None
    trial_dirname_creator: Callable[..., str] | None = None
    chdir_to_trial_dir: bool | None = None


@dataclass
class ResumeConfig:
    """Which trials a resumed study continues: unfinished, and perhaps failed ones.

    Attributes
    ----------
    errored : ``ResumeType.RESUME`` or ``RESTART``: failed trials continue from their checkpoints.
    """

    class ResumeType(Enum):
        """Ways to treat trials."""

        RESUME = "resume"
        RESTART = "restart"
        SKIP = "skip"

    finished: ResumeType = ResumeType.SKIP
    unfinished: ResumeType = ResumeType.RESUME
    errored: ResumeType = ResumeType.SKIP

    def __post_init__(self) -> None:
        if self.finished is not self.ResumeType.SKIP:
            cannot("ResumeConfig(finished=)", "daskhpo.Study.extend trains trials further")
        if self.unfinished is not self.ResumeType.RESUME:
            cannot("ResumeConfig(unfinished=)", "a resumed study continues them")

    @property
    def retries(self) -> bool:
        """True if trials that failed are continued."""
        return self.errored is not self.ResumeType.SKIP


def Resources(  # noqa: N802 - a class in Ray
    cpu: float = 1, gpu: float = 0, memory: float = 0, **kwargs: Any
) -> dict[str, float]:
    """Return what a trial needs, in the words of 2020."""
    given = {"cpu": cpu, "gpu": gpu, "memory": memory, **kwargs}
    custom = given.pop("custom_resources", {})
    return {**{name: value for name, value in given.items() if value}, **custom}


class PlacementGroupFactory:
    """Resources of a trial, as a list of one bundle: ``[{"CPU": 1, "GPU": 1}]``."""

    def __init__(self, bundles: Sequence[Mapping[str, float]], *args: Any, **kwargs: Any) -> None:
        if len(bundles) != 1:
            cannot(
                f"PlacementGroupFactory with {len(bundles)} bundles",
                "a trial has one worker: count all it needs there, and start processes by "
                "daskhpo.distributed.launch",
            )
        self.resources = {name.lower(): value for name, value in bundles[0].items()}
