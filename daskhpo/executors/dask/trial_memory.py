"""The memory of a trial in its process: its peak, and giving it back."""

from __future__ import annotations

import contextlib
import gc
import sys
import traceback
from pathlib import Path
from typing import Any

from daskhpo.core.types import PeakMemory
from daskhpo.executors.dask.children import ChildProcesses

TOLD_GROWTH = 1.02  # a peak is sent again if it has grown by this factor
PROCESS = Path("/proc/self")
RESET_PEAK = "5"  # Linux, proc_pid_clear_refs(5): of the resident memory


class PeakMeter:
    """Measures the most memory that a trial's attempt uses.

    A process that serves also other things measures nothing: it cannot tell them apart.

    Parameters
    ----------
    children : the process, and those that trials start. Of these, only what they use at a report
        is known.
    process : its folder in ``/proc``.
    """

    def __init__(self, children: ChildProcesses, process: Path = PROCESS) -> None:
        self._children, self._process = children, process
        self._has_peak = False
        self._told = PeakMemory()

    def begin(self) -> None:
        """Begin an attempt; what was used before does not count."""
        self._told = PeakMemory()
        if not self._children.is_own:
            return
        try:
            (self._process / "clear_refs").write_text(RESET_PEAK)
            self._has_peak = True
        except OSError:  # a container or another system; then only the reports' moments count
            self._has_peak = False
        if (cuda := _cuda()) is not None:
            with contextlib.suppress(Exception):
                for device in range(cuda.device_count()):
                    cuda.reset_peak_memory_stats(device)

    def news(self) -> PeakMemory | None:
        """Return the attempt's peak so far; None: it has hardly grown."""
        if not self._children.is_own:
            return None
        peak = PeakMemory(max(self._peak_of_process(), self._children.n_bytes()), _device_peak())
        if not any(now > TOLD_GROWTH * told for now, told in zip(peak, self._told, strict=True)):
            return None
        self._told = peak
        return peak

    def _peak_of_process(self) -> int:
        if not self._has_peak:
            return 0
        try:
            lines = (self._process / "status").read_text().splitlines()
        except OSError:
            return 0
        found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return int(found[0]) * 1024 if found else 0


def forget_frames(error: BaseException) -> None:
    """Drop the local variables of the calls that an error and its causes went through."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]


def free_caches() -> None:
    """Collect garbage, and give back the device memory that torch keeps for later."""
    gc.collect()
    if (cuda := _cuda()) is not None:
        with contextlib.suppress(Exception):  # a device may be in any state now
            cuda.empty_cache()


def _device_peak() -> int:
    """Return the most bytes that torch has allocated on one GPU; 0: none."""
    if (cuda := _cuda()) is None:
        return 0
    try:
        return max(map(cuda.max_memory_allocated, range(cuda.device_count())), default=0)
    except Exception:  # a device may be in any state
        return 0


def _cuda() -> Any:
    """Return torch's module of CUDA if a trial uses it; import and begin nothing."""
    torch = sys.modules.get("torch")
    with contextlib.suppress(Exception):
        if torch is not None and torch.cuda.is_initialized():
            return torch.cuda
    return None
