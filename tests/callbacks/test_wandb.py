"""Runs of W&B, by a library with its interface; W&B itself where it is installed."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from daskhpo.callbacks import WandbLogger, continued
from daskhpo.core.errors import MissingLibrary
from daskhpo.testing.callback import BEGAN, STORIES, CallbackContract, an_info, follow, resumed
from tests.callbacks import runs_library


@pytest.fixture(autouse=True)
def library(monkeypatch):
    monkeypatch.setitem(sys.modules, "runs_library", runs_library)
    monkeypatch.setattr(runs_library, "opened", [])
    monkeypatch.setattr(continued, "SAVE_SECONDS", -1.0)  # else a kill may let reports come twice
    monkeypatch.setattr(runs_library, "__spec__", importlib.util.find_spec("json"))


def runs(info):
    """Return the rows of each run, by trial; the first is what it was begun with."""
    return {
        int(path.stem.rpartition("-")[2]): [
            json.loads(line) for line in path.read_text().splitlines()
        ]
        for path in sorted((info.directory / "runs").glob("*.jsonl"))
    }


def logged(info):
    return [
        (trial, row["resource"])
        for trial, rows in runs(info).items()
        for row in rows
        if "resource" in row
    ]


class TestWandbLogger(CallbackContract):
    @pytest.fixture
    def make(self):
        return lambda: WandbLogger(module="runs_library")

    def test_it_follows_a_study_to_its_end(self, make, records, tmp_path):
        super().test_it_follows_a_study_to_its_end(make, records, tmp_path)
        assert all(run.is_finished for run in runs_library.opened)

    def logged(self, info):
        return logged(info)


class TestFinished(CallbackContract):
    @pytest.fixture
    def make(self):
        return lambda: WandbLogger(module="runs_library", trials="finished")


class TestBest(CallbackContract):
    @pytest.fixture
    def make(self):
        return lambda: WandbLogger(module="runs_library", trials=1)


STORY = [BEGAN, *STORIES["one trial is fully trained and one is stopped"]]


def test_a_run_has_the_studys_group_its_configuration_and_its_reports(tmp_path):
    info = an_info(tmp_path / "mine", STORY)
    follow([WandbLogger("nets", module="runs_library")], STORY, info).end()
    first, *rows = runs(info)[0]
    assert (first["project"], first["group"], first["name"]) == ("nets", "mine", "mine-0")
    assert first["config"]["optimizer"] == "adam"
    assert first["again"] == "allow"
    assert rows[0] == {"loss": 1.3, "resource": 1, "best/loss": 1.3}
    assert len(rows) == 9


@pytest.mark.parametrize(("trials", "expected"), [("finished", {0, 1}), (1, {0}), (5, {0, 1})])
def test_only_what_was_asked_for_is_logged_and_once(tmp_path, trials, expected):
    info = an_info(tmp_path, STORY)
    for _ in range(2):
        callback = WandbLogger(module="runs_library", trials=trials)
        follow([callback], STORY, info).end()
    assert set(runs(info)) == expected
    assert len(logged(info)) == len(set(logged(info)))


def test_a_resumed_study_continues_its_runs(tmp_path):
    records = [BEGAN, *STORIES["the study is stopped"]]
    after = resumed(records)
    for told in (records, after):
        follow([WandbLogger(module="runs_library")], told, an_info(tmp_path, told)).end()
    assert logged(an_info(tmp_path, after)) == [(0, n) for n in range(1, 6)]
    assert len(runs(an_info(tmp_path, after))) == 1


def test_a_library_that_is_missing_is_named_at_once():
    with pytest.raises(MissingLibrary, match="pip install no_such_library"):
        WandbLogger(module="no_such_library")
    if importlib.util.find_spec("wandb") is None:
        with pytest.raises(MissingLibrary, match=r"pip install 'daskhpo\[wandb\]'"):
            WandbLogger()
