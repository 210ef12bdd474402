"""Typed messages as bytes: the conversion of dataclasses to msgpack, and back.

A message is a frozen dataclass, or one of a union of them. Its fields are plain values, enums,
mappings, tuples, other dataclasses, named tuples, unions of dataclasses, or one of these or None.

The conversion of each type is one expression, which is compiled once, as `dataclasses` does for
``__init__``. A report and its answer are converted four times, so this is a part of each decision's
time; calls of nested functions took twice as long.
"""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import msgpack

WireMessage = TypeVar("WireMessage")

_SURROGATES, _INT = "surrogatepass", 1  # how msgpack treats lone surrogates; our type of ints


class Codec(Generic[WireMessage]):
    """Conversion of messages of one type to bytes, and back.

    The bytes are msgpack's. What msgpack cannot hold passes unchanged, too: ints of any size, and
    text with lone surrogates (file names that are not UTF-8).

    Parameters
    ----------
    kind : a dataclass, or a union of several.

    Raises
    ------
    TypeError : the type is neither.
    """

    def __init__(self, kind: Any) -> None:
        if not is_dataclass(kind) and get_origin(kind) not in (Union, types.UnionType):
            raise TypeError(f"{kind} is no message: it must be a dataclass or a union of them")
        self._encode: Callable[[WireMessage], Any] = _Source().encoder(kind)
        self._decode: Callable[[Any], WireMessage] = _Source().decoder(kind)

    def encode(self, message: WireMessage) -> bytes:
        """Return a message as bytes.

        Raises
        ------
        TypeError : the message holds a value that is not plain.
        """
        return self.writer()(message)

    def writer(self) -> Callable[[WireMessage], bytes]:
        """Return a function as :meth:`encode`, for one thread at a time.

        It keeps its buffer: a new one takes a quarter of a megabyte from the system each time.
        """
        pack = msgpack.Packer(default=_pack_other, unicode_errors=_SURROGATES).pack

        def write(message: WireMessage) -> bytes:
            data: bytes = pack(self._encode(message))
            return data

        return write

    def decode(self, data: bytes) -> WireMessage:
        """Return the message that these bytes hold."""
        [message] = self.reader()(data)
        return message

    def reader(self) -> Callable[[bytes], list[WireMessage]]:
        """Return a function from bytes of a stream to the messages they complete."""
        unpacker = msgpack.Unpacker(
            use_list=False,
            strict_map_key=False,
            ext_hook=_unpack_other,
            unicode_errors=_SURROGATES,
            max_buffer_size=0,  # no limit but msgpack's own, 4 GiB
        )

        def read(data: bytes) -> list[WireMessage]:
            unpacker.feed(data)
            return [self._decode(item) for item in unpacker]

        return read


def _pack_other(value: Any) -> msgpack.ExtType:
    if isinstance(value, int):  # of more than 64 bits
        size = value.bit_length() // 8 + 1
        return msgpack.ExtType(_INT, value.to_bytes(size, "big", signed=True))
    raise TypeError(f"a message cannot hold {value!r}, a {type(value).__name__}")


def _unpack_other(code: int, data: bytes) -> int:
    assert code == _INT, f"unknown type {code} in a message"
    return int.from_bytes(data, "big", signed=True)


class _Source:
    """Python expressions for conversions, and the objects that they name."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}
        self._n_items = 0

    def encoder(self, kind: Any) -> Callable[[Any], Any]:
        """Return the function from a value of a type to plain data."""
        return self._function(self._encoded(kind, "v"))

    def decoder(self, kind: Any) -> Callable[[Any], Any]:
        """Return the function from plain data to a value of a type."""
        return self._function(self._decoded(kind, "v"))

    def _function(self, expression: str) -> Callable[[Any], Any]:
        function: Callable[[Any], Any] = eval(f"lambda v: {expression}", self._names)
        return function

    def _encoded(self, kind: Any, value: str) -> str:
        """Return an expression of the plain data of ``value``, an expression of a value."""
        match _form(kind):
            case "optional", (member,):
                return f"(None if {value} is None else {self._encoded(member, value)})"
            case "union", members:
                known = self._name(
                    {m: self._function(self._fields(m, "v", repr(m.__name__))) for m in members}
                )
                return f"{known}[type({value})]({value})"
            case "tuple", (member,):
                item = self._item()
                return f"[{self._encoded(member, item)} for {item} in {value}]"
            case "mapping", _:
                return f"dict({value})"
            case "enum", _:
                return f"{value}.name"
            case "record", _:
                return self._fields(kind, value)
        return value

    def _fields(self, cls: Any, value: str, *before: str) -> str:
        """Return an expression of the tuple of a dataclass's fields."""
        hints = get_type_hints(cls)
        each = [self._encoded(hints[name], f"{value}.{name}") for name in _field_names(cls)]
        return f"({''.join(f'{part}, ' for part in (*before, *each))})"

    def _decoded(self, kind: Any, data: str, first: int = 0) -> str:
        """Return an expression of the value with the plain data ``data``.

        ``first``: index of a dataclass's first field.
        """
        match _form(kind):
            case "optional", (member,):
                return f"(None if {data} is None else {self._decoded(member, data)})"
            case "union", members:
                known = self._name(
                    {m.__name__: self._function(self._decoded(m, "v", 1)) for m in members}
                )
                return f"{known}[{data}[0]]({data})"
            case "tuple", (member,):
                item = self._item()
                return f"tuple([{self._decoded(member, item)} for {item} in {data}])"
            case "enum", _:
                return f"{self._name(kind)}[{data}]"
            case "record", _:
                hints = get_type_hints(kind)
                each = [
                    self._decoded(hints[name], f"{data}[{i}]")
                    for i, name in enumerate(_field_names(kind), first)
                ]
                return f"{self._name(kind)}({', '.join(each)})"
        return data

    def _name(self, value: Any) -> str:
        name = f"known{len(self._names)}"
        self._names[name] = value
        return name

    def _item(self) -> str:
        self._n_items += 1
        return f"item{self._n_items}"


def _form(kind: Any) -> tuple[str, tuple[Any, ...]]:
    """Return the form of a type, and the types that it is made of."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        members = tuple(member for member in args if member is not types.NoneType)
        if len(members) == len(args):
            return "union", members
        return "optional", (functools.reduce(operator.or_, members),)
    if origin is tuple:
        return "tuple", args[:1]
    if origin is not None and issubclass(origin, Mapping):
        return "mapping", ()
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "enum", ()
    return ("record" if is_dataclass(kind) or hasattr(kind, "_fields") else "plain"), ()


def _field_names(cls: Any) -> list[str]:
    return [f.name for f in fields(cls)] if is_dataclass(cls) else [*cls._fields]
