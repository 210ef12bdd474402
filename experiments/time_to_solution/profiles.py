"""Sizes of the experiment: data, ranges, time and workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from experiments.adsorption import profiles as adsorption


@dataclass(frozen=True)
class Profile:
    """One size of the experiment; all methods get the same time on the same workers.

    Attributes
    ----------
    task : profile of the adsorption experiment: structures, ranges, epochs, rungs.
    seconds : time of each method and seed.
    workers : number of workers; None: one per core of this machine, or per GPU.
    gpus : GPUs of each trial.
    where : ``"here"``: worker processes of this machine; ``"slurm"``: Slurm jobs.
    target : validation error (eV); the time until the best trial reaches it is measured. It was
        chosen before any run: half the error of predicting the median of a structure's adsorbate.
    """

    name: str
    task: adsorption.Profile
    seconds: float
    workers: int | None
    target: float
    gpus: float = 0
    where: Literal["here", "slurm"] = "here"

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds!r} must be positive")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers={self.workers!r} must be at least 1")


SMOKE, SHORT, GPU = (adsorption.PROFILES[name] for name in ("smoke", "short", "gpu"))

PROFILES = {
    profile.name: profile
    for profile in (
        Profile("smoke", SMOKE, seconds=2.0, workers=2, target=0.17),
        Profile("laptop", SHORT, seconds=80.0, workers=2, target=0.13),
        # The reference study: the same ranges, 8 hours on 4 nodes. The time of a trial on a GPU was
        # estimated, not measured.
        Profile("gpu", GPU, seconds=3600.0, workers=None, target=0.10, gpus=1),
        Profile("slurm", GPU, seconds=8 * 3600.0, workers=32, target=0.10, gpus=1, where="slurm"),
    )
}
