"""``daskhpo cost``: what people read of a study's cost."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from daskhpo import load_study
from daskhpo.cli import main
from daskhpo.core.events import SlotsChanged
from daskhpo.engine.journal import encode_record

STUDY = Path(__file__).parents[1] / "compatibility/fixtures/study-1"


@pytest.fixture
def on_slurm(tmp_path: Path) -> Path:
    """A study whose workers ran in two jobs, on a machine from which Slurm is gone."""
    path = Path(shutil.copytree(STUDY, tmp_path / "study"))
    with (path / "journal.jsonl").open("a") as journal:
        for job in ("11", "12"):
            journal.write(encode_record(SlotsChanged(2, 3.0, job)) + "\n")
    return path


def test_the_parts_are_shown_with_their_shares_of_all_slots(capsys: pytest.CaptureFixture) -> None:
    assert main(["cost", str(STUDY)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^slots +3\.01 s in all$", printed, re.MULTILINE)
    shares = [float(share) for share in re.findall(r"(\d+\.\d)%", printed)]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert "unreported" not in printed  # nothing runs
    assert not re.search(r"^jobs", printed, re.MULTILINE)


def test_each_trial_has_a_line_if_that_is_asked_for(capsys: pytest.CaptureFixture) -> None:
    assert main(["cost", str(STUDY), "--trials"]) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r"^  \d+ ", printed, re.MULTILINE)) == 12
    assert re.search(r"^  4 .* failed$", printed, re.MULTILINE)


def test_json_has_what_the_result_says(capsys: pytest.CaptureFixture) -> None:
    assert main(["cost", str(STUDY), "--json", "--trials"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cost"] == load_study(STUDY).cost()
    assert (told["jobs"], told["slurm"]) == ([], [])
    assert [trial["trial"] for trial in told["trials"]] == list(range(12))
    assert told["trials"][0]["seconds/useful"] > 0


def test_without_slurm_the_rest_is_told_and_why_the_jobs_are_not(
    on_slurm: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["cost", str(on_slurm)]) == 0
    printed = capsys.readouterr().out
    assert "jobs    2 in Slurm; their records were not read: sacct was not found" in printed
    assert main(["cost", str(on_slurm), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["jobs"] == ["11", "12"]
    assert "sacct was not found" in told["slurm_problem"]


def test_a_folder_without_a_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["cost", str(tmp_path)]) == 2
    assert "holds no study" in capsys.readouterr().err
