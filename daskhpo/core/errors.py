"""Error classes of daskhpo.

Each is also a subclass of the built-in error that users would catch.
"""

from __future__ import annotations

import os


class DaskhpoError(Exception):
    """Base class of all errors that daskhpo itself raises."""


class InvalidArgument(DaskhpoError, TypeError, ValueError):
    """An argument is not valid; the message says what was given and what is allowed.

    It is a ``TypeError`` and a ``ValueError``: callers need not know which of both was wrong.
    """


class CheckpointMissing(DaskhpoError, KeyError):
    """The store has no committed checkpoint for a reference."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class CheckpointCorrupt(DaskhpoError, ValueError):
    """A checkpoint's bytes differ from those that were committed."""


class CheckpointNotWritten(DaskhpoError, OSError):
    """A checkpoint could not be written, and nothing of it is left.

    Causes are missing space, a missing permission, or a lost folder or disk. ``errno`` is that of
    ``cause``, which is also the ``__cause__``.

    Attributes
    ----------
    path : file or folder of the failed write.
    trial, resource : trial whose checkpoint it is, and its units of training.
    """

    def __init__(self, path: str | os.PathLike[str], trial: int, resource: int, cause: OSError):
        super().__init__(
            cause.errno,
            f"{path}: the checkpoint of trial {trial} at resource {resource} could not be "
            f"written: {cause}; the trial resumes from an older checkpoint or trains again",
        )
        self.path, self.trial, self.resource, self.cause = str(path), trial, resource, cause

    def __str__(self) -> str:  # OSError would put the number first
        return str(self.strerror)

    def __reduce__(self) -> tuple[type[CheckpointNotWritten], tuple[str, int, int, OSError]]:
        return CheckpointNotWritten, (self.path, self.trial, self.resource, self.cause)


class StateNotSupported(DaskhpoError, TypeError):
    """A state contains an object that a checkpoint cannot hold.

    The message gives the object's path in the state.
    """


class JournalCorrupt(DaskhpoError, ValueError):
    """A study's journal cannot be read, or does not replay to what it records."""


class JournalDiffers(JournalCorrupt):
    """A journal does not replay to what it records.

    Attributes
    ----------
    line : number of the journal's first line that differs, from 1.
    recorded : what the line says.
    follows : what follows from the lines before it, or why nothing can.
    """

    def __init__(self, line: int, recorded: str, follows: str) -> None:
        super().__init__(
            f"record {line} of the journal is {recorded}, but {follows}. "
            "Was the study started with another version, or was the file edited?"
        )
        self.line, self.recorded, self.follows = line, recorded, follows

    def __reduce__(self) -> tuple[type[JournalDiffers], tuple[int, str, str]]:
        return JournalDiffers, (self.line, self.recorded, self.follows)


class StudyExists(DaskhpoError, FileExistsError):
    """The directory already holds a study, and no resume was requested."""


class StudyMismatch(DaskhpoError, ValueError):
    """The directory belongs to a study with a different definition."""


class StudyLocked(DaskhpoError, RuntimeError):
    """Another process runs the study."""


class StudyNotRunning(DaskhpoError, RuntimeError):
    """No process runs the study, and no job will run it."""


class StudyFailed(DaskhpoError, RuntimeError):
    """A study could not continue; the message gives the cause, and what was kept."""


class JournalNotWritten(OSError, StudyFailed):
    """A study's journal cannot be written; what it has is intact."""

    def __str__(self) -> str:
        return (
            f"{self.filename} cannot be written: {self.strerror}. What was reported before is in "
            "it: make the file system work again, then resume the study"
        )


class MetricError(DaskhpoError, ValueError):
    """A report is not a flat dict of numbers that contains the study's metric."""


class NoSuchTrial(DaskhpoError, KeyError):
    """The study has no trial with this number."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class NoSuitableWorkers(DaskhpoError, RuntimeError):
    """No worker offers the resources that a trial requests."""


class RankFailed(DaskhpoError, RuntimeError):
    """A process of a trial that trains in several raised an error, or died.

    Attributes
    ----------
    rank : the process.
    story : what happened there: a traceback, or how it died and what it printed last.
    """

    def __init__(self, message: str, rank: int, story: str) -> None:
        super().__init__(message)
        self.rank, self.story = rank, story

    def __reduce__(self) -> tuple[type[RankFailed], tuple[str, int, str]]:
        return RankFailed, (str(self), self.rank, self.story)


class ShapeMismatch(DaskhpoError, ValueError):
    """A state that a trial continues from does not fit.

    A mutated hyperparameter changed the model's shapes, or it is the state of several ranks, and
    another number of them is to continue it.
    """


class ReuseMismatch(DaskhpoError, RuntimeError):
    """An object that was reset for another trial behaves differently from a new one."""


class MissingLibrary(DaskhpoError, ImportError):
    """A searcher's library is not installed; the message names the extra to install."""


class OptimiserLost(DaskhpoError, RuntimeError):
    """An optimiser outside this process is, or became, unreachable or unusable."""
