"""Rows: who refers to each, compared with a naive model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskhpo.core.types import CheckpointRef, Status, Trial
from daskhpo.engine.refcounts import CheckpointRefs


def committed(ref, n_bytes=100):
    return replace(ref, array="a", n_bytes=n_bytes, checksum=1)


@pytest.fixture
def rows():
    return CheckpointRefs()


def a_row(rows, trial=0, resource=3):
    return rows.allocate(Trial(trial, {}, Status.RUNNING, until=9, resource=resource))


def test_rows_are_numbered_one_after_another_and_name_their_trial(rows):
    assert a_row(rows, trial=4, resource=3) == CheckpointRef(0, 4, 3)
    assert a_row(rows, trial=5, resource=1) == CheckpointRef(1, 5, 1)
    assert rows.n_allocated == 2
    assert rows.ids == []  # nobody refers to them yet
    assert 0 not in rows


def test_a_row_that_is_held_is_unsaved_until_it_is_committed(rows):
    ref = a_row(rows)
    rows.add_ref(0, ref, held=True)
    assert (rows.n_unsaved, rows.is_committed(0), rows.n_files) == (1, False, 0)
    rows.add_ref(0, committed(ref), held=False)
    assert (rows.n_unsaved, rows.is_committed(0), rows.n_files, rows.n_bytes) == (0, True, 1, 100)
    assert rows.committed == [committed(ref)]


def test_a_row_that_was_dropped_is_not_waited_for(rows):
    ref = a_row(rows)
    rows.add_ref(0, ref, held=True)
    rows.drop(0)
    assert rows.n_unsaved == 0
    assert 0 in rows  # until its users let go of it


def test_the_last_one_to_let_go_of_a_row_is_told_so(rows):
    ref = a_row(rows)
    rows.add_ref(0, ref, held=True)
    rows.add_ref(7, ref, held=True)
    rows.add_ref(7, committed(ref), held=False)
    assert (rows.users(0), rows.is_unshared(ref)) == ([0, 7], False)
    assert rows.release(0, ref) is None
    assert rows.is_unshared(ref)
    assert rows.release(7, ref) == committed(ref)  # complete, though the given one is not
    assert (rows.users(0), rows.n_files, rows.n_bytes, rows.ids) == ([], 0, 0, [])


def test_to_refer_to_a_row_twice_counts_once(rows):
    ref = committed(a_row(rows))
    rows.add_ref(0, ref, held=False)
    rows.add_ref(0, ref, held=False)
    assert (rows.n_files, rows.n_bytes) == (1, 100)
    assert rows.release(0, ref) == ref


def test_a_row_that_nobody_knows_is_dropped_in_silence(rows):
    rows.drop(3)
    assert (rows.users(3), rows.is_committed(3), rows.is_unshared(None)) == ([], False, True)


class NaiveRows:
    """Three plain sets, and every answer from scratch."""

    def __init__(self):
        self.pairs, self.held, self.refs = set(), set(), {}

    def of(self, row):
        return {trial for number, trial in self.pairs if number == row}

    def add_ref(self, trial, ref, held):
        if not self.of(ref.id):
            self.refs[ref.id] = ref
            self.held -= {ref.id}
            self.held |= {ref.id} if held else set()
        elif ref.array:
            self.refs[ref.id] = ref
        self.pairs.add((ref.id, trial))

    def release(self, trial, row):
        self.pairs.discard((row, trial))
        return None if self.of(row) else self.refs.pop(row)

    def answers(self):
        living = {number for number, _ in self.pairs}
        stored = {row: ref for row, ref in self.refs.items() if ref.array}
        return {
            "ids": living,
            "committed": set(stored.values()),
            "n_bytes": sum(ref.n_bytes for ref in stored.values()),
            "n_files": len(stored),
            "n_unsaved": len((living & self.held) - set(stored)),
        }


steps = st.lists(
    st.tuples(
        st.sampled_from(["hold", "commit", "release", "drop"]),
        st.integers(0, 4),  # the row
        st.integers(0, 3),  # the trial
    ),
    max_size=80,
)


@given(steps=steps)
def test_any_order_of_referring_and_letting_go_is_counted_as_a_naive_model_does(steps):
    rows, naive = CheckpointRefs(), NaiveRows()
    for kind, number, trial in steps:
        ref = CheckpointRef(number, number % 3, number)
        match kind:
            case "hold" | "commit":
                given = ref if kind == "hold" else committed(ref, 10**number)
                rows.add_ref(trial, given, held=kind == "hold")
                naive.add_ref(trial, given, kind == "hold")
            case "release" if (number, trial) in naive.pairs:
                assert rows.release(trial, ref) == naive.release(trial, number)
            case "drop":
                rows.drop(number)
                naive.held.discard(number)
        expected = naive.answers()
        found = {name: getattr(rows, name) for name in expected}
        found["ids"], found["committed"] = set(rows.ids), set(rows.committed)
        assert found == expected
        assert len(rows.ids) == len(expected["ids"])
        for row in range(5):
            assert rows.users(row) == sorted(naive.of(row))
            assert (row in rows) == bool(naive.of(row))
            assert rows.is_committed(row) == (row in {ref.id for ref in expected["committed"]})
            if naive.of(row):
                assert rows.is_unshared(CheckpointRef(row, 0, 0)) == (len(naive.of(row)) == 1)
