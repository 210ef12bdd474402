"""Population based training on real workers: states and configurations move among members."""

from __future__ import annotations

from typing import Any

import pytest
from distributed import Client

from daskhpo import Study, Trainable
from daskhpo.core.types import Exploited
from daskhpo.schedulers import PBT
from daskhpo.searchers import RandomSearch
from daskhpo.space import Real
from daskhpo.study.session import study_records


class Descent(Trainable):
    """Gradient descent on x² / 2 from 1; its state remembers who took each step, and at what rate.

    A rate above 2 diverges, to infinity in the end.
    """

    def setup(self, config: Any) -> None:
        self.lr, self.x, self.path = config["lr"], 1.0, []

    def step(self) -> dict[str, Any]:
        self.x *= 1 - self.lr
        self.path.append(self.trial.id)
        first = self.path[0]
        return {"loss": abs(self.x), "n_steps": len(self.path), "first": first, "lr": self.lr}

    def save_checkpoint(self) -> Any:
        return {"x": self.x, "path": self.path}

    def load_checkpoint(self, state: Any) -> None:
        self.x, self.path = state["x"], state["path"]


@pytest.mark.parametrize("synchronous", [False, True])
def test_the_worst_go_on_from_the_best(client: Client, tmp_path: Any, synchronous: bool) -> None:
    study = Study(
        Descent,
        {"lr": Real(0.001, 0.5, log=True)},
        "loss",
        scheduler=PBT(12, 3, ["lr"], synchronous=synchronous),
        storage=tmp_path,
        name="study",
    )
    result = study.run(num_trials=8, client=client, progress=False)
    assert (result.trials().status == "completed").all()
    history = result.history()
    assert (history.n_steps == history.resource).all()  # nobody has a state of another resource
    exploited = [record for record in study_records(study.path) if isinstance(record, Exploited)]
    assert exploited
    assert set(history[history["first"] != history.trial].trial) <= {e.trial for e in exploited}
    assert (history["first"] != history.trial).any()
    rates = history.groupby("trial").lr.nunique()
    assert all(rates[e.trial] > 1 for e in exploited)
    assert history.lr.between(0.001, 0.5).all()
    # all that was written is the state of the best at its end, and perhaps of the best before it
    assert result.cost()["checkpoint_files"] <= 8
    assert result.cost()["retrained_units"] == 0


def test_members_that_diverge_are_not_lost(client: Client, tmp_path: Any) -> None:
    rates = [0.5, 1e200, 0.3, 1e250, 0.1, 1e150]
    study = Study(
        Descent,
        {"lr": Real(0.1, 1e250, log=True)},
        "loss",
        scheduler=PBT(12, 3, {"lr": Real(0.1, 1.0)}),
        searcher=RandomSearch(points_to_evaluate=[{"lr": rate} for rate in rates]),
        storage=tmp_path,
        name="study",
    )
    result = study.run(num_trials=6, client=client, progress=False)
    assert (result.trials().status == "completed").all()
    for number in (1, 3, 5):
        assert "not finite" in result.trial(number).error
        assert result.trial(number).config["lr"] <= 1.0
