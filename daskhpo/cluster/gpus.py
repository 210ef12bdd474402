"""GPUs that a process may use: by its environment, else by the driver's tool.

All that ask for GPUs ask here: the doctor, workers in Slurm jobs, the embedded cluster, and trials
on workers of users.

References
----------
NVIDIA, *CUDA C++ Programming Guide*, "CUDA environment variables"; AMD, *ROCm*, "GPU isolation
techniques"; Intel, *oneAPI Level Zero*, "ZE_AFFINITY_MASK".
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

CUDA, HIP, ROCR = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
LEVEL_ZERO = "ZE_AFFINITY_MASK"
VISIBLE = (CUDA, ROCR, HIP, LEVEL_ZERO)
NO_SOURCE = f"no {', '.join(VISIBLE)}, nvidia-smi, rocm-smi or amd-smi"
TOOL_SECONDS = 60.0  # without persistence mode a driver starts for each call

Ask = Callable[[Sequence[str]], str | None]
"""Run a command and return what it printed; None: there is no such command, or it failed."""


class Maker(Enum):
    """Makers of GPUs; variables and tools are those of the maker."""

    NVIDIA = "NVIDIA"
    AMD = "AMD"
    INTEL = "Intel"


@dataclass(frozen=True)
class Gpus:
    """GPUs of a process, in the order in which it numbers them.

    Attributes
    ----------
    names : how variables name them: an index, a UUID, or a part of a GPU (MIG); none: no GPU.
    source : what said so, such as ``"CUDA_VISIBLE_DEVICES=0,1"``; empty: nothing did.
    ids : the same, by names that all processes of a machine share, where they are known.
    maker : whose they are.
    variables : those that are set, of the ones that limit a process to some GPUs.
    """

    names: tuple[str, ...] = ()
    source: str = ""
    ids: tuple[str, ...] = ()
    maker: Maker = Maker.NVIDIA
    variables: tuple[str, ...] = ()

    def environment(self, names: Sequence[str]) -> dict[str, str]:
        """Return the variables by which a process sees only ``names``, in this order."""
        listed = ",".join(names)
        match self.maker:
            case Maker.NVIDIA:
                return {CUDA: listed}
            case Maker.INTEL:
                return {LEVEL_ZERO: listed}
            case Maker.AMD if HIP in self.variables and ROCR not in self.variables:
                return {HIP: listed}
        # HIP counts within what ROCR lets through, and reads CUDA's variable if it has none.
        counted = ",".join(map(str, range(len(names))))
        return {ROCR: listed} | {name: counted for name in (HIP, CUDA) if name in self.variables}

    @property
    def usable_ids(self) -> tuple[str, ...]:
        """Those that one process can use: CUDA shows it one part of a divided GPU."""
        return self.ids[:1] if self.ids and self.ids[0].startswith("MIG-") else self.ids

    def device(self, number: int) -> str:
        """Return torch's name of a GPU; its build for AMD says ``cuda``, too."""
        return f"{'xpu' if self.maker is Maker.INTEL else 'cuda'}:{number}"


def visible_gpus(
    environ: Mapping[str, str] | None = None, ask: Ask | None = None, amd: bool | None = None
) -> Gpus:
    """Return the GPUs that this process may use, without loading CUDA.

    Parameters
    ----------
    environ : environment; None: that of this process.
    ask : runs a command; None: really.
    amd : whether this machine has AMD's driver and not NVIDIA's; None: look for it.
    """
    environ = os.environ if environ is None else environ
    ask = run_tool if ask is None else ask
    variables = tuple(name for name in VISIBLE if name in environ)
    names_amd = ROCR in variables or HIP in variables  # Slurm sets CUDA's as well
    if names_amd and (CUDA not in variables or (_is_amd() if amd is None else amd)):
        return _amd_gpus(environ, variables)
    if CUDA in variables:
        names = cuda_devices(environ[CUDA])
        source = f"{CUDA}={environ[CUDA]}"
        return Gpus(names, source, _uuids(names, ask), Maker.NVIDIA, variables)
    if LEVEL_ZERO in variables:
        names = tuple(_distinct(_words(environ[LEVEL_ZERO])))
        return Gpus(names, f"{LEVEL_ZERO}={environ[LEVEL_ZERO]}", names, Maker.INTEL, variables)
    if (listed := ask(["nvidia-smi", "-L"])) is not None and (found := parse_nvidia_smi(listed)):
        names = tuple(name for name, _ in found)
        return Gpus(names, "nvidia-smi", tuple(uuid for _, uuid in found), Maker.NVIDIA)
    for argv in (["rocm-smi", "--showid"], ["amd-smi", "list"]):
        if (listed := ask(argv)) is not None and (names := parse_amd_smi(listed)):
            return Gpus(names, argv[0], names, Maker.AMD)
    return Gpus()


def cuda_devices(text: str) -> tuple[str, ...]:
    """Return the devices that CUDA sees by its variable.

    The list ends at the first word that is no device, such as ``-1`` or Slurm's "NoDevFiles", or
    that is of another form than the first. If it names a device twice, CUDA sees none.
    """
    names: list[str] = []
    forms = (r"\d+", r"GPU-\w[^,\s]*", r"MIG-\w[^,\s]*")
    words = [word.strip() for word in text.split(",")]
    form = next((form for form in forms if re.match(form, words[0])), None)
    for word in words if form else ():
        if (found := re.match(form or "", word)) is None:
            break
        name = str(int(found[0])) if form == forms[0] else found[0]
        if name in names:
            return ()
        names.append(name)
    return tuple(names)


def parse_nvidia_smi(listed: str) -> list[tuple[str, str]]:
    """Return names and UUIDs of the devices in the output of ``nvidia-smi -L``.

    A GPU that is divided (MIG) counts by its parts. Other lines are skipped, such as ``No devices
    were found``.
    """
    found: list[tuple[str, str]] = []
    for line in listed.splitlines():
        if gpu := re.match(r"GPU (\d+): .*\(UUID: (GPU-[\w-]+)\)", line):
            found.append((gpu[1], gpu[2]))
        elif part := re.match(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)", line):
            if found and found[-1][0].isdecimal():
                found.pop()
            found.append((part[1], part[1]))
    return found


def gpu_memory(found: Gpus | None = None, ask: Ask | None = None) -> int:
    """Return the bytes of memory of the first GPU that this process sees; 0: unknown.

    Parameters
    ----------
    found : what it sees; None: look.
    ask : runs a command; None: really.
    """
    found = visible_gpus(ask=ask) if found is None else found
    if not found.names or found.maker is not Maker.NVIDIA:
        return 0
    asked = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    for line in ((ask or run_tool)(asked) or "").splitlines():
        index, uuid, mebibytes = [*map(str.strip, line.split(",")), "", "", ""][:3]
        if found.names[0] in (index, uuid) and mebibytes.isdecimal():
            return int(mebibytes) * 2**20
    return 0


def parse_amd_smi(listed: str) -> tuple[str, ...]:
    """Return the indices in the output of ``rocm-smi --showid`` or ``amd-smi list``."""
    found = re.findall(r"^(?:GPU\[(\d+)\]|GPU: *(\d+))", listed, re.MULTILINE)
    return tuple(sorted({a or b for a, b in found}, key=int))


def run_tool(argv: Sequence[str]) -> str | None:
    """Run a command; see `Ask`."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TOOL_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def _amd_gpus(environ: Mapping[str, str], variables: tuple[str, ...]) -> Gpus:
    source = " ".join(f"{name}={environ[name]}" for name in (ROCR, HIP) if name in variables)
    names = tuple(_distinct(_listed(environ.get(ROCR) or "")))
    if ROCR not in variables:
        names = tuple(_distinct(_listed(environ[HIP])))
    elif HIP in variables:
        chosen = _distinct(_listed(environ[HIP]))
        names = tuple(names[int(n)] for n in chosen if n.isdecimal() and int(n) < len(names))
    return Gpus(names, source, names, Maker.AMD, variables)


def _uuids(names: Sequence[str], ask: Ask) -> tuple[str, ...]:
    """Return names that other processes share; a single device is not looked up."""
    if len(names) < 2 or (listed := ask(["nvidia-smi", "-L"])) is None:
        return tuple(names)
    uuid_of = dict(parse_nvidia_smi(listed))
    return tuple(uuid_of.get(name, name) for name in names)


def _is_amd() -> bool:
    return Path("/dev/kfd").exists() and not Path("/proc/driver/nvidia/version").exists()


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _listed(text: str) -> list[str]:
    """Return the words up to the first that is no device, as HIP does."""
    return list(itertools.takewhile(re.compile(r"\d+$|GPU-\w").match, _words(text)))


def _distinct(words: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(words))
