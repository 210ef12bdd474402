"""`Study.enqueue`, `Study.stop_trial` and ``daskhpo trial`` on studies that run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from daskhpo import Study
from daskhpo.cli import main
from daskhpo.core.errors import InvalidArgument, NoSuchTrial, StudyMismatch
from daskhpo.core.types import Status
from daskhpo.engine import requests
from daskhpo.schedulers import FIFO, PBT
from daskhpo.searchers import GridSearch, RandomSearch
from daskhpo.space import Categorical, Real

SPACE = {"x": Real(0.0, 1.0), "sizes": Categorical([(1, 2), (3,)]), "constant": 5}
GIVEN = {"x": 0.25, "sizes": (3,)}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "REQUEST_POLL_SECONDS", 0.01)


def make(folder: Path, scheduler: Any = None, trainable: Any = None, **more: Any) -> Study:
    given = {"space": SPACE} | more
    return Study(
        trainable,
        metric="loss",
        scheduler=scheduler or FIFO(3),
        storage=folder,
        name="s",
        **given,
    )


def until(condition: Any) -> None:
    for _ in range(3000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen")


def test_a_study_that_has_not_begun_takes_what_was_added_first(tmp_path: Path) -> None:
    study = make(tmp_path)
    study.enqueue(GIVEN)
    study.enqueue(GIVEN | {"x": 0.75})
    found = [trial.config for trial in (study.ask(), study.ask()) if trial is not None]
    study.close()
    assert found == [GIVEN | {"constant": 5}, GIVEN | {"x": 0.75, "constant": 5}]
    again = make(tmp_path)
    for _ in range(len(found) + 2):  # another session reads the same file
        again.ask()
    again.close()
    configs = [trial.config for trial in again.result().best_trials(1)] or []
    assert configs == []
    started = [again.result().trial(n).config for n in range(again.result().num_trials)]
    assert started.count(GIVEN | {"constant": 5}) == 1


def test_a_trial_is_ended_while_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make(tmp_path, FIFO(10**6))
    first, second = study.ask(), study.ask()
    assert first is not None
    assert second is not None
    assert main(["trial", str(study.path), "0", "--stop", "--reason", "too slow"]) == 0
    assert "trial 0 ends at its next report" in capsys.readouterr().err
    until(lambda: not study.tell(first, {"loss": 0.5}))
    assert study.tell(second, {"loss": 1.0})
    trial = study.result().trial(0)
    assert (trial.status, trial.reason, trial.best_loss) == (Status.STOPPED, "too slow", 0.5)
    assert main(["trial", str(study.path), "0", "--stop"]) == 2
    assert "trial 0 has ended: it is stopped (too slow)" in capsys.readouterr().err
    study.close()


def test_a_trial_is_paused_and_resumed_while_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make(tmp_path, FIFO(10**6))
    first = study.ask()
    assert first is not None
    path = str(study.path)
    assert main(["trial", path, "0", "--resume"]) == 2
    assert "trial 0 is running, and was not paused by hand" in capsys.readouterr().err
    assert main(["trial", path, "0", "--pause"]) == 0
    assert "trial 0 is paused at its next report" in capsys.readouterr().err
    until(lambda: not study.tell(first, {"loss": 0.5}))
    assert main(["status", path, "0"]) == 0
    assert "queued, and paused by hand" in capsys.readouterr().out
    with pytest.raises(InvalidArgument, match="is paused by hand already"):
        study.pause_trial(0)
    other = study.ask()
    assert other is not None
    assert other.id == 1
    study.resume_trial(0)
    found: list[int] = []

    def is_back() -> bool:
        trial = study.ask()
        assert trial is not None
        found.append(trial.id)
        return trial.id == 0

    until(is_back)
    study.close()


DEFINITION = """
from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Categorical, Real

def train(config, trial):
    trial.report({"loss": config["x"]})

space = {"x": Real(0.0, 1.0), "sizes": Categorical([(1, 2), (3,)]), "constant": 5}
study = Study(train, space, "loss", scheduler=FIFO(3), storage=".", name="s")
"""


def test_the_command_adds_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "{'x': 0.25, 'sizes': (3,)}"
    monkeypatch.chdir(tmp_path)
    Path("tune.py").write_text(DEFINITION)
    study = make(tmp_path)
    assert study.ask() is not None
    assert main(["enqueue", "s", "--config", text]) == 2
    assert "`daskhpo enqueue s FILE.py:NAME`" in capsys.readouterr().err
    assert main(["enqueue", "s", "tune.py:study", "--config", text]) == 0
    assert "in the next free slot" in capsys.readouterr().err
    until(lambda: study.ask().config == GIVEN | {"constant": 5})  # type: ignore[union-attr]
    study.close()
    assert main(["enqueue", "s", "tune.py:study", "--config", "{'x': 2}"]) == 2
    assert "x" in capsys.readouterr().err


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="config="):
        make(tmp_path).enqueue({"x": 2.0, "sizes": (3,)})
    with pytest.raises(InvalidArgument, match="config="):
        make(tmp_path).enqueue({"x": 0.5})
    with pytest.raises(InvalidArgument, match="config="):
        make(tmp_path).enqueue(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="all its members"):
        make(tmp_path, PBT(4, 2, ["x"])).enqueue(GIVEN)
    with pytest.raises(InvalidArgument, match="points_to_evaluate"):
        make(tmp_path, searcher=GridSearch(3)).enqueue(GIVEN)
    with pytest.raises(InvalidArgument, match="the first 1 trials"):
        make(tmp_path, searcher=RandomSearch(points_to_evaluate=[GIVEN])).enqueue(GIVEN)
    with pytest.raises(FileNotFoundError):
        make(tmp_path).stop_trial(0)
    assert not (tmp_path / "s").exists()
    study = make(tmp_path)
    study.enqueue(GIVEN)
    with pytest.raises(NoSuchTrial, match="no trial was started"):
        study.stop_trial(0)
    with pytest.raises(StudyMismatch, match="seed"):
        make(tmp_path, seed=3).enqueue(GIVEN)


@pytest.mark.cluster
def test_workers_run_what_was_added_and_leave_what_was_ended(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def train(config: Any, trial: Any) -> None:
        for _ in range(trial.resource, trial.max_t):
            if trial.id == 0 and not gate.exists():
                threading.Event().wait(0.02)
            trial.report({"loss": config["x"]})

    study = make(tmp_path / "runs", FIFO(10**5), train)
    handle = study.start(num_trials=1, max_concurrent=1, progress=False)
    until(lambda: study.result().num_trials and study.result().has_reports)
    study.enqueue(GIVEN)
    study.stop_trial(0)
    until(lambda: study.result().num_trials == 2)
    assert study.result().trial(0).status is Status.STOPPED
    assert study.result().trial(0).resource > 0
    study.stop_trial(1)
    gate.touch()
    result = handle.wait()
    assert result.trial(1).config == GIVEN | {"constant": 5}
    assert [result.trial(n).reason for n in (0, 1)] == ["stopped by hand"] * 2
