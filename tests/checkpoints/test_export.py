"""A state as a file that other programs read."""

from __future__ import annotations

import json
import sys
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch

from daskhpo.checkpoints import ZarrStore
from daskhpo.checkpoints.export import VALUES, export, flatten
from daskhpo.core.types import CheckpointRef
from daskhpo.testing.stores import assert_same_state


def a_state():
    weight = torch.arange(6, dtype=torch.float32).view(2, 3)
    return {
        "model": OrderedDict({"0.weight": weight, "0.bias": torch.zeros(2, dtype=torch.float16)}),
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": weight / 2}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}],
        },
        "noise": np.arange(4, dtype=np.int16),
        "epoch": 3,
    }


NAMES = ["model.0.weight", "model.0.bias", "optimizer.state.0.step", "optimizer.state.0.exp_avg"]


def stored(state, folder):
    """The state as a store gives it back: its arrays are views of one row."""
    store = ZarrStore(folder / "store")
    return store.read(store.write(CheckpointRef(0, 0, 1), state))


def test_pt_holds_the_whole_tree(tmp_path):
    export(stored(a_state(), tmp_path), tmp_path / "state.pt")
    assert_same_state(torch.load(tmp_path / "state.pt", weights_only=False), a_state())
    size = (tmp_path / "state.pt").stat().st_size
    assert size < 8192, "the memory of the whole row went into the file of each tensor"


def test_npz_holds_arrays_by_dotted_names_and_the_rest_as_json(tmp_path):
    export(stored(a_state(), tmp_path), tmp_path / "state.npz")
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        assert set(file.files) == {*NAMES, "noise", VALUES}
        assert file["model.0.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert file["model.0.bias"].dtype == np.float16
        assert file["noise"].tolist() == [0, 1, 2, 3]
        assert json.loads(str(file[VALUES])) == {
            "optimizer.param_groups": [{"lr": 0.1, "betas": [0.9, 0.999]}],
            "epoch": 3,
        }


def test_names_that_numpy_has_for_its_own_arguments_are_names_like_others(tmp_path):
    state = {"file": np.arange(2), "allow_pickle": np.arange(3), "args": np.arange(4)}
    export(state, tmp_path / "state.npz")
    with np.load(tmp_path / "state.npz") as file:
        assert [file[name].size for name in state] == [2, 3, 4]


def test_npz_needs_no_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    export({"x": np.arange(3)}, tmp_path / "state.npz")
    with np.load(tmp_path / "state.npz") as file:
        assert file["x"].tolist() == [0, 1, 2]


def test_safetensors_holds_tensors_by_dotted_names_and_the_rest_in_its_metadata(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    export(stored(a_state(), tmp_path), tmp_path / "state.safetensors")
    with safetensors.safe_open(tmp_path / "state.safetensors", "pt") as file:
        assert set(file.keys()) == {*NAMES, "noise"}
        assert torch.equal(file.get_tensor(NAMES[0]), a_state()["model"]["0.weight"])
        assert file.get_tensor(NAMES[1]).dtype == torch.float16
        assert file.get_tensor("noise").tolist() == [0, 1, 2, 3]
        assert {name: json.loads(text) for name, text in file.metadata().items()} == {
            "optimizer.param_groups": [{"lr": 0.1, "betas": [0.9, 0.999]}],
            "epoch": 3,
        }


def test_safetensors_of_numpy_arrays_needs_no_torch(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    from safetensors.numpy import load_file

    monkeypatch.setitem(sys.modules, "torch", None)
    export({"a": [np.array(2.5), np.arange(3, dtype=">i4")]}, tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert (found["a.0"].shape, found["a.0"].item()) == ((), 2.5)
    assert found["a.1"].tolist() == [0, 1, 2]


def test_safetensors_holds_bfloat16_parameters_and_arrays_of_any_byte_order(tmp_path):
    pytest.importorskip("safetensors")
    from safetensors.torch import load_file

    state = {"p": torch.nn.Parameter(torch.ones(2)), "h": torch.ones(3, dtype=torch.bfloat16)}
    state["big"] = np.arange(3, dtype=">i4")
    export(stored(state, tmp_path), tmp_path / "x.safetensors")
    found = load_file(tmp_path / "x.safetensors")
    assert found["p"].tolist() == [1, 1]
    assert found["h"].dtype == torch.bfloat16
    assert found["big"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "state",
    [
        {"good": np.arange(2), "names": np.array(["a", "b"])},
        {"good": torch.ones(2), "names": np.array(["a", "b"])},
        {"good": torch.ones(2), "names": torch.ones(2, dtype=torch.complex128)},
    ],
    ids=["numpy", "mixed", "torch"],
)
def test_what_safetensors_cannot_hold_is_named(state, tmp_path):
    pytest.importorskip("safetensors")
    with pytest.raises(ValueError, match=r"cannot hold 'names', an? (array|tensor) of .*to \.pt"):
        export(state, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "missing"), [("x.safetensors", "safetensors"), ("x.pt", "torch")])
def test_a_package_that_is_not_installed_is_named(name, missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install {missing}, or export to"):
        export({"x": np.arange(3)}, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_npz_cannot_hold_is_named(tmp_path):
    state = {"w": [torch.ones(2, dtype=torch.bfloat16)]}
    with pytest.raises(ValueError, match=r"cannot hold 'w\.0', a tensor of torch\.bfloat16"):
        export(state, tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


def test_two_parts_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"named 'a\.b'; export it to \.pt"):
        export({"a": {"b": np.ones(1)}, "a.b": np.ones(1)}, tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"two keys of 'a' are equal as strings"):
        export({"a": {1: 0, "1": 0}}, tmp_path / "x.npz")
    with pytest.raises(ValueError, match="is reserved in such a file"):
        export({VALUES: np.ones(1)}, tmp_path / "x.npz")


def test_a_state_without_keys_is_named_state():
    assert list(flatten(np.ones(1))[0]) == ["state"]
    assert flatten(7) == ({}, {"state": "7"})


def test_values_that_json_does_not_know_are_told_by_their_kind():
    values = {
        "float": [float("nan"), -np.inf, np.float32(0.5)],
        "complex": 1 - 2j,
        "bytes": b"\0\xff",
        "count": Counter(a=np.int64(2)),
        "flag": np.bool_(True),
        "when": np.datetime64("2026-01-01", "D"),
    }
    (text,) = flatten(values)[1].values()
    when = values["when"].tobytes().hex()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "float": [{"float": "nan"}, {"float": "-inf"}, 0.5],
        "complex": {"complex": "(1-2j)"},
        "bytes": {"bytes": "00ff"},
        "count": {"a": 2},
        "flag": True,
        "when": {"numpy": ["<M8[D]", when]},
    }


def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path):
    path = tmp_path / "state.npz"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"exists already"):
        export({"x": np.arange(3)}, path)
    assert path.read_text() == "mine"
    with pytest.raises(ValueError, match="two parts"):  # by force, but it fails: the old one stays
        export({"a": {"b": np.ones(1)}, "a.b": np.ones(1)}, path, force=True)
    assert path.read_text() == "mine"
    export({"x": np.arange(3)}, path, force=True)
    with np.load(path) as file:
        assert file["x"].tolist() == [0, 1, 2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.npz"]


def test_where_nothing_can_be_written_is_said_before(tmp_path):
    with pytest.raises(ValueError, match=r"must end in one of \.pt, \.safetensors, \.npz"):
        export({}, tmp_path / "state.bin")
    with pytest.raises(ValueError, match=r"the folder .*none does not exist; create it"):
        export({}, tmp_path / "none" / "state.npz")
