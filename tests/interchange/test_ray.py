"""Result folders of Ray Tune as study directories."""

from __future__ import annotations

import json

import pytest

from daskhpo import load_study
from daskhpo.engine.session import read_manifest
from daskhpo.interchange.imported import write_study
from daskhpo.interchange.ray import read_ray
from daskhpo.space import Categorical, Integer, Real


def a_trial(folder, name, config, losses, began=1000.0, error=""):
    """Write a trial's folder as Ray does."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "params.json").write_text(json.dumps(config))
    rows = [
        {
            "loss": loss,
            "info": {"lr": 0.1},
            "done": n == len(losses),
            "training_iteration": n,
            "timestamp": began + n,
            "time_total_s": float(n),
            "pid": 7,
            "hostname": "node",
            "config": config,
        }
        for n, loss in enumerate(losses, start=1)
    ]
    (path / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if error:
        (path / "error.txt").write_text(error)


def test_trials_have_their_configurations_reports_and_ends(tmp_path):
    folder = tmp_path / "tune"
    config = {"lr": 0.1, "model": {"layers": 2, "kind": "a", "sizes": [3, 4]}, "fixed": 7}
    other = {"lr": 0.3, "model": {"layers": 5, "kind": "b", "sizes": [3, 4]}, "fixed": 7}
    a_trial(folder, "train_1", config, [3.0, 2.0, 2.5])
    a_trial(folder, "train_2", other, [1.0], began=1002.0)
    a_trial(folder, "train_3", other, [], error="Traceback\nOSError: disk")
    write_study(read_ray(folder, "loss", "min"), tmp_path / "study")
    result = load_study(tmp_path / "study")
    by_status = {t.status.value: t for t in (result.trial(n) for n in range(3))}
    assert set(by_status) == {"completed", "stopped", "failed"}
    assert result.best_trial is by_status["stopped"]
    assert by_status["completed"].best_loss == 2.0
    assert by_status["completed"].metrics == {"loss": 2.5, "info/lr": 0.1}
    assert "OSError: disk" in by_status["failed"].error
    assert result.best_config == {
        "lr": 0.3,
        "model/layers": 5,
        "model/kind": "b",
        "model/sizes": (3, 4),
        "fixed": 7,
    }
    assert read_manifest(tmp_path / "study").domains() == {
        "lr": Real(0.1, 0.3),
        "model/layers": Integer(2, 5),
        "model/kind": Categorical(["a", "b"]),
    }
    assert result.history()["trial"].nunique() == 2


@pytest.mark.parametrize(
    ("metric", "message"), [("accuracy", r"has the metric 'accuracy': they have \['info/lr', 'l")]
)
def test_a_metric_that_is_not_there_is_named(tmp_path, metric, message):
    a_trial(tmp_path, "train_1", {"x": 1}, [1.0])
    with pytest.raises(ValueError, match=message):
        read_ray(tmp_path, metric, "min")


def test_a_folder_without_trials_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no folder with a result\.json"):
        read_ray(tmp_path, "loss", "min")
