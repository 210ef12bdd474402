from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc100, fcc111
from ase.calculators.singlepoint import SinglePointCalculator

from experiments.adsorption import data, features
from experiments.adsorption.data import baselines, load, read_own, split, to_dataset
from experiments.adsorption.generate import ADSORBATES
from experiments.adsorption.structures import ADSORBATE, SURFACE, read

pytestmark = pytest.mark.slow

SMOKE = {"profile": "smoke"}


def own_structures(n_slabs: int = 10, per_slab: int = 3) -> list[Atoms]:
    rng = np.random.default_rng(5)
    frames = []
    for slab_id in range(n_slabs):
        build = fcc111 if slab_id % 2 else fcc100
        slab = build("Rh", (2, 2, 2), a=3.8 + 0.01 * slab_id, vacuum=7.0)
        slab.pbc = (True, True, False)
        for _ in range(per_slab):
            atoms = slab.copy()
            add_adsorbate(atoms, "S", 1.8, "ontop")
            atoms.info.clear()  # what ase.build leaves there, extxyz cannot hold
            atoms.set_tags([SURFACE] * 8 + [ADSORBATE])
            atoms.rattle(0.05, seed=int(rng.integers(1000)))
            atoms.info["slab"] = f"slab {slab_id}"
            atoms.calc = SinglePointCalculator(atoms, energy=float(rng.normal()))
            frames.append(atoms)
    return frames


def test_no_slab_is_in_two_parts():
    dataset = load(SMOKE)
    slabs = {n: {dataset.slab[i] for i in p.tolist()} for n, p in dataset.parts.items()}
    assert not slabs["train"] & slabs["validation"]
    assert not slabs["train"] & slabs["test"]
    assert not slabs["validation"] & slabs["test"]
    assert sorted(torch.cat(list(dataset.parts.values())).tolist()) == list(range(300))


def test_parts_are_near_70_15_15_even_where_slabs_differ_in_size():
    slab = np.repeat([f"s{i}" for i in range(60)], np.arange(60) % 7 + 1)
    sizes = {name: len(part) / len(slab) for name, part in split(slab).items()}
    assert sizes == pytest.approx({"train": 0.70, "validation": 0.15, "test": 0.15}, abs=0.03)


def test_too_few_slabs_are_refused():
    with pytest.raises(ValueError, match="2 slabs are too few"):
        split(np.array(["a", "b", "b"]))


def test_energies_outside_the_training_part_do_not_change_the_standard():
    arrays = read(data.FIXTURE)
    dataset = load(SMOKE)
    train = dataset.parts["train"]
    changed = arrays["energy"] + 50
    changed[train.numpy()] = arrays["energy"][train.numpy()]
    other = to_dataset({**arrays, "energy": changed}, "relaxed")
    assert (other.mean, other.std) == (dataset.mean, dataset.std)
    target = dataset.batch(train).target
    assert float(target.mean()) == pytest.approx(0, abs=1e-5)
    assert float(target.std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_a_worker_loads_a_data_set_once():
    assert load(SMOKE) is load({**SMOKE, "lr": 0.5})


def test_the_unrelaxed_geometry_is_another_input_with_the_same_energies():
    relaxed, initial = load(SMOKE), load({**SMOKE, "geometry": "initial"})
    assert torch.equal(relaxed.energy, initial.energy)
    assert not torch.equal(relaxed.distance, initial.distance)
    with pytest.raises(ValueError, match="geometry='start' must be one of"):
        load({**SMOKE, "geometry": "start"})


def test_a_batch_holds_the_structures_it_was_asked_for_in_order():
    dataset = load(SMOKE)
    chosen = torch.tensor([7, 2, 250])
    batch = dataset.batch(chosen)
    first = 0
    for i, structure in enumerate(chosen.tolist()):
        start, n = int(dataset.start[structure]), int(dataset.n_atoms[structure])
        here, there = slice(first, first + n), slice(start, start + n)
        assert torch.equal(batch.kind[here], dataset.kind[there].long())
        assert torch.equal(batch.neighbour[here] - first, dataset.neighbour[there].long())
        assert torch.equal(batch.distance[here], dataset.distance[there].float())
        assert batch.graph[here].tolist() == [i] * n
        first += n
    assert first == len(batch.kind)
    expected = (dataset.energy[chosen] - dataset.mean) / dataset.std
    assert torch.allclose(batch.target, expected)


def test_baselines_of_a_set_that_can_be_counted_by_hand():
    dataset = replace(
        load(SMOKE),
        energy=torch.tensor([1.0, 2.0, 9.0, 10.0, 1.5, 11.0, 3.0]),
        adsorbate=("A", "A", "B", "B", "A", "B", "C"),
        parts={
            "train": torch.tensor([0, 1, 2, 3]),
            "validation": torch.tensor([4, 5]),
            "test": torch.tensor([6]),
        },
    )
    # Median of the training part: 5.5; of A: 1.5, of B: 9.5. C was never seen.
    assert baselines(dataset) == {
        "global_median": {"validation": 4.75, "test": 2.5},
        "adsorbate_median": {"validation": 0.75, "test": 2.5},
    }


def test_baselines_of_the_fixture():
    found = baselines(load(SMOKE))
    assert found["global_median"]["validation"] == pytest.approx(GLOBAL, abs=0.01)
    assert found["adsorbate_median"]["validation"] == pytest.approx(ADSORBATE_MEDIAN, abs=0.01)


GLOBAL, ADSORBATE_MEDIAN = 0.726, 0.335  # eV


def test_own_structures_from_an_extxyz_file(tmp_path: Path):
    path = tmp_path / "own.xyz"
    frames = own_structures()
    ase.io.write(path, frames, format="extxyz")
    dataset = load({"profile": "smoke", "data": str(path)})
    assert len(dataset.energy) == 30
    assert dataset.slab[:4] == ("slab 0", "slab 0", "slab 0", "slab 1")
    assert set(dataset.adsorbate) == {"S"}
    expected = [atoms.get_potential_energy() for atoms in frames]
    np.testing.assert_allclose(dataset.energy, expected, atol=1e-5)


def test_own_structures_without_a_slab_are_grouped_by_the_formula_of_the_slab(tmp_path: Path):
    path = tmp_path / "own.xyz"
    frames = own_structures(1, 2)
    frames[1].symbols[:4] = "Ru"
    for atoms in frames:
        del atoms.info["slab"]
    ase.io.write(path, frames, format="extxyz")
    assert read_own(path)["slab"].tolist() == ["Rh8", "Rh4Ru4"]


def test_own_structures_may_carry_the_adsorption_energy_beside_the_total_one(tmp_path: Path):
    path = tmp_path / "own.xyz"
    frames = own_structures(1, 1)
    frames[0].info["adsorption_energy"] = -1.25
    ase.io.write(path, frames, format="extxyz")
    assert read_own(path)["energy"].tolist() == [-1.25]


def test_an_own_structure_without_energy_is_named(tmp_path: Path):
    path = tmp_path / "own.xyz"
    frames = own_structures(1, 2)
    frames[1].calc = None
    ase.io.write(path, frames, format="extxyz")
    with pytest.raises(ValueError, match=r"structure 1 of .*own.xyz has no energy: set info"):
        read_own(path)


def test_own_structures_have_no_unrelaxed_geometry(tmp_path: Path):
    path = tmp_path / "own.xyz"
    ase.io.write(path, own_structures(), format="extxyz")
    with pytest.raises(ValueError, match="needs structures before relaxation"):
        load({"data": str(path), "geometry": "initial"})


def test_atoms_have_83_columns_of_the_element_and_3_of_the_tag():
    assert features.N_ATOM_FEATURES == 86
    assert torch.equal(features.KINDS[:, 83:].sum(1), torch.ones(len(features.KINDS)))
    # Every property falls into one bin; only He, Ne and Ar have no electronegativity.
    n_set = features.KINDS[:, :83].sum(1)
    assert int((n_set != 8).sum()) == 3 * 3


def test_elements_of_the_generated_set_have_features_of_their_own():
    rows = {tuple(features.element_features(symbol)) for symbol in ADSORBATES}
    assert len(rows) == len(ADSORBATES)


def test_an_unknown_element_or_tag_is_refused():
    with pytest.raises(ValueError, match=r"no features for \['U'\]"):
        features.kinds(np.array([92, 29]), np.array([0, 0]))
    with pytest.raises(ValueError, match=r"tags \[3\] are not known"):
        features.kinds(np.array([29, 29]), np.array([3, 0]))


def test_a_distance_is_highest_at_its_own_gaussian():
    expanded = features.expand(torch.tensor([0.0, 2.4, 8.0]))
    assert expanded.shape == (3, 41)
    assert expanded.argmax(1).tolist() == [0, 12, 40]
    assert torch.allclose(expanded.max(1).values, torch.ones(3))
