"""The errors that daskhpo raises, each also a subclass of the built-in that users would catch."""

from __future__ import annotations


class DaskhpoError(Exception):
    """Base of every error that daskhpo raises on its own account."""


class CheckpointMissing(DaskhpoError, KeyError):
    """No committed checkpoint lies where a reference points."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class CheckpointCorrupt(DaskhpoError, ValueError):
    """A checkpoint's bytes are not those that were committed."""


class StateNotSupported(DaskhpoError, TypeError):
    """A state tree holds something that a checkpoint cannot hold; the message names its path."""


class JournalCorrupt(DaskhpoError, ValueError):
    """A study's journal cannot be read, or does not replay to what it records."""


class StudyExists(DaskhpoError, FileExistsError):
    """The study directory already holds a study, and it was not asked to go on with it."""


class StudyMismatch(DaskhpoError, ValueError):
    """The study directory belongs to a study defined otherwise."""


class StudyLocked(DaskhpoError, RuntimeError):
    """Another process runs the study."""


class StudyFailed(DaskhpoError, RuntimeError):
    """A study could not go on: the message says why, and what was kept."""


class MetricError(DaskhpoError, ValueError):
    """A report is not a flat dict of numbers that contains the study's metric."""


class NoSuitableWorkers(DaskhpoError, RuntimeError):
    """No worker offers the resources that a trial asks for."""


class ReuseMismatch(DaskhpoError, RuntimeError):
    """An object that was reset for another trial does not do what a new one does."""
