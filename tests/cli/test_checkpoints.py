"""``daskhpo checkpoints``, as a user types it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from daskhpo import load_study
from daskhpo.checkpoints import ZarrStore
from daskhpo.cli import main
from daskhpo.core.types import CheckpointRef
from daskhpo.engine.lock import StudyLock
from tests.plain_zarr import write_in_chunks

pytestmark = pytest.mark.cluster

FILE = """
import numpy as np
from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

def train(config, trial):
    for n in range(trial.resource + 1, trial.max_t + 1):
        state = {"layers": [{"w": np.full(100, n + config["x"])}], "n": n}
        trial.report({"error": config["x"] / n}, state=lambda: state)

def only_metrics(config, trial):
    trial.report({"error": config["x"]})

study = Study(train, {"x": Real(0, 1)}, "error", scheduler=FIFO(3), name="kept")
other = Study(only_metrics, {"x": Real(0, 1)}, "error", scheduler=FIFO(1), name="bare")
"""


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Path:
    """Two studies that the command line ran, one of them without checkpoints."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "mine.py").write_text(FILE)
    for name in ("study", "other"):
        run = daskhpo(folder, "run", f"mine.py:{name}", "--num-trials=3", "--checkpoint=end")
        assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture
def folder(studies, tmp_path, monkeypatch) -> Path:
    """A copy of them, which is the working directory; without the file that defines them."""
    shutil.copytree(studies / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(folder) -> ZarrStore:
    return ZarrStore(folder / "runs/kept/checkpoints.zarr")


def daskhpo(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "daskhpo.cli", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def output(capsys, status, *arguments):
    """What the command prints, on both streams; checks its exit status."""
    found = main(["checkpoints", "runs/kept", *arguments])
    out, err = capsys.readouterr()
    assert found == status, (out, err)
    return out, err


def add_rubbish(store):
    """Put a row that no journal knows, an unfinished file and an array without rows there."""
    store.write(CheckpointRef(70_000, 9, 9), {"x": np.ones(2000)})
    store.write(CheckpointRef(90_000, 9, 9), {"x": np.ones(10)})
    empty = store.list()[-1]
    (store.path / empty.array / f"{empty.id}.0").unlink()
    (store.path / load_study(store.path.parent).checkpoints()[0].array / "5.0.12ab.partial").touch()


def test_the_table_has_a_line_for_each_checkpoint_and_says_what_they_take(folder, capsys):
    out, _ = output(capsys, 0)
    result = load_study("runs/kept")
    head, *lines = out.split("\n\n")[0].splitlines()
    assert head.split() == ["trial", "status", "resource", "best", "error", "row", "size", "file"]
    refs = sorted(result.checkpoints(), key=lambda ref: ref.trial)
    assert len(refs) == len(lines) == 3
    for line, ref in zip(lines, refs, strict=True):
        trial, status, resource, best, row, *size, file = line.split()
        assert (int(trial), int(resource), int(row)) == (ref.trial, 3, ref.id)
        assert status == "completed"
        assert float(best) == pytest.approx(result.trial(ref.trial).best_loss, rel=1e-5)
        assert size == ["4.9", "kB"], "a header of 4096 bytes, 100 floats and a gap"
        assert (folder / "runs/kept" / file).stat().st_size == ref.n_bytes
    assert "committed  3 checkpoints: 3 files, 14.8 kB\nbesides    nothing\n" in out


def test_as_json_there_is_one_line_for_each(folder, capsys):
    out, _ = output(capsys, 0, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["trial"] for line in lines] == [0, 1, 2]
    result = load_study("runs/kept")
    for line in lines:
        ref = result.trial(line["trial"]).checkpoint
        assert line == {
            "trial": ref.trial,
            "status": "completed",
            "resource": 3,
            "best": result.trial(ref.trial).best_loss,
            "row": ref.id,
            "bytes": ref.n_bytes,
            "files": [f"checkpoints.zarr/{ref.array}/{ref.id}.0"],
        }


def test_a_row_of_several_files_is_told_with_all_of_them(folder, store, capsys):
    study = load_study("runs/kept")
    journal = folder / "runs/kept/journal.jsonl"
    old = study.trial(1).checkpoint
    new = write_in_chunks(store, CheckpointRef(old.id, 1, 3), store.read(old), n_chunk=1024)
    plain, now = (json.dumps(ref.plain(), separators=(",", ":")) for ref in (old, new))
    journal.write_text(journal.read_text().replace(plain, now))
    (line,) = [
        x for x in map(json.loads, output(capsys, 0, "--json")[0].splitlines()) if x["trial"] == 1
    ]
    names = [Path(name).name for name in line["files"]]
    assert names == [f"{new.id}.{i}" for i in range(len(names))]
    assert len(names) > 1
    assert f"{new.id}.0 and {len(names) - 1} more" in output(capsys, 0, "--verify")[0]


def test_what_is_whole_is_verified(folder, capsys):
    out, err = output(capsys, 0, "--verify")
    assert out.count("intact") == 3
    assert not err


def test_what_is_missing_or_corrupt_is_named_and_the_exit_status_says_so(folder, store, capsys):
    gone, bad, _ = load_study("runs/kept").checkpoints()
    store.delete(gone)
    path = store.path / bad.array / f"{bad.id}.0"
    path.write_bytes(path.read_bytes()[:-9] + bytes([1]) + path.read_bytes()[-8:])
    out, err = output(capsys, 1, "--verify")
    assert (out.count("bad"), out.count("intact")) == (2, 1)
    assert f"row {gone.id} is missing" in err
    assert f"row {bad.id} is corrupt" in err
    assert "missing    1 of them" in out

    lines = map(json.loads, output(capsys, 1, "--verify", "--json")[0].splitlines())
    problems = {line["row"]: line["problem"] for line in lines}
    assert "is missing" in problems[gone.id]
    assert "is corrupt" in problems[bad.id]
    assert list(problems.values()).count(None) == 1
    assert "missing    1 of them" in output(capsys, 0)[0]


def test_what_no_checkpoint_needs_is_shown_and_collected(folder, store, capsys):
    add_rubbish(store)
    refs = load_study("runs/kept").checkpoints()
    out, _ = output(capsys, 0)
    assert "1 row not in the journal (20." in out
    assert "1 unfinished file (0 B), 1 array without rows" in out
    assert "daskhpo checkpoints runs/kept --collect" in out
    assert "committed  3 checkpoints: 3 files" in out

    out, _ = output(capsys, 0, "--collect")
    assert out.startswith("removed 4 files (")  # with the metadata of two arrays
    assert store.list() == refs
    assert "besides    nothing" in output(capsys, 0, "--verify")[0]
    assert output(capsys, 0, "--collect")[0] == "removed 0 files (0 B)\n"
    assert not (folder / "runs/kept/lock.json").exists()


def test_nothing_is_collected_while_the_study_runs(folder, store, capsys):
    add_rubbish(store)
    before = store.list()
    lock = StudyLock(folder / "runs/kept")
    try:
        out, err = output(capsys, 2, "--collect")
        assert "in use by process" in err
        assert not out
        assert store.list() == before
        assert "the study runs: it may still commit" in output(capsys, 0)[0]
    finally:
        lock.release()


@pytest.mark.parametrize("trial", ["best", "1"])
def test_a_state_is_exported_without_torch_and_without_its_study(
    trial, folder, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = load_study("runs/kept")
    number = result.best_trial.id if trial == "best" else 1
    out, _ = output(capsys, 0, "--export", trial, "state.npz")
    assert f"state.npz: trial {number} at resource 3, " in out
    with np.load("state.npz") as file:
        assert np.array_equal(
            file["layers.0.w"], np.full(100, 3 + result.trial(number).config["x"])
        )
        assert json.loads(str(file["__metadata__"])) == {"n": 3}


def test_a_file_is_replaced_only_by_force(folder, capsys):
    Path("state.npz").write_text("mine")
    assert "exists already" in output(capsys, 2, "--export", "1", "state.npz")[1]
    assert Path("state.npz").read_text() == "mine"
    output(capsys, 0, "--export", "1", "state.npz", "--force")
    assert Path("state.npz").read_bytes()[:2] == b"PK"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("runs/none",), "holds no study"),
        (("runs/none", "--collect"), "holds no study"),
        (("runs/kept", "--export", "7", "x.npz"), "there is no trial 7: "),
        (("runs/kept", "--export", "all", "x.npz"), "give a trial's number, or best"),
        (("runs/kept", "--export", "1", "x.h5"), "must end in one of .pt, .safetensors, .npz"),
        (
            ("runs/kept", "--export", "1", "no/x.npz"),
            "the folder no does not exist; create it first",
        ),
        (("runs/bare", "--export", "best", "x.npz"), "has no checkpoint; run the study with"),
        (("runs/kept", "--export", "1", "x.npz", "--json"), "--json cannot be combined with"),
        (("runs/kept", "--collect", "--json"), "--json cannot be combined with"),
        (("runs/kept", "--force"), "--force needs --export"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(arguments, message, folder, capsys):
    before = sorted(folder.rglob("*"))
    assert main(["checkpoints", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_a_package_that_is_needed_is_named(package, folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    file = {"torch": "x.pt", "safetensors": "x.safetensors"}[package]
    assert f"pip install {package}" in output(capsys, 2, "--export", "1", file)[1]
    assert not Path(file).exists()


def test_a_study_without_checkpoints_says_so(folder, capsys):
    for arguments in ([], ["--verify"], ["--collect"]):
        assert main(["checkpoints", "runs/bare", *arguments]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("committed  0 checkpoints: 0 files, 0 B\nbesides    nothing\n")
    assert not err


def test_it_runs_as_a_program(folder):
    process = daskhpo(folder, "checkpoints", "runs/kept", "--verify")
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("intact") == 3
