"""Errors that say that there is too little memory, by their classes and messages alone."""

from __future__ import annotations

import pytest

from daskhpo.core.errors import RankFailed
from daskhpo.core.out_of_memory import (
    Alone,
    Larger,
    MemoryKind,
    OutOfMemory,
    describe,
    memory_kind_of,
    placement_after,
    tells_of_kill,
)

DEVICE, HOST, LIMIT = MemoryKind.DEVICE, MemoryKind.HOST, MemoryKind.LIMIT


def named(module: str, name: str, base: type[BaseException] = RuntimeError) -> type[BaseException]:
    """A class as another library defines it."""
    return type(name, (base,), {"__module__": module, "__qualname__": name})


@pytest.mark.parametrize(
    "error",
    [
        named("torch", "OutOfMemoryError")("no"),
        named("torch.cuda", "OutOfMemoryError")("no"),
        named("mine", "TooLarge", named("torch", "OutOfMemoryError"))("no"),
        named("cupy.cuda.memory", "OutOfMemoryError")("no"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.79 GiB total)"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("HIP out of memory. Tried to allocate 2 GiB"),
        RuntimeError("XPU out of memory. Tried to allocate 2 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.5 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        RuntimeError("HIPBLAS_STATUS_ALLOC_FAILED"),
        named("jaxlib.xla_extension", "XlaRuntimeError")(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes."
        ),
        named("tensorflow.python.framework.errors_impl", "ResourceExhaustedError", Exception)(
            "OOM when allocating tensor with shape[9,9] on /job:localhost/device:GPU:0 by BFC"
        ),
        named("numba.cuda.cudadrv.driver", "CudaAPIError")(
            "[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"
        ),
        MemoryError("std::bad_alloc: out_of_memory: CUDA error at: cuda_memory_resource.hpp"),
        ValueError("[10:00:00] device_helpers.cuh:428: cudaErrorMemoryAllocation: out of memory"),
    ],
    ids=lambda error: f"{type(error).__name__}: {error!s:.40}",
)
def test_a_full_device_is_recognised(error):
    assert memory_kind_of(error) is DEVICE


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        named("numpy._core._exceptions", "_ArrayMemoryError", MemoryError)("Unable to allocate"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("std::bad_alloc"),
        named("lightgbm.basic", "LightGBMError", Exception)("bad allocation"),
        RuntimeError("this configuration is out of memory"),
    ],
    ids=lambda error: f"{type(error).__name__}: {error!s:.40}",
)
def test_a_full_machine_is_recognised(error):
    assert memory_kind_of(error) is HOST


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED"),
        KeyError("memory"),
        ValueError("room=3 is out of range"),
        OSError(28, "No space left on device"),
        OSError(24, "Too many open files"),
        RankFailed("rank 1 was killed by SIGKILL (out of memory?)", 1, ""),
        RuntimeError(
            "rank 1 failed\n"
            '  File "train.py", line 3, in train\n'
            "    except torch.OutOfMemoryError:  # CUDA out of memory\n"
            "KeyError: 'x'"
        ),
    ],
    ids=lambda error: f"{type(error).__name__}: {error!s:.40}",
)
def test_other_errors_are_not(error):
    assert memory_kind_of(error) is None


def test_what_an_error_follows_from_counts():
    full = named("torch", "OutOfMemoryError")("CUDA out of memory")

    def raised(act):
        with pytest.raises(Exception) as caught:
            act()
        return caught.value

    def wrapped():
        raise ValueError("training failed") from full

    def cleaning_up():
        try:
            raise full
        except RuntimeError:
            raise KeyError("no such file")  # noqa: B904

    def hidden():
        try:
            raise full
        except RuntimeError:
            raise KeyError("dealt with") from None

    assert memory_kind_of(raised(wrapped)) is DEVICE
    assert memory_kind_of(raised(cleaning_up)) is DEVICE
    assert memory_kind_of(ExceptionGroup("two", [KeyError("x"), full])) is DEVICE
    full.__cause__ = full.__context__ = None
    assert memory_kind_of(raised(hidden)) is None


def test_a_circle_of_errors_ends():
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    assert memory_kind_of(one) is None


def test_what_another_process_says_counts():
    story = (
        'Traceback\n  File "train.py", line 3\ntorch.OutOfMemoryError: CUDA out of memory. Tried'
    )
    assert memory_kind_of(RankFailed("rank 2 of 4 failed", 2, story)) is DEVICE
    printed = "train.py ended with status 1; it printed last:\nMemoryError"
    assert memory_kind_of(RuntimeError(printed)) is HOST


@pytest.mark.parametrize(
    ("error", "killed"),
    [
        ("RuntimeError: DataLoader worker (pid 3) is killed by signal: Killed.", True),
        ("train.py was killed by signal 9; it printed last:", True),
        ("rank 1 was killed by SIGKILL (out of memory?)", True),
        ("CalledProcessError: exit code: -9", True),
        ("train.py was killed by signal 15", False),
        ("ended with status 9", False),
    ],
)
def test_an_error_may_tell_that_a_process_was_killed(error, killed):
    assert tells_of_kill(RuntimeError(error)) is killed


@pytest.mark.parametrize(
    ("found", "tried", "on_oom", "place"),
    [
        (OutOfMemory(DEVICE), None, "infeasible", None),
        (OutOfMemory(DEVICE), None, "retry_alone", Alone(DEVICE)),
        (OutOfMemory(HOST), None, "retry_alone", Alone(HOST)),
        (OutOfMemory(LIMIT), None, "retry_alone", None),
        (OutOfMemory(DEVICE), Alone(DEVICE), "retry_alone", None),
        (OutOfMemory(HOST, 10), None, "larger", None),
        (OutOfMemory(HOST, 10, True), None, "larger", Larger(HOST, 10)),
        (OutOfMemory(LIMIT, 10, True), None, "larger", Larger(LIMIT, 10)),
        (OutOfMemory(HOST, 20, True), Larger(HOST, 10), "larger", None),
    ],
)
def test_a_trial_runs_once_more_where_that_can_help(found, tried, on_oom, place):
    assert placement_after(found, tried, on_oom) == place


def test_the_reason_says_which_memory_and_what_was_tried():
    found, error = OutOfMemory(DEVICE), "RuntimeError: CUDA out of memory"
    assert describe(found, None, error) == f"out of device memory: {error}"
    assert describe(found, Alone(DEVICE), error).startswith(
        "out of device memory, also alone on its device: "
    )
    assert describe(OutOfMemory(HOST, 16), Larger(HOST, 8), error) == (
        f"out of host memory, also on a worker with more of it: {error}"
    )
    assert describe(OutOfMemory(HOST, 8), Larger(HOST, 8), "none came") == (
        "out of host memory: none came"
    )
    assert describe(OutOfMemory(LIMIT), None, "x") == "over its memory limit: x"
