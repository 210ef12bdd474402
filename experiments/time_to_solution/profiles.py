"""Sizes of the experiment: which data and ranges, how long, on what workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from experiments.adsorption import profiles as adsorption


@dataclass(frozen=True)
class Profile:
    """One size; every method gets the same seconds on the same workers.

    Attributes
    ----------
    task : profile of the adsorption experiment: structures, ranges, epochs, rungs.
    seconds : of each method.
    workers : how many; None: as many as this machine has cores, or GPUs.
    gpus : of each trial.
    where : ``"here"``: worker processes of this machine; ``"slurm"``: jobs.
    target : validation error (eV) to which the time of the best trial is measured. It is stated
        before anything is run: half the error of predicting the median of a structure's adsorbate.
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
        # The reference study: the same ranges, 8 hours on 4 nodes. What one trial takes on a GPU
        # was estimated, not measured.
        Profile("gpu", GPU, seconds=3600.0, workers=None, target=0.10, gpus=1),
        Profile("slurm", GPU, seconds=8 * 3600.0, workers=32, target=0.10, gpus=1, where="slurm"),
    )
}
