"""Columns that a browser holds, and the messages that bring them up to date."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskhpo.plots.data import Columns

BUDGET = 20_000  # bytes of cells in one message; what is beyond waits for the next
CELL_BYTES = 20  # of one cell as JSON, about, with its place
ROW_BYTES = 16  # beside the cells
MAX_BLANK = 0.2  # share of rows that may be blank; with more, all columns are sent again
ARRAY_BYTES = 9  # of one number in a cell that is an array


@dataclass
class Delta:
    """Changes of columns: cells by row, then new rows; or all again.

    Attributes
    ----------
    replace : all columns, or None.
    patch : by column: pairs of a row and its new value.
    append : by column: the values of new rows.
    is_cut : True: there are more changes, for the next message.
    n_bytes : size, about.
    """

    replace: Columns | None = None
    patch: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    append: Columns = field(default_factory=dict)
    is_cut: bool = False
    n_bytes: int = 0

    def __bool__(self) -> bool:
        return self.replace is not None or bool(self.patch) or bool(self.append)


class SentColumns:
    """The columns that a browser holds.

    A row keeps its place. One that left is replaced by a new one, so that a selection by place
    stays right for the rows that stay. While there are fewer rows, some are blank: no number, no
    text, the key -1; nothing is drawn of them.

    Parameters
    ----------
    columns : as they were sent first.
    key : column that identifies a row; None: its place does.
    """

    def __init__(self, columns: Columns, key: str | None = None) -> None:
        self._key = key
        self._hold(columns)

    def _hold(self, columns: Columns) -> None:
        self._columns = {name: _own(values) for name, values in columns.items()}
        self._set_places()

    def _set_places(self) -> None:
        keys = self._columns[self._key] if self._key else ()
        self._place = {key: place for place, key in enumerate(_as_list(keys))}

    def update(self, new: Columns, budget: int = BUDGET) -> Delta:
        """Return the changes towards new columns, which the browser is then said to hold.

        What is beyond the budget of one message is left for the next call.
        """
        if any(map(_has_images, new.values())):  # a browser's images cannot be changed by cells
            if not _is_changed(self._columns, new):
                return Delta()
            self._hold(new)
            n_bytes = sum(_size(value) for values in new.values() for value in values)
            return Delta(replace=new, n_bytes=n_bytes)
        n_old, n_new = _n_rows(self._columns), _n_rows(new)
        least = n_old if self._key is None else (1 - MAX_BLANK) * n_old
        if new.keys() != self._columns.keys() or n_new < least or (n_old == 0 < n_new):
            self._hold(new)
            return Delta(replace=new)
        if self._key is not None:
            order = self._order(_as_list(new[self._key]), n_old)
            new = {name: _taken(values, order) for name, values in new.items()}
            n_new = len(order)
        return self._difference(new, n_old, n_new, budget)

    def _order(self, keys: list[Any], n_old: int) -> list[int]:
        """Return which new row goes to each place: old rows keep theirs."""
        row_of = {key: row for row, key in enumerate(keys)}
        order = [-1] * n_old
        for key, place in self._place.items():
            order[place] = row_of.pop(key, -1)
        fresh = iter(row_of.values())
        for place, row in enumerate(order):
            if row < 0:
                order[place] = next(fresh, -1)  # -1: blank, until there are more rows
        return [*order, *fresh]

    def _difference(self, new: Columns, n_old: int, n_new: int, budget: int) -> Delta:
        delta, n_bytes = Delta(), 0
        changed: dict[int, list[str]] = {}
        for name, old in self._columns.items():
            for place in _changed(old, new[name][:n_old]):
                changed.setdefault(place, []).append(name)
        for place, names in changed.items():  # row by row: none is half new
            n_bytes += ROW_BYTES + sum(_size(new[name][place]) for name in names)
            if n_bytes > budget and delta.patch:
                delta.is_cut = True
                break
            for name in names:
                value = new[name][place]
                delta.patch.setdefault(name, []).append((place, value))
                self._columns[name][place] = value
        n_end = n_old
        while n_end < n_new and n_bytes <= budget:
            n_bytes += ROW_BYTES + sum(_size(values[n_end]) for values in new.values())
            n_end += 1
        delta.is_cut |= n_end < n_new
        delta.n_bytes = n_bytes
        if n_end > n_old:
            for name, values in new.items():
                delta.append[name] = values[n_old:n_end]
                self._columns[name] = _joined(self._columns[name], values[n_old:n_end])
        if self._key is not None and delta:
            self._set_places()
        return delta


def _n_rows(columns: Columns) -> int:
    return len(next(iter(columns.values()))) if columns else 0


def _has_images(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and getattr(values[0], "ndim", 0) == 2


def _is_changed(old: Columns, new: Columns) -> bool:
    return _n_rows(old) != _n_rows(new) or any(_changed(old[name], new[name]) for name in new)


def _own(values: Any) -> Any:
    return values.copy() if isinstance(values, np.ndarray) else list(values)


def _as_list(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _taken(values: Any, order: list[int]) -> Any:
    """Return the rows of a column in this order; -1: a blank one."""
    if not isinstance(values, np.ndarray):
        blank: Any = np.array([]) if values and isinstance(values[0], np.ndarray) else ""
        return [blank if row < 0 else values[row] for row in order]
    blank = np.nan if values.dtype.kind == "f" else -1
    return np.where(np.array(order) < 0, blank, values[order]) if len(values) else values[order]


def _joined(old: Any, more: Any) -> Any:
    if isinstance(old, np.ndarray):
        return np.concatenate([old, more])
    return [*old, *more]


def _changed(old: Any, new: Any) -> list[int]:
    """Return the places at which two columns differ; NaN is like NaN."""
    if isinstance(old, np.ndarray) and isinstance(new, np.ndarray):
        same = (old == new) | ((old != old) & (new != new))
        places: list[int] = np.flatnonzero(~same).tolist()
        return places
    if len(old) and isinstance(old[0], np.ndarray):
        pairs = enumerate(zip(old, new, strict=True))
        return [i for i, (a, b) in pairs if a is not b and a.tobytes() != b.tobytes()]
    pairs = enumerate(zip(old, new, strict=True))
    return [i for i, (a, b) in pairs if a is not b and a != b and (a == a or b == b)]


def _size(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return CELL_BYTES + int(value.size) * ARRAY_BYTES
    return CELL_BYTES + (len(value) if isinstance(value, str) else 0)
