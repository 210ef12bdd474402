"""``daskhpo logs``, ``export`` and ``import``: what they print and write."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

from daskhpo.cli import logs, main
from daskhpo.cli.logs import LogReader
from daskhpo.core.events import Record, SessionStarted
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.engine.journal import encode_record
from daskhpo.testing.callback import STORIES
from daskhpo.trial_output import TrialLog, log_path, older_path
from tests.callbacks.studies import a_study

BEGAN = SessionStarted(Limits(num_trials=3), CheckpointPolicy(), 0.0, clock=1.5e9)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write(tmp_path / "s", [BEGAN, *STORIES["one trial is fully trained and one is stopped"]])
    return tmp_path / "s"


def write(directory: Path, records: list[Record]) -> None:
    a_study(directory, records)
    lines = [encode_record(record) + "\n" for record in records]
    (directory / "journal.jsonl").write_text("".join(lines))


def printed(directory: Path, trial: int, text: str) -> None:
    log = TrialLog(str(log_path(directory, trial)))
    log.write(text)
    log.close()


def test_what_a_trial_printed_is_shown_and_obeyed_by_no_terminal(study: Path, capsys: Any) -> None:
    printed(study, 1, "grün\n\x1b[31mred\n")
    assert main(["logs", str(study), "1"]) == 0
    assert capsys.readouterr().out == "grün\n\\x1b[31mred\n"


def test_a_trial_without_output_and_one_that_is_not_there(study: Path, capsys: Any) -> None:
    assert main(["logs", str(study), "0"]) == 1
    assert "trial 0 has printed nothing" in capsys.readouterr().err
    assert main(["logs", str(study), "7"]) == 2
    assert "there is no trial 7" in capsys.readouterr().err


def test_following_ends_with_the_trial_or_with_the_study(study: Path, capsys: Any) -> None:
    write(study, [BEGAN, *STORIES["one trial is fully trained and one is stopped"][:6]])
    printed(study, 0, "one\n")
    assert main(["logs", str(study), "0", "-f"]) == 0  # nothing runs the study
    assert capsys.readouterr().out == "one\n"


def test_following_shows_what_is_written_meanwhile(
    study: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_POLL_SECONDS", 0.0)
    ended, n_looks = threading.Event(), 0

    def is_running() -> bool:
        nonlocal n_looks
        n_looks += 1
        printed(study, 0, f"look {n_looks}\n")
        if n_looks == 3:
            ended.set()
        return True

    with contextlib.closing(LogReader(log_path(study, 0))) as reader:
        logs._follow(reader, "begin\n", ended, is_running)
    assert capsys.readouterr().out == "begin\nlook 1\nlook 2\nlook 3\n"


def test_a_reader_sees_the_older_half_new_text_and_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    older_path(path).write_text("old\n")
    path.write_text("new\n")
    with contextlib.closing(LogReader(path)) as reader:
        assert reader.new_text() == "old\nnew\n"
        assert reader.new_text() == ""
        with path.open("ab") as file:
            file.write("ü".encode()[:1])
        assert reader.new_text() == ""
        with path.open("ab") as file:
            file.write("ü".encode()[1:])
        path.rename(older_path(path))
        assert reader.new_text() == "ü"
        path.write_text("next\n")
        assert reader.new_text() == "next\n"


def test_a_study_goes_to_optuna_and_back(study: Path, capsys: Any, tmp_path: Path) -> None:
    file, back = tmp_path / "optuna.log", tmp_path / "back"
    for _ in range(2):  # the second one continues the file
        assert main(["export", str(study), "--optuna", str(file)]) == 0
        assert f"optuna-dashboard {file}" in capsys.readouterr().out
    assert main(["export", str(study), "--optuna", str(file), "--follow"]) == 0
    assert main(["import", "--optuna", str(file), str(back)]) == 0
    assert f"{back}: 2 trials, best loss=" in capsys.readouterr().out
    assert main(["status", str(back)]) == 0
    assert "1 completed, 1 stopped" in capsys.readouterr().out
    assert main(["resume", str(back)]) == 2


def test_a_file_that_is_not_of_the_study_is_left_alone(study: Path, capsys: Any) -> None:
    file = study.parent / "thesis.tex"
    file.write_text("important\n")
    assert main(["export", str(study), "--optuna", str(file)]) == 2
    assert "is not of this study" in capsys.readouterr().err
    assert file.read_text() == "important\n"
