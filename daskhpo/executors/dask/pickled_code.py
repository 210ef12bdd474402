"""The user's code on its way to workers, and the errors that come back.

Its source lines travel with it: a traceback shows them where the file does not exist, was changed
since, or never was a file, such as a notebook's cell.
"""

from __future__ import annotations

import io
import linecache
import pickle
import traceback
import types
from collections import ChainMap
from pathlib import Path
from typing import Any

import cloudpickle

from daskhpo.core.errors import RankFailed
from daskhpo.core.plain import readable

_HERE = Path(__file__).parent
CALLERS = (str(_HERE), str(_HERE.parents[1] / "distributed"))  # folders that call the user's code


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """A pickler that collects the source files of all code that it pickles by value."""

    def __init__(self, file: io.BytesIO) -> None:
        self.sources: dict[str, list[str]] = {}
        self.dispatch_table = ChainMap(  # the base class reads it when it is made
            {types.CodeType: self._reduce_code}, cloudpickle.Pickler.dispatch_table
        )
        super().__init__(file)

    def _reduce_code(self, code: types.CodeType) -> Any:
        name = code.co_filename
        if name not in self.sources and (lines := linecache.getlines(name)):
            self.sources[name] = lines
        return cloudpickle.Pickler.dispatch_table[types.CodeType](code)


def dump_code(code: Any) -> bytes:
    """Pickle the user's function or class, with its source lines."""
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(code)
    return pickle.dumps((pickler.sources, file.getvalue()))


def load_code(data: bytes) -> Any:
    """Unpickle what :func:`dump_code` made, and register its source lines."""
    sources, pickled = pickle.loads(data)
    for name, lines in sources.items():
        # Without a time of change, `linecache` does not look at the file again.
        linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
    return cloudpickle.loads(pickled)


def traceback_of(error: BaseException) -> str:
    """Return an error's traceback without the calls that led to the user's code."""
    if isinstance(error, RankFailed):  # it was raised in another process
        return readable(error.story)
    shown = traceback.TracebackException.from_exception(error)
    _trim(shown, set())
    return readable("".join(shown.format()).strip())


def _trim(shown: traceback.TracebackException, seen: set[int]) -> None:
    if id(shown) in seen:
        return
    seen.add(id(shown))
    own = [frame for frame in shown.stack if not frame.filename.startswith(CALLERS)]
    shown.stack = traceback.StackSummary.from_list(own)
    for other in (shown.__cause__, shown.__context__, *(shown.exceptions or ())):
        if other is not None:
            _trim(other, seen)
