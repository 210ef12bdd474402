"""The doctor: checks whether a site can run studies on Slurm, and suggests fixes."""

from daskhpo.cluster.doctor.checks import run_checks
from daskhpo.cluster.doctor.finding import CheckLocation, Finding, Verdict
from daskhpo.cluster.doctor.job_request import JobRequest

__all__ = ["CheckLocation", "Finding", "JobRequest", "Verdict", "run_checks"]
