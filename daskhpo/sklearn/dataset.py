"""Training data in files, which the workers of a node map and share."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RowNumbers = NDArray[np.intp]
PARTS_KEPT = 8  # in the memory of a worker; each is a block's share of one side of a split


@dataclass(frozen=True)
class Split:
    """Row numbers of one division of the data, in the order of the splitter."""

    train: RowNumbers
    test: RowNumbers


@dataclass(frozen=True)
class DataSet:
    """Blocks of rows, each in a file of joblib's.

    Attributes
    ----------
    folder : all workers must see it.
    starts : number of the first row of each block, and at last the number of rows.
    has_y : False for estimators that learn without labels.
    aligned : names of the fit parameters that have one entry for each row.
    """

    folder: Path
    starts: tuple[int, ...]
    has_y: bool
    aligned: tuple[str, ...]

    @property
    def n_rows(self) -> int:
        """Number of rows of all blocks."""
        return self.starts[-1]

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return len(self.starts) - 1

    def block(self, number: int, rows: RowNumbers | None = None) -> dict[str, Any]:
        """Return ``X``, ``y`` and aligned parameters of a block; None: all of its rows."""
        first, end = self.starts[number], self.starts[number + 1]
        found = _mapped(self.folder, number)
        if rows is None:
            return found
        here = rows[(rows >= first) & (rows < end)] - first
        return {name: _taken(value, here) for name, value in found.items()}

    def take(self, rows: RowNumbers | None) -> dict[str, Any]:
        """Return rows of all blocks; within a block in the given order. None: all rows."""
        parts = [self.block(number, rows) for number in range(self.n_blocks)]
        parts = [part for part in parts if n_rows(part["X"])]
        return {name: _joined([part[name] for part in parts]) for name in parts[0]}


def stored(
    client: Any, folder: Path, X: Any, y: Any, aligned: Mapping[str, Any]
) -> tuple[DataSet, Any]:
    """Write data to a folder; return it, and its labels in this process's memory.

    Blocks of a Dask array are computed and written by the workers, and never come here.
    """
    from sklearn.utils.validation import _num_samples, indexable

    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(aligned)
    if not _is_dask(X):
        y = client.compute(y, sync=True) if _is_dask(y) else y
        X, y, *others = indexable(X, y, *aligned.values())
        _write(folder / "0", X, y, dict(zip(names, others, strict=True)))
        n = _num_samples(X)
        return DataSet(folder, (0, n), y is not None, names), y
    y = client.compute(y, sync=True) if _is_dask(y) else y
    blocks = _delayed_blocks(X)
    lengths = [*client.gather(client.compute([_length(block) for block in blocks]))]
    starts = (0, *np.cumsum(lengths).tolist())
    if y is not None and len(y) != starts[-1]:
        raise ValueError(f"X has {starts[-1]} rows, but y has {len(y)}")
    import dask

    write = dask.delayed(_write, pure=False)
    tasks = []
    for number, block in enumerate(blocks):
        rows = np.arange(starts[number], starts[number + 1])
        own = {name: _taken(value, rows) for name, value in aligned.items()}
        labels = None if y is None else _taken(y, rows)
        tasks.append(write(folder / str(number), block, labels, own))
    client.gather(client.compute(tasks))
    return DataSet(folder, starts, y is not None, names), y


def _delayed_blocks(X: Any) -> list[Any]:
    if hasattr(X, "to_dask_array") and not hasattr(X, "chunks"):  # a data frame
        return [*X.to_delayed()]
    if X.ndim > 1 and X.numblocks[1] > 1:
        X = X.rechunk(dict.fromkeys(range(1, X.ndim), -1))
    return [*X.to_delayed().reshape(-1)]


def _length(block: Any) -> Any:
    import dask

    return dask.delayed(n_rows)(block)


def n_rows(X: Any) -> int:
    """Return the number of rows of an array, a data frame, a sparse matrix or a list."""
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)


def _is_dask(data: Any) -> bool:
    import dask

    return bool(dask.is_dask_collection(data))


def _write(path: Path, X: Any, y: Any, aligned: Mapping[str, Any]) -> None:
    import joblib

    labels = {} if y is None else {"y": y}
    joblib.dump({"X": X, **labels, **aligned}, path)


@functools.lru_cache(maxsize=64)
def _mapped(folder: Path, number: int) -> dict[str, Any]:
    import joblib

    path = folder / str(number)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there: this worker does not see the folder in which the search keeps "
            "its data. Give storage=, a folder that all workers see"
        )
    found: dict[str, Any] = joblib.load(path, mmap_mode="c")
    return found


def _taken(value: Any, rows: RowNumbers) -> Any:
    from sklearn.utils import _safe_indexing

    return _safe_indexing(value, rows)


def _joined(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if len(parts) == 1:
        return first
    if hasattr(first, "iloc"):
        import pandas as pd

        return pd.concat(parts)
    if hasattr(first, "tocsr"):
        import scipy.sparse

        return scipy.sparse.vstack(parts, format="csr")
    if isinstance(first, list):
        return [item for part in parts for item in part]
    return np.concatenate([np.asarray(part) for part in parts])


_parts: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
_parts_lock = threading.Lock()  # workers may be threads of one process


def kept(key: tuple[Any, ...], load: Callable[[], Any]) -> Any:
    """Return ``load()``, or what it returned for the same key a short while ago."""
    with _parts_lock:
        if key in _parts:
            _parts.move_to_end(key)
            return _parts[key]
    part = load()
    with _parts_lock:
        _parts[key] = part
        while len(_parts) > PARTS_KEPT:
            _parts.popitem(last=False)
    return part
