"""Ranks as the tasks of a Slurm step: what is asked of srun, what it says, and who may connect."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from daskhpo.core.errors import RankFailed
from daskhpo.distributed import steps
from daskhpo.distributed.ranks import AttemptFailed, Died, Ranks
from daskhpo.distributed.steps import (
    RankStep,
    ends_of_tasks,
    greet_rank,
    greet_trial,
    srun_command,
    torchrun_variables,
)


def test_each_node_gets_as_many_ranks_and_all_gpus_of_the_trial_there() -> None:
    words = srun_command(8, 2, 4, 6)
    assert words[0] == "srun"
    assert {"--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--gres=gpu:4"} <= set(words)
    assert {"--cpus-per-task=6", "--distribution=block", "--overlap"} <= set(words)
    assert not any("gres" in word for word in srun_command(2, 2, 0, 1))


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("srun: error: n2: task 1: Killed", {1: -9}),
        ("srun: error: n2: tasks 1-3,5: Exited with exit code 7", {1: 7, 2: 7, 3: 7, 5: 7}),
        ("srun: error: gpu-12: task 0: Segmentation fault (core dumped)", {0: -11}),
        ("srun: error: n1: task 0: Aborted", {0: -6}),
        ("srun: error: n1: task 0: unheard of", {}),
        ("srun: Job step aborted: Waiting up to 32 seconds for job step to finish.", {}),
        ("1: task 3: Killed", {}),
    ],
)
def test_what_srun_says_of_the_end_of_tasks(message: str, found: dict[int, int]) -> None:
    assert ends_of_tasks(message) == found


def test_a_task_has_torchruns_variables_by_slurms() -> None:
    environ = {
        **{"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NTASKS": "8"},
        **{"SLURM_STEP_NUM_NODES": "2", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"},
    }
    assert torchrun_variables(environ) == {
        **{"RANK": "5", "LOCAL_RANK": "1", "GROUP_RANK": "1", "MASTER_ADDR": "10.0.0.7"},
        **{"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"},
    }


KEY, OTHER = b"k" * 32, b"o" * 32


def met(ours: bytes, theirs: bytes) -> tuple[Any, Any]:
    """What a trial's process and a rank make of each other."""
    trial, rank = socket.socketpair()
    answers: list[Any] = []

    def connect() -> None:
        try:
            greet_trial(rank, theirs, 3)
            answers.append("trusts")
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    found = greet_rank(trial, ours)
    trial.close()
    thread.join()
    rank.close()
    return found, answers[0]


def test_a_rank_and_its_trial_prove_that_they_know_the_key() -> None:
    assert met(KEY, KEY) == (3, "trusts")


def test_who_does_not_know_the_key_is_neither_heard_nor_trusted() -> None:
    found, answer = met(KEY, OTHER)
    assert found is None
    assert isinstance(answer, OSError)


def test_a_false_trial_is_not_trusted() -> None:
    trial, rank = socket.socketpair()
    trial.sendall(b"n" * 32 + b"p" * 32)  # anything for a proof
    with trial, rank, pytest.raises(ConnectionError, match="is not this rank's trial"):
        greet_trial(rank, KEY, 0)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"x" * 200])
def test_what_strangers_say_is_not_a_rank(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(steps, "GREETING_SECONDS", 0.2)
    trial, stranger = socket.socketpair()
    with trial, stranger:
        stranger.sendall(said)
        assert greet_rank(trial, KEY) is None


def test_without_srun_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RankFailed, match="srun was not found"):
        RankStep(0, {}, 2, 2, 0, 1)


def test_a_rank_that_was_lost_without_a_word_is_named() -> None:
    ranks = Ranks(2)
    ranks.hear(1, Died(None, "its last words"), 0.0)
    following = ranks.following(0.0)
    assert isinstance(following, AttemptFailed)
    assert str(following.error).startswith("rank 1 of 2 was lost: its connection ended")
