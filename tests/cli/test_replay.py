"""``daskhpo replay``, as a user types it."""

from __future__ import annotations

import json
import math

import pytest

from daskhpo import Study
from daskhpo.cli import main
from daskhpo.schedulers import ASHA
from daskhpo.simulation.compare import compare_schedulers
from daskhpo.simulation.curves import CurveTable
from daskhpo.space import Real


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["trial,resource,seconds,loss,accuracy,config/x"]
    lines += [
        f"{i},{r},{100 * r},{i + 1 / r},{-i},{i / 30}" for i in range(30) for r in range(1, 10)
    ]
    (tmp_path / "curves.csv").write_text("\n".join(lines))
    return tmp_path


def output(capsys, *arguments, status=0):
    found = main(["replay", *arguments])
    out, err = capsys.readouterr()
    assert found == status, (out, err)
    return err if status else out


TABLE = ("curves.csv", "--metric", "loss", "--workers", "1", "--seeds", "8")


@pytest.mark.slow
def test_each_number_of_workers_has_a_table_and_an_answer(capsys):
    out = output(capsys, "curves.csv", "--metric", "loss", "--workers", "1,4", "--seeds", "8")
    assert "curves.csv: 30 learning curves, 30 of them with 9 units, the maximum" in out
    assert "target loss=0.111111, the best recorded value" in out
    assert "1 worker\n" in out
    assert "4 workers\n" in out
    assert out.count("Soonest: ") == 2
    assert out.count("\nHyperband ") == 3, "two tables, and what it is"
    assert "No unit is extrapolated" in out


@pytest.mark.slow
def test_where_ranks_never_change_early_stopping_is_the_answer(capsys):
    out = output(capsys, *TABLE[:-1], "40")
    (answer,) = [line for line in out.splitlines() if "Soonest" in line]
    assert answer.startswith("Soonest: ASHA")
    assert "FIFO" not in answer
    assert "MedianStopping" not in answer


def test_a_scheduler_of_ones_own_is_compared(capsys):
    text = "GuardedASHA(9, reduction_factor=2)"
    out = output(capsys, *TABLE, "--scheduler", text, "--scheduler", "FIFO(18)")
    assert f"\n{text} " in out
    (line,) = [line for line in out.splitlines() if line.startswith("FIFO(18)")]
    assert line.endswith("50 %")
    assert "Extrapolated (share of units trained): FIFO(18) 50 %." in out


def test_the_default_is_replayed_and_what_it_lacks_is_said(capsys):
    out = output(capsys, *TABLE)
    assert "\nGuardedASHA " in out
    (line,) = [line for line in out.splitlines() if line.startswith("- GuardedASHA")]
    assert "has no model here" in line
    assert "With ForestSearch" in line


def test_as_json_there_is_a_line_for_each_study_played(capsys):
    out = output(capsys, *TABLE, "--json", "--target", "0.9")
    rows = [json.loads(line) for line in out.splitlines()]
    frame = compare_schedulers(
        CurveTable.read("curves.csv", "loss"), workers=[1], seeds=8, target=0.9
    )
    frame["seconds_to_target"] = frame["seconds_to_target"].astype(object)
    frame.loc[frame["seconds_to_target"] == math.inf, "seconds_to_target"] = None
    assert rows == frame.to_dict("records")


def test_the_mode_turns_the_metric(capsys):
    arguments = ("curves.csv", "--metric", "accuracy", "--workers", "1", "--seeds", "2")
    assert "target accuracy=0, the best" in output(capsys, *arguments, "--mode", "max")
    assert "target accuracy=-29, the best" in output(capsys, *arguments)


def test_a_target_that_nobody_reaches_is_told(capsys):
    out = output(capsys, *TABLE, "--target", "0.05")
    assert "target loss=0.05, as given" in out
    assert "not reached" in out
    assert "0 of 8" in out
    assert "No scheduler reached the target in half of the orders." in out


def test_a_study_that_stopped_trials_early_tells_what_it_does_not_know(capsys, folder):
    study = Study(None, {"x": Real(0, 1)}, "loss", scheduler=ASHA(9), storage=folder, name="asha")
    for _ in range(40):
        trial = study.ask()
        while study.tell(trial, {"loss": trial.config["x"] + 1 / (trial.resource + 1)}):
            pass
    study.close()
    out = output(capsys, "asha", "--workers", "2", "--seeds", "3")
    assert "; the study itself reached it after" in out
    assert "a trial keeps its last value" in out
    beyond = {
        line.split()[0]: float(line.split()[-2])
        for line in out.splitlines()
        if line.endswith(" %") and not line.startswith("-")
    }
    assert beyond["FIFO"] > 40
    assert beyond["ASHA"] < beyond["Hyperband"] < beyond["FIFO"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("curves.csv",), "name the metric: the table has ['loss', 'accuracy']"),
        (("nowhere",), "nowhere is neither a study's directory nor a table"),
        ((*TABLE, "--scheduler", "__import__('os')"), "is not allowed"),
        ((*TABLE, "--scheduler", "ASHA(max_t=9, brackets=7)"), "brackets=7 must be between"),
        ((*TABLE[:3], "--workers", "1;4"), "--workers 1;4 must be a number"),
        ((*TABLE[:3], "--workers", "0"), "workers[0]=0 must be"),
        ((*TABLE[:3], "--seeds", "0"), "seeds=0 must be"),
    ],
)
def test_a_mistake_is_named_in_one_line(arguments, message, capsys):
    err = output(capsys, *arguments, status=2)
    assert message in err
    assert err.count("\n") == 1
