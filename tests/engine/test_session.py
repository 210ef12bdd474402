"""Sessions: whose directory it is, and where a study goes on."""

from __future__ import annotations

import json
import queue
from dataclasses import replace

import pytest

from daskhpo import __version__
from daskhpo.core.commands import Train
from daskhpo.core.domains import Categorical, Integer, Real
from daskhpo.core.errors import JournalCorrupt, StudyExists, StudyLocked, StudyMismatch
from daskhpo.core.events import SlotsChanged, Step, Trained
from daskhpo.core.objective import Objective
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits, Status
from daskhpo.engine import requests
from daskhpo.engine.coordinator import Problem
from daskhpo.engine.journal import read_journal
from daskhpo.engine.session import (
    DIRECTORY_FORMAT,
    Session,
    as_recorded,
    check_startable,
    has_work,
    read_manifest,
    study_records,
)
from daskhpo.schedulers import ASHA, FIFO
from daskhpo.searchers import GPSearch, GridSearch, RandomSearch

PROBLEM_SPACE = Space({"x": Real(0.0, 1.0), "n": 3})


@pytest.fixture
def problem():
    return Problem(PROBLEM_SPACE, Objective("loss"), FIFO(4), RandomSearch(), 0)


def begin(directory, problem, resume=False, num_trials=3, **options):
    limits = Limits(num_trials=num_trials)
    return Session(directory, problem, limits, CheckpointPolicy(), resume=resume, **options)


def work(session, n_slots=1):
    """A slot comes, and its trial reports two of four units."""
    began = session.began_at
    (train, *_) = session.coordinator.handle(SlotsChanged(n_slots, began + 1.0))
    steps = tuple(Step(r, {"loss": 1.0 / r}, began + r) for r in (1, 2))
    session.coordinator.handle(Trained(train.trial, train.attempt, steps, began + 5.0))
    session.journal.flush()


def test_a_session_makes_its_directory(tmp_path, problem):
    directory = tmp_path / "runs" / "mine"
    session = begin(directory, problem, source="train.py:study")
    names = {path.name for path in directory.iterdir()}
    assert names == {"study.json", "journal.jsonl", "lock.json", "requests.jsonl"}
    assert directory.stat().st_mode & 0o777 == 0o700
    session.close()
    assert not (directory / "lock.json").exists()


def test_a_study_that_a_script_began_knows_its_file_once_the_command_line_continues_it(
    tmp_path, problem
):
    begin(tmp_path, problem).close()
    before = json.loads((tmp_path / "study.json").read_text())
    begin(tmp_path, problem, resume=True, source="train.py:study").close()
    begin(tmp_path, problem, resume=True, source="other.py:study").close()
    begin(tmp_path, problem, resume=True).close()
    after = json.loads((tmp_path / "study.json").read_text())
    assert after == before | {"source": "train.py:study"}


def test_a_directory_that_was_there_keeps_its_mode(tmp_path, problem):
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o2750)
    begin(directory, problem).close()
    assert directory.stat().st_mode & 0o7777 == 0o2750


def test_a_session_is_asked_to_stop_by_its_token(tmp_path, problem, monkeypatch):
    monkeypatch.setattr(requests, "REQUEST_POLL_SECONDS", 0.01)
    heard = queue.Queue()
    session = begin(tmp_path, problem, on_stop=heard.put)
    requests.request_stop(tmp_path, session.lock.token, "enough")
    assert heard.get(timeout=10) == "enough"
    session.close()


def test_the_manifest_says_what_the_study_is(tmp_path, problem):
    begin(tmp_path, problem, source="train.py:study").close()
    manifest = read_manifest(tmp_path)
    assert (manifest.metric, manifest.mode, manifest.seed) == ("loss", "min", 0)
    assert manifest.scheduler == repr(problem.scheduler)
    assert manifest.searcher == "RandomSearch()"
    assert manifest.space == {"x": repr(Real(0.0, 1.0)), "n": "3"}
    assert manifest.source == "train.py:study"
    assert manifest.objective == Objective("loss")
    data = json.loads((tmp_path / "study.json").read_text())
    assert (data["format"], data["version"]) == (DIRECTORY_FORMAT, __version__)


def test_an_empty_directory_holds_no_study(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no study"):
        read_manifest(tmp_path)
    assert list(study_records(tmp_path)) == []


def test_a_manifest_of_another_format_is_refused(tmp_path, problem):
    begin(tmp_path, problem).close()
    path = tmp_path / "study.json"
    path.write_text(path.read_text().replace(f'"format": {DIRECTORY_FORMAT}', '"format": 1'))
    with pytest.raises(StudyMismatch, match="another format"):
        read_manifest(tmp_path)


def test_a_directory_that_holds_trials_is_refused_unless_it_shall_go_on(tmp_path, problem):
    session = begin(tmp_path, problem)
    work(session)
    session.close()
    with pytest.raises(StudyExists, match=r"already holds a study.*resume"):
        begin(tmp_path, problem)
    begin(tmp_path, problem, resume=True).close()


def test_a_study_that_never_started_a_trial_may_begin_again(tmp_path, problem):
    begin(tmp_path, problem).close()
    begin(tmp_path, problem).close()


def test_a_running_study_is_refused(tmp_path, problem):
    session = begin(tmp_path, problem)
    with pytest.raises(StudyLocked):
        begin(tmp_path, problem, resume=True)
    session.close()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("space", {"space": Space({"x": Real(0.0, 2.0), "n": 3})}),
        ("space", {"space": Space({"x": Real(0.0, 1.0), "n": Integer(1, 3)})}),
        ("metric", {"objective": Objective("other")}),
        ("mode", {"objective": Objective("loss", "max")}),
        ("seed", {"seed": 1}),
        ("scheduler", {"scheduler": ASHA(max_t=4)}),
        ("scheduler", {"scheduler": FIFO(5)}),
        ("searcher", {"searcher": GridSearch()}),
    ],
)
def test_another_study_is_refused_and_both_are_shown(tmp_path, problem, name, change):
    session = begin(tmp_path, problem)
    work(session)
    session.close()
    other = replace(problem, **change)
    with pytest.raises(StudyMismatch, match=rf"with {name}=.* but this one has {name}="):
        begin(tmp_path, other, resume=True)
    with pytest.raises(StudyMismatch):
        check_startable(tmp_path, other, resume=True)
    begin(tmp_path, problem, resume=True).close()  # nothing was changed or left locked


def test_a_session_goes_on_where_the_last_one_ended(tmp_path, problem):
    first = begin(tmp_path, problem)
    work(first, n_slots=2)
    first.close()
    second = begin(tmp_path, problem, resume=True)
    ledger = second.coordinator.ledger
    assert second.began_at == 5.0
    assert ledger.n_trials == 2
    assert (ledger.best_trial, ledger.best_loss) == (0, 0.5)
    assert [trial.status for trial in ledger.trials.values()] == [Status.QUEUED] * 2
    commands = second.coordinator.handle(SlotsChanged(3, 6.0))
    assert [(c.trial, c.attempt) for c in commands if isinstance(c, Train)] == [
        (0, 2),
        (1, 2),
        (2, 1),
    ]
    second.close()


def test_a_torn_journal_goes_on(tmp_path, problem):
    first = begin(tmp_path, problem)
    work(first)
    first.close()
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        begin(tmp_path, problem, resume=True).close()
        assert list(study_records(tmp_path)) == list(read_journal(path))
        begin(tmp_path, problem, resume=True).close()


def test_an_edited_journal_is_refused_and_the_directory_unlocked(tmp_path, problem):
    session = begin(tmp_path, problem)
    work(session)
    session.close()
    path = tmp_path / "journal.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace('"until":4', '"until":3'))
    with pytest.raises(JournalCorrupt, match=r"record \d of the journal"):
        begin(tmp_path, problem, resume=True)
    lines = whole.splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"suggested"' not in line))
    with pytest.raises(JournalCorrupt):
        begin(tmp_path, problem, resume=True)
    path.write_text(whole)
    begin(tmp_path, problem, resume=True).close()


@pytest.mark.parametrize("searcher", [RandomSearch(), GridSearch(3), GPSearch(n_initial_points=2)])
def test_the_first_order_of_the_names_applies_for_good(tmp_path, searcher):
    """The order decides what is drawn; a later session may write the space in another one."""
    space = {"a": Integer(1, 3), "b": Real(0.0, 1.0), "c": 7, "d": Categorical(["x", "y", "z"])}

    def suggested(directory, spaces):
        configs = []
        for space in spaces:
            problem = Problem(Space(space), Objective("loss"), FIFO(1), searcher, 0)
            limits, policy = Limits(num_trials=len(configs) + 4), CheckpointPolicy("never")
            session = Session(directory, problem, limits, policy, resume=True)
            commands = session.coordinator.handle(SlotsChanged(1, session.began_at))
            for _ in range(4):
                [train] = (command for command in commands if isinstance(command, Train))
                steps = (Step(1, {"loss": float(train.trial)}, session.began_at),)
                trained = Trained(train.trial, train.attempt, steps, session.began_at)
                commands = session.coordinator.handle(trained)
                configs.append(train.config)
            session.journal.flush()
            session.close()
        return configs

    turned = dict(reversed(space.items()))
    same = suggested(tmp_path / "same", [space] * 3)
    other = suggested(tmp_path / "other", [space, turned, space])
    assert other == same
    assert [list(config) for config in other] == [list(space)] * 12


def test_what_a_finished_study_has_left_does_not_depend_on_the_order(tmp_path):
    space = {"a": Integer(1, 3), "b": Integer(1, 2)}
    problem = Problem(Space(space), Objective("loss"), FIFO(1), GridSearch(), 0)
    begin(tmp_path, problem).close()
    turned = replace(problem, space=Space(dict(reversed(space.items()))))
    assert has_work(tmp_path, turned, Limits(), CheckpointPolicy())
    assert list(as_recorded(tmp_path, turned).space) == ["a", "b"]
    assert as_recorded(tmp_path, problem) is problem
    assert as_recorded(tmp_path / "nowhere", turned) is turned


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", "{}", '{"format": 2}', '{"format": 2, "x": 1}', "[" * 99_999]
)
def test_a_damaged_manifest_is_named(text, tmp_path):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(StudyMismatch, match=r"study\.json (is damaged|was written in another)"):
        read_manifest(tmp_path)
