"""Scripts as people write them first: all in one file, with processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

SCRIPT = """
import multiprocessing
import torch
from joblib import Parallel, delayed

from daskhpo import Study, Trainable
from daskhpo.schedulers import FIFO
from daskhpo.space import Real


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, number):
        return torch.tensor([float(number)])


def square(number):
    return number * number


def unit():
    loader = torch.utils.data.DataLoader(Numbers(), batch_size=4, num_workers=2)
    loaded = float(sum(batch.sum() for batch in loader))
    with multiprocessing.Pool(2) as pool:
        pooled = sum(pool.map(square, range(4)))
    joined = sum(Parallel(n_jobs=2)(delayed(square)(number) for number in range(4)))
    return {"loss": loaded, "pooled": pooled, "joined": joined}


class Net(Trainable):
    def setup(self, config):
        pass

    def step(self):
        return unit()


def train(config, trial):
    trial.report(unit())


if __name__ == "__main__":
    for form in (Net, train):
        study = Study(form, {"x": Real(0, 1)}, "loss", scheduler=FIFO(1), name=form.__name__)
        result = study.run(num_trials=1, max_concurrent=1, progress=False)
        print(result.trial(0).error)
        print(result.trials()[["status", "loss", "pooled", "joined"]].values.tolist())
"""


def test_a_loader_a_pool_and_joblib_work_on_classes_and_functions_of_the_script(
    tmp_path: Path,
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "first.py").write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, "first.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.stdout.count("[['completed', 120.0, 14, 14]]") == 2, told
    assert "UserWarning" not in told, told
