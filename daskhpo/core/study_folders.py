"""Names of the studies on a disk, for messages about one that is not there."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from daskhpo.core.printable import printable

MANIFEST = "study.json"  # what makes a directory a study
MAX_NAMES = 8


def no_study(directory: Path) -> str:
    """Say that a directory holds no study, which studies are near, and what to do."""
    if not directory.exists():
        state = "there is no such directory"
    elif not directory.is_dir():
        state = "it is a file"
    else:
        state = f"it contains no {MANIFEST}"
    return (
        f"{printable(str(directory))} holds no study: {state}. {nearby_studies(directory)}. Give "
        "the directory of a study, or begin one: study.run(...), or `daskhpo run FILE.py:NAME`"
    )


def nearby_studies(directory: Path) -> str:
    """Say which studies are inside a directory, beside it, or of its name next door."""
    directory = Path(os.path.abspath(directory))
    inside, beside = _studies(directory), _studies(directory.parent)
    found, where = (inside, directory) if inside else (beside, directory.parent)
    if found:
        close = [] if inside else get_close_matches(directory.name, found, 3, 0.5)
        shown = [*close, *(name for name in found if name not in close)]
        more = f" and {len(shown) - MAX_NAMES} more" if len(shown) > MAX_NAMES else ""
        listed = ", ".join(printable(name) for name in shown[:MAX_NAMES])
        hint = f" (did you mean {printable(close[0])}?)" if close else ""
        return f"{printable(str(where))} holds {listed}{more}{hint}"
    namesakes = [
        folder / directory.name
        for folder in _folders(directory.parent)
        if (folder / directory.name / MANIFEST).is_file()
    ]
    if namesakes:
        return f"There is one in {printable(str(namesakes[0]))}"
    return f"There is no study in {printable(str(directory.parent))} either"


def _studies(folder: Path) -> list[str]:
    return [path.name for path in _folders(folder) if (path / MANIFEST).is_file()]


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:  # it does not exist, or may not be read
        return []
