"""`Study.extend` on studies that ended: more trials, and trials that train further."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daskhpo import Study, load_study
from daskhpo.callbacks.base import Callback
from daskhpo.cli import main
from daskhpo.core.errors import InvalidArgument, StudyMismatch
from daskhpo.core.types import ScheduleSegment
from daskhpo.schedulers import ASHA, FIFO, PBTReplay
from daskhpo.space import Real
from daskhpo.virtual.executor import SimulatedExecutor


class Curve:
    def __init__(self, config: Any) -> None:
        self.x = config["x"]

    def metric(self, resource: int) -> float:
        return float(self.x + 1 / resource)

    def seconds(self, resource: int) -> float:
        return float(resource)


def simulated(session: Any) -> SimulatedExecutor:
    """Two slots in virtual time."""
    return SimulatedExecutor(Curve, session.objective, 2, began_at=session.began_at)


HERE: Any = {"executor": simulated, "progress": False}


def make(folder: Path, scheduler: Any = None, **more: Any) -> Study:
    scheduler = scheduler or FIFO(3)
    space = {"x": Real(0, 1)}
    return Study(None, space, "loss", scheduler=scheduler, storage=folder, name="s", **more)


def test_all_trials_train_to_the_new_end_and_the_study_stays_as_it_was_defined(tmp_path: Path):
    study = make(tmp_path)
    study.run(4, **HERE)
    result = study.extend(max_t=5, **HERE)
    assert result.num_trials == 4
    assert result.trials()["resource"].tolist() == [5] * 4
    assert result.trials()["status"].tolist() == ["completed"] * 4
    assert load_study(study.path).history().equals(result.history())
    assert len(result.history()) == 20
    more = make(tmp_path).extend(6, **HERE)  # defined as it was at first
    assert more.trials()["resource"].tolist() == [5] * 6


def test_more_trials_and_longer_training_go_together(tmp_path: Path):
    study = make(tmp_path, ASHA(9))
    study.run(9, **HERE)
    result = study.extend(num_trials=30, max_t=27, **HERE)
    assert result.num_trials == 30
    assert result.trials()["resource"].max() == 27


def test_resume_continues_an_extension_that_was_called_before(tmp_path: Path):
    study = make(tmp_path)
    study.run(4, **HERE)
    study.extend(max_t=5, **HERE)
    assert study.extend(max_t=5, **HERE).trials()["resource"].tolist() == [5] * 4
    assert study.resume(num_trials=5, max_t=7, **HERE).trials()["resource"].tolist() == [7] * 5


@pytest.mark.parametrize("max_t", [1, 2])
def test_training_cannot_become_shorter(tmp_path: Path, max_t: int):
    study = make(tmp_path)
    study.run(2, **HERE)
    before = (study.path / "journal.jsonl").read_bytes()
    with pytest.raises(InvalidArgument, match="must be above 3, to which this study trains"):
        study.extend(max_t=max_t, **HERE)
    assert (study.path / "journal.jsonl").read_bytes() == before


def test_a_refusal_changes_nothing_and_names_the_reason(tmp_path: Path):
    study = make(tmp_path, PBTReplay([ScheduleSegment(0, 3, {"x": 0.5})]))
    study.run(1, **HERE)
    before = (study.path / "journal.jsonl").read_bytes()
    with pytest.raises(InvalidArgument, match="Begin a study with a longer schedule"):
        study.extend(max_t=9, **HERE)
    assert (study.path / "journal.jsonl").read_bytes() == before


def test_who_defines_it_with_the_new_end_is_told_that_the_study_remembers_it(tmp_path: Path):
    study = make(tmp_path)
    study.run(2, **HERE)
    study.extend(max_t=5, **HERE)
    with pytest.raises(StudyMismatch, match=r"extended to max_t=5 \(the study remembers that\)"):
        make(tmp_path, FIFO(5)).resume(**HERE)


def test_it_needs_something_to_extend(tmp_path: Path):
    with pytest.raises(TypeError, match=r"num_trials= .* time_budget= .* or max_t="):
        make(tmp_path).extend()


def test_asked_trials_train_to_the_new_end(tmp_path: Path):
    study = make(tmp_path)
    study.run(2, **HERE)
    study.extend(max_t=5, **HERE)
    trial = study.ask()
    assert trial is not None
    for _ in range(4):
        assert study.tell(trial, {"loss": 0.5})
    assert not study.tell(trial, {"loss": 0.5})
    study.close()


def test_callbacks_hear_of_the_units_beyond_the_old_end_once(tmp_path: Path):
    heard: list[tuple[int, int]] = []

    class Hear(Callback):
        def on_report(self, trial: Any, report: Any) -> None:
            heard.append((trial.id, report.resource))

    study = make(tmp_path)
    study.run(2, **HERE)
    study.extend(max_t=5, callbacks=[Hear()], **HERE)
    assert sorted(heard) == [(trial, unit) for trial in range(2) for unit in range(1, 6)]


def test_a_branch_of_an_extended_study_goes_on_there(tmp_path: Path):
    study = make(tmp_path)
    study.run(2, **HERE)
    study.extend(max_t=5, **HERE)
    branch = study.branch("b", space={"x": Real(0, 2), "y": Real(0, 1)}, defaults={"y": 0.5})
    assert branch.extend(3, **HERE).trials()["resource"].tolist() == [5] * 3


def test_commands_read_it_and_verify_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    study = make(tmp_path)
    study.run(2, **HERE)
    study.extend(max_t=5, **HERE)
    assert main(["status", str(study.path)]) == 0
    assert "FIFO(max_t=3), extended to max_t=5" in capsys.readouterr().out
    assert main(["verify", str(study.path)]) == 0
    page = study.path / "report.html"
    assert main(["report", str(study.path)]) == 0
    assert "extended to max_t=5" in page.read_text()
