"""Every option of every command, with texts that are accepted and texts that are refused by name.

A bad text is refused before anything starts, in one line and with exit status 2. An option without
a row fails the first test.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daskhpo.cli import main
from daskhpo.cli.app import _parser
from daskhpo.engine.session import create_directory
from daskhpo.study.study import load_source
from daskhpo.study.trust import trust

TUNE = """
from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

def train(config, trial): ...

study = Study(train, {"x": Real(0, 1)}, "loss", scheduler=FIFO(2), name="first")
other = 3
"""
RAY = '{"loss": 1.0, "training_iteration": 1, "config": {"x": 0.5}}'
CURVES = "trial,resource,seconds,loss,config/x\n0,1,1,2.0,0.1\n0,2,2,1.0,0.1\n1,1,1,3.0,0.7\n"


class Reached(Exception):
    """All options have passed; the work would begin now."""


# -- texts ---------------------------------------------------------------------------------------

NO_COUNTS = ["0", "-1", "x", "1.5", ""]
COUNTS = (["1", "7"], NO_COUNTS)
FROM_ZERO = (["0", "3"], NO_COUNTS[1:])
NUMBERS = (["0.5", "-2", "1e3"], ["x", "nan", "inf", ""])
DURATIONS = (["8h", "90", "1h30m"], ["soon", "1h1h", "-5m", "0s", ""])
JOB_TIMES = (["12h", "1-00:00:00", "3600s"], ["soon", "1h1h", "", "90"])
FLAG: tuple[list[str], list[str]] = ([""], [])
WORDS = (["gpu", "a-b"], ["a b", "", "a\nb"])
LINES = (["-C gpu", "module load cuda"], ["a\x1bb", ""])
DIRECTIVES = (["-C gpu", "--exclusive"], ["module load cuda", "-t 5", "--array=1-9", "a\x1bb", ""])
SIZES = (["4GB", "512 MiB"], ["", "a\nb"])
STUDIES = (
    ["tune.py:study"],
    ["tune.py", "nope.py:study", "tune.py:nope", "tune.py:other", ":study", "tune.py:", ""],
)
PATHS = (["runs/first"], ["runs/none", "tune.py", ""])
CHECKPOINTS = (["auto", "every:3", "never"], ["every", "every:0", "Auto", ""])

RUN = {
    "--num-trials": COUNTS,
    "--time-budget": DURATIONS,
    "--target": NUMBERS,
    "--cpu": COUNTS,
    "--gpu": (["0", "0.5", "1", "2"], ["x", "-1", "1.5", "nan", ""]),
    "--max-concurrent": COUNTS,
    "--worker-timeout": DURATIONS,
    "--checkpoint": CHECKPOINTS,
    "--fail-fast": FLAG,
    "--max-failures": FROM_ZERO,
    "--max-failed-trials": FROM_ZERO,
    "--trial-time-limit": DURATIONS,
    "--step-timeout": DURATIONS,
    "--memory-limit": (["8GB", "512 MiB"], ["much", "0", "-1", ""]),
    "--on-oom": (["infeasible", "retry_alone", "larger"], ["", "Larger", "retry"]),
    "--reuse-actors": FLAG,
    "--verify-reuse": FLAG,
}
RUN_HERE = RUN | {
    "--scheduler": ([], ["", "nowhere.json", "localhost", "tcp://localhost", "a b:1", "here:x"])
}
WALLTIME = ["--walltime=1h"]
WORKERS = ["--workers", "jobs=2", "cores=8", "memory=4GB"]

Rows = dict[str, tuple[list[str], list[str]]]
# By command: the words before the option under test, and the texts of each.
TABLE: dict[str, tuple[list[str], Rows]] = {
    "run": (
        ["tune.py:study", "--num-trials=2"],
        RUN_HERE
        | {
            "study": STUDIES,
            "--if-exists": (["error", "resume", "new"], ["", "Error", "overwrite"]),
        },
    ),
    "resume": (
        ["runs/first", "--num-trials=2"],
        RUN_HERE | {"path": PATHS, "study": STUDIES, "--trust": FLAG, "--max-t": COUNTS},
    ),
    "retry": (
        ["runs/first", "--num-trials=2"],
        RUN_HERE | {"path": PATHS, "study": STUDIES, "--trust": FLAG},
    ),
    "tune": (
        ["tune.py", "--metric=loss", "--max-t=3", "--num-trials=2", "--x=0..1"],
        RUN_HERE
        | {
            "script": (["tune.py"], ["nowhere.py"]),
            "--metric": (["loss"], ["", "a\nb"]),
            "--mode": (["min", "max"], ["", "Min"]),
            "--max-t": COUNTS,
            "--method": (["ASHA(max_t=2)"], ["ASHA", "ASHA(max_t=0)", "1+1"]),
            "--parameter": (["y=0..1", "y=a,b", "y=3"], ["y", "=1"]),
            "--assign": (["y=0..1"], ["y", "=1"]),
            "--env": (["y=0..1"], ["y", "=1"]),
            "--set": ([], ["y", "=1"]),
            "--yaml": ([], ["nowhere.yaml", "tune.py"]),
            "--read": (["output", "{folder}/a.csv"], ["a.csv"]),
            "--pattern": (["(?P<loss>.)"], ["(?P<x>.)", "("]),
            "--step": (["n"], ["a\nb"]),
            "--checkpoint-arguments": (["--o {folder}"], ["'"]),
            "--resume-arguments": (["--r {folder}"], ["'"]),
            "--grace": (["10s", "1m"], ["soon", "-1s"]),
            "--storage": (["runs"], ["s3://b/x"]),
            "--name": (["b"], ["a/b", ".a"]),
            "--seed": FROM_ZERO,
            "--if-exists": (["error", "resume", "new"], ["", "Error", "overwrite"]),
            "--write": (["w.py"], []),
        },
    ),
    "status": (
        ["runs/first"],
        {"path": PATHS, "trial": ([], ["0", "x", "-1", "1.5", ""])},
    ),
    "logs": (
        ["runs/first", "0"],
        {
            "path": ([], PATHS[1]),
            "trial": ([], ["0", "x", "-1", "1.5", ""]),
            "--follow": ([], [""]),
        },
    ),
    "export": (
        ["runs/first", "--optuna=out.log"],
        {"path": PATHS, "--optuna": (["out.log", "a/b.log"], ["", "tune.py"]), "--follow": FLAG},
    ),
    "import": (
        ["new", "--ray=tune", "--metric=loss", "--mode=min"],
        {
            "path": (["new"], ["runs/first", ""]),
            "--optuna": ([], ["", "nowhere", "tune.py"]),
            "--ray": (["tune"], ["", "nowhere", "runs"]),
            "--metric": (["loss"], ["", "a\nb", "nope"]),
            "--mode": (["min"], ["", "Min"]),
        },
    ),
    "best": (["runs/first"], {"path": PATHS, "-k": COUNTS, "--json": FLAG}),
    "trial": (
        ["runs/first", "0", "--stop"],
        {
            "path": ([], PATHS[1]),
            "trial": ([], ["0", "x", "-1", "1.5", ""]),
            "--stop": ([], FLAG[1]),
            "--pause": ([], FLAG[1]),
            "--resume": ([], FLAG[1]),
            "--reason": ([], ["a\nb", ""]),
        },
    ),
    "enqueue": (
        ["runs/first", "tune.py:study", '--config={"x": 0.5}'],
        {
            "path": ([], PATHS[1]),
            "study": ([], STUDIES[1]),
            "--trust": FLAG,
            "--config": ([], ["", "x", "[1]", "{'x'}", "x=1", '{"x": 2}', '{"y": 1}']),
        },
    ),
    "verify": (["runs/first"], {"path": PATHS, "study": STUDIES}),
    "submit": (
        ["tune.py:study", "--num-trials=2", "--dry-run", *WALLTIME, *WORKERS],
        RUN
        | {
            "study": STUDIES,
            "--gpu": (["0", "1"], RUN["--gpu"][1]),
            "--walltime": JOB_TIMES,
            "--queue": WORDS,
            "--account": WORDS,
            "--cores": COUNTS,
            "--memory": SIZES,
            "--directive": DIRECTIVES,
            "--prologue": LINES,
            "--chain": COUNTS,
            "--one-allocation": FLAG,
            "--workers": ([], ["jobs", "jobs=0", "jobs=x", "1=2", "=2", "", "job=3"]),
            "--dry-run": FLAG,
        },
    ),
    "attach": ([], {"path": PATHS}),
    "stop": ([], {"path": PATHS}),
    "checkpoints": (
        ["runs/first"],
        {
            "path": PATHS,
            "--verify": FLAG,
            "--export": ([], ["x s.npz", "-1 s.npz", "0 s.npz", "0 s.txt"]),
            "--collect": FLAG,
            "--force": ([], [""]),  # alone
            "--json": FLAG,
        },
    ),
    "cost": (["runs/first"], {"path": PATHS, "--trials": FLAG, "--json": FLAG}),
    "plan": (
        ["tune.py:study", "--workers=2", "--num-trials=2", "--seconds-per-unit=1", "--seeds=1"],
        {
            "study": STUDIES,
            "--gpus": COUNTS,
            "--workers": COUNTS,
            "--gpu": (["0.5", "2"], ["0", "-1", "x", "nan", ""]),
            "--walltime": DURATIONS,
            "--queue": (["0", "20m"], ["soon", "-1", ""]),
            "--num-trials": COUNTS,
            "--time-budget": DURATIONS,
            "--seconds-per-unit": (["1", "1,2.5"], ["0", "-1", "x", "1,,2", "nan", ""]),
            "--from": (["curves.csv"], ["nowhere", "tune.py", ""]),
            "--measure": FLAG,
            "--launch-seconds": (["0", "2.5"], ["-1", "x", "nan", ""]),
            "--state-size": (["30 MB", "none"], ["much", "-1 MB", ""]),
            "--checkpoint": CHECKPOINTS,
            "--seeds": COUNTS,
            "--json": FLAG,
        },
    ),
    "doctor": (
        ["--fast"],
        {
            "--partition": WORDS,
            "--account": WORDS,
            "--walltime": (["4h", "04:00:00", "1-00:00:00"], ["soon", "1h1h", "90", ""]),
            "--gpus": FROM_ZERO,
            "--gres": (["gpu:a100:2"], ["", "a\nb"]),
            "--cores": COUNTS,
            "--memory": SIZES,
            "--directive": DIRECTIVES,
            "--prologue": LINES,
            "--python": (["python3"], ["", "a\nb"]),
            "--container": (["docker://a", "/"], ["nowhere.sif", "--nv", "", "a\nb"]),
            "--shared": (["runs", "."], ["", "a\nb"]),
            "--interface": (["ib0"], ["", "a b", "a\nb"]),
            "--fast": FLAG,
            "--wait": DURATIONS,
            "--json": FLAG,
        },
    ),
    "report": (
        ["runs/first"],
        {
            "path": PATHS,
            "-o": (["report.html"], ["nowhere/r.html", "runs"]),
            "--target": ([], ["0.5", "x"]),
        },
    ),
    "replay": (
        ["curves.csv", "--workers=1", "--seeds=1"],
        {
            "path": (["curves.csv"], ["nowhere", "tune.py", "runs/none", ""]),
            "--scheduler": (["ASHA(max_t=2)"], ["", "ASHA", "Asha(2)", "ASHA(max_t=0)", "1+1"]),
            "--workers": (["1", "1,4"], ["0", "x", "1,,2", "1.5", ""]),
            "--seeds": COUNTS,
            "--target": NUMBERS,
            "--metric": (["loss"], ["nope", ""]),
            "--mode": (["min", "max"], ["", "Min"]),
            "--json": FLAG,
        },
    ),
}
# Flags that exclude what the words before have.
WITHOUT = {
    ("tune", "--method"): "--max-t=3",
    ("plan", "--gpus"): "--workers=2",
    ("plan", "--from"): "--seconds-per-unit=1",
    ("plan", "--measure"): "--seconds-per-unit=1",
}
OPTIONAL = {("resume", "study", ""), ("retry", "study", "")}


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            yield action.option_strings[0] if action.option_strings else action.dest


def commands() -> dict[str, argparse.ArgumentParser]:
    [found] = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(found.choices)


def test_every_command_and_option_has_a_row() -> None:
    assert {name: sorted(options_of(parser)) for name, parser in commands().items()} == {
        name: sorted(rows) for name, (_, rows) in TABLE.items()
    }


CASES = [(command, option) for command, (_, rows) in TABLE.items() for option in rows]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def reached(*_: Any, **__: Any) -> Any:
        raise Reached

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tune.py").write_text(TUNE)
    (tmp_path / "curves.csv").write_text(CURVES)
    (tmp_path / "tune" / "first").mkdir(parents=True)
    (tmp_path / "tune" / "first" / "result.json").write_text(RAY)
    study = load_source("tune.py:study")
    create_directory(Path("runs/first"), study.problem, "tune.py:study")
    trust("tune.py:study")
    monkeypatch.setattr("daskhpo.study.study.check_startable", reached)
    monkeypatch.setattr("daskhpo.cluster.doctor.checks.run_checks", reached)
    monkeypatch.setattr("daskhpo.simulation.profiling.profile", reached)
    return tmp_path


def argv(command: str, option: str, text: str) -> list[str]:
    before = TABLE[command][0]
    if option.startswith("-"):
        words = [word for word in before if word != WITHOUT.get((command, option))]
        if (command, option) == ("submit", "--workers"):
            words = words[: words.index("--workers")]
        if option == "--export":
            return [command, *words, option, *text.split()]
        if TABLE[command][1][option] is FLAG or option == "--force":
            return [command, *words, option]
        if (command, option) == ("submit", "--workers"):
            return [command, *words, option, text]
        return [command, *words, f"{option}={text}" if option != "-k" else f"-k{text}"]
    if option == "trial":
        return [command, before[0], text]
    if option == "study" and before[0] == "runs/first":
        return [command, before[0], text, *before[1:]]
    return [command, text, *before[1:]]


def status(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as end:
        return int(end.code or 0)
    except Reached:
        return 0


@pytest.mark.parametrize(("command", "option"), CASES, ids=str)
def test_good_texts_are_accepted(
    command: str, option: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in TABLE[command][1][option][0]:
        assert status(argv(command, option, text)) in (0, 1) or "not running" in (
            said := capsys.readouterr().err
        ), said


@pytest.mark.parametrize(("command", "option"), CASES, ids=str)
def test_bad_texts_are_refused_by_name_before_anything_starts(
    command: str, option: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = sorted(folder.rglob("*"))
    actions = commands()[command]._actions
    name = next(a.dest for a in actions if option in (*a.option_strings, a.dest))
    for text in TABLE[command][1][option][1]:
        if (command, option, text) in OPTIONAL:
            continue
        assert status(argv(command, option, text)) == 2, f"{option} {text!r} was accepted"
        said = capsys.readouterr().err
        last = said.splitlines()[-1]
        assert last.startswith(("daskhpo: ", f"daskhpo {command}: error: ")), said
        named = [option, name, *text.split(), *(["FILE.py:NAME"] if option == "study" else [])]
        assert any(word in last for word in named), (text, last)
        assert [
            path for path in sorted(folder.rglob("*")) if "__pycache__" not in str(path)
        ] == there


@pytest.mark.parametrize("text", ["tune.py", "tune", "tune:study", "tune.py:"])
def test_a_part_that_was_left_out_of_a_studys_name_is_suggested(
    text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", text, "--num-trials=2"]) == 2
    said = capsys.readouterr().err
    assert "did you mean tune.py:study?" in said or "it has ['study']" in said
