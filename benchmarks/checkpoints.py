"""Compare times and files of a checkpoint with other ways to write one.

There are two states of a model and its Adam: *small* (240 tensors, 3 MB) and *large* (800 tensors,
300 MB). Each method writes to a new file, either flushed to disk (file, rename, folder) or without
any flush. It reads the file from the page cache, and reads it into existing tensors, as a resumed
trial does. The methods take turns in random order. So slow moments of a shared disk, and memory
that a virtual machine must first obtain, affect all of them.

    python benchmarks/checkpoints.py [--path FOLDER_ON_THE_DISK_TO_MEASURE] [--repeat N]
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import shutil
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from methods import (
    HAS_SAFETENSORS,
    SEED,
    Method,
    Ours,
    SafeTensors,
    State,
    TorchSave,
    ZarrEach,
    ZarrRow,
    ZarrRowCrc,
    a_state,
    tensors_of,
)
from showing import about, inodes, load, spread, table

from daskhpo.checkpoints import ZarrStore, codec
from daskhpo.checkpoints.cache import StateCache
from daskhpo.core.types import CheckpointRef, ReuseProbability

SMALL, LARGE = (60, 1_000_000), (200, 100_000_000)  # tensors and bytes of the model; Adam: + 2
# -- measuring -----------------------------------------------------------------------------------


def flushing(is_on: bool) -> Any:
    """Return a context manager that enables or disables flushes to disk."""
    return nullcontext() if is_on else mock.patch("os.fsync")


def milliseconds(act: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = act()
    return (time.perf_counter() - start) * 1000, result


def copy_into(targets: dict[str, torch.Tensor], act: Callable[[], Any]) -> None:
    for name, tensor in act().items():
        targets[name].copy_(tensor)


Times = dict[tuple[str, str], list[float]]


def measure(state: State, methods: list[Method], folder: Path, n: int) -> tuple[Times, list[Any]]:
    """Return milliseconds by method and act, and a row of the table per method."""
    times: Times = defaultdict(list)
    footprint: dict[str, tuple[int, int]] = {}
    original = tensors_of(state)
    targets = {name: torch.zeros_like(tensor) for name, tensor in original.items()}
    turns = [(m, flush) for m in methods for flush in (True, False) if m.is_durable or not flush]
    order = random.Random(SEED)
    for i in range(n + 1):  # the first one creates folders and layouts, and is not counted
        for method, flush in order.sample(turns, len(turns)):
            if method.is_slow and i > 3:
                continue
            os.sync()  # do not wait for pending writes of others
            before = inodes(folder)
            with flushing(flush):
                wrote, place = milliseconds(partial(method.write, i, state))
            after = inodes(folder)
            read, _ = milliseconds(partial(method.read, place))
            into, _ = milliseconds(partial(copy_into, targets, partial(method.read, place)))
            method.delete(place)
            if any(not torch.equal(original[name], targets[name]) for name in original):
                raise RuntimeError(f"{method.name} did not return the tensors that it wrote")
            if i:
                act = "write, durable" if flush else "write, not flushed"
                times[method.name, act].append(wrote)
                times[method.name, "read"].append(read)
                times[method.name, "read and copy"].append(into)
                footprint[method.name] = after[0] - before[0], after[1] - before[1]
    rows = [
        [m.name]
        + [spread(times[m.name, act]) if times[m.name, act] else "—" for act in ACTS]
        + [f"{x:,}" for x in footprint[m.name]]
        for m in methods
    ]
    return times, rows


ACTS = ("write, durable", "write, not flushed", "read", "read and copy")


def ratios(times: Times, other: str, most: float) -> list[list[object]]:
    """Return rows of our times relative to another method; ``most``: the goal."""
    rows: list[list[object]] = []
    for act in ACTS:
        ours, theirs = times[Ours.name, act], times[other, act]
        by_median = statistics.median(ours) / statistics.median(theirs)
        by_minimum = min(ours) / min(theirs)
        verdict = {
            2: "yes",
            1: "by one of the two",
            0: "**no**",
        }[(by_median <= most) + (by_minimum <= most)]
        rows.append([f"{other}: {act}", f"{by_median:.2f}", f"{by_minimum:.2f}", most, verdict])
    return rows


def pause(
    cache: StateCache, state: State, i: int, size: int, probability: ReuseProbability
) -> None:
    """Copy a state to the cache, as a worker does when a trial pauses."""
    taken = codec.snapshot(state, i, 1, cache.take_buffer(size))
    cache.put(CheckpointRef(i, i, 1), 1, taken, probability, 1e-3)


def pauses(state: State, folder: Path, n: int) -> list[list[str]]:
    """Measure the wait of a training thread at a pause, and the time to be durable."""
    size = codec.snapshot(state, 0, 1).n_bytes
    n_new = min(n, 5)
    times: dict[str, list[float]] = defaultdict(list)
    for kind, probability, n_held in (
        ("new", ReuseProbability.UNLIKELY, n_new),
        # room for two: a third one evicts another and uses its memory
        ("used", ReuseProbability.UNLIKELY, 2),
        ("written", ReuseProbability.CERTAIN, 2),
    ):
        n_skipped = 0 if kind == "new" else 3  # the first ones use new memory
        cache = StateCache(ZarrStore(folder), lambda note: None, capacity=n_held * size)
        with closing(cache):
            for i in range(n_new if kind == "new" else n + n_skipped):
                ms, _ = milliseconds(partial(pause, cache, state, i, size, probability))
                flushed = 0.0
                if probability is ReuseProbability.CERTAIN:
                    flushed, _ = milliseconds(cache.flush)
                    cache.discard(i)
                    next(folder.glob(f"*/{i}.0")).unlink()
                if i >= n_skipped:
                    times[kind].append(ms)
                    times[f"{kind}, durable"].append(ms + flushed)
    copied = [milliseconds(partial(copy.deepcopy, state))[0] for _ in range(n)]
    return [
        ["pause: copied to reused memory, not written", spread(times["used"])],
        ["the same to new memory, while the cache has room", spread(times["new"])],
        ["pause: copied to memory, then written by another thread", spread(times["written"])],
        ["... until the state is durable", spread(times["written, durable"])],
        ["for comparison: `copy.deepcopy(state)`", spread(copied)],
    ]


def huge(folder: Path, n: int) -> list[list[Any]]:
    """Measure wall and CPU time of a state of 1.2 GB."""
    state = a_state(200, 400_000_000)
    ours = Ours(folder / "ours")
    wall: dict[str, list[float]] = defaultdict(list)
    work: dict[str, list[float]] = defaultdict(list)
    order = random.Random(SEED)

    def clock(act: str, do: Callable[[], Any]) -> None:
        before = time.process_time()
        ms, _ = milliseconds(do)
        wall[act].append(ms)
        work[act].append((time.process_time() - before) * 1000)

    for i in range(n):
        os.sync()
        clock("write, durable", partial(ours.write, i, state))
        ref = ours.store.list()[0]
        for act in order.sample(list(DISKS), len(DISKS)):
            with mock.patch(
                "daskhpo.checkpoints.local_store.is_local", lambda _, act=act: DISKS[act]
            ):
                clock(act, partial(Ours(ours.store.path).read, ref))
        ours.delete(ref)
    return [[act, spread(wall[act], 0), spread(work[act], 0)] for act in wall]


DISKS = {"read": True, "read as from a shared file system": False}  # True: a local file system


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--path", help="folder on the disk to measure; default: temporary files")
    arguments.add_argument(
        "--repeat", type=int, default=25, help="repetitions; a third for large states"
    )
    options = arguments.parse_args()
    warnings.filterwarnings("ignore", module="zarr")
    print("# Checkpoints: measured\n")
    print(about("python benchmarks/checkpoints.py", ["torch", "zarr", "numpy", "safetensors"]))
    print(INTRODUCTION)
    for name, size, n in (
        ("Small", SMALL, options.repeat),
        ("Large", LARGE, max(3, options.repeat // 3)),
    ):
        state = a_state(*size)
        folder = Path(tempfile.mkdtemp(dir=options.path))
        kinds: list[Any] = [Ours, ZarrRow, ZarrRowCrc, TorchSave, ZarrEach]
        kinds += [SafeTensors] if HAS_SAFETENSORS else []
        try:
            methods = [kind(folder / kind.__name__) for kind in kinds]
            times, rows = measure(state, methods, folder, n)
            paused = pauses(state, folder / "pauses", n)
        finally:
            shutil.rmtree(folder)
        print(f"\n## {name}: {4 * size[0]} tensors, {3 * size[1] / 1e6:.0f} MB; n = {n}\n")
        head = [f"{act}: ms" for act in ACTS]
        print(table(["method", *head, "files and folders", "bytes"], rows))
        print("\nOur time relative to another method's, by median and by minimum:\n")
        compared = ratios(times, TorchSave.name, 2.0)
        if HAS_SAFETENSORS:
            compared = ratios(times, SafeTensors.name, 1.5) + compared
        head = ["against", "median", "minimum", "goal: at most", "in this run"]
        print(table(head, compared))
        print()
        print(table(["what the training thread waits for", "ms"], paused), flush=True)
    folder = Path(tempfile.mkdtemp(dir=options.path))
    try:
        n = max(3, options.repeat // 3)
        print(f"\n## 1.2 GB: 800 tensors; n = {n}\n")
        print(table(["ours", "ms", "CPU ms"], huge(folder, n)))
    finally:
        shutil.rmtree(folder)
    print(f"\n{load()}.")


INTRODUCTION = """
Median (minimum). Compare the rows of one table, which took turns in random order on one disk, not
numbers of different runs. On a shared machine the minima are more reliable than the medians.

*Durable*: the file is flushed, renamed, and its folder flushed. zarr's own store flushes nothing:
an array for each tensor has no such column, and was repeated 3 times. A row by zarr's functions is
in our store, which flushes. Our read and that one verify a checksum of all bytes; the others do
not. safetensors reads a file lazily: its bytes are read during the copy. All reads are from the
page cache."""


if __name__ == "__main__":
    main()
