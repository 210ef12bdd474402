"""What loggers wrote, read by the programs that it is for; each is skipped where it is missing."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daskhpo import load_study
from daskhpo.callbacks import OptunaJournal, TensorBoardLogger, WandbLogger
from daskhpo.testing.callback import an_info, follow
from tests.plots.made import records_of, write_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ANSWER_SECONDS = 120.0


def logged(directory: Path, callback: Any, num_trials: int) -> Any:
    """Write a study and log it; return its results."""
    write_study(directory, num_trials=num_trials)
    result, records = load_study(directory), records_of(directory)
    followers = follow(
        [callback], records, replace(an_info(directory, records), objective=result.objective)
    )
    followers.end()
    assert followers.callbacks, "the logger raised"
    return result


def script(name: str) -> str:
    """Return the path of an installed program; skip the test without it."""
    found = shutil.which(
        name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def served(command: list[str], pattern: str) -> Iterator[str]:
    """Run a server until the block's end; yield the address that it prints."""
    told: list[str] = []
    addresses: list[str] = []
    is_told = threading.Event()

    def listen(lines: Any) -> None:
        for line in lines:
            told.append(line)
            addresses.extend(found.rstrip("/") for found in re.findall(pattern, line))
            if addresses:
                is_told.set()
        is_told.set()

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        listener = threading.Thread(target=listen, args=(process.stdout,), daemon=True)
        listener.start()
        try:
            is_told.wait(ANSWER_SECONDS)
            assert addresses, "".join(told)
            yield addresses[0]
        finally:
            process.terminate()
            process.wait(30)
            listener.join(30)


def get(address: str, data: Any = None) -> Any:
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return json.load(answer)


def wait_for(address: str, is_there: Any, data: Any = None) -> Any:
    """Ask until the answer is the expected one: servers read in the background."""
    until = time.monotonic() + 300
    while True:
        try:
            answer = get(address, data)
        except OSError:
            answer = None
        if answer is not None and is_there(answer):
            return answer
        assert time.monotonic() < until, f"{address}: {str(answer)[:500]}"
        time.sleep(0.5)


def test_tensorboard_shows_a_thousand_trials(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    result = logged(tmp_path / "net", TensorBoardLogger(), 1000)
    number = result.best_trial.id
    command = [sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", "--port", "0"]
    command += ["--logdir", str(tmp_path / "net" / "tensorboard"), "--reload_interval", "1"]
    with served(command, r"at (http://\S+)") as address:
        run = f"trial-{number:05}"
        # The study itself is a run, too: it holds the description of the HParams page.
        runs = wait_for(f"{address}/data/runs", lambda runs: len(set(runs) - {"."}) == 1000)
        assert run in runs
        points = get(f"{address}/data/plugin/scalars/scalars?tag=error&run={run}")
        history = result.history()
        own = history[history["trial"] == number]
        assert [step for _, step, _ in points] == own["resource"].tolist()
        assert [value for _, _, value in points] == pytest.approx(own["error"].tolist(), rel=1e-6)
        described = get(f"{address}/data/plugin/hparams/experiment", {"experimentName": ""})
        assert {info["name"] for info in described["hparamInfos"]} == {
            "lr", "width", "dropout", "layers", "optimizer"
        }  # fmt: skip
        wanted = {
            "experimentName": "",
            "allowedStatuses": ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
            "colParams": [
                {"hparam": "optimizer", "filterDiscrete": ["adam"]},
                {"metric": {"group": "", "tag": "best/error"}, "order": "ORDER_ASC"},
            ],
            "startIndex": 0,
            "sliceSize": 5,
        }
        groups = get(f"{address}/data/plugin/hparams/session_groups", wanted)
        trials = result.trials("best")
        of_adam = trials[trials["config/optimizer"] == "adam"]
        assert groups["totalSize"] == len(of_adam)
        first = groups["sessionGroups"][0]["hparams"]
        assert first["optimizer"] == "adam"
        best = of_adam.loc[of_adam["error"].idxmin()]
        assert first["lr"] == pytest.approx(best["config/lr"])


def test_optuna_dashboard_serves_a_study(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed")
    program = script("optuna-dashboard")
    result = logged(tmp_path / "net", OptunaJournal(), 60)
    command = [program, str(tmp_path / "net" / "optuna.log"), "--port", str(free_port())]
    with served(command, r"(http://\S+)") as address:
        (study,) = wait_for(f"{address}/api/studies", lambda answer: answer["study_summaries"])[
            "study_summaries"
        ]
        assert study["study_name"] == "net"
        shown = get(f"{address}/api/studies/{study['study_id']}")
        assert len(shown["trials"]) == 60
        assert shown["best_trials"][0]["values"][0] == pytest.approx(result.best_value)
        assert {p["name"] for p in shown["union_search_space"]} == {
            "lr", "width", "dropout", "layers", "optimizer"
        }  # fmt: skip


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wandb_records(path: Path) -> Iterator[Any]:
    """Yield the records of a run's file: LevelDB's log, with a head of seven bytes of W&B."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block is empty
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def test_wandb_reads_its_offline_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="W&B is not installed")
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    result = logged(tmp_path / "net", WandbLogger("nets", mode="offline", trials=3), 12)
    best = {trial.id for trial in result.best_trials(3)}
    files = sorted((tmp_path / "net" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 3
    history, seen = result.history(), set()
    for path in files:
        records = [*wandb_records(path)]
        (run,) = [record.run for record in records if record.HasField("run")][:1]
        assert (run.project, run.run_group) == ("nets", "net")
        number = int(run.display_name.rpartition("-")[2])
        seen.add(number)
        rows = [
            {item.key or "/".join(item.nested_key): json.loads(item.value_json)
             for item in record.history.item}
            for record in records
            if record.HasField("history")
        ]  # fmt: skip
        own = history[history["trial"] == number]
        assert [row["error"] for row in rows] == pytest.approx(own["error"].tolist())
        assert [row["resource"] for row in rows] == own["resource"].tolist()
    assert seen == best
    done = subprocess.run(
        [script("wandb"), "sync", "--dry-run", *(str(path.parent) for path in files)],
        capture_output=True,
        text=True,
        cwd=tmp_path / "net",
    )
    assert done.returncode == 0, done.stderr
    assert "3" in done.stdout + done.stderr
