"""Workers in containers: the command that starts them, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from daskhpo.cluster.commands import ask
from daskhpo.cluster.container import check_container, interpreter
from daskhpo.cluster.shell import CommandMissing
from daskhpo.core.errors import InvalidArgument

STAND_IN = """#!/bin/sh
echo "called with: $*"
for word; do case "$word" in */image.sif) shift; break;; esac; shift; done
export APPTAINER_CONTAINER=image.sif
exec "$@"
"""


def test_without_a_container_this_python_runs() -> None:
    assert interpreter(None, None, 1).command == sys.executable
    assert interpreter("module run python", None, 1).command == "module run python"
    assert interpreter(None, None, 1).prologue == ()


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image, and a stand-in for apptainer on the PATH."""
    path = tmp_path / "my images" / "image.sif"
    path.parent.mkdir()
    path.touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "apptainer").write_text(STAND_IN)
    (tmp_path / "bin" / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return path


def ran(*lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", "\n".join(lines)], capture_output=True, text=True)


def test_the_command_runs_in_the_image_with_its_folders_and_options(
    image: Path, tmp_path: Path
) -> None:
    container = ["--bind=/scratch,/data", str(image)]
    found = interpreter("sh", container, 4, [tmp_path / "a b", tmp_path / "a b"])
    done = ran(*found.prologue, f"exec {found.command} -c 'echo in $APPTAINER_CONTAINER'")
    binds = f"--bind={Path.cwd()} --bind={tmp_path}/a b"
    said = f"called with: exec --nv {binds} --bind=/scratch,/data {image} sh -c echo in"
    assert done.stdout.splitlines()[0].startswith(said), done
    assert done.stdout.splitlines()[1] == "in image.sif"


def test_no_gpu_option_is_given_to_jobs_without_gpus(image: Path) -> None:
    assert "daskhpo_gpus" not in interpreter(None, str(image), 0).command
    assert interpreter(None, str(image), 0).command.endswith(" python3")


def test_the_same_as_a_command_line(image: Path) -> None:
    argv = interpreter("sh", str(image), 0).argv("-c", "echo two; echo $0 $1", "x", "a b")
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.stdout.splitlines()[1:] == ["two", "x a b"]


def test_a_node_without_a_runtime_says_so(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(image.parent))
    found = interpreter(None, str(image), 1)
    done = ran(*found.prologue, f"exec {found.command} -c pass")
    assert done.returncode == 127
    assert "there is neither apptainer nor singularity on this node" in done.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere.sif", r"there is no image .*/nowhere\.sif"),
        ([], "names no image"),
        (["--nv"], "names no image"),
        (["--bind", "/scratch", "/"], "'/scratch' stands before the image, and is no option"),
        (3, "must be a list"),
        (["--nv", 3], r"container\[1\]=3"),
    ],
)
def test_what_is_no_image_is_refused(given: object, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        check_container(given)


def test_an_image_may_be_a_folder_a_file_or_a_uri(image: Path, tmp_path: Path) -> None:
    assert check_container(image) == [str(image)]
    assert check_container(str(tmp_path)) == [str(tmp_path)]
    assert check_container(["--nv", "docker://a/b:1"]) == ["--nv", "docker://a/b:1"]


def test_inside_of_a_container_it_says_where_to_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandMissing, match=r"on the PATH\?$"):
        ask(["squeue"])
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/torch.sif")
    with pytest.raises(CommandMissing, match=r"in the container /images/torch\.sif, where Slurm's"):
        ask(["squeue"])
