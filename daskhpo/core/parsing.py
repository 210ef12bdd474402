"""Parsing of objects from text: known names and plain values, nothing else."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

MAX_LENGTH = 10_000


def parse_call(text: str, known: Mapping[str, Callable[..., Any]]) -> Any:
    """Make an object from text such as ``"ASHA(max_t=81, grace_period=3)"``.

    The text is parsed, never evaluated. It can only call known names. Their arguments are numbers,
    strings, bools, None, lists, tuples and dicts of these, and calls of other known names.

    >>> parse_call("dict(a=-1, b=[2.5, dict()])", {"dict": dict})
    {'a': -1, 'b': [2.5, {}]}

    Raises
    ------
    ValueError : the text contains anything else, or the callable rejects its arguments.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the text {text[:40]!r}… is longer than {MAX_LENGTH} characters")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, known)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} cannot be read: {error}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{text!r}: {error}") from None


def _value(node: ast.expr, known: Mapping[str, Callable[..., Any]]) -> Any:
    def value(inner: ast.expr) -> Any:
        return _value(inner, known)

    match node:
        case ast.Constant(value=int() | float() | str() | None as plain):
            return plain
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List(elts=items):
            return [value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(value(item) for item in items)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            pairs = zip(keys, values, strict=True)
            return {value(key): value(item) for key, item in pairs if key is not None}
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in known:
            named = {k.arg: value(k.value) for k in keywords if k.arg is not None}
            if len(named) == len(keywords):  # no **mapping
                return known[name](*(value(arg) for arg in args), **named)
    raise ValueError(
        f"{ast.unparse(node)!r} is not allowed; write plain values and calls of "
        f"{', '.join(known) or 'nothing'}"
    )
