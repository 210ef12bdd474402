"""The Slurm that the other tests here stand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from daskhpo.cluster import jobs
from daskhpo.cluster.shell import CommandFailed, CommandMissing, call
from tests.slurm.slurm import Slurm, until

pytestmark = pytest.mark.slurm


def test_jobs_of_one_gpu_get_devices_of_their_own(slurm, tmp_path):
    script = f"#!/bin/sh\necho $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES > {tmp_path}/$SLURM_JOB_ID\n"
    script += f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done\n"
    for _ in range(4):
        call(["sbatch", "--gres=gpu:1", "--mem=100", "--output=/dev/null"], text=script)
    until(lambda: len(list(tmp_path.iterdir())) == 4, "four jobs run side by side")
    seen = [path.read_text().split() for path in tmp_path.iterdir()]
    assert len({tuple(words) for words in seen}) == 4
    assert {device for _, device in seen} == {"0", "1"}
    (tmp_path / "go").touch()
    until(lambda: not slurm.jobs(), "all jobs are over")


def test_a_command_that_fails_says_how(slurm):
    with pytest.raises(CommandFailed, match=r"ended with code 1: .*invalid partition") as caught:
        call(["sbatch", "--partition=nosuch", "--wrap=true"])
    assert caught.value.code == 1


def test_a_command_that_is_not_there_says_so():
    with pytest.raises(CommandMissing, match="no-such-program was not found"):
        call(["no-such-program"])


def test_a_command_that_takes_too_long_is_ended():
    with pytest.raises(CommandFailed, match="sleep 60 did not answer in time"):
        call(["sleep", "60"], timeout=0.1)


def test_a_job_is_found_by_its_number_its_script_and_its_name(slurm: Slurm, tmp_path: Path) -> None:
    script = tmp_path / "a job.sh"
    script.write_text("#!/bin/sh\n#SBATCH -J known --mem=100M -o /dev/null\nsleep 600\n")
    job = jobs.submit(script)
    until(lambda: dict(jobs.list_jobs([job]))[job].nodes, "it runs")
    assert jobs.find_script(script) == []  # a blank ends the command that Slurm shows
    plain = tmp_path / "job.sh"
    plain.write_text(script.read_text())
    other = jobs.submit(plain)
    assert jobs.find_script(plain) == [other]
    assert {one.number for one in jobs.jobs_named("known")} == {job, other}
    assert [one.number for one in jobs.described(job) or []] == [job]
    jobs.cancel([job, other, "999999"])
    until(lambda: not jobs.jobs_of(job) and not jobs.jobs_of(other), "both have ended")
    (one,) = jobs.described(job) or []
    assert (one.state, one.is_over) == ("CANCELLED", True)
    assert dict(jobs.list_jobs([job]))[job].is_over
    assert jobs.is_over(f"{job}.0")
    assert jobs.jobs_of("999999") == []
