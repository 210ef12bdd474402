"""``hydra/sweeper=daskhpo``: from Hydra's grammar to a study, and an app's jobs as its trials."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hydra")

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from daskhpo import load_study
from daskhpo.core.domains import Categorical, Integer, Ordinal, Real
from daskhpo.integrations.hydra import current_trial, split_overrides

APP = """
import time
from pathlib import Path

import hydra

from daskhpo.integrations.hydra import current_trial


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    trial = current_trial()
    x, units = 4.0, range(5)
    if trial is not None:
        x = x if trial.checkpoint is None else trial.checkpoint
        units = range(trial.resource, trial.max_t)
    for n in units:
        while n == 3 and not Path(cfg.gate).exists():
            time.sleep(0.01)
        x -= cfg.opt.lr * 2 * x * cfg.opt.scale
        if trial is not None:
            trial.report({"loss": x * x}, state=lambda: x)
    Path("ended").touch()
    return x * x


if __name__ == "__main__":
    main()
"""
CONFIG = """
defaults: [{opt: sgd}, {override hydra/sweeper: daskhpo}, _self_]
gate: GATE
hydra:
  job: {chdir: true}
  sweeper:
    metric: loss
    num_trials: 6
    scheduler: {_target_: daskhpo.schedulers.ASHA, max_t: 5, reduction_factor: 2}
    run: {checkpoint: "every:1"}
"""


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("lr=interval(0.001,0.1)", Real(0.001, 0.1)),
        ("lr=tag(log,interval(0.001,0.1))", Real(0.001, 0.1, log=True)),
        ("n=interval(1,9)", Real(1, 9)),
        ("n=int(interval(1,9))", Integer(1, 9)),
        ("n=range(1,4)", Ordinal([1, 2, 3])),
        ("n=range(10,40,10)", Ordinal([10, 20, 30])),
        ("n=16,32,64", Ordinal([16, 32, 64])),
        ("opt=sgd,adam", Categorical(["sgd", "adam"])),
        ("opt=choice(sgd,1)", Categorical(["sgd", "1"])),
        ("flag=true,false", Categorical(["True", "False"])),
    ],
)
def test_each_kind_of_sweep_is_a_domain(text: str, domain: Any) -> None:
    parsed = OverridesParser.create().parse_overrides([text, "fixed=[1,2]", "+new.key='a b'"])
    fixed, space = split_overrides(parsed)
    assert [*space.values()] == [domain]
    assert fixed == ["fixed=[1,2]", "+new.key='a b'"]


def test_outside_of_a_sweep_there_is_no_trial() -> None:
    assert current_trial() is None


def app(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[2])
    with (folder / "printed.txt").open("ab") as printed:
        return subprocess.Popen(
            [sys.executable, "app.py", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])},
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@pytest.mark.cluster
def test_an_app_that_was_killed_continues(tmp_path: Path, wait_for: Any) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "conf/opt").mkdir(parents=True)
    gate = tmp_path / "gate"
    (tmp_path / "conf/config.yaml").write_text(CONFIG.replace("GATE", str(gate)))
    for name, scale in (("sgd", 1.0), ("adam", 0.5)):
        (tmp_path / f"conf/opt/{name}.yaml").write_text(f"lr: 0.1\nscale: {scale}\n")
    sweep = (
        *("-m", "opt.lr=tag(log,interval(0.01,0.4))", "opt=sgd,adam"),
        f"hydra.sweep.dir={tmp_path}/out",
    )
    first = app(tmp_path, *sweep)
    journal = tmp_path / "out/study/journal.jsonl"
    wait_for(
        lambda: journal.exists() and journal.read_text().count('"reported"') >= 2, "two reports"
    )
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    gate.touch()
    printed = tmp_path / "printed.txt"
    assert app(tmp_path, *sweep).wait(100) == 0, printed.read_text()
    result = load_study(tmp_path / "out/study")
    assert result.num_trials == 6
    assert not result.failed_trials()
    for trial in result.best_trials(6):
        config, x = trial.config, 4.0
        for _ in range(trial.resource):
            x -= config["opt.lr"] * 2 * x * {"sgd": 1.0, "adam": 0.5}[config["opt"]]
        assert trial.metrics["loss"] == pytest.approx(x * x)
        assert (tmp_path / f"out/{trial.id}/.hydra/overrides.yaml").exists()
    assert (tmp_path / f"out/{result.best_trial.id}/ended").exists()
    found = OmegaConf.load(tmp_path / "out/optimization_results.yaml")
    assert found.best_evaluated_result == result.best_value
    assert "Nanny" not in printed.read_text()
    assert app(tmp_path, "opt.lr=0.2").wait(60) == 0  # a run of its own, without a study
