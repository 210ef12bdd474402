"""Export of a state as one file: ``.pt`` (torch), ``.safetensors`` or ``.npz``."""

from __future__ import annotations

import json
import math
import sys
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from daskhpo.atomic_files import replacing

VALUES = "__metadata__"  # .npz entry for the parts without arrays; also a key of .safetensors


def check_target(path: Path, *, force: bool = False) -> None:
    """Check that :func:`export` can write to ``path``, before the state is read.

    Raises
    ------
    ValueError : the suffix is unknown, or the folder does not exist.
    FileExistsError : the file exists, and ``force`` is False.
    """
    if path.suffix not in _WRITERS:
        raise ValueError(
            f"{path} must end in one of {', '.join(_WRITERS)}: the suffix selects the format"
        )
    if not path.parent.is_dir():
        raise ValueError(
            f"{path} cannot be written: the folder {path.parent} does not exist; create it first"
        )
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists already; give another name, or --force (force=True)")


def export(state: Any, path: Path, *, force: bool = False) -> None:
    """Write a state to a file, which appears only when it is complete.

    The suffix selects the format:

    ``.pt``
        The whole tree, written by ``torch.save``.
    ``.safetensors``
        Arrays and tensors by name: their keys joined by dots. Parts without arrays are JSON in the
        metadata, by the same kind of names.
    ``.npz``
        The same in numpy's format; the parts without arrays are one JSON text in ``__metadata__``.

    Only ``.pt`` preserves the tree: in JSON a tuple becomes a list, and a key becomes a string.

    Parameters
    ----------
    force : replace an existing file.

    Raises
    ------
    ValueError, FileExistsError : see :func:`check_target`. ValueError also if the format cannot
        hold a part of the state; the message names the part.
    ModuleNotFoundError : torch or safetensors is needed and not installed.
    OSError : the file cannot be written; no partial file is left.
    """
    check_target(path, force=force)
    with replacing([path]) as (partial,):
        _WRITERS[path.suffix](state, partial)


def flatten(state: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a state's arrays and tensors by dotted names, and the rest as JSON.

    A part without arrays is one JSON text, at any depth. If the whole state is one array or one
    value, its name is ``state``.

    Raises
    ------
    ValueError : two parts would have the same name.
    """
    arrays: dict[str, Any] = {}
    values: dict[str, str] = {}

    def put(found: dict[str, Any], name: str, part: Any) -> None:
        name = name or "state"
        if name in found:
            raise ValueError(f"two parts of the state would be named {name!r}; export it to .pt")
        found[name] = part

    def visit(part: Any, name: str) -> None:
        if _is_array(part):
            put(arrays, name, part)
        elif _has_arrays(part):
            for key, inner in _parts(part):
                visit(inner, _joined(name, key))
        else:
            put(values, name, json.dumps(_plain(part, name), allow_nan=False))

    visit(state, "")
    return arrays, values


# -- formats -------------------------------------------------------------------------------------


def _write_pt(state: Any, path: Path) -> None:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a .pt file is written by torch, which is not installed: pip install torch, or "
            "export to .npz",
            name="torch",
        ) from error
    torch.save(state, path)


def _write_npz(state: Any, path: Path) -> None:
    arrays, values = _flattened(state)
    by_name = {name: _as_numpy(name, x) for name, x in arrays.items()}
    by_name[VALUES] = np.array(json.dumps({name: json.loads(x) for name, x in values.items()}))
    # not by np.savez: it takes names as keyword arguments, and some are its own parameters
    with zipfile.ZipFile(path, "x") as file:
        for name, x in by_name.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, x, allow_pickle=False)


def _write_safetensors(state: Any, path: Path) -> None:
    try:
        refusal: type[Exception] = import_module("safetensors").SafetensorError
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a .safetensors file is written by the package safetensors, which is not installed: "
            "pip install safetensors, or export to .pt or .npz",
            name="safetensors",
        ) from error
    arrays, values = _flattened(state)
    has_tensors = any(not isinstance(x, np.ndarray) for x in arrays.values())
    home = import_module(f"safetensors.{'torch' if has_tensors else 'numpy'}")
    form = _as_torch if has_tensors else _native
    refusals = (refusal, TypeError, KeyError)
    try:
        home.save_file({name: form(x) for name, x in arrays.items()}, path, metadata=values)
    except refusals as error:
        for name, x in arrays.items():  # find the array, which the error does not name
            try:
                home.save({name: form(x)})
            except refusals as cause:
                raise ValueError(
                    f"a .safetensors file cannot hold {name!r}, {_kind(x)}; export it to .pt"
                ) from cause
        raise OSError(f"{path.parent}: {error}") from error  # all arrays fit: the disk failed


_WRITERS: dict[str, Callable[[Any, Path], None]] = {
    ".pt": _write_pt,
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
}


def _flattened(state: Any) -> tuple[dict[str, Any], dict[str, str]]:
    arrays, values = flatten(state)
    if VALUES in arrays:
        raise ValueError(
            f"the name {VALUES!r} is reserved in such a file; rename that array, or export to .pt"
        )
    return arrays, values


def _native(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x.astype(x.dtype.newbyteorder("="), copy=False)


def _as_torch(x: Any) -> Any:
    import torch

    return torch.from_numpy(_native(x)) if isinstance(x, np.ndarray) else x.detach()


def _as_numpy(name: str, x: Any) -> np.ndarray[Any, Any]:
    if isinstance(x, np.ndarray):
        return x
    try:
        array: np.ndarray[Any, Any] = x.detach().numpy()
    except TypeError:
        raise ValueError(
            f"an .npz file cannot hold {name!r}, {_kind(x)}: numpy has no such dtype; export it to "
            ".pt or .safetensors"
        ) from None
    return array


def _kind(x: Any) -> str:
    return f"{'an array' if isinstance(x, np.ndarray) else 'a tensor'} of {x.dtype}"


# -- trees ---------------------------------------------------------------------------------------


def _is_array(part: Any) -> bool:
    torch = sys.modules.get("torch")  # None: torch is not loaded, so no part is a tensor
    return isinstance(part, np.ndarray) or (torch is not None and isinstance(part, torch.Tensor))


def _has_arrays(part: Any) -> bool:
    return _is_array(part) or any(_has_arrays(inner) for _, inner in _parts(part))


def _parts(part: Any) -> list[tuple[Any, Any]]:
    if isinstance(part, dict):
        return list(part.items())
    return list(enumerate(part)) if isinstance(part, list | tuple) else []


def _joined(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _plain(part: Any, name: str) -> Any:
    """Return a part as JSON data; a type that JSON lacks becomes ``{kind: text}``."""
    if isinstance(part, np.generic):
        item = part.item()
        if isinstance(item, bool | int | float | complex | str | bytes):
            return _plain(item, name)
        return {"numpy": [part.dtype.str, part.tobytes().hex()]}
    if isinstance(part, float) and not math.isfinite(part):
        return {"float": str(part)}
    if isinstance(part, complex):
        return {"complex": str(part)}
    if isinstance(part, bytes):
        return {"bytes": part.hex()}
    if isinstance(part, dict):
        texts = {str(key): _plain(inner, _joined(name, key)) for key, inner in part.items()}
        if len(texts) < len(part):
            raise ValueError(
                f"two keys of {name or 'state'!r} are equal as strings; export it to .pt"
            )
        return texts
    if isinstance(part, list | tuple):
        return [_plain(inner, _joined(name, i)) for i, inner in enumerate(part)]
    return part
