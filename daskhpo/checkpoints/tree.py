"""Conversion of a state tree to JSON and arrays, and back; nothing is pickled.

The JSON has two parts. The *tree* is shared by all states of one architecture: keys, and the dtype,
shape and offset of each array. A part of the state without arrays (a learning rate, a list of
losses that grows) is a *value*, and is stored separately.

Restored states
---------------
These types are restored with equal value, type and dtype, floats to the bit: dict, ``OrderedDict``
and ``Counter`` (keys str or int, order kept), list, tuple, int, float, complex, str, bytes, bool,
None, numpy scalars and arrays, and torch tensors. Details:

* An ``OrderedDict`` keeps its ``_metadata``, where torch stores the versions of modules.
* Restored tensors are dense, detached, C-contiguous and on the CPU. An ``nn.Parameter`` stays one,
  with its ``requires_grad``. Restored arrays are C-contiguous.
* Parts that are shared in the tree (tied weights) are restored as equal, separate parts.
* Arrays of objects, of structured dtypes or of variable-width strings, sparse and quantised
  tensors, and subclasses of the types above are rejected: `StateNotSupported` names the path.
* Restored arrays are writable and do not overlap. They are views of the memory that they were read
  from, which is freed with the last of them.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskhpo.core.errors import CheckpointCorrupt, StateNotSupported

Json = Any
ByteArray = NDArray[np.uint8]

ALIGNMENT = 64  # a cache line, and the widest vector register
MAX_DEPTH = 100  # of a tree; also ends the walk through a tree that contains itself

_DICTS: dict[type, str] = {dict: "dict", OrderedDict: "OrderedDict", Counter: "Counter"}
_DICT_OF = {name: kind for kind, name in _DICTS.items()}
_ALLOWED = (
    "allowed are dict, OrderedDict, Counter, list, tuple, int, float, complex, str, bytes, bool, "
    "None, numpy arrays and scalars, and torch tensors; convert it, or leave it out and create it "
    "again when the state is loaded"
)


class Leaf(ABC):
    """An array of a state, and its position in the row.

    Attributes
    ----------
    offset : bytes from the first array to this one, a multiple of `ALIGNMENT`.
    n_bytes : size of the C-contiguous array; the gap to the next one is less than `ALIGNMENT`.
    """

    offset: int
    n_bytes: int

    @abstractmethod
    def copy_to(self, part: ByteArray) -> None:
        """Copy the array, from any device and of any strides, to ``part`` of ``n_bytes``."""

    @abstractmethod
    def memory(self) -> ByteArray | None:
        """Return the array's own memory as bytes.

        None if it is on a device, not C-contiguous or lazily conjugated.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Parts of a state: tree, values and arrays.

    Attributes
    ----------
    tree : the state's tree. An array is ``{kind: [dtype, shape, offset]}``. A value is
        ``{"value": its index in values}``.
    values, blobs : JSON of the values, and the ``bytes`` objects in them.
    leaves : the arrays, sorted by offset.
    n_bytes : bytes of all arrays, gaps included.
    """

    tree: Json
    values: bytes
    blobs: bytes
    leaves: list[Leaf]
    n_bytes: int


def take_apart(state: Any) -> Parts:
    """Take a state apart; arrays are not copied.

    Raises
    ------
    StateNotSupported
        The state has a part that a checkpoint cannot hold; the message names the first one's path.
    """
    walk = _Encoder()
    tree = walk.layout(*walk.visit(state, "state", 0))
    values = json.dumps(walk.values, separators=(",", ":"), allow_nan=False).encode()
    return Parts(tree, values, bytes(walk.blobs), walk.leaves, walk.n_array_bytes)


def put_together(tree: Json, values: bytes, blobs: ByteArray, arrays: ByteArray) -> Any:
    """Return the state; its arrays are views of ``arrays``.

    Raises
    ------
    ModuleNotFoundError
        The state holds torch tensors and torch is not installed.
    StateNotSupported
        The state holds a dtype that this version of torch does not have.
    """
    return _Decoder(json.loads(values), blobs, arrays).node(tree)


# -- taking apart --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Array(Leaf):
    value: NDArray[Any]
    offset: int
    n_bytes: int
    path: str

    def copy_to(self, part: ByteArray) -> None:
        if self.n_bytes:
            np.ndarray(self.value.shape, self.value.dtype, buffer=part)[...] = self.value

    def memory(self) -> ByteArray | None:
        if not self.value.flags.c_contiguous:
            return None
        return self.value.reshape(-1).view(np.uint8) if self.n_bytes else np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class _Tensor(Leaf):
    value: Any
    offset: int
    n_bytes: int
    path: str

    def copy_to(self, part: ByteArray) -> None:
        if (own := self.memory()) is not None:
            # numpy's copy: torch's multi-threaded one took 5-20 times as long on fresh memory
            part[...] = own
            return
        x, torch = self.value.detach(), sys.modules["torch"]
        try:  # one pass from any device and any strides; resolves lazy conjugation
            torch.from_numpy(part).view(x.dtype).view(x.shape).copy_(x)
        except NotImplementedError:  # dtypes of less than a byte
            raise _refusal(self.path, f"a tensor of {x.dtype} that is not contiguous") from None

    def memory(self) -> ByteArray | None:
        x = self.value
        if not self.n_bytes:
            return np.empty(0, np.uint8)
        if not (x.is_cpu and x.is_contiguous()) or x.is_conj() or x.is_neg():
            return None
        own: ByteArray = x.detach().reshape(-1).view(sys.modules["torch"].uint8).numpy()
        return own


class _Encoder:
    """One walk over a state tree, which separates values from the layout."""

    def __init__(self) -> None:
        self.values: list[Json] = []
        self.blobs = bytearray()
        self.leaves: list[Leaf] = []
        self.n_array_bytes = 0
        self.torch: Any = sys.modules.get("torch")  # None: not loaded, so the tree has no tensors

    def visit(self, x: Any, path: str, depth: int) -> tuple[bool, Json]:
        """Return (True if the part has arrays, the part's JSON)."""
        if depth > MAX_DEPTH:
            raise StateNotSupported(
                f"{path[:200]}...: nested more than {MAX_DEPTH} levels deep, or contains itself"
            )
        kind = type(x)
        if kind in _DICTS:
            keys = [_key(key, path) for key in x]
            parts = [self.visit(part, f"{path}[{key!r}]", depth + 1) for key, part in x.items()]
            if kind is not OrderedDict:
                return self.join(parts, lambda nodes: {_DICTS[kind]: _pairs(keys, nodes)})
            metadata = x.__dict__.get("_metadata")
            parts.append(self.visit(metadata, f"{path}._metadata", depth + 1))
            return self.join(
                parts, lambda nodes: {"OrderedDict": [_pairs(keys, nodes[:-1]), nodes[-1]]}
            )
        if kind is list or kind is tuple:
            parts = [self.visit(part, f"{path}[{i}]", depth + 1) for i, part in enumerate(x)]
            return self.join(parts, (lambda nodes: nodes) if kind is list else _tuple)
        if kind is np.ndarray:
            return True, self.array(x, path)
        if self.torch is not None and isinstance(x, self.torch.Tensor):
            return True, self.tensor(x, path)
        return False, self.scalar(x, path)

    def join(self, parts: Sequence[tuple[bool, Json]], form: Any) -> tuple[bool, Json]:
        if any(has_arrays for has_arrays, _ in parts):
            return True, form([self.layout(*part) for part in parts])
        return False, form([node for _, node in parts])

    def layout(self, has_arrays: bool, node: Json) -> Json:
        if has_arrays:
            return node
        self.values.append(node)
        return {"value": len(self.values) - 1}

    def place(self, n_bytes: int) -> int:
        offset = self.n_array_bytes
        self.n_array_bytes += -(-n_bytes // ALIGNMENT) * ALIGNMENT
        return offset

    def array(self, x: NDArray[Any], path: str) -> Json:
        name = _dtype_name(x.dtype, path)
        leaf = _Array(x, self.place(x.nbytes), x.nbytes, path)
        self.leaves.append(leaf)
        return {"numpy": [name, list(x.shape), leaf.offset]}

    def tensor(self, x: Any, path: str) -> Json:
        is_parameter = type(x) is self.torch.nn.Parameter
        if not (is_parameter or type(x) is self.torch.Tensor):
            raise _refusal(path, f"a {type(x).__name__}, a subclass of torch.Tensor")
        if x.layout is not self.torch.strided or x.is_quantized or x.is_nested or x.is_meta:
            raise _refusal(path, "a sparse, quantised, nested or meta tensor")
        n_bytes = x.numel() * x.element_size()
        leaf = _Tensor(x, self.place(n_bytes), n_bytes, path)
        self.leaves.append(leaf)
        form = [str(x.dtype).removeprefix("torch."), list(x.shape), leaf.offset]
        return {"parameter": [*form, x.requires_grad]} if is_parameter else {"torch": form}

    def scalar(self, x: Any, path: str) -> Json:
        kind = type(x)
        if x is None or kind is bool:
            return x
        if kind is int or kind is str:
            return _plain(x)
        if kind is float:
            return x if math.isfinite(x) else {"float": struct.pack(">d", x).hex()}
        if kind is complex:
            return {"complex": struct.pack(">dd", x.real, x.imag).hex()}
        if kind is bytes:
            start = len(self.blobs)
            self.blobs += x
            return {"bytes": [start, len(x)]}
        if kind is np.str_:  # not via an array's item or str(), which lose trailing zeros
            return {"np.str_": _plain(str.__str__(x))}
        if kind is np.bytes_:
            return {"np.bytes_": x.hex()}
        if isinstance(x, np.generic):
            return {"scalar": [_dtype_name(x.dtype, path), x.tobytes().hex()]}
        raise _refusal(path, f"{x!r:.60} of type {kind.__module__}.{kind.__qualname__}")


def _plain(x: int | str) -> Json:
    """Return an int or a str as JSON that every reader restores exactly."""
    if isinstance(x, int):  # hex: Python limits the length of decimal integers
        return x if -(2**53) <= x <= 2**53 else {"int": hex(x)}
    try:
        x.encode()
    except UnicodeEncodeError:  # two lone surrogates would be restored as one character
        return {"str": x.encode("utf-32-le", "surrogatepass").hex()}
    return x


def _key(key: Any, path: str) -> Json:
    if type(key) is str or type(key) is int:
        return _plain(key)
    raise StateNotSupported(
        f"{path}: got the key {key!r:.60} of type {type(key).__name__}; allowed are str and int"
    )


def _pairs(keys: list[Json], nodes: list[Json]) -> Json:
    return [[key, node] for key, node in zip(keys, nodes, strict=True)]


def _tuple(nodes: list[Json]) -> Json:
    return {"tuple": nodes}


def _dtype_name(dtype: np.dtype[Any], path: str) -> str:
    try:
        if not dtype.hasobject and np.dtype(dtype.str) == dtype:
            return dtype.str
    except TypeError:
        pass
    raise _refusal(path, f"numpy data of dtype {dtype} (of objects, structured or not numpy's own)")


def _refusal(path: str, got: str) -> StateNotSupported:
    return StateNotSupported(f"{path}: got {got}; {_ALLOWED}")


# -- putting together ----------------------------------------------------------------------------


class _Decoder:
    def __init__(self, values: list[Json], blobs: ByteArray, arrays: ByteArray) -> None:
        self.values, self.blobs, self.arrays = values, blobs, arrays

    def node(self, node: Json) -> Any:
        if isinstance(node, list | tuple):  # Dask's msgpack turns lists into tuples
            return [self.node(part) for part in node]
        if not isinstance(node, dict):
            return node
        ((tag, body),) = node.items()
        match tag:
            case "value":
                return self.node(self.values[body])
            case "tuple":
                return tuple(self.node(part) for part in body)
            case "dict" | "Counter":
                return _DICT_OF[tag](self.pairs(body))
            case "OrderedDict":
                result = OrderedDict(self.pairs(body[0]))
                if (metadata := self.node(body[1])) is not None:
                    result.__dict__["_metadata"] = metadata
                return result
            case "numpy":
                return self.array(*body)
            case "torch":
                return self.tensor(*body)
            case "parameter":
                *form, requires_grad = body
                return _torch().nn.Parameter(self.tensor(*form), requires_grad=requires_grad)
            case "int":
                return int(body, 16)
            case "float":
                return struct.unpack(">d", bytes.fromhex(body))[0]
            case "complex":
                return complex(*struct.unpack(">dd", bytes.fromhex(body)))
            case "str":
                return bytes.fromhex(body).decode("utf-32-le", "surrogatepass")
            case "bytes":
                start, n_bytes = body
                return self.blobs[start : start + n_bytes].tobytes()
            case "np.str_":
                return np.str_(self.node(body))
            case "np.bytes_":
                return np.bytes_(bytes.fromhex(body))
            case "scalar":
                return np.frombuffer(bytes.fromhex(body[1]), np.dtype(body[0]))[0]
        raise CheckpointCorrupt(
            f"a layout holds {tag!r}, which this version of daskhpo cannot read"
        )

    def pairs(self, body: Json) -> dict[Any, Any]:
        return {self.node(key): self.node(part) for key, part in body}

    def array(self, name: str, shape: list[int], offset: int) -> NDArray[Any]:
        dtype = np.dtype(name)
        is_empty = math.prod(shape) * dtype.itemsize == 0
        if is_empty:
            return np.empty(tuple(shape), dtype)
        return np.ndarray(tuple(shape), dtype, buffer=self.arrays.data, offset=offset)

    def tensor(self, name: str, shape: list[int], offset: int) -> Any:
        torch = _torch()
        dtype = getattr(torch, name, None)
        if not isinstance(dtype, torch.dtype):
            raise StateNotSupported(
                f"a checkpoint holds a tensor of {name}, which torch {torch.__version__} does not "
                "support; read it with the torch version that wrote it"
            )
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes == 0:
            return torch.empty(shape, dtype=dtype, device="cpu")
        # from the slice, so that the tensor's storage, when saved elsewhere, has only its own size
        part = self.arrays[offset : offset + n_bytes]
        return torch.from_numpy(part).view(dtype).view(shape)


def _torch() -> Any:
    try:
        return import_module("torch")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the checkpoint holds torch tensors and torch is not installed; install torch, or save "
            "numpy arrays instead",
            name="torch",
        ) from error
