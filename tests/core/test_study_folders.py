"""A study that is not there: where it was looked for, what is there, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from daskhpo import Study, load_study
from daskhpo.cli import main
from daskhpo.core.study_folders import no_study
from daskhpo.schedulers import FIFO
from daskhpo.searchers import GPSearch
from daskhpo.simulation.curves import CurveTable
from daskhpo.space import Real


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("runs/moons", "runs/bowl", "runs/bowl-2", "runs/other.d"):
        (tmp_path / name).mkdir(parents=True)
        if "other" not in name:
            (tmp_path / name / "study.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_close_names_come_first(folder: Path) -> None:
    said = no_study(Path("runs/bowll"))
    assert said.startswith("runs/bowll holds no study: there is no such directory.")
    assert f"{folder}/runs holds bowl, bowl-2, moons (did you mean bowl?)." in said
    assert "study.run(...)" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("runs", "it contains no study.json. {}/runs holds bowl, bowl-2, moons."),
        ("runs/zzz", "no such directory. {}/runs holds bowl, bowl-2, moons."),
        ("runs/other.d", "it contains no study.json. {}/runs holds bowl, bowl-2, moons."),
        ("runs/bowl/study.json", "it is a file. "),
        ("moons", "no such directory. There is one in {}/runs/moons."),
        ("rums/moons", "no such directory. There is no study in {}/rums either."),
        ("runs/bo\x1bwl", "(did you mean bowl?)"),
    ],
)
def test_what_is_there_is_named(given: str, said: str, folder: Path) -> None:
    text = no_study(Path(given))
    assert said.format(folder) in text
    assert text.isprintable()


def test_of_many_studies_some_are_named(folder: Path) -> None:
    for n in range(20):
        (folder / f"many/s{n:02}").mkdir(parents=True)
        (folder / f"many/s{n:02}/study.json").touch()
    assert "s07 and 12 more." in no_study(Path("many"))


@pytest.mark.parametrize(
    "command",
    [
        *(["status"], ["best"], ["resume"], ["retry"], ["attach"], ["stop"], ["cost"]),
        *(["checkpoints"], ["checkpoints", "--collect"], ["replay"]),
    ],
    ids=" ".join,
)
def test_every_command_names_the_studies_that_are_there(
    command: list[str], capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert main([*command, "runs/mons"]) == 2
    said = capsys.readouterr().err
    assert "did you mean moons?" in said
    assert not (folder / "runs/mons").exists()


def test_every_call_names_the_studies_that_are_there(folder: Path) -> None:
    study = Study(print_nothing, {"x": Real(0, 1)}, "loss", scheduler=FIFO(1), name="mons")
    for call in (
        study.resume,
        lambda: study.resume(3),
        lambda: study.resume(time_budget="1h", retry_failed=True),
        lambda: study.extend(3),
        study.attach,
        lambda: study.branch("b"),
        lambda: load_study("runs/mons"),
        lambda: CurveTable.read("runs/mons"),
        lambda: GPSearch(warm_start="runs/mons").setup(study.problem.space, 0),
    ):
        with pytest.raises((FileNotFoundError, ValueError), match="did you mean moons"):
            call()
    assert not (folder / "runs/mons").exists()


def print_nothing(config: object, trial: object) -> None: ...
