"""Lightning, transformers, accelerate and Keras: resumption to the bit, ranks, real workers."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from daskhpo import Study
from daskhpo.schedulers import ASHA
from daskhpo.space import Real
from tests.integrations.real_study import check_study
from tests.integrations.script import run

pytestmark = pytest.mark.filterwarnings("ignore")  # the frameworks' own

# module, function, its metric, the library it needs
WAYS = {
    "lightning": ("lightning_net", "train", "val_loss", "lightning"),
    "trainer": ("hugging_face", "trainer_train", "loss", "transformers"),
    "accelerate": ("hugging_face", "accelerate_train", "loss", "accelerate"),
    "keras": ("keras_net", "train", "val_loss", "keras"),
}
IN_RANKS = {
    "lightning": ("lightning_net", "train_in_ranks"),
    "trainer": ("hugging_face", "trainer_in_ranks"),
    "accelerate": ("hugging_face", "accelerate_in_ranks"),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> tuple[Any, str]:
    module, name, metric, library = WAYS[request.param]
    if request.param == "keras":
        import os

        os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip(library)
    return getattr(import_module(f"tests.integrations.{module}"), name), metric


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(2,), (1, 2, 3, 4)])
def test_a_resumed_trial_reports_what_an_undisturbed_one_does(
    way: tuple[Any, str], stops: tuple[int, ...]
) -> None:
    train, metric = way
    undisturbed = run(train, {"lr": 0.05})
    assert len({report[metric] for report in undisturbed}) == 5
    assert run(train, {"lr": 0.05}, *stops) == undisturbed


@pytest.mark.cluster
@pytest.mark.long
def test_a_study_with_a_killed_worker(way: tuple[Any, str], tmp_path: Path, wait_for: Any) -> None:
    check_study(way[0], tmp_path, wait_for, way[1])


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.parametrize("name", IN_RANKS)
def test_ranks_pause_and_resume_together(name: str, tmp_path: Path) -> None:
    pytest.importorskip(WAYS[name][3])
    module, function = IN_RANKS[name]
    train, metric = getattr(import_module(f"tests.integrations.{module}"), function), WAYS[name][2]

    def study(variant: Any, **scheduler: Any) -> Any:
        made = Study(
            train,
            {"lr": Real(0.01, 0.2, log=True)},
            metric,
            scheduler=ASHA(4, 2, 2, variant=variant, **scheduler),
            storage=tmp_path,
            name=variant,
        )
        return made.run(num_trials=2, max_concurrent=1, progress=False)

    paused, straight = study("promotion"), study("stopping")
    for result in (paused, straight):
        assert not result.failed_trials(), result.trial(0).error
    history, reference = paused.history(), straight.history()
    assert history["attempt"].max() == 2  # one of both was paused, and promoted
    merged = history.merge(reference, on=["trial", "resource"])
    assert len(merged) >= 4
    assert merged[f"{metric}_x"].tolist() == pytest.approx(merged[f"{metric}_y"].tolist(), rel=1e-5)
