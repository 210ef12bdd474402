"""``daskhpo doctor`` on a machine without Slurm, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daskhpo.cli import doctor, main
from daskhpo.cluster.doctor.finding import problem, skipped


@pytest.fixture
def no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to work in; no program is on the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "nosuch"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_without_slurm_this_machine_is_looked_at(
    no_slurm: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("here, on ")
    assert "there is no Slurm here; only this machine is checked" in lines[1]
    for check in ("open files", "shared directory", "room", "python", "memory", "gpu", "scratch"):
        assert any(line[12:].startswith(check) for line in lines), check
    assert "in a job" not in lines
    assert "0 problems" in lines[-1]
    assert list(no_slurm.iterdir()) == []


@pytest.mark.slow
def test_without_slurm_a_partition_is_asked_for_in_vain(
    no_slurm: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["doctor", "--partition", "gpu", "--json"]) == 1
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (found,) = [finding for finding in findings if finding["verdict"] == "problem"]
    assert found["check"] == "slurm"
    assert "there is no Slurm here: sinfo, sbatch" in found["said"]
    assert found["place"] == "here"


@pytest.mark.slow
def test_some_of_slurms_commands_are_not_enough(
    no_slurm: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = no_slurm / "sinfo"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(no_slurm))
    assert main(["doctor"]) == 1
    assert "sbatch, squeue, scontrol, scancel not found" in capsys.readouterr().out


@pytest.mark.slow
def test_a_directory_that_is_not_there_is_a_problem_anywhere(
    no_slurm: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["doctor", "--shared", "nosuch", "--json"]) == 1
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (found,) = [finding for finding in findings if finding["verdict"] == "problem"]
    assert found["said"] == f"{no_slurm}/nosuch does not exist"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--walltime", "soon"], "walltime='soon'"),
        (["--wait", "soon"], "--wait='soon'"),
        (["--gpus", "-1"], "gpus_per_job=-1"),
        (["--directive=constraint"], "'constraint' is not an option of sbatch"),
        (["--gres", "a b"], "not a generic resource"),
    ],
)
def test_a_mistake_is_named_before_anything_is_looked_at(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["doctor", *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""


def test_a_finding_is_a_line_with_what_to_do_below() -> None:
    finding = problem("partition", "there is no partition 'x' " + "and so on " * 10, "ask")
    first, second, third = doctor._lines(finding).splitlines()
    assert first.startswith("  problem   partition         there is no partition 'x' and so on")
    assert second.startswith(" " * 30 + "so on and so on")
    assert third == " " * 30 + "-> ask"
    assert max(map(len, (first, second, third))) <= doctor.WIDTH


def test_as_json_a_finding_has_all_its_parts() -> None:
    assert skipped("job", "no").to_json() == {
        "place": "here",
        "check": "job",
        "verdict": "skipped",
        "said": "no",
        "todo": "",
    }
