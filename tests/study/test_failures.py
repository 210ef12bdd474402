"""A study whose code is wrong, from the command line: it says so, and can be mended."""

from __future__ import annotations

import pytest

from daskhpo import Study, load_study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real
from tests.cli.command import daskhpo

SCRIPT = """
from daskhpo import Study
from daskhpo.schedulers import FIFO
from daskhpo.space import Real

def helper(config):
    return config["leraning_rate"]

def train(config, trial):
    for _ in range(3):
        trial.report({"loss": helper(config)})

study = Study(train, {"learning_rate": Real(0, 1)}, "loss", scheduler=FIFO(3),
              storage="runs", name="typo")
"""


@pytest.mark.cluster
def test_a_typo_stops_the_study_and_is_mended_and_tried_again(tmp_path):
    script = tmp_path / "typo.py"
    script.write_text(SCRIPT)
    run = daskhpo(tmp_path, "run", "typo.py:study", "--num-trials", "60", "--max-concurrent", "2")
    assert run.returncode == 3
    assert "trial 0 failed: KeyError: 'leraning_rate'" in run.stderr
    line = f'  File "{script}", line 7, in helper\n    return config["leraning_rate"]\n'
    assert line in run.stderr
    assert "stopped, because the first 5 trials failed with KeyError: 'leraning_rate'" in run.stderr
    result = load_study(tmp_path / "runs/typo")
    assert 5 <= result.num_trials < 10

    status = daskhpo(tmp_path, "status", "runs/typo", "0")
    assert "failed: KeyError: 'leraning_rate'" in status.stdout
    assert f"learning_rate = {result.trial(0).config['learning_rate']!r}" in status.stdout
    assert line.strip() in status.stdout

    script.write_text(SCRIPT.replace("leraning", "learning"))
    retry = daskhpo(tmp_path, "retry", "runs/typo", "--num-trials", "6", "--max-concurrent", "2")
    assert retry.returncode == 0, retry.stderr
    again = load_study(tmp_path / "runs/typo")
    assert again.num_failed == 0
    assert again.trial(0).config == result.trial(0).config
    assert daskhpo(tmp_path, "retry", "runs/typo").returncode == 1


def test_retry_is_for_a_study_that_began(tmp_path):
    study = Study(
        lambda config, trial: None, {"x": Real(0, 1)}, "loss", scheduler=FIFO(1), storage=tmp_path
    )
    with pytest.raises(TypeError, match="retry_failed=True needs if_exists='resume'"):
        study.start(1, retry_failed=True)
