"""Findings of the doctor."""

from __future__ import annotations

from collections.abc import Mapping
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

    def to_json(self) -> dict[str, str]:
        """Return the finding as ``daskhpo doctor --json`` prints it."""
        return {
            "place": self.location.value,
            "check": self.check,
            "verdict": self.verdict.value,
            "said": self.message,
            "todo": self.hint,
        }

    @staticmethod
    def from_json(data: Mapping[str, str]) -> Finding:
        """Return the finding of such data: the inverse of :meth:`to_json`."""
        place, verdict = CheckLocation(data["place"]), Verdict(data["verdict"])
        return Finding(data["check"], verdict, data["said"], data["todo"], place)


def ok(check: str, message: str) -> Finding:
    return Finding(check, Verdict.OK, message)


def warning(check: str, message: str, hint: str = "") -> Finding:
    return Finding(check, Verdict.WARNING, message, hint)


def problem(check: str, message: str, hint: str = "") -> Finding:
    return Finding(check, Verdict.PROBLEM, message, hint)


def skipped(check: str, message: str) -> Finding:
    return Finding(check, Verdict.SKIPPED, message)
