"""The documentation site: Sphinx reads the pages where they are."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from daskhpo import __version__  # noqa: E402

project = "daskhpo"
author = "The daskhpo developers"
copyright = author
release = version = __version__
language = "en"

extensions = [
    "sphinx.ext.autodoc",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
]

# The source folder is the repository, so that pages may link to each other wherever they are.
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/**/*.md",
    "docs/api/generated/*.rst",
    "*.md",
    "conda/*.md",
    "experiments/**/*.md",
    "benchmarks/results/*.md",
]
exclude_patterns = [
    *("docs/_build", "docs/changes/[!R]*", ".*", "build", "dist", "runs", "tests", "daskhpo"),
    "tools",
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4  # `page.md#heading`, as in other viewers of Markdown
suppress_warnings = ["myst.header"]  # a page's first heading may be of any level

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # they are in the signature
toc_object_entries = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 80
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = f"daskhpo {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_root"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "daskhpo"},
    "navbar_align": "left",
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "navigation_depth": 2,
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"docs/index": [], "docs/cheat-sheet": []}
copybutton_exclude = ".linenos, .gp, .go"

ENTRY = re.compile(r"^(\*{0,2}[A-Za-z_][\w.]*(?:, \*{0,2}[A-Za-z_][\w.]*)*) : (.+)$")
ERRORS = "daskhpo.core.errors"
SECTIONS = ("Parameters", "Attributes", "Raises", "Returns", "Yields")


def write_reference() -> None:
    """Write a page for each module that docs/reference.md has a heading for."""
    text = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    headings = re.findall(r"^##+ .*`daskhpo.*$", text, flags=re.MULTILINE)
    found = [name for line in headings for name in re.findall(r"`(daskhpo[\w.]*)`", line)]
    folder = ROOT / "docs/api/generated"
    folder.mkdir(exist_ok=True)
    seen: dict[int, str] = {}
    pages = {f"{n}.rst": module_page(n, seen) for n in dict.fromkeys([*found, ERRORS])}
    for old in set(folder.iterdir()) - {folder / name for name in pages}:
        old.unlink()
    for name, page in pages.items():
        if not (folder / name).exists() or (folder / name).read_text(encoding="utf-8") != page:
            (folder / name).write_text(page, encoding="utf-8")


def module_page(name: str, seen: dict[int, str]) -> str:
    """Return the reference of a module; ``seen``: what other pages describe."""
    module = importlib.import_module(name)
    about = inspect.getdoc(module) or name
    parts = [name, "=" * len(name), "", f".. currentmodule:: {name}", "", about, ""]
    for public in public_names(module):
        thing = getattr(module, public)
        if (elsewhere := seen.setdefault(id(thing), name)) != name:
            parts += [public, "-" * len(public), "", f"See :doc:`{elsewhere}`.", ""]
        elif inspect.isclass(thing):
            parts += [public, "-" * len(public), "", f".. autoclass:: {public}", "   :members:", ""]
        elif callable(thing):
            parts += [public, "-" * len(public), "", f".. autofunction:: {public}", ""]
    return "\n".join(parts)


def public_names(module: ModuleType) -> list[str]:
    """List what a module exports, or else defines."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not name.startswith("__")]
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__]
    return [name for name in own if not name.startswith("_")]


def describe(
    app: Any, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Move what stands after ``name :`` to where numpydoc expects descriptions.

    Types stand in the signatures, so an entry is ``name : what it means``; numpydoc would set that
    as a type.
    """
    section, written = "", []
    for number, line in enumerate(lines):
        if re.fullmatch(r"-{3,}", lines[number + 1]) if number + 1 < len(lines) else False:
            section = line
        entry = ENTRY.match(line) if section in SECTIONS else None
        written += [line] if entry is None else [entry[1], f"    {entry[2]}"]
    lines[:] = written


def is_of_sklearn(
    app: Any, what: str, name: str, thing: object, skip: bool, options: object
) -> bool | None:
    """Skip what scikit-learn puts into each estimator: ``set_score_request`` and the like."""
    return True if getattr(thing, "__module__", "").startswith("sklearn.") else None


def setup(app: Any) -> None:
    """Write the generated pages, and register `describe` before numpydoc."""
    write_reference()
    app.connect("autodoc-skip-member", is_of_sklearn)
    app.connect("autodoc-process-docstring", describe, priority=1)
