"""A store that was written once and for all: what is on users' disks must be read for ever.

``fixtures/store-1`` was made by an earlier version of this file. It is never made again; another
format gets another folder, and both are read.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from daskhpo.checkpoints import ZarrStore
from daskhpo.core.types import CheckpointRef
from daskhpo.testing.stores import assert_same_state

STORE = Path(__file__).with_name("fixtures") / "store-1"
IN_CHUNKS = 3  # this row has several chunks, which today it would not have


def a_model(step: int) -> dict[str, Any]:
    """Return the state of a model whose values, not whose layout, depend on the step."""
    bits = np.array([0x3F80, 0xC000, 0x7FC1, 0xFF80], np.uint16)  # 1, -2, a NaN and -inf
    model = OrderedDict(
        weight=torch.arange(6, dtype=torch.float32).view(2, 3) + step,
        half=torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16),
        scale=torch.nn.Parameter(torch.full((2,), step / 4), requires_grad=False),
        n=torch.tensor(step),
        mask=torch.tensor([True, False]),
        none=torch.empty((0, 3), dtype=torch.float64),
    )
    model._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return {"model": model, "opt": {0: {"lr": 0.1, "step": step}}, "losses": [0.5] * step}


def states() -> list[tuple[CheckpointRef, Any]]:
    """Return what the store holds, and the references that were asked for."""
    values = {
        "int": [0, -(2**53), 2**70],
        "float": [0.1, -0.0, float("inf"), float("nan")],
        "text": "é \U0001f600 \ud83d",
        "bytes": b"\0\xff",
        "others": (None, True, 1 - 2j, Counter(a=2), OrderedDict(b={}), np.float16(0.1)),
        -1: np.datetime64("2026-01-01", "ns"),
    }
    arrays = [
        np.arange(6, dtype=">i4").reshape(2, 3).T,
        np.array(["a", "bcd"]),
        np.array([b"x"]),
        np.array(2.5),
        np.zeros((0, 2), np.float32),
        np.array([1 + 2j], np.complex64),
    ]
    return [
        (CheckpointRef(0, 0, 1), values),
        (CheckpointRef(1, 1, 3), a_model(3)),
        (CheckpointRef(10_001, 1, 9), a_model(9)),
        (CheckpointRef(2, 2, 1), arrays),
        (CheckpointRef(3, 3, 1), {"long": np.arange(3000, dtype=np.uint16)}),
    ]


def make(folder: Path) -> None:
    """Write the store and its references to a new folder."""
    folder.mkdir(parents=True)
    store = ZarrStore(folder / "checkpoints.zarr")
    refs = [store.write(ref, state).plain() for ref, state in states()]
    (folder / "references.json").write_text(json.dumps(refs) + "\n")


@pytest.fixture
def refs():
    return [CheckpointRef(*plain) for plain in json.loads((STORE / "references.json").read_text())]


@pytest.fixture
def store(tmp_path):
    shutil.copytree(STORE / "checkpoints.zarr", tmp_path / "checkpoints.zarr")
    return ZarrStore(tmp_path / "checkpoints.zarr")


def test_all_that_was_stored_is_read(store, refs):
    assert [(ref.id, ref.trial, ref.resource) for ref in refs] == [
        (ref.id, ref.trial, ref.resource) for ref, _ in states()
    ]
    for ref, (_, state) in zip(refs, states(), strict=True):
        store.verify(ref)
        assert_same_state(store.read(ref), state)
    assert store.list() == sorted(refs, key=lambda ref: ref.id)
    assert store.clean(keep=refs).n_files == 0


def test_zarr_reads_it_too(store, refs):
    group = zarr.open_group(store.path, mode="r")
    for ref in refs:
        row = group[ref.array][ref.id]
        assert row.nbytes == ref.n_bytes
        assert row[:4].tobytes() == b"dhpo"


def test_it_is_written_the_same_today(tmp_path, refs):
    """But for the row that an older version cut into chunks."""
    make(tmp_path / "today")
    text = (tmp_path / "today/references.json").read_text()
    now = [CheckpointRef(*plain) for plain in json.loads(text)]
    arrays = {ref.array for ref in (*refs, *now) if ref.id == IN_CHUNKS}
    assert len(arrays) == 2
    assert [ref for ref in now if ref.id != IN_CHUNKS] == [r for r in refs if r.id != IN_CHUNKS]
    written = [
        {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.parent.name not in arrays
        }
        for folder in (STORE / "checkpoints.zarr", tmp_path / "today/checkpoints.zarr")
    ]
    assert len(written[0]) == 1 + 4 + 4  # the group; layouts, one of them in two arrays; rows
    assert written[0] == written[1]


if __name__ == "__main__":
    make(Path(sys.argv[1]))
