"""``daskhpo plan``, as a user types it."""

from __future__ import annotations

import json

import pytest

from daskhpo.cli import main
from daskhpo.simulation.planning import plan

FILE = """
from daskhpo import Study, Trainable
from daskhpo.schedulers import ASHA, FIFO
from daskhpo.searchers import GPSearch
from daskhpo.space import Real

class Net(Trainable):
    def setup(self, config):
        self.n = 0

    def step(self):
        self.n += 1
        return {"loss": self.trial.config["x"] + 1 / self.n}

    def save_checkpoint(self):
        return {"n": self.n}

space = {"x": Real(0, 1)}
study = Study(Net, space, "loss", scheduler=ASHA(9), name="net")
told = Study(None, space, "loss", scheduler=FIFO(9), name="told", searcher=GPSearch())
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "tune.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def output(capsys, *arguments, status=0):
    found = main(["plan", *arguments])
    out, err = capsys.readouterr()
    assert found == status, (out, err)
    return err if status else out


def cells(out):
    """The table: its rows by their first cell."""
    lines = out.split("\n\n")[1].splitlines()
    return {line[:22].strip(): line[22:].split() for line in lines}


STATED = ("tune.py:study", "--seconds-per-unit", "600", "--seeds", "1")


def test_the_table_has_a_column_for_each_method(capsys):
    out = output(capsys, *STATED, "--gpus", "4", "--num-trials", "20")
    assert out.startswith("net on 4 GPUs\n\n")
    rows = cells(out)
    assert rows["trials started"] == ["20", "20", "20"]
    assert rows["fully trained"][1] == "20"
    assert rows["hours to the end"][1] == "7.50"
    assert rows["GPU-hours"][1] == "30.0"
    assert "RS          FIFO(max_t=9)" in out
    assert "A unit takes 10 min, as stated." in out
    assert "Losses are synthetic" in out
    assert "The size of a state is not known: give --state-size" in out


def test_what_is_printed_is_what_plan_says(capsys, monkeypatch):
    out = output(capsys, *STATED, "--workers", "3", "--num-trials", "50", "--json")
    told = json.loads(out)
    import importlib.util

    spec = importlib.util.spec_from_file_location("tune", "tune.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    frame = plan(module.study, 3, seconds_per_unit=600, num_trials=50, seeds=1)
    assert (told["slots"], told["gpus_per_slot"]) == (3, 0)
    for method, numbers in told["methods"].items():
        row = frame[frame["method"] == method].iloc[0]
        for name in ("trials", "fully_trained", "hours", "busy_hours", "checkpoint_files"):
            assert numbers[name] == [row[name]] * 3
        assert numbers["scheduler"] == row["scheduler"]
    assert told["assumptions"]


def test_jobs_that_end_cost_what_the_table_says(capsys):
    limits = ("--walltime", "55m", "--queue", "10m", "--num-trials", "8")
    out = output(capsys, *STATED, "--gpus", "2", "--state-size", "30 MB", *limits)
    assert out.startswith("net on 2 GPUs, in jobs of 55 min\n")
    rows = cells(out)
    assert float(rows["lost at job ends"][1]) > 0
    assert int(rows["preemptions"][1]) > 0
    assert float(rows["their bytes, MB"][1]) >= 30
    assert "10 min after the previous ones ended" in out
    assert "A state takes 30.0 MB, as stated; checkpoint='auto'." in out


def test_a_fraction_of_a_gpu_makes_more_slots_of_fewer_hours(capsys):
    out = output(capsys, *STATED, "--gpus", "2", "--gpu", "0.5", "--num-trials", "8")
    assert out.startswith("net on 2 GPUs, 0.5 per trial: 4 trials at a time")
    assert cells(out)["GPU-hours"][1] == "6.00", "8 trials of 1.5 hours on half a GPU"


def test_a_table_of_curves_takes_the_place_of_stated_times(capsys, folder):
    lines = ["trial,resource,seconds,loss,config/x"]
    lines += [f"{i},{r},{100 * r},{i + 1 / r},{i / 10}" for i in range(10) for r in range(1, 4)]
    (folder / "curves.csv").write_text("\n".join(lines))
    arguments = ("tune.py:told", "--workers", "1", "--num-trials", "4", "--from", "curves.csv")
    out = output(capsys, *arguments)
    assert cells(out)["minutes to the end"][0] == "60.0"
    assert "those of 10 learning curves in curves.csv" in out
    assert "Up to 67 % of the units of a study are extrapolated" in out
    assert "Configurations are drawn at random instead of by GPSearch(" in out
    assert "Losses are synthetic" not in out


@pytest.mark.cluster
def test_without_times_a_few_units_are_trained(capsys, folder):
    out = output(capsys, "tune.py:study", "--workers", "2", "--num-trials", "20", "--seeds", "1")
    assert "as measured here on cpu" in out
    assert "A state takes 4." in out, "a header of 4096 bytes and a number"
    assert "as measured; checkpoint='auto'." in out
    assert not (folder / "runs").exists()


@pytest.mark.slow
def test_trials_without_a_state_train_again(capsys):
    limits = ("--walltime", "55m", "--num-trials", "8", "--state-size", "none")
    out = output(capsys, "tune.py:told", "--seconds-per-unit", "600", "--workers", "1", *limits)
    assert "Trials have no state: a trial that leaves its slot repeats its training" in out
    assert "this study did not finish within a hundred jobs and was aborted." in out


def test_several_times_are_all_told(capsys):
    arguments = ("tune.py:study", "--workers", "1", "--num-trials", "4", "--seconds-per-unit")
    assert "A unit takes 1 s or 2 s, as stated" in output(capsys, *arguments, "2,1")
    assert "A unit takes 1 s to 3 s, as stated" in output(capsys, *arguments, "2,1,3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workers", "2"), "give --walltime, --num-trials or --time-budget"),
        (("--workers", "2", "--num-trials", "3", "--walltime", "9m"), "more than the walltime"),
        (("--workers", "2", "--walltime", "soon"), "--walltime='soon' is not understood"),
        (("--workers", "2", "--num-trials", "3", "--state-size", "big"), "--state-size='big'"),
        (("--gpus", "1", "--gpu", "2", "--num-trials", "3"), "--gpus 1 is too few for --gpu 2"),
        (("--gpus", "1", "--gpu", "0", "--num-trials", "3"), "--gpu 0.0 must be above 0"),
        (("--workers", "2", "--num-trials", "3", "--checkpoint", "often"), "checkpoint='often'"),
    ],
)
def test_a_mistake_is_named_in_one_line(arguments, message, capsys):
    err = output(capsys, "tune.py:study", "--seconds-per-unit", "600", *arguments, status=2)
    assert message in err
    assert err.count("\n") == 1


def test_times_that_are_no_numbers_and_curves_that_are_not_there_are_named(capsys):
    limits = ("--workers", "1", "--num-trials", "3")
    err = output(capsys, "tune.py:study", *limits, "--seconds-per-unit", "1-2", status=2)
    assert "--seconds-per-unit 1-2 must be a number, or several separated by commas" in err
    err = output(capsys, "tune.py:study", *limits, "--from", "no.csv", status=2)
    assert "no.csv is neither a study's directory nor a table" in err
