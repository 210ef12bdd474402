"""Files that appear complete or not at all, even after a kill or a power cut.

A file is written under a temporary name in its folder (``<name>.<random>.partial``), flushed to
the disk and renamed. The new name survives a power cut only after its folder is flushed, too
(:func:`flush_folder`). A caller that writes several files flushes their folder once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

PARTIAL = ".partial"
MAX_SMALL = 2**26  # bytes of a file that is read as a whole, and of a line
# No hard link: other file system, links not supported, too many links, or not permitted.
NO_LINKS = (
    *(errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS),
    *(errno.EACCES, errno.EINVAL),
)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error name its file; that of a write, as to a full disk, does not."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def replacing(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield temporary names to write to; they then replace ``paths``, the first last.

    After an exception nothing is left: neither the temporary files nor those of ``paths`` that
    were replaced already.
    """
    mark = f".{uuid.uuid4().hex}{PARTIAL}"
    partials = [path.with_name(path.name + mark) for path in paths]
    litter = list(partials)
    try:
        with naming(paths[0]):
            yield partials
        for partial, path in reversed(list(zip(partials, paths, strict=True))):
            partial.replace(path)
            litter.append(path)
    except BaseException:  # an interrupt must leave no files behind, either
        for path in litter:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def write_file(path: Path, data: str | bytes, mode: int = 0o666) -> None:
    """Write a small file and flush it to the disk.

    Parameters
    ----------
    mode : permissions of the file, before the umask is applied.
    """
    with replacing([path]) as (partial,):
        _write_new(partial, data, mode)


def open_plain(path: Path) -> IO[bytes]:
    """Open a file for reading; never waits, as the open of a pipe would.

    Raises
    ------
    OSError : it cannot be read, or is no plain file: a pipe, a device, a folder, a link.
    """
    handle = _open_no_link(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(
            errno.EINVAL, "it is no plain file, but a folder, a pipe or a device", str(path)
        )
    return os.fdopen(handle, "rb")


def open_to_append(path: Path) -> int:
    """Open a file of a study to append to it; return its descriptor.

    Raises
    ------
    OSError : it cannot be written, or is no plain file: a study that came from another user must
        not make its user write elsewhere, or wait for the reader of a pipe.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    handle = _open_no_link(path, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no plain file, but a pipe or a device", str(path))
    return handle


def _open_no_link(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(
            errno.ELOOP, "it is no plain file, but a link; put the file itself there", str(path)
        ) from None


def read_small(path: Path) -> bytes:
    """Return the content of a small plain file.

    Raises
    ------
    OSError : it cannot be read, is no plain file, or has more than `MAX_SMALL` bytes.
    """
    with open_plain(path) as file:
        data = file.read(min(os.fstat(file.fileno()).st_size, MAX_SMALL) + 1)
    if len(data) > MAX_SMALL:
        raise OSError(errno.EFBIG, f"it has more than {MAX_SMALL} bytes", str(path))
    return data


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    write_file(path, text, mode=0o600)


def create_file(path: Path, text: str) -> bool:
    """Create a file atomically, also on NFS; return False if it exists already.

    On a file system without hard links (CIFS, exFAT, sshfs) one process alone creates it, too, but
    others may see it empty for a moment, or for good if that process dies then.
    """
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    with naming(path):
        _write_new(aside, text, 0o666)
    try:
        os.link(aside, path)
    except FileExistsError:
        return aside.stat().st_nlink == 2  # NFS may lose the reply and repeat the link
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create_without_link(path, aside)
    finally:
        aside.unlink(missing_ok=True)
    return True


def flush_folder(folder: Path) -> None:
    """Make renames and removals in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems cannot flush a folder, and need not
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _create_without_link(path: Path, aside: Path) -> bool:
    """Create a file exclusively, then put the complete file ``aside`` in its place."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        return False
    try:
        aside.replace(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


def _write_new(path: Path, data: str | bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
