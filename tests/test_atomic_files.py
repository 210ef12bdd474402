"""Files appear complete or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daskhpo import atomic_files
from daskhpo.atomic_files import (
    create_file,
    naming,
    open_plain,
    read_small,
    replacing,
    write_file,
    write_private,
)


def fill(paths: list[Path], error: BaseException | None = None) -> None:
    """Replace files by empty ones; ``error`` is raised before they have their names."""
    with replacing(paths) as partials:
        for partial in partials:
            partial.touch()
        if error is not None:
            raise error


@pytest.mark.parametrize("data", ["text é", b"\0bytes"])
def test_what_was_written_is_there_and_nothing_else(tmp_path: Path, data: str | bytes) -> None:
    path = tmp_path / "file"
    write_file(path, "older")
    write_file(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert os.listdir(tmp_path) == ["file"]


def test_a_private_file_is_its_owners_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        write_private(tmp_path / "key", "secret")
        write_file(tmp_path / "other", "known")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o666


def test_a_file_that_could_not_be_flushed_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    write_file(tmp_path / "file", "older")
    monkeypatch.setattr(atomic_files.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_file(tmp_path / "file", "newer")
    assert (tmp_path / "file").read_text() == "older"
    assert os.listdir(tmp_path) == ["file"]


def test_of_several_files_the_first_is_named_last_and_an_interrupt_leaves_none(
    tmp_path: Path,
) -> None:
    paths = [tmp_path / name for name in ("first", "second")]
    (tmp_path / "first").mkdir()  # cannot be replaced by a file
    (tmp_path / "first/full").touch()
    with pytest.raises(OSError, match="first"):
        fill(paths)
    assert os.listdir(tmp_path) == ["first"]
    with pytest.raises(KeyboardInterrupt):
        fill([tmp_path / "third"], KeyboardInterrupt())
    assert os.listdir(tmp_path) == ["first"]


@pytest.mark.parametrize("has_links", [True, False])
def test_one_of_many_creates_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(atomic_files.os, "link", refuse(errno.EOPNOTSUPP))
    path = tmp_path / "lock"
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda n: create_file(path, str(n)), range(64)))
    assert won.count(True) == 1
    assert path.read_text() == str(won.index(True))
    assert os.listdir(tmp_path) == ["lock"]


def refuse(number: int) -> Callable[..., None]:
    """A call of the system that fails with an error number."""

    def call(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def test_without_links_nobody_sees_a_part_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "lock", []
    replace = Path.replace

    def look(self: Path, target: Path) -> Path:
        seen.append(path.read_text())
        assert not create_file(path, "another")
        return replace(self, target)

    monkeypatch.setattr(atomic_files.os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(Path, "replace", look)
    assert create_file(path, "mine")
    assert (seen, path.read_text()) == ([""], "mine")
    assert os.listdir(tmp_path) == ["lock"]


def test_a_file_that_cannot_be_put_in_its_place_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_files.os, "link", refuse(errno.ENOSYS))
    monkeypatch.setattr(Path, "replace", refuse(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        create_file(tmp_path / "lock", "mine")
    assert os.listdir(tmp_path) == []


def test_an_error_that_is_not_about_links_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_files.os, "link", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        create_file(tmp_path / "lock", "mine")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES])
def test_an_error_of_a_write_names_its_file(number: int, tmp_path: Path) -> None:
    path = tmp_path / "results" / "journal.jsonl"
    with pytest.raises(OSError, match=r"results/journal\.jsonl") as raised, naming(path):
        raise OSError(number, os.strerror(number))
    assert raised.value.errno == number
    assert type(raised.value) is type(OSError(number, ""))
    with pytest.raises(OSError, match="other") as raised, naming(path):
        raise OSError(number, os.strerror(number), "other")


def test_a_file_on_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left.*full") as raised, naming(tmp_path / "full"):
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to a device"])
def test_what_is_no_plain_file_is_not_read_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/zero")
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to("/dev/zero")
    for read in (open_plain, read_small):
        with pytest.raises(OSError, match="it is no plain file"):
            read(path)


def test_a_small_file_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic_files, "MAX_SMALL", 10)
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_small(path) == b"x" * 10
    path.write_bytes(b"x" * 11)
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_small(path)
