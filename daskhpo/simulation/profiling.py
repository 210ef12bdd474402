"""Measurement of a trial's costs, from a few units of real trials on this machine."""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daskhpo.core.arguments import check_int, check_number
from daskhpo.core.quantities import check_duration
from daskhpo.schedulers.fifo import FIFO

if TYPE_CHECKING:
    from daskhpo.results.result import Result
    from daskhpo.study.study import Study


@dataclass(frozen=True)
class TrialCost:
    """Measured costs of a trial.

    Attributes
    ----------
    seconds_per_unit : seconds of a unit, for each configuration; without the first unit if there
        are others.
    launch_seconds : from a launch to the first unit, in a process that has trained before.
    state_bytes : size of a state; None: trials have no state.
    device : device of the measurement, ``"cpu"`` or ``"gpu"``.
    """

    seconds_per_unit: tuple[float, ...]
    launch_seconds: float
    state_bytes: int | None
    device: str


def profile(
    study: Study, n_configs: int = 4, n_units: int = 3, time_budget: str = "2m", gpu: float = 0
) -> TrialCost:
    """Train a few configurations for a few units, in a worker process on this machine.

    Parameters
    ----------
    n_configs : configurations to train.
    n_units : units of each.
    time_budget : text such as ``"2m"``; the unit that is running then is still completed.
    gpu : GPUs of the worker, or a fraction of one; 0: CPU only.

    Raises
    ------
    ValueError : the study has no trainable, or no trial completed a unit.
    NoSuitableWorkers : this machine has no such device.
    """
    from daskhpo.study.study import Study

    check_int("n_configs", n_configs, at_least=1)
    check_int("n_units", n_units, at_least=1)
    check_duration("time_budget", time_budget)
    check_number("gpu", gpu, at_least=0)
    if study.trainable is None:
        raise ValueError("this study has no trainable to measure: give the seconds per unit")
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
    """Compute the costs of a trial from the result of a study of complete trials.

    Raises
    ------
    ValueError : no trial completed a unit; the message shows the first failure.
    """
    if not result.has_reports:
        result.best_trial  # noqa: B018 - raises ValueError with the first failure
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
