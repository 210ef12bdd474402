"""What worker jobs would ask for, by whichever option."""

from __future__ import annotations

import pytest

from daskhpo.cluster.directives import parse_gres
from daskhpo.cluster.doctor.job_request import JobRequest


@pytest.mark.parametrize(
    ("text", "gres"),
    [
        ("gpu", ("gpu", 1)),
        ("gpu:2", ("gpu", 2)),
        ("gpu:a100", ("gpu:a100", 1)),
        ("gpu:a100:4", ("gpu:a100", 4)),
        ("gres:gpu:a100:2", ("gpu:a100", 2)),
        ("gres/gpu:2", ("gpu", 2)),
        ("gpu:nvidia_a100_80gb_pcie:4", ("gpu:nvidia_a100_80gb_pcie", 4)),
        ("craynetwork:4", ("craynetwork", 4)),
        ("tmp:2G", ("tmp", 2 * 1024**3)),
    ],
)
def test_a_resource_is_read_as_sbatch_reads_it(text, gres):
    assert parse_gres(text) == gres


@pytest.mark.parametrize("text", ["", ":", "gpu:", "gpu:a:b:1", "two gpus"])
def test_what_is_no_resource_is_refused(text):
    with pytest.raises(ValueError, match="not a generic resource"):
        parse_gres(text)


@pytest.mark.parametrize(
    ("options", "devices", "n_gpus"),
    [
        ({}, ["gpu:1"], 1),
        ({"gpus_per_job": 4}, ["gpu:4"], 4),
        ({"gpus_per_job": 0}, [], 0),
        ({"gres": "gpu:a100:2,nvme:1"}, ["gpu:a100:2", "nvme:1"], 2),
        ({"job_extra_directives": ["-C gpu", "-q regular", "--gpus=4"]}, ["gpu:4"], 4),
        ({"job_extra_directives": ["-G a100:2"]}, ["gpu:a100:2"], 2),
        ({"job_extra_directives": ["--gres gpu:v100:2"]}, ["gpu:v100:2"], 2),
        ({"job_extra_directives": ["--gpus-per-node='2'"]}, ["gpu:2"], 2),
    ],
)
def test_devices_are_those_of_the_option_that_asks_for_them(options, devices, n_gpus):
    request = JobRequest(**options)
    assert [f"{device}:{count}" for device, count in request.devices] == devices
    assert request.n_gpus == n_gpus


def test_options_are_those_of_sbatch_with_the_time_that_is_asked_for():
    request = JobRequest("gpu", "me_g", "4h", 8, "32GB", 2)
    assert request.options(request.seconds) == [
        *("--partition=gpu", "--account=me_g", "--cpus-per-task=8", "--mem=32GB"),
        *("--gres=gpu:2", "--time=0-04:00:00"),
    ]
    assert JobRequest(gpus_per_job=0).options(None) == []


def test_a_directive_that_asks_for_gpus_replaces_gres():
    request = JobRequest(job_extra_directives=["-C gpu", "--gpus 4"])
    assert request.options(90) == ["--time=0-00:01:30", "-C gpu", "--gpus 4"]


@pytest.mark.parametrize("directive", ["-q regular", "-qregular", "--qos=regular", "--qos regular"])
def test_the_quality_of_service_is_found_among_the_directives(directive):
    assert JobRequest(job_extra_directives=["-C gpu", directive]).qos == "regular"
    assert JobRequest().qos is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus_per_job": -1}, "gpus_per_job=-1"),
        ({"cores": 0}, "cores=0"),
        ({"gres": "a b"}, "'a b' is not a generic resource"),
        ({"walltime": "soon"}, "walltime='soon'"),
        (
            {"job_extra_directives": ["constraint=gpu"]},
            "'constraint=gpu' is not an option of sbatch",
        ),
        ({"job_extra_directives": ["--gres="]}, "not a generic resource"),
    ],
)
def test_what_slurm_could_not_read_is_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        JobRequest(**options)
