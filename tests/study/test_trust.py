"""A study's directory is data: what it names is run only if its user wants it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from daskhpo import load_study
from daskhpo.study.trust import MAX_FILES, _known, check_trust, links_out, trust

FILE = """
from pathlib import Path
from daskhpo import Study
from daskhpo.space import Real

Path(__file__).with_name("ran").touch()

def train(config):
    return config["x"]

study = Study(train, {"x": Real(0, 1)}, "loss", name="s", storage=Path(__file__).parent)
"""
CLI = [sys.executable, "-m", "daskhpo.cli"]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "daskhpo" / "trusted-files"


@pytest.fixture
def received(tmp_path: Path) -> Path:
    """A study that somebody has sent, with the file that defines it."""
    directory = tmp_path / "sent" / "s"
    directory.mkdir(parents=True)
    (tmp_path / "sent" / "tune.py").write_text(FILE)
    manifest = {
        "format": 2,
        "version": "0.1.0",
        "metric": "loss",
        "mode": "min",
        "seed": 0,
        "scheduler": "FIFO(max_t=1)",
        "searcher": "RandomSearch()",
        "space": {"x": "Real(0.0, 1.0)"},
        "source": f"{tmp_path}/sent/tune.py:study",
    }
    (directory / "study.json").write_text(json.dumps(manifest))
    return directory


def call(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *map(str, words)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.mark.parametrize("command", ["resume", "retry"])
def test_a_file_that_a_directory_names_is_not_run_unasked(received: Path, command: str) -> None:
    done = call(command, received, "--num-trials", "1")
    assert done.returncode == 2
    assert f"{received.parent}/tune.py" in done.stderr
    assert "--trust" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (received.parent / "ran").exists()


@pytest.mark.parametrize(
    "command",
    [
        *("status", "best", "checkpoints", "cost", "replay", "attach", "stop"),
        *("export", "report", "logs 0"),
    ],
)
def test_commands_that_read_run_nothing(received: Path, tmp_path: Path, command: str) -> None:
    name, *more = command.split()
    out = [str(tmp_path / "out.html")] if name in ("report", "export") else []
    done = call(name, received, *more, *out)
    assert "Traceback" not in done.stderr
    assert not (received.parent / "ran").exists()


@pytest.mark.cluster
def test_a_study_that_the_user_began_goes_on_without_a_question(tmp_path: Path) -> None:
    file = tmp_path / "tune.py"
    file.write_text(FILE)
    done = call("run", f"{file}:study", "--num-trials", "1")
    assert done.returncode == 0, done.stderr
    done = call("resume", tmp_path / "s", "--num-trials", "2")
    assert done.returncode == 0, done.stderr
    assert load_study(tmp_path / "s").num_trials == 2
    (tmp_path / "s").rename(tmp_path / "moved")  # the file is known, wherever the study is
    done = call("resume", tmp_path / "moved", "--num-trials", "3")
    assert done.returncode == 0, done.stderr


def answer(received: Path, text: bytes) -> tuple[int, str]:
    """Run ``daskhpo resume`` at a terminal, and answer its question."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, text)
        done = subprocess.run(
            [*CLI, "resume", str(received)],
            stdin=theirs,
            stderr=theirs,
            stdout=subprocess.PIPE,
            check=False,
        )
        return done.returncode, os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)


def test_no_is_the_answer_to_the_question_unless_it_is_yes(received: Path) -> None:
    for text in (b"n\n", b"\n", b"what\n"):
        code, shown = answer(received, text)
        assert code == 2
        assert "Run it?" in shown
        assert not (received.parent / "ran").exists()


def test_a_yes_is_remembered(received: Path, state: Path) -> None:
    assert not state.exists()
    answer(received, b"y\n")
    assert (received.parent / "ran").exists()
    check_trust(received, f"{received.parent}/tune.py:study", None)
    assert state.stat().st_mode & 0o777 == 0o600


def test_a_file_is_known_by_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    trust(f"{tmp_path}/link/tune.py:study")
    check_trust(tmp_path, f"{tmp_path}/real/tune.py:other", None)
    with pytest.raises(PermissionError, match="tune2"):
        check_trust(tmp_path, f"{tmp_path}/real/tune2.py:study", None)


def test_a_list_that_others_can_write_is_not_believed(tmp_path: Path, state: Path) -> None:
    trust("/a/tune.py:study")
    assert _known() == ["/a/tune.py"]
    state.chmod(0o622)
    assert _known() == []


def test_the_list_is_bounded(state: Path) -> None:
    state.parent.mkdir(parents=True)
    state.write_text("".join(f"/a/{n}.py\n" for n in range(MAX_FILES)))
    trust("/b/new.py:study")
    assert len(_known()) == MAX_FILES
    assert _known()[-1] == "/b/new.py"
    assert "/a/0.py" not in _known()


def test_links_out_of_a_study_are_told_of(received: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (received / "checkpoints.zarr").symlink_to(tmp_path / "other")
    (received / "inside").symlink_to(received / "study.json")
    (received / "loop").symlink_to(received / "loop")
    assert links_out(received) == [received / "checkpoints.zarr"]
    with pytest.raises(PermissionError, match=r"checkpoints\.zarr to"):
        check_trust(received, f"{received.parent}/tune.py:study", None)


@pytest.mark.parametrize("name", ["journal.jsonl", "requests.jsonl", "logs"])
def test_nothing_is_written_through_a_link(received: Path, tmp_path: Path, name: str) -> None:
    from daskhpo.engine.journal import FileJournal
    from daskhpo.engine.requests import request_stop
    from daskhpo.trial_output import TrialLog, log_path

    target = tmp_path / "precious"
    if name == "logs":
        target.mkdir()
        (received / name).symlink_to(target)
        log = TrialLog(str(log_path(received, 0)))
        log.write("text\n")
        log.close()
        assert list(target.iterdir()) == []
        return
    target.write_text("precious\n")
    (received / name).symlink_to(target)
    stop = partial(request_stop, recipient="x", reason="")
    write, opened = (FileJournal, received / name) if name[0] == "j" else (stop, received)
    with pytest.raises(OSError, match="link"):
        write(opened)
    assert target.read_text() == "precious\n"
