"""A program that forks writers, lets them race or kills them, and checks what they left.

A program of its own because only a process without threads may fork. Usage: writers.py SCENE PATH
"""

from __future__ import annotations

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
    for ref in (refs := store.list()):
        assert_same_state(store.read(ref), the_state(ref.trial, ref.row, n_bytes))
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
    assert [ref.row for ref in check(path)] == list(range(40))
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

        for name in ("mkdir", "fsync", "replace"):
            setattr(os, name, armed(getattr(os, name)))
        ZarrStore(path).write(CheckpointRef(trial, trial, 1), the_state(trial, trial))

    for trial in count():
        _, status = os.waitpid(fork(partial(body, trial, kill_at=trial)), 0)
        check(path)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        # the layout of the killed writer can be used by the next one
        ref = ZarrStore(path).write(
            CheckpointRef(1000 + trial, trial, 1), the_state(trial, 1000 + trial)
        )
        assert ref in check(path)
    assert trial > 15
    ZarrStore(path).clean()
    assert not list(path.rglob("*.partial"))


def kill_at_random(path: Path) -> None:
    """Kill writers of 8 MB at random moments: most die in the middle of a row."""
    n_bytes = 8_000_000
    moments = random.Random(0)
    n_rows = 0
    for trial in range(20):
        reader, writer = os.pipe()

        def body(trial: int = trial, writer: int = writer) -> None:
            store = ZarrStore(path)
            for row in count(1000 * trial):
                os.write(writer, b".")
                store.write(CheckpointRef(row, trial, 1), the_state(trial, row, n_bytes))

        child = fork(body)
        os.read(reader, 1)
        time.sleep(moments.random() * 0.2)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
        refs = check(path, n_bytes)
        n_rows += len(refs)
        for ref in refs:
            ZarrStore(path).delete(ref)
            try:
                ZarrStore(path).read(ref)
            except (CheckpointMissing, CheckpointCorrupt):
                continue
            raise AssertionError(f"{ref} was deleted and is read")
    litter = ZarrStore(path).clean()
    print(f"{n_rows} complete rows, {litter} partial files")
    assert litter > 0, "no writer died in the middle of a row: the test shows nothing"


if __name__ == "__main__":
    scenes = {
        "race": race,
        "kill_at_each_call": kill_at_each_call,
        "kill_at_random": kill_at_random,
    }
    scenes[sys.argv[1]](Path(sys.argv[2]))
