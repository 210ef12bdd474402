"""The schedule experiment: its network trains at the rates that it is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("ase")
pytest.importorskip("matplotlib")

from daskhpo.results.multistep import MultiStep
from experiments.pbt_schedule.profiles import PROFILES
from experiments.pbt_schedule.scheduled import ScheduledNet
from experiments.pbt_schedule.study import table

pytestmark = pytest.mark.slow

STEPS = MultiStep("lr", (0.02, 0.004, 0.001), (2, 3), max_t=5)


ROOT = Path(__file__).parents[2]
METHODS = [
    "PBT, its best member",
    "fitted multistep, from scratch",
    "replay of the schedule, from scratch",
    "constant rate, the best of 4",
    "the best constant rate, from scratch",
]


class Context:
    """A trial without a study."""

    id, resource, max_t, seed, device, checkpoint = 0, 0, 5, 7, "cpu", None


def a_net():
    net = ScheduledNet()
    net.trial = Context()
    profile = PROFILES["smoke"]
    space = profile.space() | {"rates": STEPS.values, "milestones": STEPS.milestones}
    del space["lr"]
    net.setup(space)
    return net


def test_it_trains_each_epoch_at_its_rate():
    net = a_net()
    rates = [net.step()["lr"] for _ in range(5)]
    assert rates == pytest.approx([STEPS.at(unit) for unit in range(1, 6)])


def test_it_goes_on_from_a_checkpoint_as_if_it_had_not_stopped():
    net = a_net()
    for _ in range(2):
        net.step()
    state = net.save_checkpoint()
    through = [net.step() for _ in range(3)]
    again = a_net()
    again.load_checkpoint(state)
    assert [again.step() for _ in range(3)] == through


def test_the_table_has_mean_and_deviation_of_the_seeds():
    rows = pd.DataFrame(
        {"method": ["a", "a", "b"], "epochs": [9, 9, 1]}
        | {c: [0.1, 0.3, 0.5] for c in ("validation", "validation, last epoch", "test")}
    )
    lines = table(rows).splitlines()
    assert lines[2] == "| a | 9 | 0.200 ± 0.141 | 0.200 ± 0.141 | 0.200 ± 0.141 |"
    assert lines[3] == "| b | 1 | 0.500 | 0.500 | 0.500 |"


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.timeout(400)
def test_one_command_runs_all_and_writes_the_readme_and_repeats_nothing(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results of smoke: begin -->\n<!-- results of smoke: end -->\n")
    command = [sys.executable, "-m", "experiments.pbt_schedule.study", "--profile", "smoke"]
    command += ["--seeds", "0", "--storage", str(tmp_path / "runs"), "--readme", str(readme)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    journals = []
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = sorted((tmp_path / "runs").glob("*/journal.jsonl"))
        journals.append({path: path.read_bytes().count(b'"reported"') for path in found})
    assert len(journals[0]) == 5
    assert journals[0] == journals[1]
    text = readme.read_text()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if "|" in line]
    assert rows[2:] == METHODS
    for what in ("schedule", "genealogy"):
        assert f"](figures/smoke-0-{what}.png)" in text
        picture = tmp_path / "figures" / f"smoke-0-{what}.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
    errors = pd.read_csv(tmp_path / "runs" / "smoke-errors.csv")
    assert (errors["validation"] <= errors["validation, last epoch"]).all()
