from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from daskhpo.checkpoints import ZarrStore, codec
from daskhpo.core.errors import CheckpointCorrupt, CheckpointMissing
from daskhpo.testing.stores import CheckpointStoreContract, a_ref, a_state, assert_same_state


@pytest.fixture
def store(tmp_path):
    return ZarrStore(tmp_path / "checkpoints")


def files_of(store):
    return sorted(str(p.relative_to(store.path)) for p in store.path.rglob("*") if p.is_file())


class TestZarrStore(CheckpointStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return ZarrStore(tmp_path / "checkpoints")


# -- zarr ----------------------------------------------------------------------------------------


def test_any_zarr_reader_sees_the_same_bytes(store):
    refs = [store.write(a_ref(row), a_state(row)) for row in (0, 7)]
    group = zarr.open_group(store.path, mode="r")
    assert [name for name, _ in group.arrays()] == [refs[0].array]
    array = group[refs[0].array]
    for ref in refs:
        assert array[ref.row].tobytes() == codec.encode(a_state(ref.row), 0, 1)[0].tobytes()


def test_a_tensor_is_found_from_zarr_alone_by_the_arrays_attributes(store):
    w = np.arange(6, dtype="f4").reshape(2, 3)
    ref = store.write(a_ref(row=4), {"epoch": 3, "w": w})
    array = zarr.open_group(store.path, mode="r")[ref.array]
    layout = array.attrs["daskhpo"]
    ((_, _), (name, node)) = layout["tree"]["dict"]
    dtype, shape, offset = node["numpy"]
    start = layout["n_header"] + offset
    found = array[4, start : start + w.nbytes].view(dtype).reshape(shape)
    assert name == "w"
    assert np.array_equal(found, w)


def test_what_zarr_itself_writes_is_read(store, tmp_path):
    ref = store.write(a_ref(row=0), a_state(1))
    row, _ = codec.encode(a_state(2))
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_group(store.path, mode="r+")[ref.array][3] = row
    copied = codec.complete(a_ref(row=3), row, codec.encode(a_state(2))[1])
    assert_same_state(store.read(copied), a_state(2))


def test_a_checkpoint_is_one_file(store):
    store.write(a_ref(row=0), a_state(0))
    before = set(files_of(store))
    assert len(before) == 3  # the group, the layout, the row
    ref = store.write(a_ref(row=1), a_state(1))
    assert set(files_of(store)) - before == {f"{ref.array}/1.0"}
    store.delete(ref)
    assert set(files_of(store)) == before


# -- damage --------------------------------------------------------------------------------------


def row_file(store, ref):
    return store.path / ref.array / f"{ref.row}.0"


def test_a_row_that_zarr_would_read_as_zeros_is_missing(store):
    ref = store.write(a_ref(trial=3), a_state())
    row_file(store, ref).unlink()
    assert not zarr.open_group(store.path, mode="r")[ref.array][0].any()
    with pytest.raises(CheckpointMissing, match=r"0\.0: expected \d+ bytes for trial 3.*nothing"):
        store.read(ref)
    assert store.list() == []


@pytest.mark.parametrize("keep", [0, 5, 31, 32, 4096, -1])
def test_a_truncated_row_is_corrupt(store, keep):
    ref = store.write(a_ref(), a_state())
    path = row_file(store, ref)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointCorrupt, match=rf"expected {ref.n_bytes} bytes .* found \d+;"):
        store.read(ref)
    for found in store.list():
        with pytest.raises(CheckpointCorrupt):
            store.read(found)
        store.delete(found)
    assert store.list() == []


@pytest.mark.parametrize("place", [0, 4, 8, 24, 40, 2000, -1])
def test_a_flipped_bit_is_corrupt(store, place):
    ref = store.write(a_ref(), a_state())
    path = row_file(store, ref)
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)
    for found in (ref, *store.list()):
        with pytest.raises(CheckpointCorrupt, match="a running study trains the trial again"):
            store.read(found)


def test_another_row_in_its_place_is_corrupt(store):
    one, two = (store.write(a_ref(row), a_state(row)) for row in range(2))
    row_file(store, two).replace(row_file(store, one))
    with pytest.raises(CheckpointCorrupt, match="checksum"):
        store.read(one)


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[]", '{"attributes": {"daskhpo": {"format": 9}}}']
)
def test_a_row_without_its_layout_is_corrupt_until_a_writer_restores_it(store, text):
    ref = store.write(a_ref(), a_state())
    metadata = store.path / ref.array / "zarr.json"
    if text is None:
        metadata.unlink()
    else:
        metadata.write_text(text)
    other = ZarrStore(store.path)
    with pytest.raises(CheckpointCorrupt, match=f"expected layout {ref.array}"):
        other.read(ref)
    other.write(a_ref(row=1), a_state())
    assert_same_state(other.read(ref), a_state())


def test_a_changed_layout_is_corrupt(store):
    ref = store.write(a_ref(), {"a": np.ones(2), "b": np.zeros(2)})
    metadata = store.path / ref.array / "zarr.json"
    data = json.loads(metadata.read_text())
    nodes = data["attributes"]["daskhpo"]["tree"]["dict"]
    nodes[0][0], nodes[1][0] = nodes[1][0], nodes[0][0]
    metadata.write_text(json.dumps(data))
    with pytest.raises(CheckpointCorrupt, match="found layout"):
        ZarrStore(store.path).read(ref)


def test_a_reference_cannot_leave_the_store(store, tmp_path):
    ref = store.write(a_ref(), a_state())
    for act in (store.read, store.delete):
        with pytest.raises(CheckpointMissing, match="no array of"):
            act(dataclasses.replace(ref, array=f"../checkpoints/{ref.array}"))


@pytest.mark.parametrize("row", [-1, 2**31])
def test_a_row_outside_the_array_is_refused(store, row):
    with pytest.raises(ValueError, match=f"row={row}"):
        store.write(a_ref(row), a_state())


# -- failing writes ------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_passes_its_error_on_and_leaves_nothing(store, monkeypatch, call):
    kept = store.write(a_ref(row=0), a_state(0))
    before = files_of(store)

    def fail(*args):
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="no space"):
            store.write(a_ref(row=1), a_state(1))
    assert files_of(store) == before
    assert_same_state(store.read(kept), a_state(0))


def test_a_file_that_cannot_grow_in_mid_write_leaves_nothing(store):
    store.write(a_ref(row=0), {"w": np.zeros(100_000)})
    before = files_of(store)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.write(a_ref(row=1), {"w": np.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_of(store) == before


def test_a_retry_that_fails_keeps_the_row_that_was_there(store, monkeypatch):
    ref = store.write(a_ref(), a_state(0))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.write(a_ref(), a_state(1))
    assert_same_state(store.read(ref), a_state(0))


def test_a_folder_that_cannot_be_made_is_an_oserror(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        ZarrStore(tmp_path / "file" / "checkpoints").write(a_ref(), a_state())


def test_the_file_is_flushed_before_and_the_folder_after_the_rename(store, monkeypatch):
    store.write(a_ref(row=0), a_state())
    said = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle):
        said.append("folder" if os.path.isdir(f"/dev/fd/{handle}") else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", lambda *paths: (said.append("rename"), replace(*paths)))
    store.write(a_ref(row=1), a_state())
    assert said == ["file", "rename", "folder"]


# -- a store in several places -------------------------------------------------------------------


def test_making_a_store_touches_nothing_and_it_travels_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = ZarrStore("checkpoints")
    assert store.list() == []
    assert store.clean() == 0
    assert not store.path.exists()
    ref = store.write(a_ref(), a_state())
    monkeypatch.chdir("/")
    there = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 300
    assert_same_state(there.read(ref), a_state())


def test_cleaning_removes_what_killed_writers_left_and_nothing_else(store):
    ref = store.write(a_ref(), a_state())
    before = files_of(store)
    (store.path / "zarr.json.abc.partial").write_bytes(b"x")
    (store.path / ref.array / "5.0.abc.partial").write_bytes(b"x")
    (store.path / ("0" * 24)).mkdir()
    assert [found.row for found in store.list()] == [0]
    assert store.clean() == 2
    assert files_of(store) == before
    assert not (store.path / ("0" * 24)).exists()
    assert_same_state(store.read(ref), a_state())


def test_tensors_come_back_from_disk(store):
    net = torch.nn.Linear(3, 4)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": net.state_dict(),
        "opt": optimizer.state_dict(),
        "half": torch.ones(3).bfloat16(),
    }
    assert_same_state(store.read(store.write(a_ref(), state)), state)


@pytest.mark.parametrize("scene", ["race", "kill_at_each_call", "kill_at_random"])
def test_writers_in_other_processes(scene, tmp_path):
    program = Path(__file__).with_name("writers.py")
    done = subprocess.run(
        [sys.executable, str(program), scene, str(tmp_path / "checkpoints")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
