"""The user's script, as worker processes on this machine see it.

A new process runs the script again, up to its main guard, before it is a worker: that is how
``multiprocessing`` starts one. What was typed or piped has no file that it could run; its functions
and classes travel by value all the same, so nothing is missing.
"""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path


def check_main_guard() -> None:
    """Check that workers, which import the user's script, do not run it again.

    Raises
    ------
    RuntimeError : the script's call is not under ``if __name__ == "__main__":``.
    """
    import dask

    if dask.config.get("distributed.worker.multiprocessing-method", "spawn") == "fork":
        return
    path = getattr(sys.modules["__main__"], "__file__", None)
    if path is None or not Path(path).is_file():  # nothing that workers could run again
        return
    frame = sys._getframe()
    while frame.f_code.co_name != "<module>" or frame.f_code.co_filename != path:
        if frame.f_back is None:  # called in another thread than the script's
            return
        frame = frame.f_back
    line = frame.f_lineno
    try:
        statements = ast.parse(Path(path).read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return
    for statement in statements:
        if statement.lineno <= line <= (statement.end_lineno or line):
            if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
                return
            raise RuntimeError(
                f"{path}, line {line}, starts worker processes, each of which would run the script "
                'again: put the line under `if __name__ == "__main__":`'
            )


@contextlib.contextmanager
def hidden_main() -> Iterator[None]:
    """Hide a path of the script that is no file, such as ``<stdin>``, from workers.

    Else each of them would end at once, because it cannot read it.
    """
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None or Path(path).is_file():
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = path
