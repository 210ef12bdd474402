"""What a trial costs: a few units of a few real trials on this machine."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daskhpo.schedulers.fifo import FIFO

if TYPE_CHECKING:
    from daskhpo.results.result import Result
    from daskhpo.study.study import Study


@dataclass(frozen=True)
class TrialCost:
    """What was measured.

    Attributes
    ----------
    seconds_per_unit : of each configuration, its first unit left out where there is another one.
    launch_seconds : from a launch to the first unit, in a process that has trained before.
    state_bytes : of a state; None: trials have none.
    device : on which it was measured: ``"cpu"`` or ``"gpu"``.
    """

    seconds_per_unit: tuple[float, ...]
    launch_seconds: float
    state_bytes: int | None
    device: str


def profile(
    study: Study, n_configs: int = 4, n_units: int = 3, time_budget: str = "2m", gpu: float = 0
) -> TrialCost:
    """Train a few configurations of a study for a few units, in a worker process of this machine.

    Parameters
    ----------
    time_budget : a unit that runs when it is spent is trained to its end.
    gpu : GPUs, or the fraction of one, for the worker.

    Raises
    ------
    ValueError : the study has no trainable, or no trial came to the end of a unit.
    NoSuitableWorkers : this machine has no such device.
    """
    from daskhpo.study.study import Study

    if study.trainable is None:
        raise ValueError("this study has no trainable to measure: state the seconds per unit")
    objective = study.problem.objective
    with tempfile.TemporaryDirectory(prefix="daskhpo-measure-") as folder:
        probe = Study(
            study.trainable,
            study.problem.space,
            objective.metric,
            objective.mode,
            scheduler=FIFO(n_units),
            storage=folder,
            name="probe",
            seed=study.problem.seed,
        )
        result = probe.run(
            n_configs,
            time_budget,
            resources={"gpu": gpu} if gpu else None,
            max_concurrent=1,
            checkpoint="end",
            progress=False,
        )
        return trial_cost(result, "gpu" if gpu else "cpu")


def trial_cost(result: Result, device: str = "cpu") -> TrialCost:
    """What a study of complete trials tells of their costs.

    Raises
    ------
    ValueError : no trial came to the end of a unit; the message shows the first failure.
    """
    if not result.has_reports:
        result.best_trial  # noqa: B018 - raises, and says what failed
    metric = result.objective.metric
    curves = [
        part["seconds"].tolist()
        for _, part in result.curves().dropna(subset=[metric]).groupby("trial")
    ]
    longer = [(seconds[-1] - seconds[0]) / (len(seconds) - 1) for seconds in curves if seconds[1:]]
    paces = longer or [seconds[0] for seconds in curves]
    launches = [
        max(0.0, seconds[0] - pace)
        for seconds, pace in zip((s for s in curves if s[1:]), longer, strict=True)
    ]
    sizes = [ref.n_bytes for ref in result.checkpoints()]
    return TrialCost(
        tuple(paces),
        statistics.median(launches[1:] or launches or [0.0]),
        round(statistics.median(sizes)) if sizes else None,
        device,
    )
