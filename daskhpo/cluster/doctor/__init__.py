"""Checks before the first GPU-hour: what a study on Slurm needs, and what to do where it lacks."""

from daskhpo.cluster.doctor.checks import examine
from daskhpo.cluster.doctor.finding import Finding, Place, Verdict
from daskhpo.cluster.doctor.job_request import Wanted

__all__ = ["Finding", "Place", "Verdict", "Wanted", "examine"]
