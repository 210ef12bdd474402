"""GPUs, by what sites, drivers and users write."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from daskhpo.cluster.gpus import (
    Ask,
    Gpus,
    Maker,
    cuda_devices,
    gpu_memory,
    parse_amd_smi,
    parse_nvidia_smi,
    run_tool,
    visible_gpus,
)

CUDA, ROCR, HIP = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"
TWO = (
    "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aa-1)\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bb-2)\n"
)
MIG = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5b)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7e8)
  MIG 3g.20gb     Device  1: (UUID: MIG-d1f2)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-77aa)
"""
ROCM = """\
============================ ROCm System Management Interface ============================
GPU[0]\t\t: Device ID: \t\t0x7408
GPU[0]\t\t: Device Rev: \t\t0x00
GPU[1]\t\t: Device ID: \t\t0x7408
================================== End of ROCm SMI Log ===================================
"""
AMD = "GPU: 0\n    BDF: 0000:c1:00.0\n    UUID: aeff\n\nGPU: 10\n    BDF: 0000:c5:00.0\n"


def tools(**printed: str) -> Ask:
    def ask(argv: Sequence[str]) -> str | None:
        return printed.get(argv[0].replace("-", "_"))

    return ask


def test_a_machine_without_variables_and_tools_has_no_known_gpu() -> None:
    assert visible_gpus({}, tools()) == Gpus()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0,1", ("0", "1")),
        (" 3 , 1 ", ("3", "1")),
        ("GPU-8932f937,GPU-5d5b", ("GPU-8932f937", "GPU-5d5b")),
        ("MIG-GPU-8932f937/1/0", ("MIG-GPU-8932f937/1/0",)),
        ("", ()),
        (",", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),  # CUDA ends its list there
        ("0,,1", ("0",)),
        ("0,", ("0",)),
        ("NoDevFiles", ()),
        ("none", ()),
        ("0,0", ()),  # CUDA sees none
        ("1,01", ()),
        ("GPU-a,GPU-a", ()),
        ("GPU-a,1", ("GPU-a",)),
        ("0,GPU-a", ("0",)),
        ("0 1", ("0",)),
    ],
)
def test_cudas_variable_means_what_cuda_reads(text: str, names: tuple[str, ...]) -> None:
    assert cuda_devices(text) == names
    found = visible_gpus({CUDA: text}, tools())
    assert (found.names, found.source) == (names, f"{CUDA}={text}")


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        (TWO, [("0", "GPU-aa-1"), ("1", "GPU-bb-2")]),
        (MIG, [("MIG-c7e8", "MIG-c7e8"), ("MIG-d1f2", "MIG-d1f2"), ("1", "GPU-77aa")]),
        ("No devices were found\n", []),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", []),
        (f"Welcome to Cluster 3\n{TWO}WARNING: infoROM is corrupted at gpu 0\n", None),
        ("", []),
    ],
)
def test_only_lines_that_name_a_device_count(
    listed: str, found: list[tuple[str, str]] | None
) -> None:
    assert parse_nvidia_smi(listed) == (parse_nvidia_smi(TWO) if found is None else found)


def test_gpus_without_a_variable_are_those_of_the_driver_with_identities() -> None:
    found = visible_gpus({}, tools(nvidia_smi=TWO))
    assert (found.names, found.ids) == (("0", "1"), ("GPU-aa-1", "GPU-bb-2"))
    found = visible_gpus({CUDA: "1,0"}, tools(nvidia_smi=TWO))
    assert (found.names, found.ids) == (("1", "0"), ("GPU-bb-2", "GPU-aa-1"))


@pytest.mark.parametrize(("listed", "n"), [(ROCM, ("0", "1")), (AMD, ("0", "10")), ("ERROR", ())])
def test_amds_tools_are_read_by_their_form(listed: str, n: tuple[str, ...]) -> None:
    assert parse_amd_smi(listed) == n


def test_amds_gpus_are_found_after_nvidias_tool_found_none() -> None:
    ask = tools(nvidia_smi="No devices were found\n", rocm_smi="no", amd_smi=AMD)
    assert visible_gpus({}, ask) == Gpus(("0", "10"), "amd-smi", ("0", "10"), Maker.AMD)


@pytest.mark.parametrize(
    ("environ", "names", "of_second"),
    [
        ({ROCR: "4,5"}, ("4", "5"), {ROCR: "5"}),
        ({HIP: "4,5"}, ("4", "5"), {HIP: "5"}),
        ({ROCR: "4,5,6", HIP: "2,0"}, ("6", "4"), {ROCR: "4", HIP: "0"}),
        ({ROCR: "4,5", HIP: "1,7,0"}, ("5", "4"), {ROCR: "4", HIP: "0"}),
        ({ROCR: "GPU-1f,GPU-2a"}, ("GPU-1f", "GPU-2a"), {ROCR: "GPU-2a"}),
        ({ROCR: "4,5", CUDA: "4,5"}, ("4", "5"), {ROCR: "5", CUDA: "0"}),
        ({ROCR: "4,-1,5"}, ("4",), None),
        ({ROCR: ""}, (), None),
        ({ROCR: "0", HIP: "-1"}, (), None),
    ],
)
def test_amds_variables_count_one_within_the_other(
    environ: dict[str, str], names: tuple[str, ...], of_second: dict[str, str] | None
) -> None:
    found = visible_gpus(environ, tools(), amd=True)
    assert (found.maker, found.names) == (Maker.AMD, names)
    if of_second is not None:
        assert found.environment([names[1]]) == of_second


def test_variables_of_all_makers_at_once_are_nvidias_where_its_driver_is() -> None:
    environ = {CUDA: "1", ROCR: "1", "ZE_AFFINITY_MASK": "1"}  # as some Slurms set them
    found = visible_gpus(environ, tools(), amd=False)
    assert found.source == f"{CUDA}=1"
    assert found.environment(["1"]) == {CUDA: "1"}
    assert found.device(0) == "cuda:0"


def test_intels_mask_names_devices_and_parts_of_them() -> None:
    found = visible_gpus({"ZE_AFFINITY_MASK": "0.0,0.1,2"}, tools())
    assert found.names == ("0.0", "0.1", "2")
    assert found.environment(["0.1"]) == {"ZE_AFFINITY_MASK": "0.1"}
    assert found.device(0) == "xpu:0"


def test_a_process_can_use_one_part_of_a_divided_gpu() -> None:
    assert visible_gpus({CUDA: "MIG-c7e8,MIG-d1f2"}, tools()).usable_ids == ("MIG-c7e8",)
    assert visible_gpus({CUDA: "1,0"}, tools()).usable_ids == ("1", "0")


def test_a_tool_that_is_missing_or_fails_says_nothing() -> None:
    assert run_tool(["no-such-command-of-any-driver"]) is None
    assert run_tool(["false"]) is None
    assert run_tool(["printf", "\\351"]) == "\ufffd"


SIZES = "0, GPU-aa-1, 40960\n1, GPU-bb-2, 81559\n"


@pytest.mark.parametrize(
    ("seen", "n_mebibytes"), [("1,0", 81559), ("0", 40960), ("GPU-bb-2", 81559), ("7", 0), ("", 0)]
)
def test_the_first_gpu_that_is_seen_has_so_much_memory(seen: str, n_mebibytes: int) -> None:
    found = Gpus(tuple(filter(None, seen.split(","))), maker=Maker.NVIDIA)
    assert gpu_memory(found, tools(nvidia_smi=SIZES)) == n_mebibytes * 2**20


@pytest.mark.parametrize("printed", ["", "no devices were found", "0, GPU-aa-1, [N/A]"])
def test_a_driver_that_names_no_size_is_no_error(printed: str) -> None:
    assert gpu_memory(Gpus(("0",), maker=Maker.NVIDIA), tools(nvidia_smi=printed)) == 0
    assert gpu_memory(Gpus(("0",), maker=Maker.AMD), tools(nvidia_smi=SIZES)) == 0
