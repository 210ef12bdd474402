from __future__ import annotations

import gc
import json

import msgpack
import numpy as np
import pytest
import torch

from daskhpo.checkpoints import Snapshot, ZarrStore, codec, restore, snapshot
from daskhpo.core.errors import CheckpointCorrupt, StateNotSupported
from daskhpo.core.types import CheckpointRef
from daskhpo.testing.stores import a_state, assert_same_state
from tests.plain_zarr import encode_state

# -- layouts -------------------------------------------------------------------------------------


def a_trained_model(n_steps):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, amsgrad=True)
    for _ in range(n_steps):
        optimizer.zero_grad()
        net(torch.randn(6, 4)).square().mean().backward()
        optimizer.step()
    return {"model": net.state_dict(), "opt": optimizer.state_dict()}


def test_checkpoints_of_one_architecture_share_a_layout_whatever_their_values():
    layouts = [
        encode_state(
            a_trained_model(n)
            | {
                "epoch": n,
                "losses": [0.1 * i for i in range(n)],
                "best": None if n == 1 else {"epoch": 1, "note": "text" * n},
            }
        )[1]
        for n in (1, 2, 4)
    ]
    assert len({layout.name for layout in layouts}) == 1
    assert len({layout.n_bytes for layout in layouts}) == 1


@pytest.mark.slow
def test_a_history_that_grows_makes_few_layouts():
    names = {encode_state([np.ones(3), [0.1234567] * n])[1].name for n in range(0, 6000, 50)}
    assert len(names) <= 20


@pytest.mark.parametrize(
    "other",
    [{"w": np.ones((3, 2))}, {"w": np.ones((2, 3), "f4")}, {"v": np.ones((2, 3))}, {"w": 1.0}],
)
def test_another_name_dtype_or_shape_is_another_layout(other):
    assert encode_state({"w": np.ones((2, 3))})[1].name != encode_state(other)[1].name


def test_the_same_state_gives_the_same_bytes():
    (a, one), (b, two) = encode_state(a_state(3)), encode_state(a_state(3))
    assert one == two
    assert a.tobytes() == b.tobytes()


def test_a_layout_comes_back_from_json_and_nonsense_does_not():
    layout = encode_state(a_state())[1]
    data = json.loads(json.dumps(layout.to_json()))
    assert codec.Layout.from_json(data) == layout
    for change in ({"format": 2}, {"n_chunk": 0}, {"n_header": 1}, {"n_bytes": 40}):
        with pytest.raises(ValueError, match=r"format 2|impossible sizes"):
            codec.Layout.from_json(data | change)


def test_a_row_in_other_chunks_is_another_layout():
    layout = encode_state(a_state())[1]
    assert (layout.n_chunk, layout.n_chunks) == (layout.n_bytes, 1)
    other = codec.Layout.of(layout.tree, layout.n_header, layout.n_bytes, 64)
    assert other.name != layout.name
    assert other.n_chunks == layout.n_bytes // 64


# -- snapshots -----------------------------------------------------------------------------------


def test_a_snapshot_holds_the_state_as_it_was_and_whose_it_is():
    state = a_state(1)
    taken = snapshot(state, trial=7, resource=3)
    state["model"]["w"][:] = 0
    assert (taken.trial, taken.resource, taken.n_bytes) == (7, 3, taken.buffer.nbytes)
    assert_same_state(restore(taken), a_state(1))


def test_what_was_restored_may_be_written_to_and_leaves_the_snapshot():
    taken = snapshot({"w": np.ones(3), "t": torch.ones(3)}, trial=0, resource=1)
    found = restore(taken)
    found["w"][:] = 0
    found["t"].zero_()
    assert_same_state(restore(taken), {"w": np.ones(3), "t": torch.ones(3)})


def test_a_buffer_of_the_right_size_is_used_again_whatever_it_held():
    first = snapshot(a_state(1), 0, 1)
    expected = snapshot(a_state(2), 0, 1).buffer.tobytes()
    first.buffer[:] = 255
    again = snapshot(a_state(2), 0, 1, first.buffer)
    assert again.buffer is first.buffer
    assert again.buffer.tobytes() == expected
    other = snapshot({"w": np.ones(10_000)}, 0, 1, first.buffer)
    assert other.buffer is not first.buffer
    assert_same_state(restore(other), {"w": np.ones(10_000)})


@pytest.mark.parametrize("use_list", [True, False])  # Dask's messages make tuples of lists
def test_a_snapshot_travels_as_bytes_and_json(use_list, tmp_path):
    state = a_state(3) | {"list": [np.ones(2), [1, (2,)]], "tuple": (np.ones(2), [3])}
    taken = snapshot(state, 7, 3)
    message = msgpack.packb({"row": taken.buffer.tobytes(), "layout": taken.layout.to_json()})
    found = msgpack.unpackb(message, use_list=use_list)
    layout = codec.Layout.from_json(found["layout"])
    there = Snapshot(np.frombuffer(found["row"], np.uint8), layout)
    assert layout.name == taken.layout.name
    assert_same_state(restore(there), state)
    store = ZarrStore(tmp_path)
    ref = store.write_snapshot(CheckpointRef(0, 7, 3), there)
    assert_same_state(ZarrStore(tmp_path).read(ref), state)


@pytest.mark.slow
def test_a_large_snapshot_outlives_the_state_and_what_is_restored_outlives_it():
    state = {"w": np.arange(10**6), "t": torch.arange(10**6)}
    taken = snapshot(state, 0, 1)
    found = restore(taken)
    del state, taken
    gc.collect()
    assert_same_state(found, {"w": np.arange(10**6), "t": torch.arange(10**6)})


def test_a_state_that_cannot_be_held_has_no_snapshot():
    with pytest.raises(StateNotSupported, match=r"state\['f'\]: got"):
        snapshot({"f": print}, 0, 1)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"w": np.ones(3), "e": np.ones((0, 3)), "z": np.ones(1)[0:0], "b": np.ones(5, np.int8)},
        {"w": np.arange(12.0).reshape(3, 4).T, "t": torch.arange(12).view(3, 4).T[::2]},
        {"c": torch.ones(3, dtype=torch.complex64).conj(), "p": torch.nn.Parameter(torch.ones(2))},
        {str(i): np.full(i, i % 251, np.uint8) for i in range(70)},
        a_state(5),
    ],
    ids=range(6),
)
def test_the_pieces_of_a_row_are_its_bytes(state):
    pieces, layout = codec.in_pieces(state, 7, 3)
    checksum = codec.seal(pieces)
    row, other = encode_state(state, 7, 3)
    assert b"".join(piece.tobytes() for piece in pieces) == row.tobytes()
    assert other == layout
    assert codec.read_preamble(row[: codec.PREAMBLE_BYTES].tobytes()) == (7, 3, checksum)


# -- checksums -----------------------------------------------------------------------------------


def test_the_checksum_is_crc_32c_of_what_follows_it():
    digits = np.frombuffer(b"123456789", np.uint8)
    assert codec.extend(0, digits) == 0xE3069283  # RFC 3720's polynomial, its usual check value
    assert codec.extend(codec.extend(0, digits[:4]), digits[4:]) == 0xE3069283
    row, _ = encode_state({"w": np.ones(4)})
    assert int.from_bytes(row[4:8].tobytes(), "little") == codec.extend(0, row[8:])


def test_a_checksum_of_many_steps_is_that_of_the_whole(monkeypatch):
    data = np.random.Generator(np.random.PCG64(0)).integers(0, 256, 1001, dtype=np.uint8)
    whole = codec.extend(0, data)
    monkeypatch.setattr(codec, "_CHECKSUM_STEP", 10)
    assert codec.extend(0, data) == whole


def test_no_flipped_bit_goes_unseen():
    row, layout = encode_state({"w": np.ones(4), "epoch": 3}, trial=7, resource=3)
    ref = codec.complete_ref(CheckpointRef(0, 7, 3), layout.name, row.nbytes, codec.checksum(row))
    codec.verify(row, ref, "here")
    for place in [*range(200), *range(200, len(row), 97), len(row) - 1]:
        damaged = row.copy()
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(CheckpointCorrupt, match=r"here: .*trial 7 at resource 3.*trains"):
            codec.verify(damaged, ref, "here")
