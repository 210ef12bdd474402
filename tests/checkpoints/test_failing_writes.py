"""Writes that the operating system refuses: nothing is left, and the store works afterwards."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from daskhpo.checkpoints import ZarrStore, snapshot
from daskhpo.core.errors import CheckpointNotWritten
from daskhpo.testing.stores import a_ref, a_state, assert_same_state

SMALL_DISK = Path(__file__).with_name("small_disk.py")
IN_A_NAMESPACE = ["unshare", "--map-root-user", "--mount"]


def files_of(store):
    return sorted(str(p.relative_to(store.path)) for p in store.path.rglob("*") if p.is_file())


@pytest.fixture
def store(tmp_path):
    return ZarrStore(tmp_path / "checkpoints")


@contextmanager
def files_end_at(n_bytes):
    """Limit the size of files, for as short as can be: what pytest prints may go to one, too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_cannot_grow_in_mid_write_leaves_nothing(store):
    kept = store.write(a_ref(row=0), {"w": np.zeros(100_000)})
    before = files_of(store)
    for write in (
        lambda ref: store.write(ref, {"w": np.ones(100_000)}),
        lambda ref: store.write_snapshot(ref, snapshot({"w": np.ones(100_000)}, 7, 3)),
    ):
        with files_end_at(700), pytest.raises(CheckpointNotWritten) as caught:
            write(a_ref(row=1, trial=7, resource=3))
        assert caught.value.errno == errno.EFBIG
    assert files_of(store) == before
    assert_same_state(store.read(kept), {"w": np.zeros(100_000)})
    assert_same_state(store.read(store.write(a_ref(row=1), a_state())), a_state())


def test_the_error_says_where_whose_why_and_what_follows_and_travels(store):
    store.write(a_ref(row=0), a_state())
    with files_end_at(700), pytest.raises(OSError, match="File too large") as caught:
        store.write(a_ref(row=1, trial=7, resource=3), a_state())
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert type(error) is CheckpointNotWritten
        assert (error.trial, error.resource, error.errno) == (7, 3, errno.EFBIG)
        assert error.path.startswith(str(store.path))
        assert str(error).startswith(f"{error.path}: the checkpoint of trial 7 at resource 3 could")
        assert str(error).endswith("resumes from an older checkpoint or trains again")
    assert isinstance(caught.value.__cause__, OSError)


def test_a_retry_that_fails_keeps_the_row_that_was_there(store):
    ref = store.write(a_ref(), a_state(0))
    with files_end_at(700), pytest.raises(CheckpointNotWritten):
        store.write(a_ref(), a_state(1))
    assert_same_state(store.read(ref), a_state(0))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_late_leaves_nothing(store, monkeypatch, call):
    kept = store.write(a_ref(row=0), a_state(0))
    before = files_of(store)

    def fail(*args):  # no disk here does this when asked
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(CheckpointNotWritten, match="Input/output error"):
            store.write(a_ref(row=1), a_state(1))
    assert files_of(store) == before
    assert_same_state(store.read(kept), a_state(0))


@pytest.mark.parametrize("is_new", [False, True])
def test_a_folder_that_cannot_be_flushed_leaves_nothing(store, monkeypatch, is_new):
    kept = store.write(a_ref(row=0), a_state(0))

    def fail(folder):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("daskhpo.checkpoints.zarr.flush_folder", fail)
        with pytest.raises(CheckpointNotWritten, match="Input/output error"):
            store.write(a_ref(row=1), {"another": np.ones(3000)} if is_new else a_state(1))
    assert store.list() == [kept]
    again = store.write(a_ref(row=1), a_state(1))
    assert_same_state(store.read(again), a_state(1))


def test_an_interrupted_write_leaves_nothing(store, monkeypatch):
    store.write(a_ref(row=0), a_state(0))
    before = files_of(store)

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.write(a_ref(row=1), a_state(1))
    assert files_of(store) == before


def test_a_folder_that_cannot_be_made_is_an_error_until_it_can(tmp_path):
    (tmp_path / "file").touch()
    store = ZarrStore(tmp_path / "file" / "checkpoints")
    with pytest.raises(CheckpointNotWritten) as caught:
        store.write(a_ref(), a_state())
    assert caught.value.errno == errno.ENOTDIR
    (tmp_path / "file").unlink()
    assert_same_state(store.read(store.write(a_ref(), a_state())), a_state())


@pytest.mark.parametrize("what", ["the store", "the array"])
def test_a_folder_that_vanished_is_made_anew(store, what):
    ref = store.write(a_ref(row=0), a_state(0))
    shutil.rmtree(store.path if what == "the store" else store.path / ref.array)
    again = store.write(a_ref(row=1), a_state(1))
    assert store.list() == [again]
    assert_same_state(ZarrStore(store.path).read(again), a_state(1))


def test_a_row_that_is_shared_with_a_store_that_cannot_be_made_is_an_error(store, tmp_path):
    ref = store.write(a_ref(trial=7), a_state())
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointNotWritten, match="trial 7"):
        store.share(ref, ZarrStore(tmp_path / "file" / "checkpoints"))


@pytest.mark.parametrize("scene", ["full", "read_only"])
def test_a_disk_that_refuses(scene, tmp_path):
    try:
        subprocess.run(
            [*IN_A_NAMESPACE, "mount", "-t", "tmpfs", "none", str(tmp_path)],
            capture_output=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a disk of its own cannot be mounted here: {error}")
    done = subprocess.run(
        [*IN_A_NAMESPACE, sys.executable, str(SMALL_DISK), scene, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []  # it was there, and nowhere else
