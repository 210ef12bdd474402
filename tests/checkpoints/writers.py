"""A program that forks writers, lets them race or kills them, and checks what they left.

A program of its own because only a process without threads may fork. Usage: writers.py SCENE PATH
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from daskhpo.checkpoints import local_store  # noqa: F401  # else each child would load zarr
from daskhpo.checkpoints.zarr import ZarrStore
from daskhpo.core.errors import CheckpointCorrupt, CheckpointMissing
from daskhpo.core.types import CheckpointRef
from daskhpo.testing.stores import assert_same_state


def the_state(trial: int, row: int, n_bytes: int = 1000) -> dict[str, object]:
    """Return what this row holds; ``trial`` decides the layout."""
    return {"row": row, f"w{trial}": np.full(n_bytes, row % 251, np.uint8)}


def fork(body: Callable[[], None]) -> int:
    """Run ``body`` in a child; return its process id."""
    if child := os.fork():
        return child
    status = 1
    try:
        body()
        status = 0
    finally:
        os._exit(status)


def check(path: Path, n_bytes: int = 1000) -> list[CheckpointRef]:
    """Check that all that a new process is offered is complete and equal; return it."""
    store = ZarrStore(path)
    refs = [ref for ref in store.list() if ref.trial != -1]  # not a chunk without the first one
    for ref in refs:
        assert_same_state(store.read(ref), the_state(ref.trial, ref.id, n_bytes))
    return refs


def race(path: Path) -> None:
    """Eight processes make the same group and array at the same moment, five times."""
    for trial in range(5):
        gate, opener = os.pipe()

        def body(trial: int, row: int, gate: int, opener: int) -> None:
            os.close(opener)
            os.read(gate, 1)  # returns when the last process closes the other end
            store = ZarrStore(path)
            ref = store.write(CheckpointRef(row, trial, 1), the_state(trial, row))
            assert_same_state(store.read(ref), the_state(trial, row))

        rows = range(8 * trial, 8 * trial + 8)
        children = [fork(partial(body, trial, row, gate, opener)) for row in rows]
        os.close(opener)
        os.close(gate)
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    assert [ref.id for ref in check(path)] == list(range(40))
    assert not list(path.rglob("*.partial"))


def kill_at_each_call(path: Path) -> None:
    """Kill a writer before, and another after, each call that changes what others see."""

    def body(trial: int, kill_at: int) -> None:
        calls = count()

        def strike() -> None:
            if next(calls) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        def armed(call: Callable[..., object]) -> Callable[..., object]:
            def wrapper(*args: object, **kwargs: object) -> object:
                strike()
                result = call(*args, **kwargs)
                strike()
                return result

            return wrapper

        for name in ("mkdir", "writev", "fsync", "replace"):
            setattr(os, name, armed(getattr(os, name)))
        ZarrStore(path).write(CheckpointRef(trial, trial, 1), the_state(trial, trial))

    kept = []
    for trial in count():
        _, status = os.waitpid(fork(partial(body, trial, kill_at=trial)), 0)
        check(path)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        # the layout of the killed writer can be used by the next one
        ref = CheckpointRef(1000 + trial, trial, 1)
        kept.append(ZarrStore(path).write(ref, the_state(trial, 1000 + trial)))
        assert kept[-1] in check(path)
    assert trial > 15
    ZarrStore(path).clean(keep=kept)
    assert not list(path.rglob("*.partial"))
    assert check(path) == kept


def kill_at_random(path: Path) -> None:
    """Kill 100 writers of small, middling and large rows at random moments.

    A writer says each reference as soon as its write returns: what was said is committed.
    """
    moments = random.Random(0)
    sizes = (1000, 300_000, 8_000_000)
    committed: list[CheckpointRef] = []
    n_cut = n_files = 0
    for trial in range(100):
        reader, writer = os.pipe()

        def body(trial: int = trial, writer: int = writer) -> None:
            store = ZarrStore(path)
            for i in count():
                n_bytes = sizes[i % 3]
                row = 1000 * trial + i
                ref = store.write(
                    CheckpointRef(row, trial % 5, n_bytes), the_state(trial % 5, row, n_bytes)
                )
                os.write(writer, json.dumps(ref.plain()).encode() + b"\n")

        child = fork(body)
        os.close(writer)
        with open(reader) as said:
            new = [said.readline()]  # before this, it starts the thread of zarr
            time.sleep(moments.random() * 0.05)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            new += said
        store = ZarrStore(path)
        refs = [CheckpointRef(*json.loads(line)) for line in new]
        for ref in refs:  # whatever was written before the kill reads back equal
            assert_same_state(store.read(ref), the_state(ref.trial, ref.id, ref.resource))
        committed += refs
        for ref in set(store.list()) - set(committed):
            n_cut += 1
            try:  # complete, only not said any more; or said to be none
                assert_same_state(store.read(ref), the_state(ref.trial, ref.id, ref.resource))
            except (CheckpointMissing, CheckpointCorrupt):
                assert ref.trial == -1, "a row that is not complete was offered"
        if trial % 20 == 19:
            n_files += store.clean(keep=committed).n_files
            assert not list(path.rglob("*.partial"))
            assert store.list() == sorted(committed, key=lambda ref: (ref.id, ref.array))
            for ref in committed[:-3]:
                store.delete(ref)
            del committed[:-3]
    print(f"{n_files} files of writers that died, {n_cut} rows that were not said")
    assert n_files > 100, "hardly a writer died in the middle of a row: the test shows nothing"


if __name__ == "__main__":
    scenes = {
        "race": race,
        "kill_at_each_call": kill_at_each_call,
        "kill_at_random": kill_at_random,
    }
    scenes[sys.argv[1]](Path(sys.argv[2]))
