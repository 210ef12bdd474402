from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from daskhpo.checkpoints import CleanupResult, ZarrStore, codec
from daskhpo.checkpoints.local_store import is_local
from daskhpo.core.errors import CheckpointCorrupt, CheckpointMissing
from daskhpo.testing.stores import CheckpointStoreContract, a_ref, a_state, assert_same_state
from tests.plain_zarr import check, encode_state, write_in_chunks


@pytest.fixture
def store(tmp_path):
    return ZarrStore(tmp_path / "checkpoints")


def files_of(store):
    return sorted(str(p.relative_to(store.path)) for p in store.path.rglob("*") if p.is_file())


class TestZarrStore(CheckpointStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return ZarrStore(tmp_path / "checkpoints")

    @pytest.fixture
    def other(self, tmp_path):
        return ZarrStore(tmp_path / "other")


# -- zarr ----------------------------------------------------------------------------------------


def test_any_zarr_reader_sees_the_same_bytes(store):
    refs = [store.write(a_ref(row), a_state(row)) for row in (0, 7)]
    group = zarr.open_group(store.path, mode="r")
    assert [name for name, _ in group.arrays()] == [refs[0].array]
    array = group[refs[0].array]
    for ref in refs:
        assert array[ref.id].tobytes() == encode_state(a_state(ref.id), 0, 1)[0].tobytes()


def test_rows_from_10_000_on_are_in_arrays_of_their_own(store):
    refs = [store.write(a_ref(row), a_state(row % 7)) for row in (0, 9_999, 10_000, 2**31 - 1)]
    assert [ref.array.partition("-")[2] for ref in refs] == ["", "", "1", "214748"]
    assert check(store.path) == 4
    for ref in refs:
        assert_same_state(ZarrStore(store.path).read(ref), a_state(ref.id % 7))
    assert store.list() == refs
    for ref in refs[1:]:
        store.delete(dataclasses.replace(ref, array=""))
    assert store.list() == refs[:1]


@pytest.mark.breaks_zarr
def test_the_check_that_follows_each_test_can_fail(store):
    ref = store.write(a_ref(), a_state())
    metadata = store.path / ref.array / "zarr.json"
    text = metadata.read_text()
    metadata.write_text(text.replace('"separator": "."', '"separator": "/"'))
    with pytest.raises(AssertionError, match="row 0 of"):  # zarr looks elsewhere, and reads zeros
        check(store.path)
    metadata.unlink()
    with pytest.raises(AssertionError, match=f"zarr does not list {ref.array}"):
        check(store.path)


@pytest.mark.slow
def test_zarr_is_loaded_to_write_and_read_and_torch_is_not(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from daskhpo.checkpoints import ZarrStore, snapshot\n"
        "from daskhpo.core.types import CheckpointRef\n"
        f"store = ZarrStore({str(tmp_path / 'store')!r})\n"
        "ref, taken = CheckpointRef(0, 0, 1), snapshot({'w': np.ones(3)}, 0, 1)\n"
        "store.delete(ref), store.clean(), store.list()\n"
        "assert 'zarr' not in sys.modules\n"
        "store.read(store.write_snapshot(ref, taken))\n"
        "assert 'zarr' in sys.modules\n"
        "assert not {'torch', 'dask', 'distributed'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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
    row, _ = encode_state(a_state(2))
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_group(store.path, mode="r+")[ref.array][3] = row
    copied = codec.complete_ref(a_ref(row=3), ref.array, row.nbytes, codec.checksum(row))
    assert_same_state(store.read(copied), a_state(2))


def test_a_checkpoint_is_one_file(store):
    store.write(a_ref(row=0), a_state(0))
    before = set(files_of(store))
    assert len(before) == 3  # the group, the layout, the row
    ref = store.write(a_ref(row=1), a_state(1))
    assert set(files_of(store)) - before == {f"{ref.array}/1.0"}
    store.delete(ref)
    assert set(files_of(store)) == before


@pytest.mark.slow
def test_zarr_is_loaded_beside_the_training_and_only_for_a_state(store):
    code = (
        "import pickle, sys, threading\n"
        f"store = pickle.loads({pickle.dumps(store)!r})\n"
        "assert threading.active_count() == 1\n"
        "store.prepare()\n"
        "[loading] = [t for t in threading.enumerate() if t is not threading.current_thread()]\n"
        "loading.join()\n"
        "assert 'zarr' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_threads_that_write_while_zarr_is_loaded_wait_for_it(store):
    code = f"""
import pickle, threading
from daskhpo.core.types import CheckpointRef

store = pickle.loads({pickle.dumps(store)!r})
errors = []
threading.excepthook = lambda args: errors.append(args.exc_value)
store.prepare()
writers = [
    threading.Thread(target=store.write, args=(CheckpointRef(n, n, 1), {{"n": n}}))
    for n in range(3)
]
for thread in writers:
    thread.start()
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(30) if not thread.name.startswith("zarr") else None
assert errors == [], errors
assert len(store.list()) == 3
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- damage --------------------------------------------------------------------------------------


def row_file(store, ref):
    return store.path / ref.array / f"{ref.id}.0"


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


# -- rows of several chunks, as older versions wrote them ------------------------------------------

N_CHUNK = 1024


def chunks_of(store, ref):
    folder = store.path / ref.array
    return sorted(folder.glob(f"{ref.id}.*"), key=lambda path: int(path.suffix[1:]))


def test_a_row_of_several_chunks_is_read_listed_shared_and_deleted(store, tmp_path):
    refs = [write_in_chunks(store, a_ref(row), a_state(row), N_CHUNK) for row in range(2)]
    assert len(chunks_of(store, refs[0])) > 4
    other = ZarrStore(tmp_path / "other")
    for ref in refs:
        assert_same_state(ZarrStore(store.path).read(ref), a_state(ref.id))
        store.verify(ref)
        store.share(ref, other)
        assert_same_state(other.read(ref), a_state(ref.id))
        assert chunks_of(other, ref)[1].samefile(chunks_of(store, ref)[1])
    assert store.list() == other.list() == refs
    store.delete(refs[0])
    assert chunks_of(store, refs[0]) == []
    assert store.clean(keep=refs[1:]) == CleanupResult()


@pytest.mark.parametrize("chunk", [0, 1, -1])
@pytest.mark.parametrize("damage", ["missing", "empty", "short", "long", "flipped"])
def test_a_row_with_a_damaged_chunk_is_never_read(store, chunk, damage):
    ref = write_in_chunks(store, a_ref(trial=7), a_state(), N_CHUNK)
    path = chunks_of(store, ref)[chunk]
    data = bytearray(path.read_bytes())
    data[12] ^= 1
    path.unlink()
    cut = {"empty": b"", "short": data[:-1], "long": data + b"x", "flipped": data}
    if damage != "missing":
        path.write_bytes(cut[damage])
    for found in (ref, *store.list()):
        for act in (store.read, store.verify, ZarrStore(store.path).read):
            with pytest.raises((CheckpointMissing, CheckpointCorrupt), match=r"0\.0: .*expected"):
                act(found)
    if damage != "flipped":
        with pytest.raises((CheckpointMissing, CheckpointCorrupt)):
            store.share(ref, ZarrStore(store.path.with_name("other")))
    store.clean(keep=[])
    assert store.list() == []


def test_chunks_of_another_row_are_corrupt(store):
    one, two = (write_in_chunks(store, a_ref(row), a_state(row), N_CHUNK) for row in range(2))
    chunks_of(store, two)[-1].replace(chunks_of(store, one)[-1])
    with pytest.raises(CheckpointCorrupt, match="checksum"):
        store.read(one)


def test_a_chunk_that_vanishes_while_zarr_reads_is_missing_not_zeros(store, monkeypatch):
    ref = write_in_chunks(store, a_ref(), a_state(), N_CHUNK)
    found = store._find(ref)
    chunks_of(store, ref)[2].unlink()
    monkeypatch.setattr(store, "_find", lambda ref: found)
    with pytest.raises(CheckpointMissing, match=r"0\.2 does not exist"):
        store.read(ref)


# -- large rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_local", [True, False])  # mapped, or read into memory
@pytest.mark.parametrize("n_chunk", [None, 2**20])  # one chunk; several, which zarr reads
def test_a_large_row_is_verified_writable_and_outlives_its_file(
    store, monkeypatch, is_local, n_chunk
):
    monkeypatch.setattr("daskhpo.checkpoints.local_store.is_local", lambda path: is_local)
    state = {"w": np.arange(10**6), "t": torch.arange(10**6)}
    ref = (
        store.write(a_ref(), state)
        if n_chunk is None
        else write_in_chunks(store, a_ref(), state, n_chunk)
    )
    found = store.read(ref)
    found["w"][:] = 0
    found["t"].zero_()
    found = store.read(ref)
    paths = chunks_of(store, ref)
    assert (len(paths) == 1) == (n_chunk is None)
    contents = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    assert_same_state(found, state)
    for path, data in zip(paths, contents, strict=True):
        path.write_bytes(data)
    for path, data in zip(paths, contents, strict=True):
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        with pytest.raises(CheckpointCorrupt, match=r"checksum|begin a checkpoint"):
            store.read(ref)
        path.write_bytes(data[:-1])
        with pytest.raises(CheckpointCorrupt, match="found"):
            store.read(ref)
        path.write_bytes(data)
    assert_same_state(store.read(ref), state)


def test_a_large_row_on_a_local_disk_is_mapped(store, monkeypatch):
    monkeypatch.setattr("daskhpo.checkpoints.local_store.is_local", lambda path: True)
    state = {"w": np.arange(10**6)}
    ref = store.write(a_ref(), state)
    monkeypatch.delattr("daskhpo.checkpoints.local_store.fresh_row")
    assert_same_state(store.read(ref), state)


@pytest.mark.skipif(not Path("/proc/self/mounts").exists(), reason="not Linux")
def test_only_what_is_known_as_a_local_disk_is_taken_for_one(tmp_path):
    assert not is_local(Path("/proc/self"))
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.strip()
    if kind in ("ext2/ext3", "xfs", "btrfs", "tmpfs", "overlayfs"):
        assert is_local(tmp_path / "not made yet")


def test_a_state_of_more_arrays_than_are_written_at_once_comes_back(store):
    state = {i: np.full(i % 5, i) for i in range(3000)}
    assert_same_state(store.read(store.write(a_ref(), state)), state)


def test_a_reference_cannot_leave_the_store(store, tmp_path):
    ref = store.write(a_ref(), a_state())
    for act in (store.read, store.verify, store.delete):
        with pytest.raises(CheckpointMissing, match="no array of"):
            act(dataclasses.replace(ref, array=f"../checkpoints/{ref.array}"))


@pytest.mark.parametrize("row", [-1, 2**31])
def test_a_row_outside_the_array_is_refused(store, row):
    with pytest.raises(ValueError, match=f"checkpoint id {row}"):
        store.write(a_ref(row), a_state())


# -- durability ------------------------------------------------------------------------------------


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
    assert store.clean() == CleanupResult()
    assert not store.path.exists()
    ref = store.write(a_ref(), a_state())
    monkeypatch.chdir("/")
    there = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 300
    assert_same_state(there.read(ref), a_state())


# -- cleaning ------------------------------------------------------------------------------------


def test_cleaning_removes_what_killed_writers_left_and_nothing_else(store):
    ref = store.write(a_ref(), a_state())
    before = files_of(store)
    (store.path / "zarr.json.abc.partial").write_bytes(b"x")
    (store.path / ref.array / "5.0.abc.partial").write_bytes(b"xy")
    (store.path / ref.array / "6.1").write_bytes(b"xyz")  # of a row whose first chunk is not there
    (store.path / ("0" * 24)).mkdir()
    assert [found.id for found in store.list()] == [0, 6]
    assert store.clean() == CleanupResult(3, 6)
    assert files_of(store) == before
    assert not (store.path / ("0" * 24)).exists()
    assert_same_state(store.read(ref), a_state())


def test_cleaning_removes_arrays_that_hold_no_row_and_writers_make_them_anew(store):
    elsewhere = ZarrStore(store.path)
    refs = [elsewhere.write(a_ref(row), {"w": np.ones(row)}) for row in range(3)]
    store.clean(keep=refs[:1])
    assert files_of(store) == [f"{refs[0].array}/0.0", f"{refs[0].array}/zarr.json", "zarr.json"]
    again = elsewhere.write(a_ref(row=5), {"w": np.ones(2)})  # which had made that array before
    assert_same_state(ZarrStore(store.path).read(again), {"w": np.ones(2)})
    store.delete(again)
    assert store.clean().n_files == 1  # without a row: the array's metadata


def test_cleaning_leaves_what_is_not_its_own(store):
    ref = store.write(a_ref(), a_state())
    (store.path / "notes.txt").write_text("mine")
    (store.path / ref.array / "notes.txt").write_text("mine")
    store.clean(keep=[])
    kept = ["notes.txt", f"{ref.array}/notes.txt", f"{ref.array}/zarr.json", "zarr.json"]
    assert files_of(store) == sorted(kept)


@pytest.mark.slow
def test_every_trial_may_have_another_architecture(store):
    refs = [store.write(a_ref(row, trial=row), {"w": np.ones(row)}) for row in range(100)]
    assert len(files_of(store)) == 1 + 2 * 100
    for row, ref in enumerate(refs):
        assert_same_state(store.read(ref), {"w": np.ones(row)})
    for ref in refs[1:]:
        store.delete(ref)
    assert store.clean().n_files == 99
    assert len(files_of(store)) == 3


# -- sharing -------------------------------------------------------------------------------------


def test_a_shared_row_takes_no_room_and_needs_nothing_of_the_first_store(tmp_path):
    store, other = ZarrStore(tmp_path / "one"), ZarrStore(tmp_path / "other")
    ref = store.write(a_ref(), a_state())
    store.share(ref, other)
    assert row_file(store, ref).samefile(row_file(other, ref))
    shutil.rmtree(store.path)
    assert_same_state(ZarrStore(other.path).read(ref), a_state())
    assert other.clean(keep=[ref]) == CleanupResult()


def test_a_row_is_copied_where_there_are_no_links(store, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    other = ZarrStore(tmp_path / "other")
    ref = store.write(a_ref(), a_state())
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        store.share(ref, other)
    assert not row_file(store, ref).samefile(row_file(other, ref))
    assert_same_state(other.read(ref), a_state())
    assert other.clean() == CleanupResult()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no second file system is known here")
def test_a_row_is_copied_to_another_file_system(store):
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        if folder.stat().st_dev == store.path.parent.stat().st_dev:
            pytest.skip("the tests run on /dev/shm themselves")
        other = ZarrStore(folder / "store")
        refs = [
            store.write(a_ref(), a_state()),
            write_in_chunks(store, a_ref(row=1), a_state(1), N_CHUNK),
        ]
        for ref in refs:
            store.share(ref, other)
            store.delete(ref)
            assert_same_state(other.read(ref), a_state(ref.id))
    finally:
        shutil.rmtree(folder)


# -- other processes -----------------------------------------------------------------------------


@pytest.mark.slow
def test_threads_may_use_one_store(store):
    def there_and_back(row):
        state = {f"w{row % 40}": np.full(1000, row)}
        assert_same_state(store.read(store.write(a_ref(row), state)), state)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(there_and_back, range(200)))
    assert len(store.list()) == 200


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_row_that_the_disk_does_not_give_is_missing_and_says_why(store):
    ref = store.write(a_ref(trial=3), a_state())
    path = row_file(store, ref)
    data = path.read_bytes()
    path.unlink()
    path.mkdir()  # to open it fails in another way than a file that is not there
    for act in (store.read, store.verify):
        with pytest.raises((CheckpointMissing, CheckpointCorrupt), match="trial 3"):
            act(ref)
    path.rmdir()
    path.symlink_to(path.name)  # a loop
    with pytest.raises(CheckpointMissing, match=r"trial 3 at resource .* cannot be read: Too many"):
        store.read(ref)
    path.unlink()
    path.write_bytes(data)
    assert_same_state(store.read(ref), a_state())
