"""Ways to write the state of a trial to files, with one interface."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import zarr

from daskhpo.atomic_files import flush_folder
from daskhpo.checkpoints import ZarrStore, codec
from daskhpo.checkpoints.local_store import DurableStore
from daskhpo.core.types import CheckpointRef

try:
    from safetensors.torch import load_file, save_file
except ModuleNotFoundError:  # measured only if installed
    HAS_SAFETENSORS = False
else:
    HAS_SAFETENSORS = True

SEED = 0
State = dict[str, Any]


def a_state(n_tensors: int, n_bytes: int) -> State:
    """Return the state of a model of float32 tensors, after a step of Adam.

    ``n_tensors`` and ``n_bytes`` are those of the model.
    """
    torch.manual_seed(SEED)
    n = n_bytes // 4 // n_tensors
    model = torch.nn.ParameterList(torch.randn(n) for _ in range(n_tensors))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for p in model:
        p.grad = torch.randn(n)
    optimizer.step()
    return {"model": model.state_dict(), "opt": optimizer.state_dict(), "epoch": 3}


def tensors_of(state: State) -> dict[str, torch.Tensor]:
    """Return all tensors of a state by path, without plain values."""
    found = {f"model.{name}": tensor for name, tensor in state["model"].items()}
    for number, parts in state["opt"]["state"].items():
        found |= {f"opt.{number}.{name}": tensor for name, tensor in parts.items()}
    return found


class Method(Protocol):
    """A way to store states in a folder."""

    name: str
    is_durable: bool  # it can flush to disk
    is_slow: bool  # few repetitions are enough

    def write(self, i: int, state: State) -> Any:
        """Write a state as number ``i``; return its location for `read`."""

    def read(self, place: Any) -> dict[str, torch.Tensor]:
        """Read a whole state; return its tensors by path."""

    def delete(self, place: Any) -> None:
        """Delete a state."""


class Ours:
    """A row of the study's zarr array, written by the study's store."""

    name, is_durable, is_slow = "daskhpo ZarrStore", True, False

    def __init__(self, folder: Path) -> None:
        self.store = ZarrStore(folder)

    def write(self, i: int, state: State) -> Any:
        return self.store.write(CheckpointRef(i, i, 1), state)

    def read(self, place: Any) -> dict[str, torch.Tensor]:
        return tensors_of(self.store.read(place))

    def delete(self, place: Any) -> None:
        self.store.delete(place)


class TorchSave:
    """One pickle in a zip file."""

    name, is_durable, is_slow = "torch.save", True, False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, i: int, state: State) -> Any:
        return flush_to(self.folder / f"{i}.pt", partial(torch.save, state))

    def read(self, place: Any) -> dict[str, torch.Tensor]:
        return tensors_of(torch.load(place, weights_only=True))

    def delete(self, place: Any) -> None:
        place.unlink()


class SafeTensors(TorchSave):
    """One file, tensors only."""

    name = "safetensors (tensors only)"

    def write(self, i: int, state: State) -> Any:
        return flush_to(self.folder / f"{i}.safetensors", partial(save_file, tensors_of(state)))

    def read(self, place: Any) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = load_file(place)
        return found


class ZarrRow(TorchSave):
    """The same row in the same array, written and read by zarr's functions."""

    name = "zarr, a row"
    codecs: tuple[Any, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.array: Any = None
        self.layout: codec.Layout | None = None

    def write(self, i: int, state: State) -> Any:
        taken = codec.snapshot(state, i, 1)
        codec.seal([taken.buffer])
        if self.array is None:
            self.layout = taken.layout
            self.array = zarr.create_array(
                DurableStore(self.folder),
                name="rows",
                shape=(2**31, taken.n_bytes),
                chunks=(1, taken.n_bytes),
                dtype="uint8",
                fill_value=0,
                compressors=self.codecs,
                chunk_key_encoding={"name": "v2", "separator": "."},
                config={"write_empty_chunks": True},
            )
        self.array[i : i + 1] = taken.buffer[None]
        flush_folder(self.folder / "rows")
        return i

    def read(self, place: Any) -> dict[str, torch.Tensor]:
        assert self.layout is not None
        row = self.array[place]
        codec.checksum(row)
        return tensors_of(codec.decode_row(row, self.layout))

    def delete(self, place: Any) -> None:
        (self.folder / f"rows/{place}.0").unlink()


class ZarrRowCrc(ZarrRow):
    """The same with zarr's checksum besides ours."""

    name = "zarr, a row with its crc32c codec"
    codecs = (zarr.codecs.Crc32cCodec(),)


class ZarrEach(TorchSave):
    """A zarr group with one array per tensor, by zarr's functions with their defaults."""

    name, is_durable, is_slow = "zarr, an array for each tensor", False, True

    def write(self, i: int, state: State) -> Any:
        place = self.folder / f"{i}.zarr"
        group = zarr.create_group(str(place))
        for name, tensor in tensors_of(state).items():
            group.create_array(name.replace(".", "/"), data=tensor.detach().numpy())
        return place

    def read(self, place: Any) -> dict[str, torch.Tensor]:
        group = zarr.open_group(str(place), mode="r")
        arrays = (item for item in group.members(max_depth=None) if isinstance(item[1], zarr.Array))
        # as_tensor, because a 0-dimensional array is read as a scalar
        return {
            path.replace("/", "."): torch.as_tensor(array[...].copy()) for path, array in arrays
        }

    def delete(self, place: Any) -> None:
        shutil.rmtree(place)


def flush_to(path: Path, save: Callable[[Any], None]) -> Path:
    """Write a file with the same flushes as our store."""
    aside = path.with_suffix(".partial")
    save(aside)
    for place in (aside, path.parent):
        handle = os.open(place, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        if place is aside:
            aside.replace(path)
    return path
