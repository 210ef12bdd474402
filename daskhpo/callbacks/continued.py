"""Files that later sessions continue, and the time of day of records."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import naming, write_file
from daskhpo.callbacks.values import FrozenReport, StudyInfo
from daskhpo.core.domains import Domain
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.events import Record, SessionStarted
from daskhpo.core.study_folders import MANIFEST
from daskhpo.engine.session import read_manifest

SAVE_SECONDS = 2.0  # least time between two writes of a bookmark


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of a file."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


class ContinuedFile:
    """A file of items, such as lines, that later sessions continue.

    A callback hears the whole study again in each session, and writes the same items. Those that
    the file has are compared and kept; from the first that differs on, it
    is written again.

    Parameters
    ----------
    path : the file; its folder is created.
    split : yields the complete items of a file.
    is_own : tells which items are the study's; others, of other programs, stay.
    is_chosen : True: a user has chosen the file. If it begins with another item, it is kept.

    Raises
    ------
    ValueError : by :meth:`write`: the file is not the study's.
    """

    def __init__(
        self,
        path: Path,
        split: Callable[[Path], Iterator[bytes]] = lines_of,
        is_own: Callable[[bytes], bool] = lambda item: True,
        *,
        is_chosen: bool = True,
    ) -> None:
        self.path, self._is_own = path, is_own
        self._there: Iterator[bytes] | None = split(path) if path.exists() else None
        self._end = 0  # of the items that were found and are kept
        self._must_match = is_chosen
        self._buffer: list[bytes] = []

    def write(self, item: bytes) -> None:
        """Add an item; it is in the file after the next :meth:`flush`."""
        if self._there is not None and not self._is_there(item):
            self._there = None
            os.truncate(self.path, self._end)
        if self._there is None:
            self._buffer.append(item)
        self._must_match = False

    def flush(self) -> None:
        """Write the new items, in one piece."""
        if self._buffer:
            data, self._buffer = b"".join(self._buffer), []
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with naming(self.path), self.path.open("ab") as file:
                file.write(data)

    def _is_there(self, item: bytes) -> bool:
        assert self._there is not None
        for found in self._there:
            if found == item:
                self._end += len(found)
                return True
            if self._must_match or self._is_own(found):
                break
            self._end += len(found)
        if self._must_match and self.path.stat().st_size:
            raise InvalidArgument(
                f"{self.path} exists already and is not of this study: give another file, or "
                "remove it"
            )
        return False


class StudyClock:
    """The time of day at a study's times, from the records of sessions' starts."""

    def __init__(self, info: StudyInfo) -> None:
        self._zero = 0.0
        with contextlib.suppress(OSError):  # journals of older versions have no time of day
            self._zero = (info.directory / MANIFEST).stat().st_mtime

    def learn(self, record: Record) -> None:
        """Take note of the start of a session."""
        if isinstance(record, SessionStarted) and record.clock:
            self._zero = record.clock - record.seconds

    def at(self, seconds: float) -> float:
        """Return the seconds since 1970 at a time of the study."""
        return self._zero + seconds


def domains_of(directory: Path) -> dict[str, Domain]:
    """Return the domains of a study's space; none if it has written no manifest yet."""
    if not (directory / MANIFEST).exists():
        return {}
    return read_manifest(directory).domains()


class Bookmark:
    """A note of how far a logger has come, for the next session.

    Parameters
    ----------
    path : a small file, in the study's directory.

    Attributes
    ----------
    id : distinguishes the study from all others, also of the same name.
    runs : whatever the logger must know of its runs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        data: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            data = json.loads(path.read_text())
        self.id: str = data.get("id") or uuid.uuid4().hex[:10]
        self.runs: dict[str, str] = data.get("runs", {})
        self._reports, self._ends = data.get("reports", 0), data.get("ends", 0)
        self._n_ends, self._saved_at = 0, 0.0
        self._is_saved = bool(data)

    def is_new(self, report: FrozenReport) -> bool:
        """Return True if this report was not logged, and take it as logged."""
        is_new: bool = report.number >= self._reports
        if is_new:
            self._reports, self._is_saved = report.number + 1, False
        return is_new

    def is_new_end(self) -> bool:
        """Return True if the next end of a trial was not logged; take it as logged."""
        self._n_ends += 1
        is_new: bool = self._n_ends > self._ends
        if is_new:
            self._ends, self._is_saved = self._n_ends, False
        return is_new

    def save(self, *, now: bool = False) -> None:
        """Write the file; unless ``now``, only what is new, and only now and then."""
        is_due = not self._is_saved and time.monotonic() - self._saved_at > SAVE_SECONDS
        if not (now or is_due):
            return
        data = {"id": self.id, "reports": self._reports, "ends": self._ends, "runs": self.runs}
        write_file(self._path, json.dumps(data))
        self._is_saved, self._saved_at = True, time.monotonic()
