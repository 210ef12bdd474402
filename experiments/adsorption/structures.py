"""Structures as graphs, and their arrays packed in an ``.npz`` file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

FORMAT = 1  # version of the packed arrays; part of a cache file's name
N_NEIGHBOURS = 12
BULK, SURFACE, ADSORBATE = 0, 1, 2  # tags, as in the Open Catalyst data

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Structure:
    """One slab with one adsorbate: N atoms, M = 12 neighbours each.

    Attributes
    ----------
    numbers, tags : atomic numbers (N,); tags (N,): 0 bulk, 1 surface, 2 adsorbate.
    neighbours, distances : indices of the nearest atoms (N, M), with periodic images; distances
        (N, M) in Å.
    initial_neighbours, initial_distances : the same before relaxation; None: not known.
    slab : name of the slab; a split keeps its structures together.
    energy : adsorption energy in eV.
    """

    numbers: Array
    tags: Array
    neighbours: Array
    distances: Array
    energy: float
    slab: str
    adsorbate: str
    initial_neighbours: Array | None = None
    initial_distances: Array | None = None
    facet: str = ""
    host: str = ""
    site: str = ""


def nearest(atoms: Atoms, k: int = N_NEIGHBOURS) -> tuple[Array, Array]:
    """Find each atom's ``k`` nearest atoms, with periodic images.

    Returns
    -------
    neighbours, distances : indices, and distances in Å; both (N, k), nearest first. Equal distances
        are in order of index.

    Raises
    ------
    ValueError
        An atom has fewer than ``k`` neighbours at any distance (a small molecule without a periodic
        cell).
    """
    n = len(atoms)
    pbc = np.asarray(atoms.pbc)
    if not pbc.any() and n <= k:
        raise ValueError(
            f"{atoms.get_chemical_formula()} has {n} atoms and no periodic cell, so its atoms have "
            f"fewer than {k} neighbours; set its cell and pbc"
        )
    cell = atoms.cell.complete()
    heights = 1 / np.linalg.norm(cell.reciprocal(), axis=1)
    positions = np.asarray(atoms.get_positions(wrap=True, eps=0))
    radius = 8.0
    while True:
        # Wrapped fractions differ by less than 1, so one image more than radius / height is needed.
        reach = np.where(pbc, np.floor(radius / heights).astype(int) + 1, 0)
        shifts = np.stack(
            np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1
        ).reshape(-1, 3) @ np.asarray(cell)  # (S, 3)
        delta = positions[None, :, None] + shifts - positions[:, None, None]  # (N, N, S, 3)
        distance = np.sqrt((delta**2).sum(-1)).reshape(n, -1)  # (N, N * S)
        distance[distance < 1e-6] = np.inf  # the atom itself
        if not pbc.any():
            break
        if (np.partition(distance, k - 1, axis=1)[:, k - 1] <= radius).all():
            break
        radius *= 2
    order = np.argsort(distance.round(6), axis=1, kind="stable")[:, :k]  # (N, k)
    return order // len(shifts), np.take_along_axis(distance, order, axis=1)


def pack(structures: Sequence[Structure]) -> dict[str, Array]:
    """Concatenate structures; atoms of structure i are ``start[i]:start[i + 1]``."""
    if not structures:
        raise ValueError("no structure to pack")

    def join(name: str, dtype: type) -> Array:
        return np.concatenate([getattr(s, name) for s in structures]).astype(dtype)

    arrays: dict[str, Array] = {
        "start": np.cumsum([0, *(len(s.numbers) for s in structures)]).astype(np.int32),
        "numbers": join("numbers", np.int8),
        "tags": join("tags", np.int8),
        "neighbours": join("neighbours", np.int16),
        "distances": join("distances", np.float16),
        "energy": np.array([s.energy for s in structures], np.float32),
    }
    for name in ("slab", "facet", "host", "adsorbate", "site"):
        arrays[name] = np.array([getattr(s, name) for s in structures], dtype=np.str_)
    if all(s.initial_neighbours is not None for s in structures):
        arrays["initial_neighbours"] = join("initial_neighbours", np.int16)
        arrays["initial_distances"] = join("initial_distances", np.float16)
    return arrays


def write(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write ``path`` atomically, so that no incomplete file is read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path) -> dict[str, Array]:
    """Read a file written by :func:`write`."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
