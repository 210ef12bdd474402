"""A state tree as one row of bytes and back; nothing is ever pickled.

A row holds everything that changes from one checkpoint to the next::

    | preamble | values: JSON | long bytes | zeros | arrays, each at a multiple of 64 bytes |
    |<------------------- Layout.n_header ------->|                                         |
    |<------------------------------- Layout.n_bytes -------------------------------------->|

Its `Layout` holds what all checkpoints of one architecture share: the names, dtypes, shapes and
offsets of the arrays. A part of the tree without any array (a learning rate, a list of losses that
grows) is a *value* and lies in the row, so that it never makes a new layout; the header's
room comes in few sizes, so that a longer value seldom does.

What comes back
---------------
dict, ``OrderedDict`` and ``Counter`` (keys str or int, order kept), list, tuple, int, float,
complex, str, bytes, bool, None, numpy scalars and arrays, and torch tensors are equal in value,
type and dtype, floats to the bit. Particulars:

* An ``OrderedDict`` keeps its ``_metadata``, where torch keeps the versions of modules.
* Tensors come back dense, detached, C-contiguous and on the CPU; an ``nn.Parameter`` comes back as
  one, with its ``requires_grad``. Arrays come back C-contiguous.
* What is shared in the tree (tied weights) comes back as equal, separate parts.
* Arrays of objects, of structured dtypes or of variable-width strings, sparse and quantised
  tensors, and subclasses of the types above are refused: `StateNotSupported` names the path.
* Arrays that were read are writable and do not overlap, but share the row's memory, which is freed
  with the last of them.
"""

from __future__ import annotations

import json
import math
import struct
import sys
import zlib
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskhpo.core.errors import CheckpointCorrupt, StateNotSupported
from daskhpo.core.types import CheckpointRef

Json = Any
Row = NDArray[np.uint8]

FORMAT = 1  # of rows and layouts; part of the layout's name, so formats never share an array
ALIGNMENT = 64  # a cache line, and the widest vector register
MAX_DEPTH = 100  # of a tree; also what ends the walk through a tree that contains itself

_PREAMBLE = struct.Struct("<4sIqqQ")  # magic, CRC-32 of what follows it, trial, resource, n JSON
_MAGIC = b"dhpo"
_AFTER_CHECKSUM = 8
PREAMBLE_BYTES = _PREAMBLE.size

_DICTS: dict[type, str] = {dict: "dict", OrderedDict: "OrderedDict", Counter: "Counter"}
_DICT_OF = {name: kind for kind, name in _DICTS.items()}
_ALLOWED = (
    "allowed are dict, OrderedDict, Counter, list, tuple, int, float, complex, str, bytes, bool, "
    "None, numpy arrays and scalars, and torch tensors; convert it, or leave it out and make it "
    "anew when the state is loaded"
)
_NEXT = "a running study trains the trial again without it"


@dataclass(frozen=True, slots=True)
class Layout:
    """What all checkpoints of one architecture share.

    Attributes
    ----------
    tree : the state with each array as ``{kind: [dtype, shape, offset]}``, offsets counted from
        ``n_header``, and each value as ``{"value": its number in the row's JSON}``.
    n_header : bytes before the first array.
    n_bytes : bytes of a row.
    name : hash of all that; equal layouts have equal names everywhere.
    """

    tree: Json
    n_header: int
    n_bytes: int
    name: str

    @classmethod
    def of(cls, tree: Json, n_header: int, n_bytes: int) -> Layout:
        """Complete a layout by its name."""
        text = json.dumps([FORMAT, n_header, n_bytes, tree], sort_keys=True, separators=(",", ":"))
        name = blake2b(text.encode(), digest_size=12).hexdigest()
        return cls(tree, n_header, n_bytes, name)

    def to_json(self) -> dict[str, Json]:
        """Return what `from_json` reads."""
        return {
            "format": FORMAT,
            "n_header": self.n_header,
            "n_bytes": self.n_bytes,
            "tree": self.tree,
        }

    @classmethod
    def from_json(cls, data: Json) -> Layout:
        """Read a layout; raises ValueError, KeyError or TypeError if it is none."""
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}; this version of daskhpo reads {FORMAT}")
        return cls.of(data["tree"], data["n_header"], data["n_bytes"])


def encode(state: Any, trial: int = 0, resource: int = 0) -> tuple[Row, Layout]:
    """Gather a state tree into one new row, copying each array once.

    ``trial`` and ``resource`` are written in the row so that a store can tell whose it is.

    Raises
    ------
    StateNotSupported
        Names the path of the first thing that a checkpoint cannot hold.
    """
    walk = _Encoder()
    tree = walk.layout(*walk.visit(state, "state", 0))
    text = json.dumps(walk.values, separators=(",", ":"), allow_nan=False).encode()
    n_header = _room(PREAMBLE_BYTES + len(text) + len(walk.blobs))
    layout = Layout.of(tree, n_header, n_header + walk.n_array_bytes)
    row = np.zeros(layout.n_bytes, np.uint8)  # zeroed: gaps must not hold other memory's contents
    header = text + bytes(walk.blobs)
    row[PREAMBLE_BYTES : PREAMBLE_BYTES + len(header)] = np.frombuffer(header, np.uint8)
    for leaf in walk.leaves:
        leaf.copy_to(row[n_header + leaf.offset :][: leaf.n_bytes])
    _PREAMBLE.pack_into(row.data, 0, _MAGIC, 0, trial, resource, len(text))
    crc = zlib.crc32(row.data[_AFTER_CHECKSUM:])
    _PREAMBLE.pack_into(row.data, 0, _MAGIC, crc, trial, resource, len(text))
    return row, layout


def decode(row: Row, layout: Layout) -> Any:
    """Return the state tree of a verified row; its arrays are views of ``row``.

    Raises
    ------
    ModuleNotFoundError
        The checkpoint holds torch tensors and torch is not installed.
    """
    n_json = _PREAMBLE.unpack_from(row.data)[-1]
    text = row[PREAMBLE_BYTES : PREAMBLE_BYTES + n_json].tobytes()
    values = json.loads(text)
    return _Decoder(row, layout.n_header, values, PREAMBLE_BYTES + n_json).node(layout.tree)


def identify(preamble: bytes) -> tuple[int, int, int]:
    """Return trial, resource and checksum of the row that begins so; ValueError if it is none."""
    if len(preamble) < PREAMBLE_BYTES or not preamble.startswith(_MAGIC):
        raise ValueError("these bytes do not begin a checkpoint")
    _, crc, trial, resource, _ = _PREAMBLE.unpack_from(preamble)
    return trial, resource, crc


def complete(ref: CheckpointRef, row: Row, layout: Layout) -> CheckpointRef:
    """Return ``ref`` with the array, size and checksum of the row that was written for it."""
    _, _, crc = identify(row[:PREAMBLE_BYTES].tobytes())
    return CheckpointRef(ref.row, ref.trial, ref.resource, layout.name, row.nbytes, crc)


def verify(row: Row, ref: CheckpointRef, where: str | Path) -> None:
    """Raise `CheckpointCorrupt` unless the row is, byte for byte, the one that was committed."""
    if row.nbytes != ref.n_bytes:
        raise wrong_size(where, ref, row.nbytes)
    try:
        _, _, written = identify(row[:PREAMBLE_BYTES].tobytes())
    except ValueError as error:
        raise CheckpointCorrupt(f"{where}: {error} of {_whose(ref)}; {_NEXT}") from None
    found = zlib.crc32(row.data[_AFTER_CHECKSUM:])
    if not ref.checksum == written == found:
        raise CheckpointCorrupt(
            f"{where}: expected checksum {ref.checksum:#010x} for {_whose(ref)}; the row says "
            f"{written:#010x} and its bytes give {found:#010x}; {_NEXT}"
        )


def wrong_size(where: str | Path, ref: CheckpointRef, n_bytes: int) -> CheckpointCorrupt:
    """Return the error for a row of a size that was not committed."""
    return CheckpointCorrupt(
        f"{where}: expected {ref.n_bytes} bytes for {_whose(ref)}, found {n_bytes}; {_NEXT}"
    )


def absent(where: str | Path, ref: CheckpointRef) -> str:
    """Return the message for a row that is not there."""
    if not ref.array:
        return f"{where}: row {ref.row} of {_whose(ref)} was never written; {_NEXT}"
    return f"{where}: expected {ref.n_bytes} bytes for {_whose(ref)}, found nothing; {_NEXT}"


def _whose(ref: CheckpointRef) -> str:
    return f"trial {ref.trial} at resource {ref.resource}"


def _room(n_bytes: int) -> int:
    """Round a header up to one of eight sizes an octave, at least 4 KiB."""
    quantum = max(4096, 1 << max(0, n_bytes.bit_length() - 4))
    return -(-n_bytes // quantum) * quantum


# -- writing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Array:
    value: NDArray[Any]
    offset: int
    n_bytes: int

    def copy_to(self, part: Row) -> None:
        if self.n_bytes:
            np.ndarray(self.value.shape, self.value.dtype, buffer=part)[...] = self.value


@dataclass(frozen=True, slots=True)
class _Tensor:
    value: Any
    offset: int
    n_bytes: int
    path: str

    def copy_to(self, part: Row) -> None:
        x = self.value.detach()
        torch = sys.modules["torch"]
        if not self.n_bytes:
            return
        if x.is_cpu and x.is_contiguous() and not (x.is_conj() or x.is_neg()):
            # numpy's copy: torch's, on several threads, took 5-20 times as long on fresh memory
            part[...] = x.reshape(-1).view(torch.uint8).numpy()
            return
        try:  # from any device and any stride, with lazy conjugation resolved, in one pass
            torch.from_numpy(part).view(x.dtype).view(x.shape).copy_(x)
        except NotImplementedError:  # dtypes of less than a byte
            raise _refusal(self.path, f"a tensor of {x.dtype} that is not contiguous") from None


class _Encoder:
    """One walk over a state tree; `visit` says whether a part belongs to the layout."""

    def __init__(self) -> None:
        self.values: list[Json] = []
        self.blobs = bytearray()
        self.leaves: list[_Array | _Tensor] = []
        self.n_array_bytes = 0
        self.torch: Any = sys.modules.get("torch")  # not loaded: then no tensor can be in the tree

    def visit(self, x: Any, path: str, depth: int) -> tuple[bool, Json]:
        """Return (whether there are arrays in it, its JSON)."""
        if depth > MAX_DEPTH:
            raise StateNotSupported(
                f"{path[:200]}...: nested more than {MAX_DEPTH} deep, or contains itself"
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
        leaf = _Array(x, self.place(x.nbytes), x.nbytes)
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
        if kind is np.str_:  # apart: both an array's item and str() would lose trailing zeros
            return {"np.str_": _plain(str.__str__(x))}
        if kind is np.bytes_:
            return {"np.bytes_": x.hex()}
        if isinstance(x, np.generic):
            return {"scalar": [_dtype_name(x.dtype, path), x.tobytes().hex()]}
        raise _refusal(path, f"{x!r:.60} of type {kind.__module__}.{kind.__qualname__}")


def _plain(x: int | str) -> Json:
    """Return an int or a str as JSON that every reader gives back exactly."""
    if isinstance(x, int):  # hex: Python limits the length of decimal integers
        return x if -(2**53) <= x <= 2**53 else {"int": hex(x)}
    try:
        x.encode()
    except UnicodeEncodeError:  # two lone surrogates would come back as one character
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


# -- reading -------------------------------------------------------------------------------------


class _Decoder:
    def __init__(self, row: Row, n_header: int, values: list[Json], blobs: int) -> None:
        self.row, self.n_header, self.values, self.blobs = row, n_header, values, blobs

    def node(self, node: Json) -> Any:
        if isinstance(node, list):
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
                return self.row[self.blobs + start :][:n_bytes].tobytes()
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
        start = 0 if is_empty else self.n_header + offset
        return np.ndarray(tuple(shape), dtype, buffer=self.row.data, offset=start)

    def tensor(self, name: str, shape: list[int], offset: int) -> Any:
        torch = _torch()
        dtype = getattr(torch, name, None)
        if not isinstance(dtype, torch.dtype):
            raise StateNotSupported(
                f"a checkpoint holds a tensor of {name}, which torch {torch.__version__} does not "
                "know; read it with the version that wrote it"
            )
        n_bytes = math.prod(shape) * dtype.itemsize
        if n_bytes == 0:
            return torch.empty(shape, dtype=dtype, device="cpu")
        # from the slice, not the row: so its storage has its own size, whoever saves it elsewhere
        part = self.row[self.n_header + offset :][:n_bytes]
        return torch.from_numpy(part).view(dtype).view(shape)


def _torch() -> Any:
    try:
        return import_module("torch")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the checkpoint holds torch tensors and torch is not installed here; install torch, "
            "or save numpy arrays",
            name="torch",
        ) from error
