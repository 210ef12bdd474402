from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from experiments.adsorption import data, generate
from experiments.adsorption.generate import ADSORBATES, SITES, Shape, structures_on
from experiments.adsorption.structures import nearest, pack, read, write

pytestmark = pytest.mark.slow


def test_regenerated_slabs_equal_the_committed_ones():
    fixture = read(data.FIXTURE)
    for slab_id in (0, 3):
        again = structures_on(slab_id)
        of_slab = fixture["slab"] == f"0-{slab_id}"
        assert [s.adsorbate for s in again] == fixture["adsorbate"][of_slab].tolist()
        assert [s.site for s in again] == fixture["site"][of_slab].tolist()
        np.testing.assert_allclose([s.energy for s in again], fixture["energy"][of_slab], atol=1e-3)


def test_the_set_does_not_depend_on_the_number_of_processes():
    alone = generate.generate(14, n_processes=1)
    shared = generate.generate(14, n_processes=2)
    assert alone["slab"].tolist() == shared["slab"].tolist()
    np.testing.assert_allclose(alone["energy"], shared["energy"], atol=1e-3)


def test_a_smaller_set_is_the_beginning_of_the_fixture():
    few = generate.generate(5, n_processes=1)
    fixture = read(data.FIXTURE)
    assert few["host"].tolist() == fixture["host"][:5].tolist()


def test_the_fixture_is_varied_physical_and_free_of_duplicates():
    fixture = read(data.FIXTURE)
    assert len(fixture["energy"]) == 300
    assert set(fixture["adsorbate"]) == set(ADSORBATES)
    assert set(fixture["facet"]) == set(SITES)
    assert fixture["energy"].max() < 0  # every atom binds
    assert fixture["energy"].min() > -8
    keys = list(zip(fixture["slab"], fixture["adsorbate"], fixture["energy"], strict=True))
    for slab, adsorbate, energy in keys:
        same = [e for s, a, e in keys if (s, a) == (slab, adsorbate) and abs(e - energy) < 5e-4]
        assert len(same) == 1


def test_deeper_slabs_have_the_sizes_asked_for():
    rng = np.random.default_rng(0)
    sizes = {}
    for _ in range(20):
        slab = generate.make_slab(rng, Shape(repeat=3, layers=4))
        sizes[slab.facet] = len(slab.atoms), int(slab.atoms.get_tags().sum())
    assert sizes == {"111": (36, 9), "100": (36, 9), "110": (45, 9), "211": (36, 9)}


def test_nearest_finds_the_first_shell_of_a_crystal_with_one_atom():
    copper = bulk("Cu", "fcc", a=3.6)
    neighbours, distances = nearest(copper, k=13)
    assert neighbours.tolist() == [[0] * 13]
    np.testing.assert_allclose(distances[0, :12], 3.6 / np.sqrt(2))
    np.testing.assert_allclose(distances[0, 12], 3.6)


def test_nearest_agrees_with_minimum_images_and_ignores_where_atoms_are_wrapped():
    slab = fcc111("Pt", (4, 4, 3), a=3.9, vacuum=6.0)
    slab.pbc = (True, True, False)
    slab.rattle(0.05, seed=1)
    neighbours, distances = nearest(slab)
    all_distances = slab.get_all_distances(mic=True)
    np.fill_diagonal(all_distances, np.inf)
    np.testing.assert_allclose(distances, np.sort(all_distances, axis=1)[:, :12])
    moved = slab.copy()
    moved.positions[5] += 3 * moved.cell[0] - 2 * moved.cell[1]
    np.testing.assert_array_equal(nearest(moved)[0], neighbours)


def test_nearest_looks_further_when_the_first_radius_is_too_small():
    sparse = Atoms("Cu", cell=[9, 9, 9], pbc=True)
    np.testing.assert_allclose(nearest(sparse)[1][0, :6], 9.0)


def test_a_molecule_without_a_cell_is_refused():
    with pytest.raises(ValueError, match=r"H2O has 3 atoms and no periodic cell"):
        nearest(molecule("H2O"))


def test_generate_refuses_an_empty_set():
    with pytest.raises(ValueError, match="n_structures=0 must be at least 1"):
        generate.generate(0)


def test_written_arrays_are_whole_while_many_write(tmp_path: Path):
    arrays = pack(structures_on(0))
    path = tmp_path / "some" / "set.npz"
    write(path, arrays)
    writers = [threading.Thread(target=write, args=(path, arrays)) for _ in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert set(read(path)) == set(arrays)
    for writer in writers:
        writer.join()
    assert [p.name for p in path.parent.iterdir()] == ["set.npz"]


def _prepare_in_child(profile: str, folder: str) -> float:
    import os

    os.environ["XDG_CACHE_HOME"] = folder
    return float(read(data.prepare(profile))["energy"].sum())


def test_two_processes_preparing_one_profile_end_with_one_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2, initializer=_shrink_laptop) as pool:
        sums = pool.starmap(_prepare_in_child, [("laptop", str(tmp_path))] * 2, chunksize=1)
    assert sums[0] == sums[1]
    files = sorted(p.suffix for p in (tmp_path / "daskhpo").iterdir())
    assert files == [".lock", ".npz"]


def _shrink_laptop() -> None:
    from dataclasses import replace

    from experiments.adsorption.profiles import PROFILES

    PROFILES["laptop"] = replace(PROFILES["laptop"], n_structures=8)
