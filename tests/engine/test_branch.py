"""Studies that begin where another one stood."""

from __future__ import annotations

import logging
import math
import shutil
import sys
import time
from functools import partial

import cloudpickle
import pytest
from distributed import Client, LocalCluster

from daskhpo import Study, load_study
from daskhpo.checkpoints import ZarrStore
from daskhpo.core.errors import CheckpointMissing, JournalCorrupt, StudyExists, StudyMismatch
from daskhpo.core.events import AttemptLost, Launched, Saved
from daskhpo.engine.session import read_manifest, study_records
from daskhpo.schedulers import ASHA, FIFO
from daskhpo.space import Real

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def client():
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0")
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture
def make_study(tmp_path):
    def make(trainable, scheduler, **options):
        options = {"storage": tmp_path, "name": "source"} | options
        return Study(trainable, {"x": Real(0, 1)}, "loss", scheduler=scheduler, **options)

    return make


def count(config, trial, after=lambda n: None):
    """Trial 0 is the best; ``n`` lives in the state, ``began`` is where this attempt began."""
    began = trial.checkpoint["n"] if trial.checkpoint else 0
    for n in range(began + 1, trial.max_t + 1):
        loss = trial.id + 1 / n
        trial.report({"loss": loss, "n": n, "began": began}, state=lambda n=n: {"n": n})
        after(n)


def files(folder):
    """All files of a study by name, with what is in them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def rows(folder):
    return {
        name
        for name in files(folder)
        if name.startswith("checkpoints.zarr/") and "json" not in name
    }


@pytest.mark.cluster
def test_a_branch_goes_on_from_the_checkpoints_of_its_source(client, make_study):
    study = make_study(count, ASHA(9, variant="promotion"))
    study.run(9, checkpoint="rung", client=client, progress=False)
    before = files(study.path)
    branch = study.branch("branch")

    own = ("requests.jsonl", "dashboard.json")  # of a session
    assert files(branch.path) == {n: b for n, b in before.items() if n not in own}
    for name in rows(study.path):
        assert (branch.path / name).samefile(study.path / name), "bytes were copied"
    assert branch.result().trials().equals(study.result().trials())

    result = branch.resume(18, checkpoint="rung", client=client, progress=False)
    assert len(result.trials()) == 18
    old = {trial: study.result().trial(trial).resource for trial in range(9)}
    went_on = [trial for trial in range(9) if result.trial(trial).resource > old[trial]]
    assert went_on, "nothing was promoted: this test shows nothing"
    assert result.cost()["retrained_units"] == 0
    assert files(study.path) == before, "the source has changed"


@pytest.mark.cluster
def test_either_study_may_go_on_or_be_deleted_without_the_other(client, make_study):
    study = make_study(count, ASHA(9, variant="promotion"))
    study.run(6, checkpoint="rung", client=client, progress=False)
    branch, other = study.branch("branch"), study.branch("other")
    study.extend(12, checkpoint="rung", client=client, progress=False)
    shutil.rmtree(branch.path)
    assert_whole(study)
    shutil.rmtree(study.path)
    assert_whole(other)
    result = other.extend(12, checkpoint="rung", client=client, progress=False)
    assert result.cost()["retrained_units"] == 0
    assert_whole(other)


def assert_whole(study):
    store = ZarrStore(study.path / "checkpoints.zarr")
    refs = study.result().checkpoints()
    assert refs
    for ref in refs:
        assert store.read(ref) == {"n": ref.resource}


@pytest.mark.cluster
def test_a_branch_at_a_time_has_the_records_up_to_then(client, make_study):
    study = make_study(count, ASHA(9, variant="promotion"))
    study.run(12, checkpoint="end", client=client, progress=False)
    records = list(study_records(study.path))
    seconds = records[len(records) // 2].seconds
    branch = study.branch("early", seconds)

    n = max(i for i, record in enumerate(records, 1) if record.seconds <= seconds)
    assert n < len(records)
    assert list(study_records(branch.path)) == records[:n]
    assert (branch.path / "study.json").read_bytes() == (study.path / "study.json").read_bytes()
    result = branch.resume(12, checkpoint="end", client=client, progress=False)
    assert len(result.trials()) == 12
    assert list(result.trials()["config/x"]) == list(study.result().trials()["config/x"])
    assert_whole(branch)


@pytest.mark.cluster
def test_a_checkpoint_that_was_deleted_since_is_trained_again(client, make_study, caplog, tmp_path):
    def until_written(n):  # else the last state alone may be written
        deadline = time.monotonic() + 60
        while n == 30 and not list(tmp_path.glob("source/checkpoints.zarr/*/*.0")):
            assert time.monotonic() < deadline, "no state was written"
            time.sleep(0.01)

    study = make_study(partial(count, after=until_written), FIFO(60))
    study.run(1, checkpoint="every:1", client=client, progress=False)
    then = next(record for record in study_records(study.path) if isinstance(record, Saved))
    assert then.ref not in study.result().checkpoints()
    with caplog.at_level(logging.WARNING, "daskhpo"):
        branch = study.branch("early", then.seconds)
    assert "source had at that time no longer exist" in caplog.text

    assert not rows(branch.path)
    assert branch.result().checkpoints() == [then.ref]
    with pytest.raises(CheckpointMissing):
        branch.result().checkpoint(0)
    result = branch.resume(1, checkpoint="every:1", client=client, progress=False)
    assert result.trials().status.tolist() == ["completed"]
    assert result.history().n.tolist() == list(range(1, 61))
    assert result.trial(0).metrics["began"] == 0
    assert result.cost()["retrained_units"] >= then.ref.resource
    assert [r.bad_checkpoint for r in study_records(branch.path) if isinstance(r, AttemptLost)] == [
        True
    ]
    assert_whole(branch)


@pytest.mark.cluster
def test_an_older_checkpoint_that_is_there_is_gone_on_from(client, make_study):
    study = make_study(count, FIFO(6))
    study.run(1, target=1 / 3, checkpoint="every:1", client=client, progress=False)
    older, newest = study.result().checkpoints()
    ZarrStore(study.path / "checkpoints.zarr").delete(newest)
    branch = study.branch("branch")
    result = branch.resume(1, checkpoint="every:1", client=client, progress=False)
    assert result.trial(0).metrics["began"] == older.resource > 0
    assert result.history().n.tolist() == [1, 2, 3, 4, 5, 6]
    assert result.cost()["retrained_units"] == newest.resource - older.resource


@pytest.mark.cluster
def test_with_neither_of_its_checkpoints_a_trial_starts_anew(client, make_study):
    study = make_study(count, FIFO(6))
    study.run(1, target=1 / 3, checkpoint="every:1", client=client, progress=False)
    refs = study.result().checkpoints()
    assert len(refs) == 2
    branch = study.branch("branch")
    for ref in refs:
        ZarrStore(branch.path / "checkpoints.zarr").delete(ref)
    result = branch.resume(1, checkpoint="every:1", client=client, progress=False)
    assert result.trial(0).metrics["began"] == 0
    assert result.history().n.tolist() == [1, 2, 3, 4, 5, 6]
    assert result.cost()["retrained_units"] == refs[-1].resource
    assert_whole(study)


@pytest.mark.cluster
def test_the_source_may_be_running(client, make_study):
    study = make_study(count, FIFO(20_000))
    handle = study.start(1, checkpoint="every:3", client=client, progress=False)
    try:
        deadline = time.monotonic() + 60
        while not (study.path / "study.json").exists() or not study.result().checkpoints():
            assert time.monotonic() < deadline, "no checkpoint was written"
        branches = [study.branch(f"branch-{i}") for i in range(3)]
    finally:
        handle.stop("enough")
        handle.wait()
    source = (study.path / "journal.jsonl").read_bytes()
    for branch in branches:
        journal = (branch.path / "journal.jsonl").read_bytes()
        assert len(journal) < len(source)
        assert source.startswith(journal)
        there = ZarrStore(branch.path / "checkpoints.zarr").list()
        assert set(there) <= set(branch.result().checkpoints()), "rows that no record commits"
        done = branch.result().trial(0).resource
        result = branch.resume(1, target=1 / (done + 20), client=client, progress=False)
        assert result.history().n.tolist() == list(range(1, result.trial(0).resource + 1))
        assert result.trial(0).resource >= done + 20


def test_a_branch_would_try_what_its_source_tried_next(make_study):
    study = make_study(None, FIFO(2))
    first, seconds = tell_all(study, 3), study.result().history().seconds.max()
    branch = study.branch("branch", math.nextafter(seconds, math.inf) + 1e-6)
    others = tell_all(study, 2)  # the source is open all the while
    assert tell_all(branch, 2) == others
    study.close()
    branch.close()
    for name in ("source", "branch"):
        found = load_study(study.storage / name).trials()
        assert list(found["config/x"]) == [config["x"] for config in first + others]


def tell_all(study, n_trials):
    trials = [study.ask() for _ in range(n_trials)]
    for trial in trials:
        while study.tell(trial, {"loss": trial.config["x"]}):
            pass
    return [trial.config for trial in trials]


def test_a_branch_before_the_first_trial_begins_anew(make_study):
    study = make_study(None, FIFO(2))
    configs = tell_all(study, 3)
    study.close()
    launched = next(r for r in study_records(study.path) if isinstance(r, Launched))
    branch = study.branch("branch", launched.seconds / 2)
    assert branch.result().num_trials == 0
    assert tell_all(branch, 3) == configs
    branch.close()


def test_the_branch_says_where_the_study_is_defined(make_study, tmp_path):
    study = make_study(None, FIFO(2), name="other")
    study = study.at(study.path, "/home/me/tune.py:study")
    tell_all(study, 1)
    study.close()
    manifest = tmp_path / "other/study.json"
    manifest.write_text(manifest.read_text().replace('"source": null', '"source": "me.py:study"'))
    branch = study.branch("branch")
    assert read_manifest(branch.path).source == "me.py:study"
    assert branch.source == study.source
    assert (branch.path.stat().st_mode & 0o777, branch.name) == (0o700, "branch")


@pytest.mark.parametrize(
    ("name", "seconds", "error", "message"),
    [
        ("", None, ValueError, "plain folder name"),
        ("a/b", None, ValueError, "plain folder name"),
        (".hidden", None, ValueError, "plain folder name"),
        (7, None, TypeError, "must be a str"),
        ("good", -1, ValueError, "seconds=.* must be"),
        ("good", math.nan, ValueError, "seconds=.* must be"),
        ("good", "8h", ValueError, "seconds=.* must be"),
        ("good", True, ValueError, "seconds=.* must be"),
        ("taken", None, StudyExists, "taken already exists"),
        ("source", None, StudyExists, "source already exists"),
    ],
)
def test_what_cannot_be_a_branch_is_refused(name, seconds, error, message, make_study, tmp_path):
    study = make_study(None, FIFO(2))
    tell_all(study, 1)
    study.close()
    (tmp_path / "taken").mkdir()
    before = files(tmp_path)
    with pytest.raises(error, match=message):
        study.branch(name, seconds)
    assert files(tmp_path) == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"source", "taken"}


def test_a_study_that_was_not_begun_has_no_branch(make_study):
    with pytest.raises(FileNotFoundError, match="holds no study"):
        make_study(None, FIFO(2)).branch("branch")


def test_a_study_defined_otherwise_has_no_branch(make_study, tmp_path):
    study = make_study(None, FIFO(2))
    tell_all(study, 1)
    study.close()
    with pytest.raises(StudyMismatch, match="scheduler=FIFO"):
        make_study(None, FIFO(3)).branch("branch")
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


def test_a_damaged_journal_leaves_no_branch(make_study, tmp_path):
    study = make_study(None, FIFO(2))
    tell_all(study, 2)
    study.close()
    journal = study.path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"?\n", *lines[3:]]))
    with pytest.raises(JournalCorrupt, match="line 4"):
        study.branch("branch")
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]
