"""All that reads a study's directory, each called with one that is damaged."""

from __future__ import annotations

import contextlib
import io
import json
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import damaged_study

LIMIT_BYTES = 3 * 2**30  # of address space; torch and numpy map much that they do not use
LIMIT_SECONDS = 15
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

# What a study without damage may say, too.
ORDINARY = (
    "there is no trial",
    "none of ",
    "has no state",
    "has no checkpoint",
    "no trial of",
    *("a table of curves", "trials of this study took over states"),
)


class TooLong(BaseException):
    """A call did not return in time."""


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def command(*words: str) -> Callable[[Path], str | None]:
    """Return a surface: a command of the command line."""

    def call(directory: Path) -> str | None:
        from daskhpo.cli.app import main

        out = str(directory.parent / f"out-{directory.name}")
        argv = [word.replace("DIR", str(directory)).replace("OUT", out) for word in words]
        printed, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
            sys.stdout.fileno = lambda: 1  # type: ignore[method-assign]
            code = main(argv)
        text = printed.getvalue() + said.getvalue()
        if "Traceback (most recent call last)" in said.getvalue():
            return "a traceback is printed"
        if found := CONTROL.search(text):
            return f"prints {found[0]!r}"
        if code == 2 and (problem := unclear(said.getvalue(), directory)):
            return problem
        return None

    call.__name__ = " ".join(words)
    return call


def unclear(text: str, directory: Path) -> str | None:
    """Return why an error is not clear: it must say which file."""
    lines = [line for line in text.splitlines() if line.startswith("daskhpo: ")]
    if len(lines) != 1:
        return f"{len(lines)} errors: {text[:200]!r}"
    if any(word in lines[0] for word in ORDINARY):
        return None
    if str(directory) not in lines[0] and directory.name not in lines[0]:
        return f"does not say where: {lines[0][:200]!r}"
    if len(lines[0]) > 3000:
        return f"an error of {len(lines[0])} characters"
    return None


def library(act: Callable[[Path], Any]) -> Callable[[Path], str | None]:
    """Return a surface: a call, which may raise our errors and those of the system."""

    def call(directory: Path) -> str | None:
        from daskhpo.core.errors import DaskhpoError

        try:
            act(directory)
        except (DaskhpoError, OSError) as error:
            if str(directory) not in str(error) and directory.name not in str(error):
                return f"does not say where: {error!r:.200}"
        return None

    call.__name__ = act.__name__
    return call


def load(directory: Path) -> None:
    from daskhpo import load_study

    result = load_study(directory)
    repr(result)
    result._repr_html_()
    result.trials()
    result.cost()
    if result.has_reports:
        result.best_trials(3)


def store(directory: Path) -> None:
    from daskhpo.checkpoints import open_store
    from daskhpo.core.errors import CheckpointCorrupt, CheckpointMissing

    opened = open_store(directory)
    for ref in opened.list()[:20]:
        with contextlib.suppress(CheckpointCorrupt, CheckpointMissing):
            opened.read(ref)


def lock_and_requests(directory: Path) -> None:
    from daskhpo.engine.lock import holder_of
    from daskhpo.engine.requests import requested_stop

    holder_of(directory)
    requested_stop(directory, "job 7")


def jobs(directory: Path) -> None:
    from daskhpo.remote.submission import JobDirectory

    folder = JobDirectory(directory)
    folder.number()
    folder.submission()
    folder.address()


def branched(directory: Path) -> None:
    from daskhpo.engine.branch import _copy, _count

    (directory.parent / "aside").mkdir(exist_ok=True)
    _copy(
        directory / "journal.jsonl",
        directory.parent / "aside" / "journal.jsonl",
        _count(directory, 1e9),
    )


def replayed(directory: Path) -> None:
    from daskhpo.core.space import Space
    from daskhpo.core.types import CheckpointPolicy, Limits
    from daskhpo.engine.coordinator import Problem
    from daskhpo.engine.session import has_work, read_manifest
    from daskhpo.schedulers import ASHA
    from daskhpo.searchers import RandomSearch

    manifest = read_manifest(directory)
    if domains := manifest.domains():
        problem = Problem(Space(domains), manifest.objective, ASHA(9), RandomSearch(), 0)
        with contextlib.suppress(Exception):  # another definition than the journal's
            has_work(directory, problem, Limits(num_trials=1), CheckpointPolicy("auto"))


SURFACES: tuple[Callable[[Path], str | None], ...] = (
    *map(library, (load, store, lock_and_requests, jobs, branched, replayed)),
    command("status", "DIR"),
    command("status", "DIR", "0"),
    command("best", "DIR", "-k", "3"),
    command("best", "DIR", "--json"),
    command("cost", "DIR", "--trials"),
    command("checkpoints", "DIR"),
    command("checkpoints", "DIR", "--verify"),
    command("checkpoints", "DIR", "--export", "best", "OUT.npz", "--force"),
    command("logs", "DIR", "0"),
    command("replay", "DIR", "--workers", "2", "--seeds", "1"),
    command("attach", "DIR"),
    command("stop", "DIR"),
    command("resume", "DIR"),
    command("export", "DIR", "--optuna", "OUT.log"),
    command("report", "DIR", "-o", "OUT.html"),
)
SLOW = ("report", "replay")  # half a second each: one in eight


def tried(seed: int, folder: Path) -> tuple[int, list[str]]:
    """Try all surfaces on the damaged study of a seed; return how many, and the findings."""
    directory, done = damaged_study(seed, folder)
    findings, n = [], 0
    for number, surface in enumerate(SURFACES):
        if surface.__name__.startswith(SLOW) and (seed + number) % 25:
            continue
        n += 1
        try:
            with in_time():
                problem = surface(directory)
        except TooLong:
            problem = f"not back after {LIMIT_SECONDS} s"
        except MemoryError:
            problem = "takes all memory"
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if "/daskhpo/" in f.filename] or frames
            place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
            problem = f"{error!r:.150} at {place}"
        if problem is not None:
            findings.append(f"seed {seed}: {surface.__name__}: {problem} [{done}]")
    for left in folder.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink()
    return n, findings


def main(first: int, last: int) -> None:
    """Try the seeds of a range, in this process, whose memory is limited; print the findings."""
    import logging

    import daskhpo.cli.app
    import daskhpo.plots.report  # noqa: F401

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    began, n_inputs, n_calls, findings = time.monotonic(), 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, last):
            n, found = tried(seed, Path(folder))
            n_inputs, n_calls, findings = n_inputs + 1, n_calls + n, findings + found
    seconds = time.monotonic() - began
    print(
        json.dumps({"inputs": n_inputs, "calls": n_calls, "seconds": seconds, "findings": findings})
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
