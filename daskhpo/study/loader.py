"""Studies that Python files define: ``FILE.py:NAME``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Protocol, TypeVar

from daskhpo.engine.coordinator import Problem
from daskhpo.engine.session import manifest_of


class Definition(Protocol):
    """What a file may define: a study."""

    source: str | None

    @property
    def problem(self) -> Problem:
        """What is searched, and how."""


S = TypeVar("S", bound=Definition)

_being_loaded: list[Path] = []


def load(source: str, kind: type[S]) -> S:
    """The study, an object of ``kind``, that ``FILE.py:NAME`` defines.

    The file is imported under a name of its own, so that what stands under
    ``if __name__ == "__main__"`` is left out.

    Raises
    ------
    ValueError : there is no such file, or no such study in it. What the file raises, it raises.
    """
    import cloudpickle

    file, _, name = source.rpartition(":")
    path = Path(file)
    if not file or not path.is_file():
        raise ValueError(f"{source!r} must be FILE.py:NAME, with a file that exists")
    if (folder := str(path.parent.absolute())) not in sys.path:
        sys.path.insert(0, folder)
    module_name = f"daskhpo_study_{path.stem}"  # no other module has such a name
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    _being_loaded.append(path)
    try:
        spec.loader.exec_module(module)
    finally:
        _being_loaded.pop()
    cloudpickle.register_pickle_by_value(module)  # workers elsewhere cannot import the file
    study = getattr(module, name, None)
    if not isinstance(study, kind):
        there = [key for key, value in vars(module).items() if isinstance(value, kind)]
        raise ValueError(f"{path} has no {kind.__name__} named {name!r}; it has {there or 'none'}")
    study.source = f"{path.absolute()}:{name}"
    return study


def source_of(study: Definition) -> str:
    """Where a study is defined, as ``FILE.py:NAME``; the file is imported to make sure.

    Raises
    ------
    ValueError : it is no global variable of a file; or the file, imported anew, defines another
        study by that name.
    """
    if study.source is not None:  # it was loaded from there
        return study.source
    for module in [sys.modules["__main__"], *sys.modules.values()]:
        file = getattr(module, "__file__", None)
        names = [name for name, value in _globals(module).items() if value is study]
        if file is None or not names:
            continue
        source = f"{Path(file).absolute()}:{names[0]}"
        again = manifest_of(load(source, type(study)).problem, None)
        if again != manifest_of(study.problem, None):
            raise ValueError(
                f"{source} is another study when the file is imported anew: its space, metric, "
                "scheduler or searcher follow from something that only this process knows"
            )
        return source
    raise ValueError(
        "this study is no global variable of a Python file, so a job could not find it: define it "
        "at the top of FILE.py and call submit() there under `if __name__ == '__main__'`, or "
        "submit it by `daskhpo submit FILE.py:NAME`"
    )


def _globals(module: object) -> dict[str, object]:
    return dict(getattr(module, "__dict__", {}))  # a copy: other threads may be importing


def check_not_loading(what: str) -> None:
    """Refuse to begin a study while a file is only imported to find the one it defines."""
    if _being_loaded:
        raise ValueError(
            f"{_being_loaded[-1]} calls study.{what}() while it is imported: put the call under "
            "`if __name__ == '__main__'`"
        )
