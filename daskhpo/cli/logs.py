"""The command ``daskhpo logs``: what a trial has printed."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from daskhpo.atomic_files import MAX_SMALL, open_plain
from daskhpo.callbacks import Callback, FrozenTrial
from daskhpo.callbacks.follower import JournalFollower, study_info
from daskhpo.cli.arguments import add_study_path
from daskhpo.cli.text import show
from daskhpo.trial_output import log_path, older_path

LOG_POLL_SECONDS = 0.5


def add_to(commands: Any) -> None:
    """Add the command to the parsers of a command line."""
    parser = commands.add_parser("logs", help="show what a trial has printed, logged and warned of")
    add_study_path(parser)
    parser.add_argument("trial", type=int, help="number of the trial")
    parser.add_argument(
        "--follow", "-f", action="store_true", help="show what it prints until it ends"
    )
    parser.set_defaults(act=run)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    from daskhpo.remote.attach import run_status
    from daskhpo.results.result import load_study

    trial = load_study(options.path).trial(options.trial)
    path = log_path(options.path, trial.id)
    with contextlib.closing(LogReader(path)) as reader:
        text = reader.new_text()
        if options.follow and not trial.status.ended:
            watch = _TrialWatch(trial.id)
            follower = JournalFollower(study_info(options.path), [watch])
            try:
                _follow(reader, text, watch.ended, lambda: bool(run_status(options.path)))
            finally:
                follower.detach()
            return 0
    if not text:
        show(f"daskhpo: trial {trial.id} has printed nothing ({path})", file=sys.stderr)
        return 1
    show(text, end="")
    return 0


def _follow(
    reader: LogReader, text: str, ended: threading.Event, is_running: Callable[[], bool]
) -> None:
    """Show what is written until the trial ends, or nothing runs the study."""
    while True:
        show(text, end="", flush=True)
        over = ended.wait(LOG_POLL_SECONDS) or not is_running()
        text = reader.new_text()
        if over:
            show(text, end="")
            return


class _TrialWatch(Callback):
    """Waits for the end of a trial.

    Attributes
    ----------
    ended : set once it has ended.
    """

    def __init__(self, trial: int) -> None:
        self._trial, self.ended = trial, threading.Event()

    def on_trial_end(self, trial: FrozenTrial) -> None:
        if trial.id == self._trial:
            self.ended.set()


def _bytes_of(path: Path) -> bytes:
    with open_plain(path) as file:
        return file.read(MAX_SMALL)


class LogReader:
    """A reader of a log that grows, and that gets a new file when it is long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._file: IO[bytes] | None = None

    def new_text(self) -> str:
        """Return what was written since the last call; the first one returns all there is."""
        data = b""
        if self._file is None and older_path(self._path).exists():
            data = _bytes_of(older_path(self._path))
        if self._file is not None:
            data = self._file.read()
        if self._has_new_file():
            self.close()
            self._file = open_plain(self._path)
            data += self._file.read()
        return self._decoder.decode(data)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _has_new_file(self) -> bool:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:  # not yet, or just renamed
            return False
        return self._file is None or not os.path.samestat(found, os.fstat(self._file.fileno()))
