"""The most memory that a trial uses in its process."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from daskhpo.core.types import PeakMemory
from daskhpo.executors.dask.children import ChildProcesses
from daskhpo.executors.dask.trial_memory import PROCESS, RESET_PEAK, PeakMeter, free_caches

MIB = 2**20


class Using(ChildProcesses):
    """A process that uses so much memory now."""

    def __init__(self, n_bytes: int, is_own: bool = True) -> None:
        super().__init__(is_own)
        self.now = n_bytes

    def n_bytes(self) -> int:
        return self.now


@pytest.fixture
def process(tmp_path: Path) -> Path:
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t    3072 kB\nVmRSS:\t 1024 kB\n")
    return tmp_path


def test_the_peak_of_the_process_counts_from_the_start_of_the_attempt(process: Path) -> None:
    meter = PeakMeter(Using(MIB), process)
    meter.begin()
    assert (process / "clear_refs").read_text() == RESET_PEAK
    assert meter.news() == PeakMemory(3 * MIB)


def test_with_its_children_it_may_use_more_than_it_did_alone(process: Path) -> None:
    meter = PeakMeter(Using(9 * MIB), process)
    meter.begin()
    assert meter.news() == PeakMemory(9 * MIB)


def test_where_the_peak_cannot_be_reset_only_what_is_used_now_counts(tmp_path: Path) -> None:
    meter = PeakMeter(Using(2 * MIB), tmp_path / "none")
    meter.begin()
    assert meter.news() == PeakMemory(2 * MIB)


def test_a_peak_is_told_once_until_it_grows(process: Path) -> None:
    using = Using(100 * MIB)
    meter = PeakMeter(using, process)
    meter.begin()
    assert meter.news() == PeakMemory(100 * MIB)
    assert meter.news() is None
    using.now = 101 * MIB
    assert meter.news() is None, "one percent is no news"
    using.now = 110 * MIB
    assert meter.news() == PeakMemory(110 * MIB)
    meter.begin()
    assert meter.news() == PeakMemory(110 * MIB), "another attempt tells its own"


def test_a_process_that_serves_also_other_things_tells_nothing(process: Path) -> None:
    meter = PeakMeter(Using(MIB, is_own=False), process)
    meter.begin()
    assert meter.news() is None
    assert not (process / "clear_refs").exists()


class Cuda:
    """As torch.cuda: here is no GPU."""

    def __init__(self, *peaks: int, begun: bool = True) -> None:
        self.peaks, self.begun, self.calls = list(peaks), begun, []  # type: ignore[var-annotated]

    def is_initialized(self) -> bool:
        return self.begun

    def device_count(self) -> int:
        return len(self.peaks)

    def reset_peak_memory_stats(self, device: int) -> None:
        self.peaks[device] = 0

    def max_memory_allocated(self, device: int) -> int:
        return self.peaks[device]

    def empty_cache(self) -> None:
        self.calls.append("empty_cache")


def use(monkeypatch: pytest.MonkeyPatch, cuda: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]


def test_the_fullest_device_counts(process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(7, 70)
    use(monkeypatch, cuda)
    meter = PeakMeter(Using(MIB), process)
    meter.begin()
    assert meter.news() == PeakMemory(3 * MIB, 0), "of an earlier trial nothing counts"
    cuda.peaks = [5 * MIB, 4 * MIB]
    assert meter.news() == PeakMemory(3 * MIB, 5 * MIB)


def test_a_device_that_no_trial_uses_is_left_alone(
    process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = Cuda(7, begun=False)
    use(monkeypatch, cuda)
    meter = PeakMeter(Using(MIB), process)
    meter.begin()
    free_caches()
    assert meter.news() == PeakMemory(3 * MIB)
    assert (cuda.peaks, cuda.calls) == ([7], [])


def test_a_device_in_a_bad_state_is_no_error(
    process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = Cuda(7)
    cuda.max_memory_allocated = cuda.reset_peak_memory_stats = None  # type: ignore[assignment]
    use(monkeypatch, cuda)
    meter = PeakMeter(Using(MIB), process)
    meter.begin()
    assert meter.news() == PeakMemory(3 * MIB)
    free_caches()
    assert cuda.calls == ["empty_cache"]


@pytest.mark.skipif(not (PROCESS / "clear_refs").exists(), reason="needs Linux")
def test_what_was_freed_before_the_report_counts() -> None:
    own = ChildProcesses(is_own=True)
    meter = PeakMeter(own)
    meter.begin()
    before = own.n_bytes()
    filled = bytearray(b"x") * (300 * MIB)
    del filled
    peak = meter.news()
    assert peak is not None
    assert peak.host > before + 250 * MIB
    meter.begin()
    later = meter.news()
    assert later is not None
    assert later.host < peak.host - 200 * MIB
