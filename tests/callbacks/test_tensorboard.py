"""Event files: the bytes are TensorBoard's own; runs continue."""

from __future__ import annotations

import struct

import pytest

from daskhpo.callbacks import TensorBoardLogger
from daskhpo.callbacks import tensorboard_events as events
from daskhpo.core.events import SessionStarted
from daskhpo.core.types import CheckpointPolicy, Limits
from daskhpo.space import Categorical, Ordinal, Real
from daskhpo.testing.callback import STORIES, CallbackContract, follow, resumed
from tests.callbacks.studies import a_study

BEGAN = SessionStarted(Limits(num_trials=3), CheckpointPolicy(), 0.0, clock=1.5e9)
DOMAINS = {
    "lr": Real(1e-4, 0.1, log=True),
    "opt": Categorical(["sgd", "adam"]),
    "bs": Ordinal([16, 32]),
    "b": Categorical([True, False]),
}
# Written by tensorboard 2.21: its RecordWriter, and its messages, serialised.
GOLDEN = {
    "version": "1800000000000000a37f4b2209000000c00b5ad6411a0d627261696e2e4576656e743a324ca9a464",
    "scalar": "2b00000000000000861bc34b09000000c00b5ad64110ac022a1d0a0f0a0876616c2f6c6f73731500"
    "00803e0a0a0a0361636315000040c0b15c689a",
    "experiment": "b800000000000000a0d1b53a09000000c00b5ad6412aac010aa9010a145f68706172616d735f2f"
    "6578706572696d656e744a90010a8d010a0768706172616d73128101127f19000000c00b5ad641221a0a026c72"
    "20033212092d431cebe2361a3f119a9999999999b93f22180a036f707420012a0f0a051a037367640a061a0461"
    "64616d221e0a02627320032a160a091100000000000030400a09110000000000004040220f0a016220022a080a"
    "0220010a0220002a0d0a0b1209626573742f6c6f7373348f9629",
    "start": "59000000000000008a1d65b609000000c00b5ad6412a4e0a4c0a1c5f68706172616d735f2f7365737369"
    "6f6e5f73746172745f696e666f4a2c0a2a0a0768706172616d73121f1a1d0a0f0a026c72120911000000000000"
    "e03f22013729000000c00b5ad6417afb83e2",
    "end": "4500000000000000ebe668b009000000c00b5ad6412a3a0a380a1a5f68706172616d735f2f73657373696f"
    "6e5f656e645f696e666f4a1a0a180a0768706172616d73120d220b080111000000c00b5ad641b3bd630e",
}


def test_records_are_those_that_tensorboard_writes():
    assert {
        "version": events.version_event(1.5e9),
        "scalar": events.scalar_event(1.5e9, 300, {"val/loss": 0.25, "acc": -3.0}),
        "experiment": events.experiment_event(1.5e9, DOMAINS, ["best/loss"]),
        "start": events.start_event(1.5e9, "7", {"lr": 0.5}, DOMAINS),
        "end": events.end_event(1.5e9, events.SUCCESS),
    } == {name: bytes.fromhex(text) for name, text in GOLDEN.items()}


# -- a reader of such files, for scalars ---------------------------------------------------------


def fields(data):
    """Yield the fields of a message: number and value."""
    at = 0

    def varint():
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    while at < len(data):
        key = varint()
        match key & 7:
            case 0:
                value = varint()
            case 1:
                value, at = struct.unpack("<d", data[at : at + 8])[0], at + 8
            case 5:
                value, at = struct.unpack("<f", data[at : at + 4])[0], at + 4
            case 2:
                size = varint()
                value, at = data[at : at + size], at + size
        yield key >> 3, value


def read(path):
    """Return (tag, step, value) of each scalar, and the tags of HParams."""
    scalars, hparams = [], []
    for record in events.records_of(path):
        event = dict(fields(record[12:-4]))
        for _, value in fields(event.get(5, b"")):
            found = dict(fields(value))
            tag = found[1].decode()
            if 2 in found:
                scalars.append((tag, event.get(2, 0), found[2]))
            else:
                hparams.append(tag.removeprefix("_hparams_/"))
    return scalars, hparams


def run(info, trial):
    return read(
        info.directory / "tensorboard" / f"trial-{trial:05}" / "events.out.tfevents.daskhpo"
    )


class TestTensorBoardLogger(CallbackContract):
    @pytest.fixture
    def make(self):
        return TensorBoardLogger

    def logged(self, info):
        folders = (info.directory / "tensorboard").glob("trial-*")
        numbers = [int(folder.name.removeprefix("trial-")) for folder in folders]
        return [
            (number, step)
            for number in numbers
            for tag, step, _ in run(info, number)[0]
            if tag == "loss"
        ]


def test_a_run_has_its_metrics_the_running_best_and_its_hyperparameters(tmp_path):
    records = [BEGAN, *STORIES["a metric comes later"]]
    info = a_study(tmp_path, records)
    follow([TensorBoardLogger()], records, info).end()
    scalars, hparams = run(info, 0)
    assert hparams == ["session_start_info", "session_end_info"]
    assert {tag for tag, _, _ in scalars} == {"loss", "best/loss", "accuracy"}
    assert ("accuracy", 3, 0.5) in scalars
    root = read(tmp_path / "tensorboard" / "events.out.tfevents.daskhpo")
    assert root == ([], ["experiment"])


def test_a_hyperparameter_that_changes_is_a_curve_from_its_first_value_on(tmp_path):
    records = [BEGAN, *STORIES["a trial takes over another one's state"]]
    info = a_study(tmp_path, records)
    follow([TensorBoardLogger(tmp_path / "all")], records, info).end()
    path = tmp_path / "all" / info.name / "trial-00001" / "events.out.tfevents.daskhpo"
    curve = [(step, round(v, 4)) for tag, step, v in read(path)[0] if tag == "config/lr"]
    assert curve == [(5, 0.2), *((step, 0.12) for step in range(3, 10))]


def test_a_resumed_study_continues_the_runs_byte_for_byte(tmp_path):
    records = [BEGAN, *STORIES["the study is stopped"]]
    after = resumed(records)
    info = a_study(tmp_path / "s", records)
    follow([TensorBoardLogger()], records, info).end()
    before = {p: p.read_bytes() for p in info.directory.rglob("events*")}
    follow([TensorBoardLogger()], after, info).end()
    for path, data in before.items():
        assert path.read_bytes().startswith(data), path
    assert {step for _, step, _ in run(info, 0)[0]} == {1, 2, 3, 4, 5}
