"""Generate synthetic adsorption energies by ASE's effective medium theory (EMT).

This is a benchmark for machine learning. The problem has the shape, the size and the energy scale
of real adsorption data, but it takes seconds instead of months. It says nothing about real
surfaces: ASE's EMT is fitted for Al, Cu, Ag, Au, Ni, Pd and Pt; its H, C, N and O are "just for
fun".

Each structure is one atom (any of the eleven elements) on a slab. The slab is a pure metal, a
random binary alloy, or a metal with another one in its top layer. The adsorbate is relaxed on the
rigid slab.

Examples
--------
From the root of the repository::

    python -m experiments.adsorption.generate 2000 energies.npz
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atom, Atoms
from ase.build import fcc100, fcc110, fcc111, fcc211
from ase.calculators.emt import EMT, beta
from ase.calculators.emt import parameters as emt_parameters
from ase.data import covalent_radii
from ase.filters import Filter
from ase.optimize import BFGS
from ase.units import Bohr

from experiments.adsorption.structures import (
    ADSORBATE,
    BULK,
    SURFACE,
    Array,
    Structure,
    nearest,
    pack,
    write,
)

METALS = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
ADSORBATES = ("H", "C", "N", "O", *METALS)
PER_SLAB = 12  # attempts on each slab; about 11 are kept
STRAIN = 0.03
RATTLE = 0.05  # Å
MAX_FORCE, MAX_STEPS = 0.05, 25  # eV/Å, BFGS steps
SAME_ENERGY = 1e-3  # eV: two starts of one adsorbate with a smaller difference are duplicates

# Start sites as fractions of the surface's primitive cell, from a top-layer atom.
SITES: dict[str, dict[str, tuple[float, float]]] = {
    "111": {"ontop": (0, 0), "bridge": (1 / 2, 0), "fcc": (1 / 3, 1 / 3), "hcp": (2 / 3, 2 / 3)},
    "100": {"ontop": (0, 0), "bridge": (1 / 2, 0), "hollow": (1 / 2, 1 / 2)},
    "110": {
        "ontop": (0, 0),
        "longbridge": (1 / 2, 0),
        "shortbridge": (0, 1 / 2),
        "hollow": (1 / 2, 1 / 2),
    },
    # From an atom at the step's edge; x points down the step, away from the terrace.
    "211": {
        "edge": (0, 0),
        "edgebridge": (0, 1 / 2),
        "terrace": (-1 / 9, 1 / 2),
        "step": (1 / 6, 0),
    },
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a slab: ``repeat`` x ``repeat`` surface cells, ``layers`` deep.

    Slabs of 110 have one more layer.
    """

    repeat: int = 2
    layers: int = 3


@dataclass(frozen=True, slots=True)
class Slab:
    """A rattled slab, with the data that is needed to place an adsorbate."""

    atoms: Atoms
    facet: str
    host: str
    origin: Array  # ideal position of a top-layer atom
    cells: Array  # (2, 3) primitive vectors of the surface
    repeats: tuple[int, int]


def make_slab(rng: np.random.Generator, shape: Shape) -> Slab:
    """Draw facet, composition, strain and rattle of one slab."""
    facet = str(rng.choice(list(SITES)))
    first, second = (str(m) for m in rng.choice(METALS, size=2, replace=False))
    kind = str(rng.choice(["pure", "random", "skin"], p=[0.06, 0.47, 0.47]))
    ideal, n_top = _clean(facet, first, shape)
    n = len(ideal)
    symbols = np.array([first] * n, dtype=object)
    top = np.argsort(-ideal.positions[:, 2], kind="stable")[:n_top]
    host = first
    if kind == "random":
        fraction = float(rng.choice([0.25, 0.5, 0.75]))
        symbols[rng.choice(n, size=round(fraction * n), replace=False)] = second
        host = f"{first}{second} random {fraction:.2f}"
    elif kind == "skin":
        n_replaced = int(rng.integers(1, n_top + 1))
        symbols[rng.choice(top, size=n_replaced, replace=False)] = second
        host = f"{second}/{first} skin {n_replaced / n_top:.2f}"
    # Vegard's law between EMT's lattice constants.
    lattice = float(np.mean([_lattice_constant(s) for s in symbols]))
    lattice *= 1 + rng.uniform(-STRAIN, STRAIN)
    ideal.set_cell(ideal.cell * (lattice / _lattice_constant(first)), scale_atoms=True)
    ideal.set_chemical_symbols(list(symbols))
    ideal.set_tags([SURFACE if i in set(top) else BULK for i in range(n)])
    origin = ideal.positions[top[0]].copy()
    width = 1 if facet == "211" else shape.repeat  # ASE's 211 cell is three atoms, one step, wide
    repeats = (width, shape.repeat)
    cells = np.asarray(ideal.cell[:2]) / np.array(repeats)[:, None]
    ideal.positions += rng.normal(scale=RATTLE, size=(n, 3))
    return Slab(ideal, facet, host, origin, cells, repeats)


def structures_on(slab_id: int, seed: int = 0, shape: Shape = Shape()) -> list[Structure]:
    """Return converged, distinct structures on one slab; fully set by the arguments."""
    rng = np.random.default_rng([seed, slab_id])
    slab = make_slab(rng, shape)
    sites = SITES[slab.facet]
    starts = [
        (adsorbate, site, i, j)
        for adsorbate in ADSORBATES
        for site in sites
        for i in range(slab.repeats[0])
        for j in range(slab.repeats[1])
    ]
    clean_energy = _energy(slab.atoms)
    kept: list[Structure] = []
    for index in rng.permutation(len(starts))[:PER_SLAB]:
        adsorbate, site, i, j = starts[index]
        u, v = sites[site]
        xy = slab.origin + (i + u) * slab.cells[0] + (j + v) * slab.cells[1]
        start = _place(slab.atoms, adsorbate, xy)
        end = _relax(start)
        if end is None:
            continue
        energy = end.get_potential_energy() - clean_energy - _atom_energy(adsorbate)
        if any(s.adsorbate == adsorbate and abs(s.energy - energy) < SAME_ENERGY for s in kept):
            continue
        neighbours, distances = nearest(end)
        initial_neighbours, initial_distances = nearest(start)
        kept.append(
            Structure(
                numbers=end.numbers,
                tags=end.get_tags(),
                neighbours=neighbours,
                distances=distances,
                initial_neighbours=initial_neighbours,
                initial_distances=initial_distances,
                energy=float(energy),
                slab=f"{seed}-{slab_id}",
                facet=slab.facet,
                host=slab.host,
                adsorbate=adsorbate,
                site=site,
            )
        )
    return kept


def generate(
    n_structures: int,
    seed: int = 0,
    shape: Shape = Shape(),
    n_processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Array]:
    """Generate ``n_structures`` structures, slab by slab; return packed arrays.

    The set does not depend on ``n_processes`` (None: one per core that this process may use). A
    larger set starts with the smaller one of the same seed and shape.
    """
    if n_structures < 1:
        raise ValueError(f"n_structures={n_structures!r} must be at least 1")
    if n_processes is None:
        n_processes = _usable_cores()
    structures: list[Structure] = []
    for found in _slabs(n_structures, seed, shape, n_processes):
        structures.extend(found)
        if progress is not None:
            progress(min(len(structures), n_structures), n_structures)
        if len(structures) >= n_structures:
            break
    return pack(structures[:n_structures])


class ProgressLine:
    """A progress line on standard error: ``1234/2000 structures, 45/s``."""

    def __init__(self) -> None:
        self.began = self.shown = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < total and now - self.shown < 0.5:
            return
        self.shown = now
        rate = done / max(now - self.began, 1e-9)
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\rEMT data: {done:>6,}/{total:,} structures, {rate:.0f}/s {end}")
        sys.stderr.flush()


def _slabs(
    n_structures: int, seed: int, shape: Shape, n_processes: int
) -> Iterator[list[Structure]]:
    """Yield the structures of slab 0, 1, 2, ... in order, for any number of processes."""
    # About 94 % of the attempts are kept. Twice the needed number of slabs is only an upper limit:
    # the caller stops earlier.
    tasks = ((i, seed, shape) for i in range(2 * math.ceil(n_structures / PER_SLAB) + 10))
    if n_processes == 1:
        yield from map(_structures_of, tasks)
        return
    # spawn: threads of the caller (Dask, torch) do not survive a fork.
    with _one_thread_each(), multiprocessing.get_context("spawn").Pool(n_processes) as pool:
        yield from pool.imap(_structures_of, tasks, chunksize=2)


def _structures_of(task: tuple[int, int, Shape]) -> list[Structure]:
    return structures_on(*task)


def _usable_cores() -> int:
    """Return the number of cores of this process.

    It is 1 in a daemon, such as a Dask worker, which may not start child processes.
    """
    if multiprocessing.current_process().daemon:
        return 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Limit BLAS to one thread in child processes; numpy's import reads these names."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _lattice_constant(metal: str) -> float:
    """Return the lattice constant (Å) of EMT's fcc crystal, from its radius s0."""
    return float(math.sqrt(2) * beta * emt_parameters[metal][1] * Bohr)


def _clean(facet: str, metal: str, shape: Shape) -> tuple[Atoms, int]:
    """Return an ideal slab, and the number of its surface atoms."""
    n, layers = shape.repeat, shape.layers
    a = _lattice_constant(metal)
    match facet:
        case "111":
            return fcc111(metal, (n, n, layers), a=a, vacuum=8.0), n * n
        case "100":
            return fcc100(metal, (n, n, layers), a=a, vacuum=8.0), n * n
        case "110":  # thin layers, so one more
            return fcc110(metal, (n, n, layers + 1), a=a, vacuum=8.0), n * n
        case "211":  # the surface is the terrace of three rows
            return fcc211(metal, (3, n, layers), a=a, vacuum=8.0, orthogonal=True), 3 * n
    raise ValueError(f"facet={facet!r} must be one of {list(SITES)}")


def _energy(atoms: Atoms) -> float:
    atoms = atoms.copy()
    atoms.pbc = (True, True, False)
    atoms.calc = EMT()
    return float(atoms.get_potential_energy())


def _atom_energy(symbol: str) -> float:
    return float(Atoms([Atom(symbol)], calculator=EMT()).get_potential_energy())


def _place(slab: Atoms, adsorbate: str, xy: Array) -> Atoms:
    """Place an atom above ``xy``, as low as covalent radii allow."""
    atoms = slab.copy()
    atoms.pbc = (True, True, False)
    images = np.array(
        [i * atoms.cell[0] + j * atoms.cell[1] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    )
    centres = (atoms.positions[:, None] + images).reshape(-1, 3)  # (9 N, 3)
    new = Atom(adsorbate)
    touch = np.repeat(covalent_radii[atoms.numbers] + covalent_radii[new.number], len(images))
    rise = touch**2 - ((centres[:, :2] - xy[:2]) ** 2).sum(1)  # (9 N,)
    near = rise > 0
    z = float((centres[near, 2] + np.sqrt(rise[near])).max())
    atoms.append(Atom(adsorbate, (xy[0], xy[1], z), tag=ADSORBATE))
    return atoms


def _relax(start: Atoms) -> Atoms | None:
    """Relax the last atom, with all others fixed; None: not converged."""
    atoms = start.copy()
    atoms.calc = EMT()
    # The filter gives BFGS three coordinates, so its Hessian is 3 x 3.
    optimiser = BFGS(Filter(atoms, indices=[len(atoms) - 1]), logfile=None)
    return atoms if optimiser.run(fmax=MAX_FORCE, steps=MAX_STEPS) else None


def main() -> None:
    """Generate structures from the command line."""
    parser = argparse.ArgumentParser(description="Synthetic EMT adsorption energies")
    parser.add_argument("n_structures", type=int)
    parser.add_argument("path", type=Path, help="the .npz file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=2, help="surface cells along each side")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--processes", type=int, help="default: one per core")
    given = parser.parse_args()
    arrays = generate(
        given.n_structures,
        given.seed,
        Shape(given.repeat, given.layers),
        given.processes,
        ProgressLine(),
    )
    write(given.path, arrays)


if __name__ == "__main__":
    main()
