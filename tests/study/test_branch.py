"""Branches with another definition: a wider space, a new hyperparameter, another method."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from daskhpo import Study
from daskhpo.core.errors import InvalidArgument, StudyMismatch
from daskhpo.core.events import Exploited, Suggested
from daskhpo.engine import requests
from daskhpo.engine.session import read_manifest, study_records
from daskhpo.schedulers import ASHA, FIFO, PBT, Scheduler
from daskhpo.searchers import ForestSearch, RandomSearch
from daskhpo.space import Categorical, Integer, Real
from daskhpo.study.recorded import verify

SPACE = {"lr": Real(0.1, 0.5), "kind": Categorical(["a", "b"]), "depth": 3}


def begun(folder: Path, scheduler: Scheduler | None = None, n: int = 12, **more: Any) -> Study:
    """A study of which so many reports have been told."""
    given = {"space": SPACE, "searcher": RandomSearch()} | more
    study = Study(
        None,
        metric="loss",
        scheduler=scheduler or ASHA(9, grace_period=1, reduction_factor=3),
        storage=folder,
        name="first",
        **given,
    )
    tell(study, n)
    return study


def tell(study: Study, n: int) -> list[dict[str, Any]]:
    """Tell so many reports, and return the configurations of the trials that were asked for."""
    configs: list[dict[str, Any]] = []
    trial = None
    for number in range(n):
        if trial is None or trial.finished:
            trial = study.ask()
            assert trial is not None
            configs.append(trial.config)
        study.tell(trial, {"loss": trial.config["lr"] + 1 / (number + 1)})
    study.close()
    return configs


def test_ranges_become_wider_and_the_trials_stay(tmp_path: Path) -> None:
    study = begun(tmp_path)
    before = study.result().trials()
    wider = SPACE | {"lr": Real(0.001, 5.0), "kind": Categorical(["a", "b", "c"])}
    branch = study.branch("wider", space=wider)
    assert branch.result().trials().equals(before)
    assert verify(branch.path).n_records == len(list(study_records(branch.path)))
    later = tell(branch, 60)
    assert any(config["lr"] > 0.5 for config in later)
    assert any(config["kind"] == "c" for config in later)
    assert verify(branch.path, branch.problem).n_trials > len(before)
    assert read_manifest(study.path).space["lr"] == repr(SPACE["lr"])  # the old one is as it was
    assert study.result().trials().equals(before)


def test_a_new_hyperparameter_has_its_default_in_the_trials_so_far(tmp_path: Path) -> None:
    study = begun(tmp_path)
    more = SPACE | {"width": Integer(8, 64), "depth": Integer(1, 9), "note": "x"}
    branch = study.branch("more", space=more, defaults={"width": 16})
    trials = branch.result().trials()
    assert set(trials["config/width"]) == {16}
    assert set(trials["config/depth"]) == {3}  # it was a constant
    assert set(trials["config/note"]) == {"x"}
    assert list(trials["config/lr"]) == list(study.result().trials()["config/lr"])
    later = tell(branch, 40)
    assert len({config["width"] for config in later}) > 3
    verify(branch.path)


def test_another_searcher_learns_from_the_trials_so_far(tmp_path: Path) -> None:
    study = begun(tmp_path, n=40)
    branch = study.branch("forest", searcher=ForestSearch())
    assert read_manifest(branch.path).searcher == repr(ForestSearch())
    assert tell(branch, 20)
    verify(branch.path)


def test_a_longer_ladder_is_taken_while_no_trial_has_reached_its_end(tmp_path: Path) -> None:
    study = begun(tmp_path, n=2)
    assert study.result().trials()["resource"].max() < 9
    branch = study.branch("longer", scheduler=ASHA(27, grace_period=1, reduction_factor=3))
    tell(branch, 200)
    assert branch.result().trials()["resource"].max() > 9
    verify(branch.path)


def test_a_scheduler_that_would_have_decided_otherwise_is_refused_with_the_line(
    tmp_path: Path,
) -> None:
    study = begun(tmp_path)
    with pytest.raises(StudyMismatch, match=r"\(line \d+\).*follows.*Begin a new study"):
        study.branch("other", scheduler=FIFO(5))
    assert not (tmp_path / "other").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"space": SPACE | {"lr": Real(0.1, 0.11)}}, StudyMismatch, "trial 0 has no place"),
        ({"space": {"lr": Real(0.1, 0.5), "kind": "a", "depth": 3}}, StudyMismatch, "fixes it"),
        ({"space": {"lr": Real(0.1, 0.5), "depth": 3}}, StudyMismatch, "unknown names"),
        ({"space": SPACE | {"width": Integer(8, 64)}}, InvalidArgument, "width is new"),
        (
            {"space": SPACE | {"width": Integer(8, 64)}, "defaults": {"width": 7}},
            StudyMismatch,
            "width=7 is not in",
        ),
        (
            {"space": SPACE | {"width": Integer(8, 64)}, "defaults": {"wide": 9}},
            InvalidArgument,
            "no wide",
        ),
        ({"defaults": {"lr": 0.3}}, TypeError, "defaults= is for"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, given: Any, error: Any, match: str
) -> None:
    study = begun(tmp_path, n=30)
    with pytest.raises(error, match=match):
        study.branch("other", **given)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_what_people_added_is_converted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "REQUEST_POLL_SECONDS", 0.01)
    study = begun(tmp_path, FIFO(1))
    study.enqueue({"lr": 0.25, "kind": "b"})
    for _ in range(1000):  # the session reads requests in another thread
        if (trial := study.ask()) is not None:
            study.tell(trial, {"loss": 1.0})
            if trial.config["lr"] == 0.25:
                break
        threading.Event().wait(0.01)
    study.close()
    branch = study.branch("more", space=SPACE | {"width": Integer(8, 64)}, defaults={"width": 16})
    trials = branch.result().trials()
    assert set(trials[trials["config/lr"] == 0.25]["config/width"]) == {16}
    verify(branch.path)


def test_a_population_keeps_its_takeovers_or_is_refused(tmp_path: Path) -> None:
    """Wider ranges change what a population explores: its record must follow, or says where not."""
    from daskhpo.core.objective import Objective
    from daskhpo.core.space import Space
    from daskhpo.core.types import CheckpointPolicy, Limits
    from daskhpo.engine.coordinator import Problem
    from daskhpo.engine.journal import FileJournal
    from daskhpo.engine.session import create_directory
    from daskhpo.virtual.executor import IDEAL_CLUSTER, SimulatedExecutor
    from daskhpo.virtual.replay import simulate

    class Curve:
        def __init__(self, config: Any) -> None:
            self.lr = config["lr"]

        def metric(self, resource: int) -> float:
            return float(self.lr + 1 / resource)

        def seconds(self, resource: int) -> float:
            return float(resource)

    def train(config: Any, trial: Any) -> None:
        trial.report({"loss": config["lr"]}, state=lambda: 0)

    scheduler = PBT(12, 2, ["lr"])
    problem = Problem(Space(SPACE), Objective("loss", "min"), scheduler, RandomSearch(), 0)
    path = tmp_path / "first"
    create_directory(path, problem, None)
    journal = FileJournal(path / "journal.jsonl")
    executor = SimulatedExecutor(Curve, problem.objective, 3, [], IDEAL_CLUSTER)
    simulate(problem, executor, Limits(num_trials=8), CheckpointPolicy(), journal)
    journal.close()
    assert any(isinstance(record, Exploited) for record in study_records(path))
    study = Study(train, SPACE, "loss", scheduler=scheduler, searcher=RandomSearch(),
                  storage=tmp_path, name="first")  # fmt: skip
    more = SPACE | {"width": Integer(8, 64)}
    branch = study.branch("more", space=more, defaults={"width": 16})
    records = [r for r in study_records(branch.path) if isinstance(r, Exploited | Suggested)]
    assert {record.config["width"] for record in records} == {16}
    verify(branch.path)
    with pytest.raises(StudyMismatch, match=r'"record":"exploited"'):
        study.branch("wider", space=SPACE | {"lr": Real(0.0001, 5.0)})
