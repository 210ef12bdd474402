"""The folder that zarr writes to: durable, and without zeros for what is missing."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
import zarr

from daskhpo.checkpoints.local_store import DurableStore
from daskhpo.core.errors import CheckpointMissing


@pytest.fixture
def array(tmp_path):
    return zarr.create_array(
        DurableStore(tmp_path / "group"),
        name="a",
        shape=(2**31, 100),
        chunks=(1, 50),
        dtype="uint8",
        compressors=None,
        fill_value=0,
        chunk_key_encoding={"name": "v2", "separator": "."},
        config={"write_empty_chunks": True},
    )


def test_zarr_writes_and_reads_through_it(array, tmp_path):
    row = np.arange(100, dtype=np.uint8)
    array[7] = row
    assert (tmp_path / "group/a/7.1").read_bytes() == row[50:].tobytes()
    assert np.array_equal(array[7], row)
    assert np.array_equal(zarr.open_array(tmp_path / "group/a", mode="r")[7], row)


def test_what_zarr_would_read_as_zeros_is_missing(array, tmp_path):
    assert not zarr.open_array(tmp_path / "group/a", mode="r")[8].any()
    with pytest.raises(CheckpointMissing, match=r"8\.[01] does not exist"):
        array[8]
    array[8] = 1
    (tmp_path / "group/a/8.1").unlink()
    with pytest.raises(CheckpointMissing, match=r"8\.1 does not exist"):
        array[8]


def test_each_file_is_on_the_disk_before_it_has_its_name(array, monkeypatch):
    said, lock = [], threading.Lock()
    fsync, replace = os.fsync, os.replace

    def note(what, act):
        with lock:
            said.append(what)
        act()

    monkeypatch.setattr(os, "fsync", lambda handle: note("fsync", lambda: fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *two: note("rename", lambda: replace(*two)))
    array[7, :50] = 1
    array.attrs["note"] = "é"
    assert said == ["fsync", "rename"] * 2


def test_metadata_is_one_line_that_zarr_reads(array, tmp_path):
    array.attrs["note"] = {"é": [1.5, None]}
    text = (tmp_path / "group/a/zarr.json").read_text()
    assert len(text.splitlines()) == 1
    assert zarr.open_array(tmp_path / "group/a", mode="r").attrs["note"] == {"é": [1.5, None]}


def test_a_failing_write_leaves_no_file(array, tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        array[7] = 1
    deadline = time.monotonic() + 30  # zarr does not wait for its threads that write other chunks
    while [path.name for path in (tmp_path / "group/a").iterdir()] != ["zarr.json"]:
        assert time.monotonic() < deadline, list((tmp_path / "group/a").iterdir())
