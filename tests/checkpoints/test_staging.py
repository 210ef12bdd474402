from __future__ import annotations

import shutil
import subprocess
import sys

from daskhpo.checkpoints.codec import restore
from daskhpo.checkpoints.staging import Staging
from daskhpo.core.events import Dropped, Saved
from daskhpo.core.types import ReuseProbability
from daskhpo.testing.stores import a_state, assert_same_state
from tests.checkpoints.caching import (
    NEVER,
    SIZE,
    hold,
)


def staged_files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_state_lands_in_staging_first_and_counts_when_it_is_in_the_store(
    gate, notes, residents_of, tmp_path
):
    cache = residents_of(gate, staging=tmp_path / "local" / "disk")
    hold(cache, 0, ReuseProbability.CERTAIN)
    gate.wait_for_writer()
    (file,) = staged_files(tmp_path / "local")
    assert file.stat().st_size == SIZE
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert notes.all == []
    assert cache.n_bytes <= SIZE  # the buffer that its memory became
    assert cache.take_buffer(SIZE) is not None
    assert cache.n_bytes == 0
    held = cache.get(0)
    assert not held.snapshot.buffer.flags.writeable
    gate.open.set()
    notes.wait(Saved, 0)
    assert_same_state(gate.store.read(notes.refs()[0]), a_state(0))
    cache.close()
    assert list((tmp_path / "local" / "disk").iterdir()) == []
    assert_same_state(restore(held.snapshot), a_state(0))  # the map outlives the file


def test_a_parked_state_is_not_staged(store, residents_of, tmp_path):
    cache = residents_of(store, staging=tmp_path / "disk", durability=NEVER)
    hold(cache, 0)
    cache.flush()
    assert staged_files(tmp_path / "disk") == []
    assert cache.n_bytes == SIZE


def test_memory_is_free_as_soon_as_states_are_staged(gate, notes, residents_of, tmp_path):
    cache = residents_of(gate, n_states=1, staging=tmp_path / "disk")
    for row in range(6):
        hold(cache, row, ReuseProbability.CERTAIN)
        if row == 0:
            gate.wait_for_writer()
            # the thread stands at the gate: what comes now can only be staged once it is through
            gate.open.set()
            notes.wait(Saved, 0)
        cache.flush()
    assert cache.n_bytes <= SIZE
    assert {kind for kind, _ in notes.brief} == {Saved, Dropped}
    # of what is written, the folder keeps as much as the memory might
    assert len(cache.ids) == 1
    assert_same_state(restore(cache.get(cache.ids[0]).snapshot), a_state(5))


def test_files_of_forgotten_states_are_removed(store, notes, residents_of, tmp_path):
    cache = residents_of(store, staging=tmp_path / "disk")
    hold(cache, 0, ReuseProbability.CERTAIN)
    notes.wait(Saved, 0)
    assert len(staged_files(tmp_path / "disk")) == 1
    cache.discard(0)
    hold(cache, 1, ReuseProbability.CERTAIN)  # the thread removes files before it writes
    notes.wait(Saved, 1)
    assert len(staged_files(tmp_path / "disk")) == 1


def test_a_folder_that_cannot_be_made_is_told_once_and_done_without(
    store, notes, residents_of, tmp_path, caplog
):
    (tmp_path / "disk").write_text("a file")
    cache = residents_of(store, staging=tmp_path / "disk")
    for row in range(3):
        hold(cache, row, ReuseProbability.CERTAIN)
    cache.flush()
    assert [kind for kind, _ in notes.brief] == [Saved] * 3
    assert caplog.text.count("without staging") == 1


def test_states_go_straight_to_the_store_when_staging_fails(
    store, notes, residents_of, tmp_path, caplog
):
    cache = residents_of(store, staging=tmp_path / "disk")
    hold(cache, 9, ReuseProbability.CERTAIN)
    notes.wait(Saved, 9)
    (own,) = (tmp_path / "disk").iterdir()
    shutil.rmtree(own)
    for row in range(3):
        hold(cache, row, ReuseProbability.CERTAIN)
    cache.flush()
    for row in range(3):
        assert_same_state(store.read(notes.refs()[row]), a_state(row))
    assert cache.ids == [9, 0, 1, 2]
    assert caplog.text.count("without staging") == 1


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from daskhpo.checkpoints.codec import snapshot
from daskhpo.checkpoints.staging import Staging

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
staging = Staging(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
staging.put(snapshot({"w": np.ones(1000)}, 0, 1))
try:
    staging.put(snapshot({"w": np.ones(100_000)}, 0, 1))
except OSError as error:
    print(error.strerror, len(list(staging.path.iterdir())))
"""


def test_a_file_that_cannot_be_completed_is_removed(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["File", "too", "large", "1"]


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not(tmp_path):
    script = (
        "import sys; from pathlib import Path; from daskhpo.checkpoints.staging import Staging; "
        "staging = Staging(Path(sys.argv[1])); (staging.path / '0').write_text('x'); "
        "print(staging.path.name, flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        theirs = tmp_path / child.stdout.readline().decode().strip()
        first = Staging(tmp_path)
        assert (theirs / "0").exists()
        child.kill()
        child.wait()
    second = Staging(tmp_path)
    assert set(tmp_path.iterdir()) == {first.path, second.path}
    first.close()
    second.close()
    assert list(tmp_path.iterdir()) == []
