"""Programs as trials on real worker processes: stopped, paused, killed, continued."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from distributed import LocalCluster

from daskhpo import Script, Study, load_study
from daskhpo.schedulers import ASHA, FIFO
from daskhpo.scripts.script import ScriptRun
from daskhpo.space import Categorical, Real
from tests.cli.command import daskhpo
from tests.pause_all import PauseAll

PROGRAM = Path(__file__).with_name("program.py")
STATE = {
    "checkpoint_arguments": "--state {folder}/state.json",
    "resume_arguments": "--resume",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


def study(tmp_path, scheduler, space=None, name="s", **given):
    script = Script(PROGRAM, "val_loss", **given)
    space = space or {"lr": Real(0.01, 0.5, log=True), "shift": Real(0, 1)}
    return Study(script, space, "val_loss", scheduler=scheduler, storage=tmp_path, name=name)


def expected(config, epoch):
    w = 1.0
    for _ in range(epoch):
        w *= 1 - config["lr"]
    return w + config.get("shift", 0.0)


def check(result):
    """Every report is that of an undisturbed run, each once."""
    history = result.history()
    assert not history.duplicated(["trial", "resource"]).any()
    for row in history.itertuples():
        assert row.val_loss == expected(result.trial(row.trial).config, row.resource)


@pytest.mark.parametrize(("save_after", "train"), [(0.0, 1.0), (0.2, 1.0), (0.2, 0.0)])
def test_what_a_program_saves_after_its_report_is_its_state(save_after, train):
    times = ["--save-after", str(save_after), "--train", str(train)]
    script = Script(PROGRAM, "val_loss", arguments=times, **STATE)
    trial = SimpleNamespace(id=0, seed=0, max_t=9, resource=0, devices=("cpu",))
    with ScriptRun(script, {"lr": 0.1}, trial) as run:
        assert next(run.units())["epoch"] == 1
        state = run.state()
    epoch, w = json.loads(state["files"]["state.json"].tobytes())
    assert (epoch, w) == (1, 0.9)
    assert [row["epoch"] for row in state["ahead"]] == ([2] if train == 0 else [])
    with ScriptRun(script, {"lr": 0.1}, trial) as run:
        run.restore(state)
        assert [units["epoch"] for units in islice(run.units(), 2)] == [2, 3]


@pytest.mark.cluster
@pytest.mark.parametrize("form", ["text", "json"])
def test_trials_that_are_paused_continue_as_if_they_were_not(tmp_path, cluster, form):
    made = study(tmp_path, PauseAll(9), arguments=["--form", form], **STATE)
    result = made.run(num_trials=4, client=cluster, progress=False)
    check(result)
    assert {(trial.resource, trial.attempt) for trial in map(result.trial, range(4))} == {(9, 2)}
    assert sum(result.trial(n).n_retrained for n in range(4)) == 0


@pytest.mark.cluster
def test_a_program_without_checkpoints_trains_again(tmp_path, cluster):
    result = study(tmp_path, PauseAll()).run(num_trials=4, client=cluster, progress=False)
    check(result)
    assert [result.trial(n).n_retrained for n in range(4)] == [1] * 4


@pytest.mark.cluster
def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    marker = tmp_path / "marker"
    arguments = ["--kill-parent-at", "5", "--marker", str(marker)]
    arguments += ["--journal", str(tmp_path / "s/journal.jsonl")]
    made = study(tmp_path, FIFO(9), arguments=arguments, **STATE)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        result = made.run(num_trials=2, client=cluster, progress=False, checkpoint="every:2")
    assert marker.exists()
    check(result)
    assert [result.trial(n).resource for n in range(2)] == [9, 9]
    assert sum(result.trial(n).n_retrained for n in range(2)) <= 2


@pytest.mark.cluster
def test_no_process_of_a_program_outlives_its_trial(tmp_path, cluster):
    pids = tmp_path / "pids"
    made = study(tmp_path, ASHA(9), arguments=["--child", str(pids), "--epochs", "1000000"])
    result = made.run(num_trials=4, client=cluster, progress=False)
    check(result)
    numbers = [int(line) for line in pids.read_text().split()]
    assert len(numbers) >= 4
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(n) for n in numbers):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.cluster
def test_values_reach_a_program_in_every_way(tmp_path, cluster):
    base = tmp_path / "base.yaml"
    base.write_text("model:\n  lr: 9\n  kind: x\n")
    made = study(
        tmp_path,
        FIFO(3),
        {"model.lr": Real(0.1, 0.2), "amp": Categorical([True, False]), "epochs": 3},
        passed={"model.lr": "yaml"},
        yaml=base,
        arguments=["--config", "{yaml}", "--form", "silent", "--log", "{folder}/log.csv"],
        read="{folder}/log.csv",
    )
    result = made.run(num_trials=3, client=cluster, progress=False)
    for row in result.history().itertuples():
        lr = result.trial(row.trial).config["model.lr"]
        assert row.val_loss == expected({"lr": lr}, row.resource)
    made = study(tmp_path, FIFO(3), {"LR": Real(0.1, 0.2)}, "e", passed={"LR": "environment"})
    result = made.run(num_trials=1, client=cluster, progress=False)
    assert result.trial(0).resource == 3
    assert result.trial(0).metrics["val_loss"] == expected({"lr": result.best_config["LR"]}, 3)
    assert result.trial(0).metrics["train_loss"] == 0.5


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fail-at", "2"], "program.py ended with status 1.*no luck today"),
        (["--form", "silent"], "reported no 'val_loss' .in its output."),
        (["--colour", "red"], "status 2.*unrecognized arguments: --colour red"),
    ],
)
def test_a_program_that_fails_is_quoted(tmp_path, cluster, arguments, message):
    made = study(tmp_path, FIFO(3), arguments=arguments)
    result = made.run(num_trials=1, client=cluster, progress=False)
    assert re.search(message, result.trial(0).error, re.DOTALL), result.trial(0).error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "nowhere.py"}, "neither a file nor a program"),
        ({"path": __file__, "read": "log.csv"}, "one file for all trials"),
        ({"path": __file__, "passed": {"a.b": "yaml"}}, "needs the YAML file"),
        ({"path": __file__, "passed": {"a": "telepathy"}}, "must be 'option'"),
        ({"path": __file__, "yaml": __file__}, "not to the program"),
        ({"path": __file__, "pattern": "(?P<acc>.)"}, r"no group of the metric: write \(\?P<loss>"),
        ({"path": __file__, "grace": "soon"}, "grace"),
        ({"path": Path(__file__).with_name("no_exec.txt")}, "neither"),
    ],
)
def test_what_cannot_work_is_refused_at_once(given, message):
    with pytest.raises(ValueError, match=message):
        Script(metric="loss", **given)


@pytest.mark.cluster
def test_the_command_line_alone(tmp_path):
    run = daskhpo(
        tmp_path,
        *("tune", str(PROGRAM), "--lr", "1e-2..5e-1:log", "--shift", "0.0..1.0", "--amp?"),
        *("--metric", "val_loss", "--method", "ASHA(max_t=9, variant='promotion')"),
        *("--checkpoint-arguments", "--state {folder}/state.json", "--resume-arguments=--resume"),
        *("--num-trials", "6", "--name", "six", "--", "--epochs", "9"),
    )
    assert run.returncode == 0, run.stderr
    assert "val_loss=" in run.stdout
    again = daskhpo(tmp_path, "resume", "runs/six", "--num-trials", "8")
    assert again.returncode == 0, again.stderr
    result = load_study(tmp_path / "runs/six")
    assert result.num_trials == 8
    check(result)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lr", "1..x"], "LOW..HIGH with numbers"),
        (["--lr", "1..9:0"], "after the colon"),
        (["1..9"], "of which option"),
        ([], "nothing to tune"),
        (["--lr", "0..1", "--parameter", "lr=2..3"], "given twice"),
        (["--lr", "0..1", "--max-t", "3", "--method", "FIFO(3)"], "--max-t is part of --method"),
        (["--lr", "0..1", "--read", "x.csv"], "one file for all trials"),
        (["--lr", "0..1", "--set", "a"], "NAME=VALUES"),
        (["--lr", "0..1"], "max_t is not given"),
    ],
)
def test_a_command_line_that_cannot_be_meant(tmp_path, capsys, monkeypatch, words, message):
    from daskhpo.cli.app import main

    monkeypatch.chdir(tmp_path)
    status = main(["tune", str(PROGRAM), *words, "--metric", "val_loss", "--num-trials", "2"])
    assert status == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_study_can_be_written_to_a_file(tmp_path, capsys, monkeypatch):
    from daskhpo.cli.app import main
    from daskhpo.study.study import load_source

    monkeypatch.chdir(tmp_path)
    words = ["--lr", "0.1..0.5", "--layers", "32..96:32", "--max-t", "9", "--write", "tune_it.py"]
    status = main(["tune", str(PROGRAM), *words, "--metric", "val_loss", "--", "--epochs", "9"])
    assert status == 0
    assert "daskhpo run tune_it.py:study" in capsys.readouterr().out
    made = load_source("tune_it.py:study")
    assert made.trainable.arguments == ["--epochs", "9"]
    assert made.problem.space["layers"].values == (32, 64, 96)


@pytest.mark.cluster
def test_a_study_that_is_killed_is_resumed_by_the_command_line(tmp_path):
    pids, journal = tmp_path / "pids", tmp_path / "runs" / "killed" / "journal.jsonl"
    words = [
        *("tune", str(PROGRAM), "--lr", "1e-2..5e-1:log", "--metric", "val_loss"),
        *("--method", "ASHA(max_t=9, variant='promotion')", "--name", "killed"),
        *("--checkpoint-arguments", "--state {folder}/state.json", "--resume-arguments=--resume"),
        *("--num-trials", "400", "--", "--child", str(pids)),
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "daskhpo.cli", *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    try:
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_text().count('"reported"') < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        running.kill()
        running.wait()
    numbers = [int(line) for line in pids.read_text().split()]
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(n) for n in numbers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    n_started = load_study(journal.parent).num_trials
    again = daskhpo(tmp_path, "resume", "runs/killed", "--num-trials", str(n_started + 1))
    assert again.returncode == 0, again.stderr
    result = load_study(journal.parent)
    assert result.num_trials == n_started + 1
    assert result.num_failed == 0
    check(result)
