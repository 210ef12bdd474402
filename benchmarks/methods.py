"""Ways to keep the state of a trial in files: ours and those of others, behind one face."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import zarr

from daskhpo.checkpoints import ZarrStore, codec
from daskhpo.core.types import CheckpointRef

try:
    from safetensors.torch import load_file, save_file
except ModuleNotFoundError:  # a peer is measured where it is installed
    HAS_SAFETENSORS = False
else:
    HAS_SAFETENSORS = True

SEED = 0
State = dict[str, Any]


def a_state(n_tensors: int, n_bytes: int) -> State:
    """The state of a model of so many float32 tensors and bytes, after a step of Adam."""
    torch.manual_seed(SEED)
    n = n_bytes // 4 // n_tensors
    model = torch.nn.ParameterList(torch.randn(n) for _ in range(n_tensors))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for p in model:
        p.grad = torch.randn(n)
    optimizer.step()
    return {"model": model.state_dict(), "opt": optimizer.state_dict(), "epoch": 3}


def tensors_of(state: State) -> dict[str, torch.Tensor]:
    """All tensors of a state by their paths; its values are left out."""
    found = {f"model.{name}": tensor for name, tensor in state["model"].items()}
    for number, parts in state["opt"]["state"].items():
        found |= {f"opt.{number}.{name}": tensor for name, tensor in parts.items()}
    return found


class Method(Protocol):
    """A way to keep states in a folder."""

    name: str
    is_durable: bool  # it can be told to flush
    is_slow: bool  # a few repetitions say enough

    def write(self, i: int, state: State) -> Any:
        """Write as number ``i``; return what `read` needs."""

    def read(self, place: Any) -> dict[str, torch.Tensor]:
        """Read it all; the tensors by their paths."""

    def delete(self, place: Any) -> None:
        """Remove it."""


class Ours:
    """A row of the study's zarr array, by the study's own writer."""

    name, is_durable, is_slow = "daskhpo ZarrStore", True, False

    def __init__(self, folder: Path, chunk_limit: int = codec.CHUNK_LIMIT) -> None:
        self.store = ZarrStore(folder, chunk_limit)

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


class ZarrEach(TorchSave):
    """A zarr group of one array for each tensor, by zarr's own functions with their defaults."""

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
        # asarray: a 0-dimensional array comes as a scalar
        return {
            path.replace("/", "."): torch.as_tensor(array[...].copy()) for path, array in arrays
        }

    def delete(self, place: Any) -> None:
        shutil.rmtree(place)


def flush_to(path: Path, save: Callable[[Any], None]) -> Path:
    """Write a file as durably as our store does."""
    aside = path.with_suffix(".partial")
    save(aside)
    for place in (aside, path.parent):
        handle = os.open(place, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        if place is aside:
            aside.replace(path)
    return path
