"""What the doctor says: one line on one thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """How it is with one thing."""

    OK = "ok"
    WARNING = "warning"  # a study would run, but not as one may think
    PROBLEM = "problem"  # a study would not run
    SKIPPED = "skipped"  # not looked at, and why


class CheckLocation(Enum):
    """Where it was looked at."""

    HERE = "here"
    JOB = "job"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes
    ----------
    check : what was looked at: ``"partition"``, ``"shared directory"``, ...
    message : what was found.
    hint : what to do; empty if nothing.
    location : where it was looked at: on this machine, or in a job.
    """

    check: str
    verdict: Verdict
    message: str
    hint: str = ""
    location: CheckLocation = CheckLocation.HERE


def ok(check: str, message: str) -> Finding:
    return Finding(check, Verdict.OK, message)


def warning(check: str, message: str, hint: str = "") -> Finding:
    return Finding(check, Verdict.WARNING, message, hint)


def problem(check: str, message: str, hint: str = "") -> Finding:
    return Finding(check, Verdict.PROBLEM, message, hint)


def skipped(check: str, message: str, hint: str = "") -> Finding:
    return Finding(check, Verdict.SKIPPED, message, hint)
