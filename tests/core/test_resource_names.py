"""Another spelling of a resource is noticed, where no worker offers it."""

from __future__ import annotations

import pytest

from daskhpo import RunOptions
from daskhpo.core.resource_names import hint, meant


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *(
            ("cpus", "cpu"),
            ("CPU", "cpu"),
            ("Cores", "cpu"),
            ("num-cpus", "cpu"),
            ("threads", "cpu"),
        ),
        *(("gpus", "gpu"), ("GPU", "gpu"), ("num_gpus", "gpu"), ("GPUs", "gpu")),
        *(("cpu", None), ("gpu", None), ("fpga", None), ("tpu", None), ("memory_slots", None)),
    ],
)
def test_other_spellings_are_known(name: str, wanted: str | None) -> None:
    assert meant(name) == wanted


@pytest.mark.parametrize(
    ("names", "offered", "said"),
    [
        (["cpu", "cpus"], [], "did you mean 'cpu' in the place of 'cpus'?"),
        (["cpu", "gpuu"], [], "did you mean 'gpu' in the place of 'gpuu'?"),
        (["fgpa"], ["GPU", "fpga"], "did you mean 'fpga' in the place of 'fgpa'?"),
        (["mem"], [], "'mem' is not counted: a trial has the memory of its worker"),
        (["cpus"], ["cpus"], ""),
        (["MEMORY"], ["MEMORY"], ""),
        (["tpu", "quantum"], ["fpga"], ""),
    ],
)
def test_what_somebody_offers_needs_no_hint(
    names: list[str], offered: list[str], said: str
) -> None:
    assert hint(names, offered).startswith(said)
    assert bool(hint(names, offered)) == bool(said)


def test_the_name_that_workers_give_a_gpu_is_refused_as_no_trial_would_get_its_device() -> None:
    with pytest.raises(ValueError, match=r"resources=.*did you mean 'gpu' in the place of 'GPU'"):
        RunOptions(resources={"GPU": 1})
    assert RunOptions(resources={"cpus": 2}).resources["cpus"] == 2
