"""Which lines of a job script are allowed, and what they request."""

from __future__ import annotations

import pytest

from daskhpo.cluster.directives import (
    asks_for_gpus,
    check_directives,
    check_worker_directives,
    parse_options,
    requested_devices,
)
from daskhpo.cluster.job_shape import JobShape
from daskhpo.core.errors import InvalidArgument


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("-C gpu", [("-C", "gpu")]),
        ("-Cgpu", [("-C", "gpu")]),
        ("--constraint=gpu&ib", [("--constraint", "gpu&ib")]),
        ("--constraint gpu", [("--constraint", "gpu")]),
        ("-p a,b -A me --exclusive", [("-p", "a,b"), ("-A", "me"), ("--exclusive", "")]),
        ("--comment='a -t 5' -t 9", [("--comment", "a -t 5"), ("-t", "9")]),
        ("--nice=-5 # -t 1", [("--nice", "-5")]),
    ],
)
def test_a_line_is_read_as_sbatch_reads_it(line: str, options: list[tuple[str, str]]) -> None:
    assert parse_options(line) == options


@pytest.mark.parametrize(
    "line",
    [
        "--time=04:00:00",
        "-t 30",
        "-t30",
        "#SBATCH -t 30",
        "--job-name=mine",
        "-J mine",
        "--array=0-3",
        "-a 1",
        "-o out.log",
        "--output out.log",
        "--error=x",
        "--wait",
        "-W",
        "--wrap=hostname",
        "--test-only",
        "-C gpu --time=1",
        "--outpu=x",
    ],
)
def test_what_daskhpo_counts_cannot_be_a_directive(line: str) -> None:
    with pytest.raises(InvalidArgument, match=r"job_extra_directives: .* cannot be given"):
        check_directives(["--exclusive", line])


@pytest.mark.parametrize(
    "line", ["-C gpu", "--requeue", "--time-min=1:00:00", "-q long", "--comment='-t 5'", "-D /tmp"]
)
def test_other_directives_are_taken(line: str) -> None:
    assert check_directives([f"#SBATCH {line}", line]) == [line, line]


def test_a_word_is_no_directive() -> None:
    with pytest.raises(InvalidArgument, match="'gpu' is not an option of sbatch"):
        check_directives(["gpu"])


@pytest.mark.parametrize(
    ("line", "n_gpus", "message"),
    [
        ("--gres=gpu:4", 1, "request 4 GPUs for each job, and gpus_per_job is 1"),
        ("-G 2", 0, "request 2 GPUs"),
        ("--gpus-per-node=a100:8", 4, "give gpus_per_job=8"),
        ("--tres-per-task=cpu:4,gres/gpu:2", 1, "request 2 GPUs"),
        ("-N 2", 1, "one node"),
        ("--nodes=2-4", 1, "one node"),
        ("--ntasks=4", 1, "one node"),
    ],
)
def test_workers_get_what_is_counted(line: str, n_gpus: int, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        check_worker_directives([line], JobShape(n_gpus, 1, 1, 1, n_gpus or 1))


@pytest.mark.parametrize(
    ("line", "n_gpus"),
    [
        ("--gres=gpu:a100:2,nvme:1", 2),
        ("-G1", 1),
        ("--gres=shard:4", 1),
        ("-N1", 1),
        ("-n 1", 0),
        ("--exclusive", 4),
        ("--tres-per-task=gres/gpu=2", 2),
    ],
)
def test_what_agrees_is_taken(line: str, n_gpus: int) -> None:
    check_worker_directives([line], JobShape(n_gpus, 1, 1, 1, n_gpus or 1))


def test_gpus_of_a_node_are_counted_if_a_trial_has_several_nodes() -> None:
    shape = JobShape(8, 1, 8, 2, 1)
    check_worker_directives(["--gres=gpu:4"], shape)
    with pytest.raises(InvalidArgument, match=r"gpus_per_trial=8 on 2 nodes are 4: give.*=16"):
        check_worker_directives(["--gres=gpu:8"], shape)


def test_devices_of_all_options_are_found() -> None:
    line = "--gres=gpu:a100:2,nvme:1 --gpus-per-task=1 --tres-per-task=gres/gpu=2,cpu=4"
    devices = [("gpu:a100", 2), ("nvme", 1), ("gpu", 1), ("gpu", 2)]
    assert requested_devices(parse_options(line)) == devices
    assert asks_for_gpus([line])
    assert not asks_for_gpus(["-C gpu", "--mem=4G"])
