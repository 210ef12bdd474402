"""The errors that daskhpo raises, each also a subclass of the built-in that users would catch."""

from __future__ import annotations

import os


class DaskhpoError(Exception):
    """Base of every error that daskhpo raises on its own account."""


class CheckpointMissing(DaskhpoError, KeyError):
    """No committed checkpoint lies where a reference points."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class CheckpointCorrupt(DaskhpoError, ValueError):
    """A checkpoint's bytes are not those that were committed."""


class CheckpointNotWritten(DaskhpoError, OSError):
    """A checkpoint could not be written: no space, no permission, a folder or a disk gone.

    Nothing of it is left. ``errno`` is that of the ``cause``, which is also its ``__cause__``.

    Attributes
    ----------
    path : file or folder that it was written to.
    trial, resource : whose checkpoint, after how many units of training.
    """

    def __init__(self, path: str | os.PathLike[str], trial: int, resource: int, cause: OSError):
        super().__init__(
            cause.errno,
            f"{path}: the checkpoint of trial {trial} at resource {resource} could not be "
            f"written: {cause}; the trial goes on from an older checkpoint or trains again",
        )
        self.path, self.trial, self.resource, self.cause = str(path), trial, resource, cause

    def __str__(self) -> str:  # OSError would put the number first
        return str(self.strerror)

    def __reduce__(self) -> tuple[type[CheckpointNotWritten], tuple[str, int, int, OSError]]:
        return CheckpointNotWritten, (self.path, self.trial, self.resource, self.cause)


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


class StudyNotRunning(DaskhpoError, RuntimeError):
    """No process runs the study, and no job is going to."""


class StudyFailed(DaskhpoError, RuntimeError):
    """A study could not go on: the message says why, and what was kept."""


class MetricError(DaskhpoError, ValueError):
    """A report is not a flat dict of numbers that contains the study's metric."""


class NoSuitableWorkers(DaskhpoError, RuntimeError):
    """No worker offers the resources that a trial asks for."""


class ShapeMismatch(DaskhpoError, ValueError):
    """A state that a trial took over does not fit its model: a mutated value changed its shape."""


class ReuseMismatch(DaskhpoError, RuntimeError):
    """An object that was reset for another trial does not do what a new one does."""


class MissingLibrary(DaskhpoError, ImportError):
    """A searcher's library is not installed; the message names the extra that brings it."""


class OptimiserLost(DaskhpoError, RuntimeError):
    """An optimiser that lives outside this process cannot be reached or used (any more)."""
