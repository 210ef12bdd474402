"""Checkpoints in Ray Tune's words: folders of files, or dicts."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from daskhpo.core.errors import InvalidArgument


class Checkpoint:
    """A folder of files, or a dict, from which a trial continues.

    Made by :meth:`from_directory` or :meth:`from_dict`. A study keeps the files' bytes in its own
    store; a checkpoint that it gives back writes them to a temporary folder at first use, which
    lives as long as this object. It is also a path: ``os.path.join(checkpoint, "model.pt")``.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, data: Any = None) -> None:
        self._path = None if path is None else str(path)
        self._data = data
        self._files: Mapping[str, Any] = {}
        self._metadata: dict[str, Any] = {}
        self._about: dict[str, Any] = {}  # a class's iteration, and what it returned

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Make one of the files in a folder.

        Raises
        ------
        InvalidArgument : there is no such folder.
        """
        if not Path(path).is_dir():
            raise InvalidArgument(f"Checkpoint.from_directory({str(path)!r}): there is no folder")
        return cls(path)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Checkpoint:
        """Make one of a tree of dicts, lists, numbers, texts, arrays and tensors."""
        return cls(data=data)

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that it was made of."""
        if self._data is None:
            raise InvalidArgument("this checkpoint is a folder: use as_directory()")
        return dict(self._data)

    @property
    def path(self) -> str:
        """A folder with the files."""
        if self._path is None:
            if self._data is not None:
                raise InvalidArgument("this checkpoint is a dict: use to_dict()")
            self._path = tempfile.mkdtemp(prefix="daskhpo-checkpoint-")
            weakref.finalize(self, shutil.rmtree, self._path, ignore_errors=True)
            for name, content in self._files.items():
                file = Path(self._path, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.tobytes())
        return self._path

    def __fspath__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        return f"Checkpoint({self._path or ('a dict' if self._data is not None else 'stored')})"

    @contextmanager
    def as_directory(self) -> Iterator[str]:
        """Give a folder with the files; do not write to it."""
        yield self.path

    def to_directory(self, path: str | os.PathLike[str] | None = None) -> str:
        """Copy the files to a folder, by default a new temporary one, and return it."""
        target = tempfile.mkdtemp(prefix="daskhpo-checkpoint-") if path is None else str(path)
        shutil.copytree(self.path, target, dirs_exist_ok=True)
        return target

    def get_metadata(self) -> dict[str, Any]:
        """Return what :meth:`set_metadata` has set."""
        return dict(self._metadata)

    def set_metadata(self, metadata: dict[str, Any]) -> None:
        """Set a dict that is kept with the checkpoint."""
        self._metadata = dict(metadata)

    def update_metadata(self, metadata: dict[str, Any]) -> None:
        """Add to what :meth:`set_metadata` has set."""
        self._metadata |= metadata

    def packed(self) -> dict[str, Any]:
        """Return it as a state of daskhpo."""
        about = {"metadata": self._metadata, **self._about}
        if self._data is not None:
            return {"data": self._data, **about}
        if self._path is None:
            return {"files": dict(self._files), **about}
        files = {}
        for folder, _, names in os.walk(self._path):
            for name in sorted(names):
                file = Path(folder, name)
                if file.is_file():
                    content = np.frombuffer(file.read_bytes(), np.uint8)
                    files[file.relative_to(self._path).as_posix()] = content
        return {"files": files, **about}

    @classmethod
    def unpacked(cls, state: Mapping[str, Any]) -> Checkpoint:
        """Return the checkpoint that :meth:`packed` has made a state of."""
        found = cls(data=state.get("data"))
        found._files, found._metadata = state.get("files", {}), state.get("metadata", {})
        found._about = {n: state[n] for n in ("iteration", "returned") if n in state}
        return found
