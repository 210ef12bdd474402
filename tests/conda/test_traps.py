"""Faults of conda packages that pass unseen elsewhere: each is put in, and found."""

from __future__ import annotations

import asyncio
import functools
import http.server
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rattler_build", reason="the extra `packages` has it")

from rattler import Channel, Gateway
from rattler.package_streaming import extract
from rattler_build import assemble_package

from tools.conda import channel as channels
from tools.conda import environments, package, standin
from tools.conda.channel import BadChannel, bundle, channel_url, index, install, solve
from tools.conda.names import ROOT, conda_name, conda_specs, extra, project
from tools.conda.package import PackageFault

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # the channel is made once

Build = Callable[[Callable[[dict[str, Any]], None]], Path]


@pytest.fixture
def build(channel: Path, tmp_path: Path) -> Build:
    """Builds the package from a recipe that was changed."""

    def run(change: Callable[[dict[str, Any]], None]) -> Path:
        recipe = yaml.safe_load(package.RECIPE.read_text(encoding="utf-8"))
        recipe["source"]["path"] = str(ROOT)
        recipe["tests"] = [{"python": {"imports": ["daskhpo"], "pip_check": True}}]
        change(recipe)
        path = tmp_path / "recipe/recipe.yaml"
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(recipe))
        return package.build(channel, tmp_path / "out", path)

    return run


@pytest.fixture(scope="module")
def built(channel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the recipe as it is."""
    return package.build(channel, tmp_path_factory.mktemp("built"))


def toy(folder: Path, name: str, **words: Any) -> Path:
    """A channel with a package of one file; more calls add more packages."""
    content = folder / "content" / name
    content.mkdir(parents=True, exist_ok=True)
    (content / f"{name}.txt").write_text("here\n")
    out = folder / "channel/linux-64"
    out.mkdir(parents=True, exist_ok=True)
    words = {"version": "1.0", "build_string": "0", "depends": []} | words
    assemble_package(name, target_platform="linux-64", output_dir=out, files_dir=content, **words)
    index(folder / "channel")
    return folder / "channel"


# Names


def test_each_requirement_of_each_extra_has_a_conda_name() -> None:
    for name in project()["project"]["optional-dependencies"]:
        assert conda_specs(extra(name))
    assert conda_specs(project()["build-system"]["requires"])


def test_a_requirement_that_is_not_looked_up_is_refused() -> None:
    with pytest.raises(KeyError, match="no-such-package has no conda name"):
        conda_name("no-such-package")


@pytest.mark.parametrize("name", environments.environments())
def test_an_environment_file_says_what_pyproject_says(name: str) -> None:
    text = (ROOT / "conda" / name).read_text(encoding="utf-8")
    assert text == environments.environments()[name], "python -m tools.conda.environments"


# Channels


def test_a_folder_is_a_channel_however_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toy(tmp_path, "toy")
    monkeypatch.chdir(tmp_path)
    assert channel_url("channel") == channel_url(folder) == folder.as_uri()
    assert [str(record.file_name) for record in solve(["channel"], ["toy"])] == ["toy-1.0-0.conda"]
    assert channel_url("conda-forge") == "conda-forge"


def test_a_folder_that_is_no_channel_is_not_looked_up_in_the_network(tmp_path: Path) -> None:
    with pytest.raises(BadChannel, match="a folder with a subfolder noarch/"):
        channel_url(tmp_path)
    with pytest.raises(BadChannel, match="a folder with a subfolder noarch/"):
        channel_url("./wheels/channel")


def test_packages_of_the_stand_in_are_of_a_platform(channel: Path) -> None:
    assert not list((channel / "noarch").glob("*.conda"))
    assert len(list((channel / "linux-64").glob("*.conda"))) > 40


def test_a_pip_without_its_command_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "pip-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pip-1.0.dist-info/METADATA", "Name: pip\nVersion: 1.0\n")
    with pytest.raises(BadChannel, match="pip without its command"):
        standin.pack_wheel(wheel, tmp_path / "out", tmp_path / "stage")


def test_what_the_stand_in_cannot_relocate_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.base_prefix", "/usr")
    if (Path("/usr/lib") / f"python{standin.PYTHON}/site-packages").exists():
        pytest.skip("this /usr has a Python that was built from source")
    with pytest.raises(BadChannel, match="not relocatable"):
        standin.fill(tmp_path / "channel", tmp_path)


# Packages


def test_nothing_is_in_the_package_that_does_not_belong_there(built: Path) -> None:
    package.check(built, [ROOT, built.parents[1]])


def test_a_requirement_that_is_missing_fails_the_tests_of_the_package(
    build: Build, channel: Path
) -> None:
    def change(recipe: dict[str, Any]) -> None:
        needed = recipe["requirements"]["run"]
        recipe["requirements"]["run"] = [r for r in needed if r.split()[0] in ("python", "numpy")]
        recipe["tests"][0]["python"]["imports"] = ["daskhpo.core"]

    path = build(change)  # the build does not find it
    with pytest.raises(PackageFault, match=r"bokeh, which is not installed"):
        package.run_tests(path, channel)


def test_a_requirement_under_pips_name_fails_the_tests_of_the_package(
    build: Build, channel: Path
) -> None:
    def change(recipe: dict[str, Any]) -> None:
        recipe["requirements"]["run"] = ["python", "msgpack >=1.0"]

    path = build(change)
    with pytest.raises(PackageFault, match="failed to setup test environment"):
        package.run_tests(path, channel)


def test_a_package_without_tests_is_refused(build: Build, channel: Path) -> None:
    def change(recipe: dict[str, Any]) -> None:
        recipe["tests"] = []

    with pytest.raises(PackageFault, match="no tests"):
        package.run_tests(build(change), channel)


def test_the_folder_of_the_build_is_found_in_the_package(build: Build) -> None:
    def change(recipe: dict[str, Any]) -> None:
        script = recipe["build"]["script"]
        recipe["build"]["script"] = [line for line in script if "direct_url" not in line]

    path = build(change)
    found = "\n".join(package.faults(path, [path.parents[1]]))
    assert "direct_url.json: it names the folder of the build" in found


def test_a_path_of_the_build_is_found_in_any_file(build: Build, tmp_path: Path) -> None:
    def change(recipe: dict[str, Any]) -> None:
        recipe["build"]["script"].append('echo "$SRC_DIR" > "$SP_DIR/daskhpo/where.py"')

    found = list(package.faults(build(change), [tmp_path]))
    assert [fault for fault in found if "daskhpo/where.py: it names" in fault], found


def test_a_command_that_is_left_out_is_found(build: Build) -> None:
    def change(recipe: dict[str, Any]) -> None:
        del recipe["build"]["python"]

    assert [f for f in package.faults(build(change), []) if f.startswith("info/link.json")]


def test_a_package_of_python_without_a_link_file_is_found(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assembled = assemble_package(
        "toy", "1.0", "noarch", "py_0", out, files_dir=tmp_path, noarch="python"
    )
    found = list(package.faults(Path(assembled.path), []))
    assert "info/link.json: missing, so no command would be installed" in found


def test_what_lies_about_in_a_clone_is_not_copied_into_the_build(build: Build) -> None:
    def change(recipe: dict[str, Any]) -> None:
        recipe["build"]["script"].append('ls -A "$SRC_DIR" > "$SP_DIR/daskhpo/listing.txt"')

    path = build(change)
    seen = set(_text(path, "site-packages/daskhpo/listing.txt").split())
    assert {"daskhpo", "hydra_plugins", "pyproject.toml", "README.md", "LICENSE"} <= seen
    assert not seen & {".git", ".venv", ".conda", "runs", "tests", "docs"}


def _text(path: Path, name: str) -> str:
    root = path.parent / "extracted"
    extract(path, root)
    return (root / name).read_text()


# Install


@pytest.fixture
def alone(built: Path, channel: Path) -> list[Any]:
    """Records of the interpreter and of the package, without what it needs."""
    query = Gateway().query(
        [Channel(built.parents[1].as_uri())], ["noarch"], ["daskhpo"], recursive=False
    )
    [own] = [record for source in asyncio.run(query) for record in source]
    return [*solve([channel], ["python"]), own]


def test_a_command_names_its_prefix_in_full(
    alone: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    install(alone, Path("prefix"), tmp_path / "cache")
    first = (tmp_path / "prefix/bin/daskhpo").read_text().splitlines()[0]
    assert first.startswith(f"#!{tmp_path}/prefix/bin/python")


def test_a_prefix_may_be_longer_than_the_systems_limit(alone: list[Any], tmp_path: Path) -> None:
    prefix = tmp_path / ("x" * 100) / ("y" * 100)
    install(alone, prefix, tmp_path / "cache")
    first, second, *_ = (prefix / "bin/daskhpo").read_text().splitlines()
    assert len(first) < 127
    assert str(prefix / "bin/python") in second


def test_a_damaged_package_is_not_installed(tmp_path: Path) -> None:
    folder = toy(tmp_path, "toy")
    records = solve([folder], ["toy"])
    [path] = folder.rglob("toy*.conda")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match=r"(?i)checksum|hash|corrupt"):
        install(records, tmp_path / "prefix", tmp_path / "cache")
    assert not (tmp_path / "prefix/toy.txt").exists()


def test_a_bundle_needs_only_itself(tmp_path: Path) -> None:
    toy(tmp_path, "lower")
    folder = toy(tmp_path, "upper", depends=["lower >=1"])
    toy(tmp_path, "other")
    bundle([folder], tmp_path / "bundle", ["upper"])
    carried = (tmp_path / "bundle").rename(tmp_path / "carried")
    folder.rename(tmp_path / "away")
    install(solve([carried], ["upper"]), tmp_path / "prefix", tmp_path / "cache")
    assert {path.name for path in (tmp_path / "prefix").glob("*.txt")} == {"lower.txt", "upper.txt"}
    lock = (carried / channels.LOCK).read_text().splitlines()
    assert lock[:2] == ["# platform: linux-64", "@EXPLICIT"]
    assert [line.partition("#")[0].rpartition("/")[2] for line in lock[2:]] == [
        "lower-1.0-0.conda",
        "upper-1.0-0.conda",
    ]


def test_the_commands_take_what_an_environment_file_names(tmp_path: Path) -> None:
    folder, made = toy(tmp_path, "toy"), tmp_path / "bundle"
    file = tmp_path / "environment.yml"
    file.write_text("name: x\nchannels: [conda-forge]\ndependencies:\n- toy >=1\n- pip: [none]\n")
    channels.main(["bundle", str(folder), str(made), "--environment", str(file)])
    lock = tmp_path / "toy.lock"
    channels.main(["lock", str(made), str(lock), "toy"])
    assert lock.read_text().count(f"{made.as_uri()}/linux-64/toy-1.0-0.conda#") == 1
    channels.main(["install", str(made), str(tmp_path / "prefix"), "--environment", str(file)])
    assert (tmp_path / "prefix/toy.txt").exists()
    with pytest.raises(SystemExit):
        channels.main(["lock", str(made), str(lock)])


def test_a_bundle_is_made_of_a_channel_behind_http_as_well(tmp_path: Path) -> None:
    folder = toy(tmp_path, "toy")
    with served(folder) as address:
        bundle([address], tmp_path / "bundle", ["toy"])
    [path] = (tmp_path / "bundle").rglob("*.conda")
    assert path.read_bytes() == next(folder.rglob("*.conda")).read_bytes()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """An HTTP server of a folder, on this machine, while a block runs."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# GPUs


@pytest.fixture
def pytorch(tmp_path: Path) -> Path:
    """A channel whose pytorch has a build for CPUs, which solvers prefer, and one for CUDA."""
    toy(tmp_path, "pytorch", version="2.6", build_string="cpu_0", build_number=1)
    return toy(
        tmp_path, "pytorch", version="2.6", build_string="cuda126_0", depends=["__cuda >=12.6"]
    )


def gpu_spec() -> str:
    about = yaml.safe_load((ROOT / "conda/environment-gpu.yml").read_text(encoding="utf-8"))
    [spec] = [spec for spec in about["dependencies"] if spec.startswith("pytorch")]
    return str(spec)


def test_a_login_node_gets_the_build_for_the_gpus_of_other_nodes(
    pytorch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "12.8")
    assert [str(r.build) for r in solve([pytorch], [gpu_spec()])] == ["cuda126_0"]


@pytest.mark.parametrize("version", ["", "12.4"])
def test_a_login_node_without_a_word_gets_no_build_for_cpus_by_accident(
    pytorch: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", version)
    with pytest.raises(Exception, match="__cuda"):
        solve([pytorch], [gpu_spec()])


# The whole


def test_the_part_without_a_network_is_refused_where_there_is_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.conda.check", "--offline", "x", "--folder", "y"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "there is a network" in done.stderr
