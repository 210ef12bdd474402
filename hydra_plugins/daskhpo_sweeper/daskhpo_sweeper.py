"""The sweeper that Hydra instantiates; :mod:`daskhpo.integrations.hydra` does the work."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

# Without `from __future__ import annotations`: Hydra runs this file outside of `sys.modules`,
# where a dataclass could not look its annotations up.


class DaskhpoSweeper(Sweeper):  # type: ignore[misc]
    """Run a job function in the trials of a study.

    Parameters
    ----------
    metric : name of the reported number that counts. A job that returns a number instead of
        reporting has this metric alone.
    mode : ``"min"`` or ``"max"``.
    num_trials, time_budget, target : where the study ends, as for ``Study.run``.
    max_t : reports of a trial that is trained to the end, without ``scheduler``.
    scheduler, searcher : ``_target_`` of :mod:`daskhpo.schedulers` and :mod:`daskhpo.searchers`.
    params : overrides to search, by key, as on the command line.
    seed : of the study.
    name : of the study's directory in ``hydra.sweep.dir``.
    max_concurrent : trials at a time.
    run : other keywords of ``Study.run``, such as ``{max_failures: 2, checkpoint: "every:5"}``.
    slurm : keywords of ``slurm_cluster``, such as ``{jobs: 8, queue: gpu, walltime: 4h}``; null:
        worker processes on this machine.
    """

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.config: DictConfig | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        from daskhpo.integrations.hydra import sweep

        assert self.config is not None, "Hydra calls setup() first"
        return sweep(
            arguments, self.config, self.hydra_context, self.task_function, **self.arguments
        )


@dataclass
class DaskhpoSweeperConf:
    """The sweeper's defaults; `DaskhpoSweeper` describes them."""

    _target_: str = "hydra_plugins.daskhpo_sweeper.daskhpo_sweeper.DaskhpoSweeper"
    metric: str = "value"
    mode: str = "min"
    num_trials: int | None = None
    time_budget: Any = None
    target: float | None = None
    max_t: int | None = None
    scheduler: Any = None
    searcher: Any = None
    params: dict[str, Any] | None = None
    seed: int = 0
    name: str = "study"
    max_concurrent: int | None = None
    run: dict[str, Any] = field(default_factory=dict)
    slurm: dict[str, Any] | None = None


ConfigStore.instance().store(
    group="hydra/sweeper", name="daskhpo", node=DaskhpoSweeperConf, provider="daskhpo"
)
