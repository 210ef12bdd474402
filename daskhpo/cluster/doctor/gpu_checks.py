"""Checks of GPUs: their number, and what torch, cupy or jax compute on them."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daskhpo.cluster.doctor.finding import Finding, ok, problem, skipped, warning
from daskhpo.cluster.gpus import CUDA, NO_SOURCE, Gpus, visible_gpus

Devices = list[tuple[str, bool]]  # names, and whether their results are right


@dataclass
class Tried:
    """A library, and the devices that it found; else why it failed or has none."""

    name: str
    devices: Devices = field(default_factory=list)
    seconds: float = 0.0
    missing: str = ""
    error: str = ""


def check_gpus(n_gpus: int) -> Iterator[Finding]:
    """Compute on each GPU, with the first installed library that finds one."""
    if not n_gpus:
        yield skipped("gpu", "no GPU was requested")
        return
    tried = []
    for name, compute in (("torch", _with_torch), ("cupy", _with_cupy), ("jax", _with_jax)):
        began, one = time.monotonic(), Tried(name)
        try:
            library = importlib.import_module(name)
            one.name = f"{name} {library.__version__}"
            one.devices, one.missing = compute(library)
        except ModuleNotFoundError:
            continue
        except BaseException as error:
            one.error = f"fails: {type(error).__name__}: {error}"
        one.seconds = time.monotonic() - began
        tried.append(one)
        if one.devices:
            break
    driver = Path("/proc/driver/nvidia/version").exists() or Path("/dev/kfd").exists()
    yield from judge_gpus(n_gpus, visible_gpus(), tried, driver)


def judge_gpus(n_gpus: int, found: Gpus, tried: Sequence[Tried], driver: bool) -> Iterator[Finding]:
    """Judge the GPUs that a worker would see, and what was computed on them."""
    computed = next((one for one in tried if one.devices), None)
    shown = f"{len(found.names)} visible: {found.source}"
    if len(found.names) >= n_gpus:
        yield ok("gpu", shown)
    elif found.source:
        hint = "check --gres, and GresTypes in slurm.conf"
        yield problem("gpu", f"{n_gpus} requested, but {shown}", hint)
    elif computed is not None:
        message = f"{computed.name} finds {len(computed.devices)}, but workers: {NO_SOURCE}"
        yield problem("gpu", message, f"set {CUDA} in the job: --prologue 'export {CUDA}=0'")
    else:
        hint = "Slurm allocated none: check --gres, or how to request GPUs at your site"
        yield problem("gpu", f"no GPU is visible: {CUDA} is not set", hint)
    yield _judge_computing(computed, tried, driver)


def _judge_computing(computed: Tried | None, tried: Sequence[Tried], driver: bool) -> Finding:
    check = "gpu computing"
    if computed is not None:
        if wrong := [name for name, is_right in computed.devices if not is_right]:
            message = f"{computed.name} computes wrong results on {', '.join(wrong)}"
            hint = "tell your administrator, and exclude that node (sbatch --exclude)"
            return problem(check, message, hint)
        names = ", ".join(sorted({name for name, _ in computed.devices}))
        return ok(check, f"{computed.name} on {names}, in {computed.seconds:.1f} s")
    reasons = [f"{one.name} {one.error or one.missing or 'finds no device'}" for one in tried]
    reasons = reasons or ["torch, cupy and jax are not installed"]
    message = f"no library can compute on a GPU: {'; '.join(reasons)}"
    if not driver:
        message += "; the node has no GPU driver"
        return warning(check, message, "trials would train on the CPU, or fail")
    if all(one.missing for one in tried):
        hint = "install a build for GPUs; else trials would train on the CPU"
        return warning(check, message, hint)
    return problem(check, message, "install a build for the GPU driver of that node")


def _with_torch(torch: Any) -> tuple[Devices, str]:
    devices = []
    for number in range(torch.cuda.device_count()):
        there = torch.rand(256, 256, dtype=torch.float64, device=f"cuda:{number}")
        here = there.cpu()
        is_right = bool(torch.allclose((there @ there).cpu(), here @ here))
        devices.append((torch.cuda.get_device_name(number), is_right))
    built = torch.version.cuda or getattr(torch.version, "hip", None)
    return devices, "" if built else "is built for CPUs only"


def _with_cupy(cupy: Any) -> tuple[Devices, str]:
    devices = []
    for number in range(cupy.cuda.runtime.getDeviceCount()):
        with cupy.cuda.Device(number):
            there = cupy.random.rand(256, 256)
            here = there.get()
            is_right = bool(abs((there @ there).get() - here @ here).max() < 1e-6)
            name = cupy.cuda.runtime.getDeviceProperties(number)["name"].decode()
            devices.append((name, is_right))
    return devices, ""


def _with_jax(jax: Any) -> tuple[Devices, str]:
    import numpy

    devices = []
    for device in jax.devices():
        if device.platform in ("gpu", "cuda", "rocm"):
            here = numpy.linspace(0, 1, 65536, dtype="float32").reshape(256, 256)
            there = jax.device_put(here, device)
            is_right = bool(numpy.allclose(numpy.asarray(there @ there), here @ here, rtol=0.02))
            devices.append((device.device_kind, is_right))
    return devices, "" if devices else "finds no device"  # it may be a build for CPUs
