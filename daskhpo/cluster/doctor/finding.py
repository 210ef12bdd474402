"""Findings of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """Outcome of a check."""

    OK = "ok"
    WARNING = "warning"  # a study would run, but not as expected
    PROBLEM = "problem"  # a study would not run
    SKIPPED = "skipped"  # not checked; the message says why


class CheckLocation(Enum):
    """Location of a check: on this machine, or in a job."""

    HERE = "here"
    JOB = "job"


@dataclass(frozen=True)
class Finding:
    """Outcome of one check.

    Attributes
    ----------
    check : name of the check: ``"partition"``, ``"shared directory"``, ...
    message : what was found.
    hint : what to do; empty: nothing.
    location : location of the check.
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
