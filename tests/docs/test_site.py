"""The documentation site: it builds without a warning, has every public name, and reads well."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, chromium, find

pytest.importorskip("sphinx", reason="the extra `docs` has it")

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def sphinx(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build a site, as ``make docs-html`` does, from nothing."""
    command = [sys.executable, "-m", "sphinx", "-c", str(ROOT / "docs"), "-b", "html", "-E"]
    command += ["-d", str(out / "doctrees"), "--fail-on-warning", "--keep-going", "--quiet"]
    return subprocess.run(
        [*command, str(source), str(out / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; that it can be built at all is the first test."""
    out = tmp_path_factory.mktemp("site")
    done = sphinx(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out / "html"


def test_every_public_name_has_its_place_in_the_reference(site: Path) -> None:
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    known = {name for kind in inventory.data.values() for name in kind}
    text = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    modules = re.findall(r"`(daskhpo[\w.]*)`", "".join(re.findall(r"^## .*$", text, re.MULTILINE)))
    assert "daskhpo.schedulers" in modules
    for name in modules:
        exported = getattr(importlib.import_module(name), "__all__", [])
        home = {n: getattr(importlib.import_module(name), n) for n in exported if n[0] != "_"}
        ends = {place.rpartition(".")[2] for place in known}
        missing = [n for n, v in home.items() if callable(v) and n not in ends]
        assert not missing, f"{name}: {missing}"
    assert "daskhpo.Study.run" in known


def test_parameters_are_described_below_their_names(site: Path) -> None:
    page = (site / "docs/api/generated/daskhpo.schedulers.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page)
    assert re.search(r"max_t\s*resource of a fully trained trial, R\.", text)


def test_search_finds_pages_by_their_words(site: Path) -> None:
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").rstrip().removesuffix(")"))
    for word, page in (("quota", "docs/how-to/install"), ("asha", "docs/explanation/asha")):
        found = [index[kind].get(word, []) for kind in ("terms", "titleterms")]
        numbers = [n for one in found for n in (one if isinstance(one, list) else [one])]
        assert page in [index["docnames"][number] for number in numbers]


def test_pages_need_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"(https?:[^\"]+)", page)
        loaded += re.findall(r"<link[^>]* rel=\"stylesheet\"[^>]* href=\"(https?:[^\"]+)", page)
        assert not loaded, f"{path.name}: {loaded}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    find()
    with chromium() as running:
        yield running


@pytest.mark.parametrize("width", [400, 1280])
def test_a_page_fits_into_its_window(site: Path, browser: Browser, width: int) -> None:
    names = ("docs/index", "docs/tutorials/first-study", "docs/how-to/faults", "docs/cheat-sheet")
    with browser.page(width, 900) as page:
        for name in names:
            page.open((site / f"{name}.html").as_uri())
            page.wait_for(f"document.readyState == 'complete' && location.href.includes('{name}')")
            assert page.run("document.documentElement.scrollWidth") <= width, name


def test_the_cheat_sheet_is_one_printed_page(site: Path, tmp_path: Path) -> None:
    pdf = tmp_path / "cheat-sheet.pdf"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/p"]
    sheet = (site / "docs/cheat-sheet.html").as_uri()
    command = [find(), *flags, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", sheet]
    subprocess.run(command, check=True, capture_output=True)
    assert len(re.findall(rb"/Type\s*/Page[^s]", pdf.read_bytes())) == 1


FAULTS = {  # of a page, and what is said of each
    "[there](elsewhere.md)": "elsewhere.md",
    "[there](page.md#no-such-heading)": "no-such-heading",
    "![picture](no-picture.png)": "no-picture.png",
    "```{nosuchdirective}\n```": "nosuchdirective",
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The build of a site whose pages have faults, and one of which is in no toctree."""
    folder = tmp_path_factory.mktemp("faulty")
    docs = folder / "source/docs"
    docs.mkdir(parents=True)
    (docs / "index.md").write_text("# Title\n\n```{toctree}\npage\n```\n")
    (docs / "page.md").write_text("# Page\n\n" + "\n\n".join(FAULTS) + "\n")
    (docs / "forgotten.md").write_text("# Forgotten\n")
    return sphinx(folder / "source", folder / "out")


@pytest.mark.parametrize("said", [*FAULTS.values(), "isn't included in any toctree"])
def test_a_fault_of_a_page_fails_the_build(
    faulty: subprocess.CompletedProcess[str], said: str
) -> None:
    assert faulty.returncode != 0
    assert said in faulty.stderr


@pytest.mark.parametrize("folder", ["how-to", "tutorials", "explanation"])
def test_new_pages_are_taken_in_by_themselves(folder: str) -> None:
    text = (ROOT / "docs" / folder / "index.md").read_text(encoding="utf-8")
    assert ":glob:" in text
    assert re.search(r"^\*$", text, re.MULTILINE)


def test_figures_are_those_of_the_script() -> None:
    from tools.docs.figures import FIGURES

    made = {p.stem for p in (ROOT / "docs/images").glob("*.png") if not p.stem.startswith("live-")}
    assert made == set(FIGURES)
    pages = "".join(p.read_text(encoding="utf-8") for p in ROOT.glob("docs/explanation/*.md"))
    assert not [name for name in FIGURES if f"images/{name}.png" not in pages]
