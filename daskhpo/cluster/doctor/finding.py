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


class Place(Enum):
    """Where it was looked at."""

    HERE = "here"
    JOB = "job"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes
    ----------
    check : what was looked at: ``"partition"``, ``"shared directory"``, ...
    said : what was found.
    todo : what to do; empty if nothing.
    """

    check: str
    verdict: Verdict
    said: str
    todo: str = ""
    place: Place = Place.HERE


def ok(check: str, said: str) -> Finding:
    return Finding(check, Verdict.OK, said)


def warning(check: str, said: str, todo: str = "") -> Finding:
    return Finding(check, Verdict.WARNING, said, todo)


def problem(check: str, said: str, todo: str = "") -> Finding:
    return Finding(check, Verdict.PROBLEM, said, todo)


def skipped(check: str, said: str, todo: str = "") -> Finding:
    return Finding(check, Verdict.SKIPPED, said, todo)
