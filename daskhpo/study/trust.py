"""Files that this user has let daskhpo run.

A study's directory is data. It may have come from another user, so a file that it names is run
only if the user has named that file before, or allows it now. What was allowed is remembered in the
user's own folder, outside of all studies.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from daskhpo.atomic_files import read_small, write_private
from daskhpo.core.printable import printable, shell_word

logger = logging.getLogger("daskhpo")

MAX_FILES = 2000  # that are remembered; the oldest are forgotten
SHOWN_LINKS = 3


def trust(source: str) -> None:
    """Remember that the user wants the file of ``FILE.py:NAME`` to be run.

    Where that cannot be written, such as on a node without the user's home, nothing is remembered.
    """
    file, known = _file_of(source), _known()
    if file in known:
        return
    path = _list()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, "".join(f"{name}\n" for name in [*known, file][-MAX_FILES:]))
    except OSError as error:
        logger.info("%s cannot be written, so %s is not remembered: %s", path, file, error)


def check_trust(directory: Path, source: str, ask: Callable[[str], bool] | None) -> None:
    """Check that the user wants the file that a study's directory names to be run.

    Parameters
    ----------
    source : ``FILE.py:NAME``, as the directory has it.
    ask : asks the user a question; None: no user can be asked.

    Raises
    ------
    PermissionError : the user does not want it, or cannot be asked.
    """
    if _file_of(source) in _known():
        return
    file = printable(source.rpartition(":")[0])
    links = links_out(directory)
    found = f", and links out of itself ({_shown(links, directory)})" if links else ""
    what = (
        f"{printable(str(directory))} names {file} as the file that defines its study{found}. You "
        "have not run that file here before, and it would run as you"
    )
    if ask is not None and ask(f"{what}.\nRun it?"):
        trust(source)
        return
    path = shell_word(directory)
    raise PermissionError(
        f"{what}. If you know what is in it, name it yourself, `daskhpo resume {path} "
        f"{shell_word(printable(source))}`, or add --trust"
    )


def links_out(directory: Path) -> list[Path]:
    """List links in a directory that lead out of it."""
    inside = directory.resolve()
    found = []
    for folder, folders, files in os.walk(directory):
        for path in (Path(folder, name) for name in (*folders, *files)):
            if path.is_symlink():
                with contextlib.suppress(OSError, RuntimeError):  # a loop leads nowhere
                    if not path.resolve().is_relative_to(inside):
                        found.append(path)
    return sorted(found)


def _shown(links: list[Path], directory: Path) -> str:
    shown = [f"{path.relative_to(directory)} to {path.readlink()}" for path in links[:SHOWN_LINKS]]
    more = [f"and {len(links) - SHOWN_LINKS} more"] if len(links) > SHOWN_LINKS else []
    return printable(", ".join([*shown, *more]))


def _file_of(source: str) -> str:
    return os.path.realpath(source.rpartition(":")[0])


def _list() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "daskhpo" / "trusted-files"


def _known() -> list[str]:
    """Return the remembered files; none if another user could have written the list."""
    path = _list()
    with contextlib.suppress(OSError, RuntimeError):
        found = path.lstat()
        if found.st_uid == os.geteuid() and not found.st_mode & 0o022:
            return read_small(path).decode(errors="surrogateescape").splitlines()
    return []
