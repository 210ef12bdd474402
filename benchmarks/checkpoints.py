"""How long a checkpoint takes, and what it leaves on disk, next to ``torch.save``.

Two states as a trial has them, a model and its Adam: *small* (240 tensors, 3 MB) and *large*
(800 tensors, 300 MB). Each method writes to a new file, with every byte flushed to the disk (file,
rename, folder) or without any flush, and reads it back from the page cache. The methods take turns
in random order, so that slow moments of a shared disk, and memory that a virtual machine must first
be given, fall on all of them.

    python benchmarks/checkpoints.py [--path FOLDER_ON_THE_DISK_TO_MEASURE] [--repeat N]
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import zarr

from daskhpo.checkpoints import ZarrStore, codec
from daskhpo.core.types import CheckpointRef

try:
    import safetensors  # type: ignore[import-not-found]
    import safetensors.torch  # type: ignore[import-not-found]
except ModuleNotFoundError:  # a peer is measured where it is installed
    HAS_SAFETENSORS = False
else:
    HAS_SAFETENSORS = True

SEED = 0
State = dict[str, Any]


def a_state(n_tensors: int, n_bytes: int) -> State:
    """Return the state of a model of so many float32 tensors and bytes, after a step of Adam."""
    torch.manual_seed(SEED)
    n = n_bytes // 4 // n_tensors
    model = torch.nn.ParameterList(torch.randn(n) for _ in range(n_tensors))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for p in model:
        p.grad = torch.randn(n)
    optimizer.step()
    return {"model": model.state_dict(), "opt": optimizer.state_dict(), "epoch": 3}


def flushing(is_on: bool) -> Any:
    """Return a context in which files are flushed to the disk, or not."""
    return nullcontext() if is_on else mock.patch("os.fsync")


def flush_to(path: Path, save: Callable[[Any], None]) -> None:
    """Write a file as durably as the store does."""
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        save(file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


class Zarr:
    name = "daskhpo ZarrStore"

    def __init__(self, folder: Path) -> None:
        self.store = ZarrStore(folder)

    def write(self, i: int, state: State) -> Any:
        return self.store.write(CheckpointRef(i, i, 1), state)

    def read(self, ref: Any) -> None:
        self.store.read(ref)

    def delete(self, ref: Any) -> None:
        self.store.delete(ref)


class TorchSave:
    name = "torch.save"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, i: int, state: State) -> Any:
        path = self.folder / f"{i}.pt"
        flush_to(path, lambda file: torch.save(state, file))
        return path

    def read(self, path: Any) -> None:
        torch.load(path, weights_only=True)

    def delete(self, path: Any) -> None:
        path.unlink()


class SafeTensors(TorchSave):
    name = "safetensors (tensors only)"

    def write(self, i: int, state: State) -> Any:
        path = self.folder / f"{i}.safetensors"
        tensors = {f"model.{k}": v for k, v in state["model"].items()}
        for n, parts in state["opt"]["state"].items():
            tensors |= {f"opt.{n}.{k}": v for k, v in parts.items()}
        flush_to(path, lambda file: file.write(safetensors.torch.save(tensors)))
        return path

    def read(self, path: Any) -> None:
        safetensors.torch.load_file(path)


def milliseconds(act: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = act()
    return (time.perf_counter() - start) * 1000, result


def on_disk(folder: Path) -> tuple[int, int]:
    """Return files and bytes."""
    sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    return len(sizes), sum(sizes)


def measure(state: State, folder: Path, n_repeats: int) -> list[list[str]]:
    kinds: list[Any] = [Zarr, TorchSave] + ([SafeTensors] if HAS_SAFETENSORS else [])
    methods = [kind(folder / kind.__name__) for kind in kinds]
    times: dict[tuple[str, str], list[float]] = {}
    footprint: dict[str, tuple[int, int]] = {}
    turns = [(method, is_flushed) for method in methods for is_flushed in (True, False)]
    order = random.Random(SEED)
    for i in range(n_repeats + 1):  # the first of all makes folders and layouts, and is not counted
        for method, is_flushed in order.sample(turns, len(turns)):
            os.sync()  # what others left to be written is not ours to wait for
            before = on_disk(folder)
            with flushing(is_flushed):
                wrote, ref = milliseconds(partial(method.write, i, state))
            after = on_disk(folder)
            read, _ = milliseconds(partial(method.read, ref))
            method.delete(ref)
            if i:
                key = "durable" if is_flushed else "not flushed"
                times.setdefault((method.name, key), []).append(wrote)
                times.setdefault((method.name, "read"), []).append(read)
                footprint[method.name] = after[0] - before[0], after[1] - before[1]

    def show(ms: list[float]) -> str:
        return f"{statistics.median(ms):.1f} ({min(ms):.1f})"

    return [
        [
            m.name,
            *(show(times[m.name, key]) for key in ("durable", "not flushed", "read")),
            *(f"{n:,}" for n in footprint[m.name]),
        ]
        for m in methods
    ]


def parts(state: State, n_repeats: int) -> str:
    """Return where the time of a write and a read goes, without a disk."""
    encodes, decodes, checks = [], [], []
    for _ in range(n_repeats):
        ms, (row, layout) = milliseconds(partial(codec.encode, state))
        encodes.append(ms)
        ref = codec.complete(CheckpointRef(0, 0, 1), row, layout)
        checks.append(milliseconds(partial(codec.verify, row, ref, ""))[0])
        decodes.append(milliseconds(partial(codec.decode, row, layout))[0])
    return (
        f"Without the disk: encode with checksum {statistics.median(encodes):.1f} ms, verify "
        f"{statistics.median(checks):.1f} ms, decode {statistics.median(decodes):.1f} ms (medians)."
    )


def table(rows: list[list[str]]) -> str:
    head = ["method", "write, durable: ms", "write, not flushed: ms", "read: ms", "files", "bytes"]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--path", help="folder on the disk to measure; default: temporary files")
    arguments.add_argument("--repeat", type=int, default=15, help="of the small state; large: half")
    options = arguments.parse_args()
    packages = [("torch", torch), ("zarr", zarr), ("numpy", np)]
    if HAS_SAFETENSORS:
        packages.append(("safetensors", safetensors))
    versions = ", ".join(f"{name} {package.__version__}" for name, package in packages)
    print("# Checkpoints: measured\n")
    print(
        "Written by `python benchmarks/checkpoints.py`: median (minimum). Compare the rows of one"
    )
    print(
        "table, which took turns in random order on one disk, not numbers of different runs; on a"
    )
    print("shared machine the minima say more than the medians.\n")
    print(f"Python {platform.python_version()}, {versions}")
    print(f"on {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs; seed {SEED}.")
    for name, n_tensors, n_bytes, n_repeats in (
        ("Small", 60, 1_000_000, options.repeat),
        ("Large", 200, 100_000_000, max(3, options.repeat // 2)),
    ):
        state = a_state(n_tensors, n_bytes)
        folder = Path(tempfile.mkdtemp(dir=options.path))
        try:
            rows = measure(state, folder, n_repeats)
        finally:
            shutil.rmtree(folder)
        print(
            f"\n## {name}: {4 * n_tensors} tensors, {3 * n_bytes / 1e6:.0f} MB; n = {n_repeats}\n"
        )
        print(table(rows))
        print(f"\n{parts(state, n_repeats)}")


if __name__ == "__main__":
    main()
