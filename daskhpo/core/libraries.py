"""Optional libraries, checked without importing them."""

from __future__ import annotations

import importlib.util

from daskhpo.core.errors import MissingLibrary


def need(module: str, extra: str | None) -> None:
    """Check that a library is installed, without importing it.

    Parameters
    ----------
    extra : daskhpo's extra that installs it; None: there is none.

    Raises
    ------
    MissingLibrary : it is not.
    """
    if importlib.util.find_spec(module) is None:
        package = module if extra is None else f"'daskhpo[{extra}]'"
        raise MissingLibrary(f"{module} is not installed; install it with: pip install {package}")
