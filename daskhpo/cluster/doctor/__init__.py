"""Checks before the first GPU-hour: what a study on Slurm needs, and what to do where it lacks."""

from daskhpo.cluster.doctor.checks import run_checks
from daskhpo.cluster.doctor.finding import CheckLocation, Finding, Verdict
from daskhpo.cluster.doctor.job_request import JobRequest

__all__ = ["CheckLocation", "Finding", "JobRequest", "Verdict", "run_checks"]
