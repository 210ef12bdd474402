"""Numbers in what programs print and write."""

from __future__ import annotations

import math

import pytest

from daskhpo.callbacks.tensorboard_events import scalar_event, version_event
from daskhpo.scripts.events import scalars_of
from daskhpo.scripts.readers import OutputReader, file_reader, step_of


@pytest.mark.parametrize(
    ("line", "metric", "found"),
    [
        ("val_loss=0.25", "val_loss", {"val_loss": 0.25}),
        ("val_loss 1e-3", "val_loss", {"val_loss": 1e-3}),
        ("loss: 3", "loss", {"loss": 3.0}),
        ("val_loss=0.25", "loss", None),
        ("the loss is low", "loss", None),
        (
            "Epoch 3/9: val_loss 0.1, acc: 0.9",
            "val_loss",
            {"epoch": 3, "val_loss": 0.1, "acc": 0.9},
        ),
        ("step=7 loss=nan", "loss", {"step": 7, "loss": math.nan}),
        ("[INFO] eval/acc: -.5", "eval/acc", {"eval/acc": -0.5}),
        ("{'eval_loss': 0.5, 'epoch': 2.0}", "eval_loss", {"eval_loss": 0.5, "epoch": 2.0}),
        ('{"loss": 0.5, "m": {"a": 1}, "s": "x"}', "loss", {"loss": 0.5, "m/a": 1.0}),
        ('INFO {"loss": 0.5}', "loss", {"loss": 0.5}),
        ('{"other": 0.5}', "loss", None),
        ("loss=1.2.3", "loss", None),
        ("10%|# | loss=0.5, lr=1e-05", "loss", {"loss": 0.5, "lr": 1e-5}),
        ("", "loss", None),
    ],
)
def test_a_line(line, metric, found):
    seen = OutputReader(metric).read(line)
    if found is None:
        assert seen is None
        return
    assert seen is not None
    assert set(found) <= set(seen)
    for name, value in found.items():
        assert seen[name] == pytest.approx(value, nan_ok=True)


def test_a_pattern_names_the_numbers():
    reader = OutputReader("mae", r"MAE\s*->\s*(?P<mae>\S+)(?: after (?P<epoch>\d+))?")
    assert reader.read("MAE -> 0.5 after 3") == {"mae": 0.5, "epoch": 3.0}
    assert reader.read("MAE -> 0.5") == {"mae": 0.5}
    assert reader.read("MAE -> ?") is None


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_rows_are_read_once_and_only_when_complete(tmp_path, name):
    path = tmp_path / name
    reader = file_reader(path, "loss")
    assert [*reader.new()] == []
    is_csv = name.endswith("csv")
    rows = ["1,0.5", "2,0.25"] if is_csv else [f'{{"step": {n}, "loss": {0.5**n}}}' for n in (1, 2)]
    head = "step,loss\n" if is_csv else "not JSON\n"
    path.write_text(head + rows[0] + "\n" + rows[1])
    assert [*reader.new()] == [{"step": 1.0, "loss": 0.5}]
    path.write_text(head + "\n".join(rows) + "\n")
    assert [*reader.new()] == [{"step": 2.0, "loss": 0.25}]
    assert reader.n_read == 2
    later = file_reader(path, "loss")
    later.n_read = 1
    assert len([*later.new()]) == 1


def test_scalars_of_tensorboard(tmp_path):
    events = [version_event(1.0)]
    for step in (1, 2):
        events += [
            scalar_event(1.0, step, {"lr": 0.5}),
            scalar_event(1.0, step, {"loss": 1 / step}),
        ]
    path = tmp_path / "run" / "events.out.tfevents.1.host"
    path.parent.mkdir()
    path.write_bytes(b"".join(events)[:-3])  # the last is being written
    assert [*scalars_of(path)] == [(1, {"lr": 0.5}), (1, {"loss": 1.0}), (2, {"lr": 0.5})]
    reader = file_reader(tmp_path, "loss")
    assert [*reader.new()] == [{"lr": 0.5, "loss": 1.0, "step": 1}]
    path.write_bytes(b"".join(events))
    assert [*reader.new()] == [{"lr": 0.5, "loss": 0.5, "step": 2}]


def test_scalars_that_torch_writes(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", exc_type=ImportError)
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        for step in range(3):
            writer.add_scalar("loss", 0.5**step, step)
    assert [row["loss"] for row in file_reader(tmp_path, "loss").new()] == [1.0, 0.5, 0.25]


def test_the_number_that_counts_units():
    assert step_of({"loss": 1.0, "step": 4.0, "epoch": 2.0}, None) == 2.0
    assert step_of({"loss": 1.0, "n": 4.0}, None) is None
    assert step_of({"loss": 1.0, "n": 4.0}, "n") == 4.0
