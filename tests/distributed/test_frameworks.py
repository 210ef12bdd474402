"""The scripts of the documentation for Lightning and accelerate: DDP trials on two ranks."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest
from distributed import LocalCluster

from daskhpo import Study
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.types import Pause, Resume, Start, Status, Stop, Wait
from daskhpo.searchers import RandomSearch
from daskhpo.space import Ordinal, Real

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(400)]

PAGE = Path(__file__).parents[2] / "docs/how-to/train-on-several-gpus.md"
LIBRARIES = {"lightning_ddp": "lightning", "accelerate_ddp": "accelerate"}


@pytest.fixture(params=LIBRARIES)
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModuleType]:
    """A script of the page as a module that goes to workers by value."""
    name = request.param
    if os.environ.get("CI") is None:
        pytest.importorskip(LIBRARIES[name])
    text = re.search(rf"^```python {name}\.py\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert text is not None
    path = tmp_path / f"{name}.py"
    one_seed = text[1].replace("manual_seed(trial.seed)", "manual_seed(0)")
    assert one_seed != text[1]
    path.write_text(one_seed)  # all trials begin with the same network
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cloudpickle.register_pickle_by_value(module)
    yield module
    cloudpickle.unregister_pickle_by_value(module)
    del sys.modules[name]


class PauseAll(Scheduler):
    """All trials are paused after one unit, and then trained to the end."""

    max_t = 3

    def next_action(self, trials: Any, can_start: bool) -> Any:
        if can_start:
            return Start(until=1)
        paused = (trial.id for trial in trials.values() if trial.status is Status.PAUSED)
        return next((Resume(number, until=3) for number in paused), Wait())

    def on_report(self, trial: Any, report: Any) -> Any:
        return Pause() if report.resource == 1 else Stop("fully trained")

    def on_launch(self, trial: Any) -> None: ...

    def on_end(self, trial: Any) -> None: ...


RANKS = [(1, 1), (1, 2), (2, 1), (2, 2)]  # before the pause, and after


def test_trials_pause_in_one_number_of_ranks_and_go_on_in_another(
    script: ModuleType, tmp_path: Path
) -> None:
    in_ranks = script.trial_in_ranks

    def trial_in_other_ranks(config: Any, trial: Any) -> None:
        ranks = config["first"] if trial.resource == 0 else config["then"]
        in_ranks({**config, "ranks": ranks}, trial)

    points = [{"lr": 0.01, "first": first, "then": then} for first, then in RANKS]
    study = Study(
        trial_in_other_ranks,
        space={"lr": Real(0.001, 0.1), "first": Ordinal([1, 2]), "then": Ordinal([1, 2])},
        metric="loss",
        scheduler=PauseAll(),
        searcher=RandomSearch(points_to_evaluate=points),
        storage=tmp_path,
        name="s",
    )
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as cluster:
        result = study.run(len(RANKS), client=cluster, progress=False)
    trials = result.trials()
    assert (trials.status == "completed").all(), [result.trial(n).error for n in trials.trial]
    alone, *others = (
        history.sort_values("resource").loss.to_numpy()
        for _, history in result.history().groupby("trial")
    )
    assert len(alone) == 3
    assert alone[0] > alone[1] > alone[2], "it learns"
    for losses in others:
        assert losses == pytest.approx(alone, rel=1e-5)
