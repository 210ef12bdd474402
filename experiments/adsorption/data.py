"""Adsorption energies as tensors: loading, splitting and batching."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from experiments.adsorption.features import kinds
from experiments.adsorption.generate import ProgressLine, generate
from experiments.adsorption.profiles import Profile, profile_named
from experiments.adsorption.structures import (
    ADSORBATE,
    FORMAT,
    Array,
    Structure,
    nearest,
    pack,
    read,
    write,
)

FIXTURE = Path(__file__).parent / "data" / "fixture.npz"
SPLIT_SEED = 0  # not the trial's or the study's seed: all trials of all studies share one split
PARTS = {"train": 0.70, "validation": 0.15, "test": 0.15}
GEOMETRIES = ("relaxed", "initial")


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of G graphs with N atoms in total, M = 12 neighbours each."""

    kind: Tensor  # (N,) index in features.KINDS
    neighbour: Tensor  # (N, M) index of an atom in this batch
    distance: Tensor  # (N, M) in Å
    graph: Tensor  # (N,) index of each atom's graph
    n_atoms: Tensor  # (G,)
    target: Tensor  # (G,) standardised energy


@dataclass(frozen=True, slots=True)
class Dataset:
    """All structures on one device: A atoms in S structures.

    ``mean`` and ``std`` (eV) are those of the training part only.
    """

    kind: Tensor  # (A,)
    neighbour: Tensor  # (A, M) index of an atom within the structure
    distance: Tensor  # (A, M) in Å
    start: Tensor  # (S,) index of each structure's first atom
    n_atoms: Tensor  # (S,)
    energy: Tensor  # (S,) in eV
    mean: float
    std: float
    parts: Mapping[str, Tensor]  # structures of each part, ascending
    slab: tuple[str, ...]
    adsorbate: tuple[str, ...]

    def batch(self, structures: Tensor) -> Batch:
        """Collate (G,) structures by index arithmetic only."""
        n_atoms = self.n_atoms[structures]  # (G,)
        first = n_atoms.cumsum(0) - n_atoms  # (G,) index of each graph's first atom in the batch
        graph = torch.repeat_interleave(n_atoms)  # (N,)
        here = torch.arange(len(graph), device=graph.device)  # (N,) index in the batch
        there = here + (self.start[structures] - first)[graph]  # (N,) index in the dataset
        return Batch(
            kind=self.kind[there].long(),
            neighbour=self.neighbour[there].long() + first[graph][:, None],  # (N, M)
            distance=self.distance[there].float(),
            graph=graph,
            n_atoms=n_atoms,
            target=(self.energy[structures] - self.mean) / self.std,
        )


def load(config: Mapping[str, Any], device: str = "cpu") -> Dataset:
    """Load a configuration's dataset, once per process and device.

    Parameters
    ----------
    config : ``data``: path of a file with your own structures; without it, ``profile`` names the
        generated data. ``geometry``: ``"relaxed"`` (default) or ``"initial"``.
    """
    path = config.get("data")
    modified = os.stat(path).st_mtime_ns if path is not None else 0
    geometry = config.get("geometry", "relaxed")
    if path is not None:
        return _own(str(path), modified, geometry, device)
    return _generated(config["profile"], geometry, device)


def prepare(profile: str) -> Path:
    """Return the path of the profile's data; generate it if it does not exist.

    Call this before a study. Otherwise workers wait until one of them has generated the data, on a
    single core.
    """
    spec = profile_named(profile)
    if spec.n_structures is None:
        return FIXTURE
    path = cache_folder() / _cache_name(spec)
    if not path.exists():
        with _lock(path):
            if not path.exists():  # another process may have written it meanwhile
                arrays = generate(spec.n_structures, spec.seed, spec.shape, progress=ProgressLine())
                write(path, arrays)
    return path


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/daskhpo`` or ``~/.cache/daskhpo``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "daskhpo"


def read_own(path: str | Path) -> dict[str, Array]:
    """Read your own structures from any file that ASE reads; return packed arrays.

    - Energy in eV: ``info["adsorption_energy"]``, or the energy of the calculator (extxyz:
      ``energy=``).
    - Slab: ``info["slab"]`` (or ``"slab_id"``, ``"group"``), else the formula of the slab.
      Structures of one slab are never split between parts.
    - Tags: 0 bulk, 1 surface, 2 adsorbate.
    - Adsorbate: ``info["adsorbate"]``, else its formula. Only a baseline uses it.
    """
    frames = ase.io.read(path, index=":")
    if isinstance(frames, Atoms):
        frames = [frames]
    structures = []
    for i, atoms in enumerate(frames):
        where = f"structure {i} of {path}"
        tags = atoms.get_tags()
        on_top = tags == ADSORBATE
        slab = next((atoms.info[k] for k in ("slab", "slab_id", "group") if k in atoms.info), None)
        if slab is None:
            slab = (atoms if on_top.all() else atoms[~on_top]).get_chemical_formula()
        adsorbate = atoms.info.get("adsorbate")
        if adsorbate is None:
            adsorbate = atoms[on_top].get_chemical_formula()
        try:
            neighbours, distances = nearest(atoms)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        structures.append(
            Structure(
                numbers=atoms.numbers,
                tags=tags,
                neighbours=neighbours,
                distances=distances,
                energy=_own_energy(atoms, where),
                slab=str(slab),
                adsorbate=str(adsorbate),
            )
        )
    return pack(structures)


def to_dataset(arrays: Mapping[str, Array], geometry: str, device: str = "cpu") -> Dataset:
    """Split, standardise and move packed arrays to a device."""
    if geometry not in GEOMETRIES:
        raise ValueError(f"geometry={geometry!r} must be one of {list(GEOMETRIES)}")
    prefix = "initial_" if geometry == "initial" else ""
    if prefix + "neighbours" not in arrays:
        raise ValueError(
            f"geometry={geometry!r} needs structures before relaxation, but these have only one "
            "geometry; leave 'geometry' out"
        )
    parts = split(arrays["slab"])
    energy = np.asarray(arrays["energy"], np.float64)
    train = energy[parts["train"]]
    std = float(train.std())
    if not np.isfinite(energy).all() or std == 0:
        raise ValueError("energies must be finite and those of the training part must differ")

    def tensor(array: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    start = np.asarray(arrays["start"], np.int64)
    return Dataset(
        kind=tensor(kinds(arrays["numbers"], arrays["tags"])),
        neighbour=tensor(arrays[prefix + "neighbours"]),
        distance=tensor(arrays[prefix + "distances"]),
        start=tensor(start[:-1]),
        n_atoms=tensor(np.diff(start)),
        energy=tensor(energy.astype(np.float32)),
        mean=float(train.mean()),
        std=std,
        parts={name: tensor(part) for name, part in parts.items()},
        slab=tuple(arrays["slab"].tolist()),
        adsorbate=tuple(arrays["adsorbate"].tolist()),
    )


def split(slab: Array) -> dict[str, Array]:
    """Return the structures of each part, about 70/15/15; slabs are not split."""
    names, of, sizes = np.unique(slab, return_inverse=True, return_counts=True)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(names))
    # With all slabs in one sequence, the middle of a slab's structures decides its part.
    middle = np.empty(len(names))
    middle[order] = (np.cumsum(sizes[order]) - sizes[order] / 2) / sizes.sum()
    ends = np.cumsum(list(PARTS.values()))[:-1]
    part = np.searchsorted(ends, middle, side="right")[of]  # (S,)
    parts = {name: np.flatnonzero(part == i) for i, name in enumerate(PARTS)}
    empty = [name for name, members in parts.items() if len(members) == 0]
    if empty:
        raise ValueError(
            f"no structure left for {' and '.join(empty)}: {len(names)} slabs are too few; "
            "give more, or set info['slab'] if structures do not share a slab"
        )
    return parts


def baselines(data: Dataset) -> dict[str, dict[str, float]]:
    """Return MAEs (eV) on validation and test of predicting a median of training data.

    ``global_median`` uses no input; ``adsorbate_median`` uses the adsorbate, but no geometry.
    """
    energy = data.energy.cpu().double().numpy()
    adsorbate = np.array(data.adsorbate)
    parts = {name: part.cpu().numpy() for name, part in data.parts.items()}
    train = parts["train"]
    overall = float(np.median(energy[train]))
    predicted = np.full(len(energy), overall)
    for name in np.unique(adsorbate[train]):
        predicted[adsorbate == name] = np.median(energy[train][adsorbate[train] == name])
    evaluated = ("validation", "test")
    return {
        "global_median": {p: _mae(energy[parts[p]], overall) for p in evaluated},
        "adsorbate_median": {p: _mae(energy[parts[p]], predicted[parts[p]]) for p in evaluated},
    }


def _mae(energy: Array, predicted: Array | float) -> float:
    return float(np.abs(energy - predicted).mean())


@lru_cache(maxsize=4)
def _generated(profile: str, geometry: str, device: str) -> Dataset:
    return to_dataset(read(prepare(profile)), geometry, device)


@lru_cache(maxsize=4)
def _own(path: str, modified: int, geometry: str, device: str) -> Dataset:
    return to_dataset(read_own(path), geometry, device)


def _cache_name(spec: Profile) -> str:
    shape = f"{spec.shape.repeat}x{spec.shape.repeat}x{spec.shape.layers}"
    return f"emt-adsorption-v{FORMAT}-{spec.n_structures}-{shape}-seed{spec.seed}.npz"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time create ``path``, if the file system supports locks.

    Without a lock the work may be done twice; the file is complete in both cases.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        try:
            import fcntl  # not on Windows

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield


def _own_energy(atoms: Atoms, where: str) -> float:
    if "adsorption_energy" in atoms.info:
        return float(atoms.info["adsorption_energy"])
    try:
        return float(atoms.get_potential_energy())
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"{where} has no energy: set info['adsorption_energy'] (eV), or store the energy "
            "with the structure (extxyz: energy=...)"
        ) from error
