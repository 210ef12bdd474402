"""Values of hyperparameters as cells of a CSV file, and back with their types."""

from __future__ import annotations

import json
from typing import Any

_FORMULA = "=+-@\t\r"  # with which a spreadsheet's formula begins
_OTHERS = {"": None, "None": None, "True": True, "False": False}  # as Python and pandas write them


def encode_cell(value: Any) -> str:
    """Return a value as text that :func:`decode_cell` restores with its type.

    It is JSON; a text that cannot be taken for another value, nor by a spreadsheet for a formula,
    stands as it is.

    >>> [encode_cell(value) for value in ("adam", "1", 1, 1.0, None, (1, 2))]
    ['adam', '"1"', '1', '1.0', 'null', '[1, 2]']
    """
    is_formula = isinstance(value, str) and len(value) > 1 and value[0] in _FORMULA
    if isinstance(value, str) and decode_cell(value) == value and not is_formula:
        return value
    return json.dumps(value)


def decode_cell(text: str) -> Any:
    """Return the value of a cell; text that is no JSON stands for itself."""
    if text in _OTHERS:
        return _OTHERS[text]
    try:
        return _tuples(json.loads(text))
    except ValueError:
        return text


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
