"""Another user of the machine, and a study that runs there."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster

from daskhpo import Study
from daskhpo.cluster.security import private_folder
from daskhpo.core.events import Reported
from daskhpo.engine.session import study_records
from daskhpo.executors.dask.local_socket import LocalDoor, enter
from daskhpo.schedulers import FIFO
from daskhpo.space import Real
from tests.slurm.slurm import until
from tests.stranger import need_a_stranger, stranger_tries

pytestmark = pytest.mark.cluster


def train(config: Any, trial: Any) -> None:
    import time

    for _ in range(trial.max_t):
        time.sleep(0.05)
        trial.report({"loss": config["x"]}, state=lambda: {"x": config["x"]})


@pytest.fixture
def storage() -> Iterator[Path]:
    """A folder that everybody may enter and look into."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextlib.contextmanager
def running(storage: Path, **options: Any) -> Iterator[Path]:
    """A study that has reported and goes on; the context is its directory."""
    study = Study(train, {"x": Real(0, 1)}, "loss", scheduler=FIFO(10**6), storage=storage)
    handle = study.start(num_trials=2, progress=False, **options)
    try:
        records = partial(study_records, handle.directory)
        until(lambda: any(isinstance(r, Reported) for r in records()), "a report")
        yield handle.directory
    finally:
        handle.stop()
        handle.wait()


def family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def test_nothing_of_a_running_study_opens_to_another_user(storage: Path) -> None:
    need_a_stranger()
    with running(storage) as directory:
        found = stranger_tries(family(), [directory, private_folder()])
    assert found.opened == ()
    assert len(found.ports) >= 4  # the scheduler, its pages, a worker and its nanny
    assert found.n_files > 5
    assert found.n_tried > 100


def test_the_stranger_finds_what_is_open(storage: Path) -> None:
    """The attempt can fail: an unprotected cluster lets everybody in."""
    need_a_stranger()
    with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0") as cluster, Client(cluster):
        (storage / "open").write_text("all may read this")
        found = stranger_tries(family(), [storage])
    assert any("Dask over tcp" in each for each in found.opened)
    assert any("/status answers 200" in each for each in found.opened)
    assert any("open: can be read" in each for each in found.opened)


def test_workers_of_this_machine_listen_to_loopback_alone(storage: Path) -> None:
    def listening() -> set[tuple[str, int]]:
        return {
            (each.laddr.ip, each.laddr.port)
            for process in family()
            for each in process.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        }

    before = listening()  # of other tests in this process
    with running(storage):
        found = listening() - before
    assert found
    assert {ip for ip, _ in found} <= {"127.0.0.1", "::1"}


def test_pages_open_with_the_token_as_argument_header_and_cookie(storage: Path) -> None:
    with running(storage) as directory:
        link = json.loads((directory / "dashboard.json").read_text())
        page = f"http://127.0.0.1:{link['port']}/info/main/workers.html"
        token = link["token"]

        def answer(address: str, **headers: str) -> int:
            try:
                with urllib.request.urlopen(
                    urllib.request.Request(address, headers=headers)
                ) as got:
                    return int(got.status)
            except urllib.error.HTTPError as error:
                return int(error.code)

        cookie = f"daskhpo-token-{link['port']}={token}"
        assert answer(page) == 403
        assert answer(page, Cookie=f"daskhpo-token-{link['port']}=wrong") == 403
        assert answer(page, Authorization="token wrong") == 403
        assert answer(page, Cookie=cookie) == 200
        assert answer(page, Authorization=f"token {token}") == 200
        assert answer(f"{page}?token={token}") == 200
        jar = urllib.request.HTTPCookieProcessor()
        browser = urllib.request.build_opener(jar)
        browser.addheaders = [("Accept", "text/html")]
        with browser.open(f"{page}?token={token}&a=1") as got:
            assert got.status == 200
            assert got.url == f"{page}?a=1"  # the token is out of sight
        with browser.open(page) as got:
            assert got.status == 200


def test_a_cluster_that_asks_nobody_is_warned_of_once(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        return [r.getMessage() for r in caplog.records if "certificate" in r.getMessage()]

    caplog.set_level(logging.WARNING, "daskhpo")
    with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0") as cluster:
        for name in ("a", "b"):
            study = Study(train, {"x": Real(0, 1)}, "loss", max_t=1, storage=storage, name=name)
            study.run(num_trials=1, client=cluster, progress=False)
        assert len(warnings()) == 1
        assert cluster.scheduler_address in warnings()[0]
    with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0", security=True) as cluster:
        study = Study(train, {"x": Real(0, 1)}, "loss", max_t=1, storage=storage, name="c")
        study.run(num_trials=1, client=cluster, progress=False)
    assert len(warnings()) == 1


def test_a_door_lets_one_process_in_and_leaves_nothing() -> None:
    door = LocalDoor.open()
    assert door is not None
    with door:
        ours = enter(door.path)
        theirs = door.accept()
        assert ours is not None
        assert theirs is not None
        ours.sendall(b"hello")
        assert theirs.recv(5) == b"hello"
        ours.close()
        theirs.close()
    assert not Path(door.path).exists()
    assert enter(door.path) is None


def test_a_door_at_which_nobody_knocked_gives_nothing() -> None:
    door = LocalDoor.open()
    assert door is not None
    with door:
        assert door.accept() is None


@pytest.mark.parametrize("taken", ["file", "link", "open"])
def test_a_private_folder_is_never_one_that_others_can_enter(tmp_path: Path, taken: str) -> None:
    name = tmp_path / f"daskhpo-{os.geteuid()}"
    if taken == "file":
        name.write_text("")
    elif taken == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o777)
        name.symlink_to(tmp_path / "elsewhere")
    else:
        name.mkdir()
        name.chmod(0o777)
    made = private_folder(str(tmp_path))
    assert made != name
    assert made.stat().st_mode & 0o777 == 0o700
    assert made.parent == tmp_path


def test_a_private_folder_is_used_again(tmp_path: Path) -> None:
    made = private_folder(str(tmp_path))
    assert made == private_folder(str(tmp_path))
    assert made.stat().st_mode & 0o777 == 0o700
