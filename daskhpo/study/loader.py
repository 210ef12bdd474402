"""Studies that Python files define: ``FILE.py:NAME``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Protocol, Self, TypeVar

from daskhpo.engine.coordinator import Problem
from daskhpo.engine.session import manifest_of


class Definition(Protocol):
    """A study that a file may define."""

    problem: Problem
    source: str | None

    @property
    def path(self) -> Path:
        """The study's directory."""

    def at(self, path: Path, source: str | None = None) -> Self:
        """Return the same study in another directory, or from a file."""


S = TypeVar("S", bound=Definition)

_being_loaded: list[Path] = []


def load(source: str, kind: type[S]) -> S:
    """Return the study, an object of ``kind``, that ``FILE.py:NAME`` defines.

    The file is imported under a separate module name, so code under
    ``if __name__ == "__main__"`` does not run. Errors that the file raises are not caught.

    Raises
    ------
    ValueError : the file does not exist, or has no such study.
    """
    import cloudpickle

    file, _, name = source.rpartition(":")
    path = Path(file)
    if not file or not path.is_file():
        raise ValueError(
            f"{source!r} must be FILE.py:NAME, with a file that exists{_meant(source)}"
        )
    if (folder := str(path.parent.absolute())) not in sys.path:
        sys.path.insert(0, folder)
    module_name = f"daskhpo_study_{path.stem}"  # no other module has this name
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file")
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
    return study.at(study.path, f"{path.absolute()}:{name}")


def _meant(source: str) -> str:
    """Return a hint for a name or a suffix that was left out."""
    file, _, name = source.partition(":")
    found = next((path for path in (file, f"{file}.py") if Path(path).is_file()), None)
    return "" if found is None else f": did you mean {found}:{name or 'study'}?"


def source_of(study: Definition) -> str:
    """Return where a study is defined, as ``FILE.py:NAME``; imports the file to check.

    Raises
    ------
    ValueError : the study is not a global variable of a file; or the file, imported again, defines
        another study with that name.
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
                f"{source} is another study when the file is imported again: its space, metric, "
                "scheduler or searcher must not depend on values that only this process has"
            )
        return source
    raise ValueError(
        "this study is not a global variable of a Python file, so a job could not find it: define "
        "it at the top level of FILE.py and call submit() there under `if __name__ == '__main__'`, "
        "or submit it with `daskhpo submit FILE.py:NAME`"
    )


def _globals(module: object) -> dict[str, object]:
    return dict(getattr(module, "__dict__", {}))  # a copy: other threads may be importing


def check_not_loading(what: str) -> None:
    """Refuse to start a study while its file is only imported to find it."""
    if _being_loaded:
        raise ValueError(
            f"{_being_loaded[-1]} calls study.{what}() while it is imported: put the call under "
            "`if __name__ == '__main__'`"
        )
