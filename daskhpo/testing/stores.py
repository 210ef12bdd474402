"""Contract tests of checkpoint stores, to inherit.

::

    class TestMyStore(CheckpointStoreContract):
        @pytest.fixture
        def store(self):
            return MyStore()

        @pytest.fixture
        def other(self):
            return MyStore()
"""

from __future__ import annotations

import dataclasses
import struct
import sys
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from daskhpo.checkpoints.codec import Snapshot, snapshot
from daskhpo.checkpoints.zarr import CleanupResult
from daskhpo.core.errors import CheckpointCorrupt, CheckpointMissing, StateNotSupported
from daskhpo.core.types import CheckpointRef
from daskhpo.engine.protocols import CheckpointStore


def a_ref(row: int = 0, trial: int = 0, resource: int = 1) -> CheckpointRef:
    """Return a reference as the coordinator assigns it: not yet committed."""
    return CheckpointRef(id=row, trial=trial, resource=resource)


def a_state(seed: int = 0) -> dict[str, Any]:
    """Return a small state with most of the types that a state may hold.

    The seed changes values only.
    """
    values = np.random.Generator(np.random.PCG64(seed))
    return {
        "model": OrderedDict(w=values.random((3, 4), np.float32), b=values.random(4)),
        "opt": {0: {"step": seed, "m": values.random((2, 0))}, 1: (seed / 7, [None, True])},
        "rng": values.bit_generator.state,
        "note": f"é {seed}",
        "raw": bytes([seed % 256]) * 3,
        "worst": float("inf"),
    }


def assert_same_state(found: Any, expected: Any, path: str = "state") -> None:
    """Assert that two states are equal in value, type and dtype, floats to the bit."""
    assert type(found) is type(expected), f"{path}: {type(found)} is not {type(expected)}"
    torch: Any = sys.modules.get("torch")
    if isinstance(expected, dict):
        assert [(type(key), key) for key in found] == [(type(key), key) for key in expected], path
        for key, part in expected.items():
            assert_same_state(found[key], part, f"{path}[{key!r}]")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), path
        for i, part in enumerate(expected):
            assert_same_state(found[i], part, f"{path}[{i}]")
    elif isinstance(expected, np.ndarray | np.generic):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), path
        assert found.tobytes() == expected.tobytes(), path
    elif torch is not None and isinstance(expected, torch.Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), path
        assert found.device.type == "cpu", path
        if expected.numel():
            left, right = (
                t.detach().cpu().contiguous().resolve_conj().resolve_neg().reshape(-1)
                for t in (found, expected)
            )
            assert torch.equal(left.view(torch.uint8), right.view(torch.uint8)), path
    elif isinstance(expected, float):
        assert struct.pack(">d", found) == struct.pack(">d", expected), path
    elif isinstance(expected, complex):
        assert_same_state((found.real, found.imag), (expected.real, expected.imag), path)
    else:
        assert found == expected, f"{path}: {found!r} is not {expected!r}"


class CheckpointStoreContract:
    """Contract of `CheckpointStore`, to inherit by a test class with two fixtures.

    The fixtures ``store`` and ``other`` return two empty stores of one class.
    """

    def test_what_was_written_is_read_equal(self, store: CheckpointStore) -> None:
        assert_same_state(store.read(store.write(a_ref(), a_state())), a_state())

    def test_write_completes_the_reference_and_keeps_its_identity(
        self, store: CheckpointStore
    ) -> None:
        ref = store.write(a_ref(row=5, trial=3, resource=9), a_state())
        assert (ref.id, ref.trial, ref.resource) == (5, 3, 9)
        assert ref.array
        assert ref.n_bytes > 0

    def test_preparing_writes_nothing(self, store: CheckpointStore) -> None:
        store.prepare()
        assert store.list() == []
        assert store.clean().n_files == 0
        assert_same_state(store.read(store.write(a_ref(), a_state())), a_state())

    def test_rows_are_independent(self, store: CheckpointStore) -> None:
        refs = [store.write(a_ref(row, trial=row), a_state(row)) for row in range(4)]
        store.delete(refs[1])
        for row in (0, 2, 3):
            assert_same_state(store.read(refs[row]), a_state(row))

    def test_states_of_one_shape_share_an_array_and_a_size(self, store: CheckpointStore) -> None:
        first, second = (store.write(a_ref(row), a_state(row)) for row in range(2))
        assert (first.array, first.n_bytes) == (second.array, second.n_bytes)

    def test_states_of_different_shapes_live_side_by_side(self, store: CheckpointStore) -> None:
        states = [{"w": np.arange(n)} for n in (3, 4)] + [{"w": np.arange(3, dtype=np.int16)}]
        refs = [store.write(a_ref(row), state) for row, state in enumerate(states)]
        assert len({ref.array for ref in refs}) == 3
        for ref, state in zip(refs, states, strict=True):
            assert_same_state(store.read(ref), state)

    def test_a_row_written_again_holds_the_newer_state(self, store: CheckpointStore) -> None:
        old = store.write(a_ref(), a_state(1))
        new = store.write(a_ref(), a_state(2))
        assert_same_state(store.read(new), a_state(2))
        with pytest.raises(CheckpointCorrupt):
            store.read(old)
        assert len(store.list()) == 1

    def test_what_was_never_written_is_missing(self, store: CheckpointStore) -> None:
        with pytest.raises(CheckpointMissing):
            store.read(a_ref())
        ref = store.write(a_ref(), a_state())
        with pytest.raises(CheckpointMissing):
            store.read(dataclasses.replace(ref, id=1))

    def test_what_was_deleted_is_missing_and_may_be_deleted_again(
        self, store: CheckpointStore
    ) -> None:
        ref = store.write(a_ref(), a_state())
        store.delete(ref)
        store.delete(ref)
        with pytest.raises(CheckpointMissing):
            store.read(ref)
        assert store.list() == []

    def test_deleting_without_an_array_deletes_the_row_wherever_it_is(
        self, store: CheckpointStore
    ) -> None:
        store.write(a_ref(row=0), {"w": np.arange(3)})
        store.write(a_ref(row=0), {"w": np.arange(4)})
        kept = store.write(a_ref(row=1), {"w": np.arange(4)})
        store.delete(a_ref(row=0))
        assert store.list() == [kept]

    def test_list_gives_references_that_can_be_read(self, store: CheckpointStore) -> None:
        assert store.list() == []
        refs = [store.write(a_ref(row, trial=row + 1, resource=3), a_state()) for row in (2, 0)]
        assert store.list() == refs[::-1]
        assert_same_state(store.read(store.list()[0]), a_state())

    @pytest.mark.parametrize("change", [{"checksum": 1}, {"n_bytes": 1}])
    def test_a_row_that_is_not_the_committed_one_is_corrupt(
        self, store: CheckpointStore, change: dict[str, Any]
    ) -> None:
        ref = store.write(a_ref(trial=7), a_state())
        with pytest.raises(CheckpointCorrupt, match="trial 7"):
            store.read(dataclasses.replace(ref, **change))

    def test_a_state_that_cannot_be_held_is_refused_and_leaves_nothing(
        self, store: CheckpointStore
    ) -> None:
        with pytest.raises(StateNotSupported, match=r"state\['hook'\]\[1\]: got"):
            store.write(a_ref(), {"w": np.ones(2), "hook": [0, print]})
        assert store.list() == []

    def test_a_checkpoint_is_a_snapshot(self, store: CheckpointStore) -> None:
        state = a_state()
        ref = store.write(a_ref(), state)
        state["model"]["w"][:] = 0
        read = store.read(ref)
        assert_same_state(read, a_state())
        read["model"]["w"][:] = 1  # the array is writable, but not a view of the store
        assert_same_state(store.read(ref), a_state())

    def test_a_snapshot_is_written_as_the_state_would_be(self, store: CheckpointStore) -> None:
        taken = snapshot(a_state(1), trial=7, resource=3)
        ref = store.write_snapshot(a_ref(row=0, trial=7, resource=3), taken)
        same = store.write(a_ref(row=0, trial=7, resource=3), a_state(1))
        assert ref == same
        assert_same_state(store.read(ref), a_state(1))
        taken.buffer[:] = 0
        assert_same_state(store.read(ref), a_state(1))

    def test_a_snapshot_that_came_as_bytes_is_written(self, store: CheckpointStore) -> None:
        taken = snapshot(a_state(1), trial=7, resource=3)
        there = Snapshot(np.frombuffer(taken.buffer.tobytes(), np.uint8), taken.layout)
        assert_same_state(store.read(store.write_snapshot(a_ref(0, 7, 3), there)), a_state(1))

    def test_a_snapshot_of_another_trial_is_refused(self, store: CheckpointStore) -> None:
        with pytest.raises(ValueError, match="trial 7 at resource 3 cannot be written for trial 8"):
            store.write_snapshot(a_ref(trial=8), snapshot(a_state(), trial=7, resource=3))
        assert store.list() == []

    def test_verifying_says_what_reading_would(self, store: CheckpointStore) -> None:
        ref = store.write(a_ref(trial=7), a_state())
        store.verify(ref)
        with pytest.raises(CheckpointCorrupt, match="trial 7"):
            store.verify(dataclasses.replace(ref, checksum=1))
        with pytest.raises(CheckpointMissing):
            store.verify(dataclasses.replace(ref, id=1))
        store.delete(ref)
        with pytest.raises(CheckpointMissing):
            store.verify(ref)

    def test_cleaning_keeps_what_was_written(self, store: CheckpointStore) -> None:
        ref = store.write(a_ref(), a_state())
        assert store.clean() == CleanupResult()
        assert_same_state(store.read(ref), a_state())

    def test_cleaning_removes_the_rows_that_are_not_kept(self, store: CheckpointStore) -> None:
        kept, dropped = (store.write(a_ref(row), a_state(row)) for row in range(2))
        store.write(a_ref(row=0), {"another": np.ones(3)})  # a row of the same checkpoint id
        cleaned = store.clean(keep=[kept])
        assert cleaned.n_files >= 2
        assert cleaned.n_bytes >= dropped.n_bytes
        assert store.list() == [kept]
        assert_same_state(store.read(kept), a_state(0))

    def test_a_store_that_was_cleaned_of_all_can_be_written_to(
        self, store: CheckpointStore
    ) -> None:
        store.write(a_ref(), a_state(1))
        store.clean(keep=[])
        assert store.list() == []
        assert_same_state(store.read(store.write(a_ref(), a_state(2))), a_state(2))

    def test_a_shared_row_is_read_from_both_and_deleted_apart(
        self, store: CheckpointStore, other: CheckpointStore
    ) -> None:
        refs = [store.write(a_ref(row), a_state(row)) for row in range(2)]
        for ref in refs:
            store.share(ref, other)
            store.share(ref, other)  # a second time: no effect
        assert other.list() == refs
        store.delete(refs[0])
        other.delete(refs[1])
        assert_same_state(other.read(refs[0]), a_state(0))
        assert_same_state(store.read(refs[1]), a_state(1))

    def test_a_shared_row_that_is_written_again_changes_in_one_store(
        self, store: CheckpointStore, other: CheckpointStore
    ) -> None:
        ref = store.write(a_ref(), a_state(1))
        store.share(ref, other)
        store.write(a_ref(), a_state(2))
        assert_same_state(other.read(ref), a_state(1))

    def test_what_is_not_there_cannot_be_shared(
        self, store: CheckpointStore, other: CheckpointStore
    ) -> None:
        ref = store.write(a_ref(), a_state())
        with pytest.raises(CheckpointMissing):
            store.share(dataclasses.replace(ref, id=1), other)
        assert other.list() == []
