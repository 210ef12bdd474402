"""GPUs, as libraries and variables tell of them."""

from __future__ import annotations

import pytest

from daskhpo.cluster.doctor.finding import Verdict
from daskhpo.cluster.doctor.gpu_checks import Tried, check_gpus, judge_gpus
from daskhpo.cluster.gpus import visible_gpus

A100 = ("NVIDIA A100", True)
TORCH = Tried("torch 2.9.0", [A100], seconds=1.2)
NO_CUDA = Tried("torch 2.9.0+cpu", missing="is built for CPUs only")
BLIND = Tried("torch 2.9.0")
BROKEN = Tried("cupy", error="fails: CUDARuntimeError: no driver")
WRONG = Tried("torch 2.9.0", [A100, ("NVIDIA A100", False)])


def gpus(visible="0", asked=1, tried=(TORCH,), driver=True, listed=None):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = visible_gpus(environment, lambda argv: listed if argv[0] == "nvidia-smi" else None)
    return list(judge_gpus(asked, found, tried, driver))


def test_a_device_that_is_visible_and_computes_is_well():
    visible, computing = gpus()
    assert visible.message == "1 visible: CUDA_VISIBLE_DEVICES=0"
    assert computing.message == "torch 2.9.0 on NVIDIA A100, in 1.2 s"
    assert visible.verdict is computing.verdict is Verdict.OK


def test_a_site_that_sets_no_variable_is_judged_by_what_its_driver_lists():
    visible, _ = gpus(visible=None, listed="GPU 0: NVIDIA A100 (UUID: GPU-1a-2b)\n")
    assert (visible.verdict, visible.message) == (Verdict.OK, "1 visible: nvidia-smi")


def test_a_device_that_only_a_library_finds_is_a_problem_as_a_worker_would_refuse_it():
    visible, computing = gpus(visible=None)
    assert (visible.verdict, computing.verdict) == (Verdict.PROBLEM, Verdict.OK)
    assert "torch 2.9.0 finds 1, but workers: no CUDA_VISIBLE_DEVICES" in visible.message
    assert "export CUDA_VISIBLE_DEVICES=0" in visible.hint


@pytest.mark.parametrize("visible", ["-1", "NoDevFiles", "0,0"])
def test_variables_that_hide_all_devices_are_a_problem(visible):
    finding, _ = gpus(visible=visible)
    assert finding.verdict is Verdict.PROBLEM
    assert f"0 visible: CUDA_VISIBLE_DEVICES={visible}" in finding.message


@pytest.mark.parametrize(
    ("visible", "asked", "message"),
    [
        ("0", 2, "2 requested, but 1 visible: CUDA_VISIBLE_DEVICES=0"),
        ("", 1, "1 requested, but 0 visible"),
    ],
)
def test_fewer_devices_than_asked_for_are_a_problem(visible, asked, message):
    finding, _ = gpus(visible=visible, asked=asked)
    assert finding.verdict is Verdict.PROBLEM
    assert message in finding.message


def test_a_job_that_was_given_no_device_is_a_problem():
    finding, _ = gpus(visible=None, tried=(), driver=False)
    assert (finding.verdict, finding.check) == (Verdict.PROBLEM, "gpu")
    assert "CUDA_VISIBLE_DEVICES is not set" in finding.message


@pytest.mark.parametrize(
    ("tried", "driver", "verdict", "message"),
    [
        ([NO_CUDA], True, Verdict.WARNING, "torch 2.9.0+cpu is built for CPUs only"),
        (
            [NO_CUDA],
            False,
            Verdict.WARNING,
            "is built for CPUs only; the node has no GPU driver",
        ),
        ([], True, Verdict.WARNING, "torch, cupy and jax are not installed"),
        ([BLIND], False, Verdict.WARNING, "2.9.0 finds no device; the node has no GPU driver"),
        ([BLIND], True, Verdict.PROBLEM, "torch 2.9.0 finds no device"),
        ([BROKEN], True, Verdict.PROBLEM, "cupy fails: CUDARuntimeError"),
        ([BROKEN, TORCH], True, Verdict.OK, "torch 2.9.0 on NVIDIA A100"),
        ([WRONG], True, Verdict.PROBLEM, "torch 2.9.0 computes wrong results on NVIDIA A100"),
    ],
)
def test_what_could_not_be_computed_is_said_and_why(tried, driver, verdict, message):
    *_, finding = gpus(tried=tried, driver=driver)
    assert (finding.check, finding.verdict) == ("gpu computing", verdict), finding
    assert message in finding.message


def test_without_devices_asked_for_none_is_looked_for():
    (finding,) = check_gpus(0)
    assert finding.verdict is Verdict.SKIPPED
