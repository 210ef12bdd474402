from __future__ import annotations

import copy
import json
import random
import struct
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from daskhpo.checkpoints import codec, tree
from daskhpo.core.errors import StateNotSupported
from daskhpo.testing.stores import a_state, assert_same_state
from tests.plain_zarr import encode_state

NAMES = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]
NAMES += ["float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"]
NAMES += ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
DTYPES = [getattr(torch, name) for name in NAMES if hasattr(torch, name)]


def there_and_back(state):
    row, layout = encode_state(state)
    return codec.decode_row(row, codec.Layout.from_json(json.loads(json.dumps(layout.to_json()))))


def tensor_of(dtype, shape=(3, 4), seed=0):
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    n = int(np.prod(shape)) * dtype.itemsize
    data = np.random.Generator(np.random.PCG64(seed)).integers(0, 256, n, dtype=np.uint8)
    if dtype is torch.bool:
        data &= 1
    return torch.from_numpy(data).view(dtype).view(shape)


# -- any tree ------------------------------------------------------------------------------------

numpy_dtypes = st.one_of(hnp.scalar_dtypes(), hnp.byte_string_dtypes(), hnp.unicode_string_dtypes())
arrays = hnp.arrays(numpy_dtypes, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
tensors = st.builds(
    tensor_of,
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.integers(0, 99),
)
floats = st.one_of(
    st.floats(), st.binary(min_size=8, max_size=8).map(lambda b: struct.unpack(">d", b)[0])
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**62, 2**70),
    floats,
    st.builds(complex, floats, floats),
    st.text(st.characters()),
    st.binary(),
    arrays,
    arrays.map(lambda a: a.T[..., ::-1] if a.ndim else a),
    hnp.arrays(numpy_dtypes, ()).map(lambda a: a[()]),
    tensors,
    tensors.map(lambda t: t.mT if t.ndim > 1 else t),
)
keys = st.one_of(st.text(st.characters()), st.integers())


def containers(children):
    dicts = st.dictionaries(keys, children, max_size=4)
    lists = st.lists(children, max_size=4)
    return st.one_of(dicts, dicts.map(OrderedDict), lists, lists.map(tuple))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.recursive(leaves, containers, max_leaves=12))
def test_any_state_comes_back_equal_in_value_type_and_dtype(state):
    assert_same_state(there_and_back(state), state)


# -- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        10**6000,
        -(10**6000),
        2**53 + 1,
        -0.0,
        float("nan"),
        -float("inf"),
        5e-324,
        struct.unpack(">d", bytes.fromhex("7ff0000000000001"))[0],
        complex(-0.0, float("nan")),
        "\ud83d\ude00",  # two lone surrogates: not the one character that JSON would make of them
        "a\0",
        b"\xff" * 1000,
        np.str_("a\0"),
        np.bytes_(b"a\0"),
        np.float16(0.1),
        np.longdouble("0.1"),
        np.datetime64("NaT"),
        np.datetime64("2026-01-01", "ns"),
        Counter({3: 1, 5: 2}),
        {1: "int", "1": "str"},
        {},
        [],
        (),
    ],
    ids=lambda value: f"{value!r:.20}" if not isinstance(value, int) else f"{value:#x}"[:20],
)
def test_a_value_comes_back_to_the_bit(value):
    for state in (value, {"w": np.ones(2), "value": value}):
        assert_same_state(there_and_back(state), state)


def test_mixed_keys_keep_type_and_order():
    state = {"b": 1, 0: np.ones(1), "0": 2, -1: {}, "a": None}
    assert_same_state(there_and_back(state), state)


def test_random_states_of_python_numpy_and_torch_come_back():
    state = {
        "python": random.Random(3).getstate(),
        "numpy": np.random.Generator(np.random.MT19937(3)).bit_generator.state,
        "torch": torch.Generator().manual_seed(3).get_state(),
    }
    assert_same_state(there_and_back(state), state)


# -- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (4, 5)], ids=str)
def test_a_tensor_of_any_dtype_and_shape_comes_back(dtype, shape):
    assert_same_state(there_and_back([tensor_of(dtype, shape)]), [tensor_of(dtype, shape)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_strided_tensor_comes_back_by_value(dtype):
    whole = tensor_of(dtype, (4, 6))
    for part in (whole.T, whole[::2, 1::3], whole[1].expand(3, 6)):
        assert_same_state(there_and_back([part]), [part])


def test_lazily_conjugated_and_negated_tensors_come_back_by_value():
    z = torch.randn(3, dtype=torch.complex64)
    for lazy in (z.conj(), z.conj().imag):
        assert torch.equal(there_and_back(lazy), lazy)


def test_a_parameter_comes_back_as_one_and_a_tensor_detached():
    state = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2, dtype=int), False)]
    found = there_and_back([*state, torch.ones(2, requires_grad=True) * 2])
    assert [type(x) for x in found] == [torch.nn.Parameter] * 2 + [torch.Tensor]
    assert [x.requires_grad for x in found] == [True, False, False]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "?", "<U3", "S2", "<M8[ns]", "V5", "<c16"])
def test_an_array_of_any_order_comes_back(dtype, order):
    a = np.zeros((3, 4), dtype, order=order)
    for state in (a, a[::2, ::-1], a[:0], a[0, 0, ...]):
        assert_same_state(there_and_back(state), state)


def test_what_was_read_is_writable_aligned_and_does_not_overlap():
    state = {i: np.full(3, i, np.int8) for i in range(5)} | {"t": torch.ones(3)}
    row, layout = encode_state(state)
    found = codec.decode_row(row, layout)
    offsets = [found[i].ctypes.data - row.ctypes.data for i in range(5)]
    assert all(offset % tree.ALIGNMENT == 0 for offset in offsets)
    for i in range(5):
        found[i][:] = -1
        assert all((found[j] == j).all() for j in range(i + 1, 5))
    found["t"].add_(1)
    assert found["t"].untyped_storage().nbytes() == 12  # not the whole row: it may be saved again


def test_tied_weights_come_back_equal_and_apart():
    w = torch.randn(3)
    found = there_and_back({"encoder": w, "decoder": w})
    assert torch.equal(found["encoder"], found["decoder"])
    assert found["encoder"].data_ptr() != found["decoder"].data_ptr()


# -- a real model --------------------------------------------------------------------------------


def a_trained_model(make_optimizer, n_steps=3):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.LSTM(8, 3, batch_first=True)
    )
    net[2].weight_hh_l0.requires_grad_(False)
    optimizer = make_optimizer([p for p in net.parameters() if p.requires_grad])
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5])
    for _ in range(n_steps):
        optimizer.zero_grad()
        net(torch.randn(6, 4))[0].square().mean().backward()
        optimizer.step()
        schedule.step()
    return net, optimizer, schedule


OPTIMIZERS = {
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.01, amsgrad=True),
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.01),
    "momentum": lambda ps: torch.optim.SGD(ps, lr=0.01, momentum=0.9, nesterov=True),
    "adafactor": lambda ps: torch.optim.Adafactor(ps),
    "rprop": lambda ps: torch.optim.Rprop(ps),
}


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_model_optimizer_and_schedule_come_back(make_optimizer):
    net, optimizer, schedule = a_trained_model(make_optimizer)
    state = {
        "model": net.state_dict(),
        "opt": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
    }
    found = there_and_back(state)
    assert_same_state(found, state)
    assert found["model"]._metadata == state["model"]._metadata  # versions of torch's modules
    twin, twin_optimizer, twin_schedule = a_trained_model(make_optimizer, n_steps=1)
    twin.load_state_dict(found["model"])
    twin_optimizer.load_state_dict(copy.deepcopy(found["opt"]))
    twin_schedule.load_state_dict(found["schedule"])
    assert_same_state(twin_optimizer.state_dict(), state["opt"])


# -- refusals ------------------------------------------------------------------------------------

Point = namedtuple("Point", "x y")


class MyTensor(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("leaf", "got"),
    [
        (lambda: None, "got <function"),
        (object(), "got <object"),
        ({1, 2}, "of type builtins.set"),
        (bytearray(b"x"), "of type builtins.bytearray"),
        (Point(1, 2), "Point"),
        (defaultdict(list), "defaultdict"),
        (np.array([1, None]), "dtype object"),
        (np.zeros(2, [("a", "f4")]), "structured"),
        (np.array(["a"], np.dtypes.StringDType()), "StringDType"),
        (np.ma.masked_array([1.0]), "MaskedArray"),
        (torch.ones(2).to_sparse(), "sparse"),
        (torch.ones(2, device="meta"), "meta"),
        (torch.ones(2).as_subclass(MyTensor), "MyTensor, a subclass"),
        (torch.device("cpu"), "torch.device"),
        (torch.float32, "torch.dtype"),
        (torch.Size([1]), "torch.Size"),
        (random.Random(), "random.Random"),
        (True.__class__, "type"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_cannot_be_held_is_refused_by_its_path(leaf, got):
    state = {"opt": {"param_groups": [{"lr": 0.1, "fn": leaf}]}, "w": np.ones(2)}
    with pytest.raises(StateNotSupported) as caught:
        encode_state(state)
    assert str(caught.value).startswith("state['opt']['param_groups'][0]['fn']: got ")
    assert got in str(caught.value)
    assert "allowed are dict" in str(caught.value)


@pytest.mark.parametrize("key", [True, 1.0, None, (1,), np.int64(1), np.str_("a"), b"a"], ids=repr)
def test_keys_are_str_or_int(key):
    with pytest.raises(StateNotSupported, match=r"state\['a'\]: got the key .* allowed are str"):
        encode_state({"a": {key: 1}})


def test_a_tree_that_contains_itself_is_refused():
    state = {"a": []}
    state["a"].append(state)
    with pytest.raises(StateNotSupported, match="contains itself"):
        encode_state(state)


@pytest.mark.skipif(not hasattr(torch, "uint2"), reason="this torch has no such dtype")
def test_dtypes_of_less_than_a_byte_come_back_or_are_refused_by_their_path():
    q = torch.arange(6, dtype=torch.uint8).view(torch.uint2).view(2, 3)
    assert_same_state(there_and_back(q), q)
    with pytest.raises(StateNotSupported, match=r"state\['q'\]: got a tensor of torch.uint2 that"):
        encode_state({"q": q.T})


# -- what is imported ----------------------------------------------------------------------------


def in_a_fresh_interpreter(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_arrays_need_neither_torch_nor_zarr():
    in_a_fresh_interpreter(
        "import sys, numpy as np, daskhpo.checkpoints\n"
        "from daskhpo.checkpoints import MemoryStore\n"
        "from daskhpo.core.types import CheckpointRef\n"
        "store = MemoryStore()\n"
        "store.read(store.write(CheckpointRef(0, 0, 1), {'w': np.ones(3)}))\n"
        "assert not {'torch', 'zarr', 'dask', 'distributed'} & set(sys.modules)\n"
    )


def test_tensors_without_torch_are_a_clear_error(monkeypatch):
    row, layout = encode_state({"w": torch.ones(3)})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModuleNotFoundError, match="holds torch tensors and torch is not installed"):
        codec.decode_row(row, layout)


def test_a_dtype_that_this_torch_does_not_know_is_a_clear_error():
    row, layout = encode_state({"w": torch.ones(3)})
    nodes = json.loads(json.dumps(layout.tree).replace("float32", "float3"))
    with pytest.raises(StateNotSupported, match="a tensor of float3, which torch"):
        codec.decode_row(row, codec.Layout.of(nodes, layout.n_header, layout.n_bytes))


def test_nothing_is_pickled(monkeypatch):
    import pickle

    def refuse(*args, **kwargs):
        raise AssertionError("pickle was used")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(torch, "save", refuse)
    state = a_state() | {"t": torch.ones(3)}
    assert_same_state(there_and_back(state), state)
    for module in (codec, tree, sys.modules["daskhpo.checkpoints"]):
        assert not {"pickle", "cloudpickle", "marshal", "dill"} & set(vars(module))
