"""Too little memory as an outcome of a trial: its kind, and what follows.

Errors are recognised by their classes and messages, so that no framework is imported for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from daskhpo.core.errors import RankFailed
from daskhpo.core.sizes import size_text

OnOutOfMemory = Literal["infeasible", "retry_alone", "larger"]


class MemoryKind(StrEnum):
    """The memory of which a trial found too little, equal to its word in the journal."""

    DEVICE = "device"  # of the GPU, or another accelerator
    HOST = "host"  # of the machine, or of the Slurm job or container in it
    LIMIT = "limit"  # what one trial's processes may use: ``memory_limit``, or that of Dask

    @property
    def shown(self) -> str:
        """The outcome in words, such as ``"out of device memory"``."""
        return "over its memory limit" if self is MemoryKind.LIMIT else f"out of {self} memory"


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The outcome of an attempt that found too little memory.

    Attributes
    ----------
    of : the memory of which there was too little.
    n_bytes : how much its worker has of it; 0: unknown.
    has_larger : a worker that has more of it serves the study, or may still come.
    """

    of: MemoryKind
    n_bytes: int = 0
    has_larger: bool = False


@dataclass(frozen=True, slots=True)
class Shortage:
    """Too little memory for a configuration, known before it runs.

    Attributes
    ----------
    needs : bytes that it needs, as given or predicted.
    has : bytes that the worker, or the GPU, with most of it has.
    """

    of: MemoryKind
    needs: int
    has: int

    def __str__(self) -> str:
        needs, has = size_text(self.needs), size_text(self.has)
        return f"set aside: needs about {needs} of {self.of} memory, and no worker has over {has}"


@dataclass(frozen=True, slots=True)
class Alone:
    """A slot of whose device or machine no other trial of the study uses any memory."""

    of: MemoryKind


@dataclass(frozen=True, slots=True)
class Larger:
    """A slot whose worker has more than ``n_bytes`` of this memory."""

    of: MemoryKind
    n_bytes: int


Placement = Alone | Larger


# CUDA, ROCm, oneAPI, Metal; their libraries; XLA; TensorFlow; XGBoost and RAPIDS.
_DEVICE = re.compile(
    r"\b(CUDA|HIP|XPU|MPS backend|GPU|NPU)\b.{0,40}\bout[ _]of[ _]memory\b"
    r"|\bout[ _]of[ _]memory\b.{0,40}\b(CUDA|HIP|GPU|device)\b"
    r"|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|hipErrorOutOfMemory"
    r"|ZE_RESULT_ERROR_OUT_OF_DEVICE_MEMORY|UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"
    r"|\b(CU|HIP|ROC)(BLAS|DNN|FFT|SOLVER|SPARSE|RAND)(_STATUS)?(_INTERNAL_ERROR_DEVICE)?"
    r"_(ALLOC|ALLOCATION)_FAILED\b"
    r"|\bRESOURCE_EXHAUSTED\b.*\b(memory|alloc)"
    r"|\bOOM when allocating tensor\b.*\bGPU\b",
    re.IGNORECASE,
)
_HOST = re.compile(
    r"\bMemoryError\b|\b_ArrayMemoryError\b"
    r"|\bcan(no|')t allocate memory\b|\bstd::bad_alloc\b|\bbad allocation\b"
    r"|\bOOM when allocating tensor\b"
    r"|\bout of memory\b(?!\?)",
    re.IGNORECASE,
)
_DEVICE_CLASSES = {
    *(
        "torch.OutOfMemoryError",
        "torch.cuda.OutOfMemoryError",
        "torch.cuda.memory.OutOfMemoryError",
    ),
    *("cupy.cuda.memory.OutOfMemoryError", "cupy_backends.cuda.api.runtime.OutOfMemoryError"),
}
_KILLED = re.compile(
    r"killed by signal:? (9|Killed|SIGKILL)|\bSIGKILL\b|(exit ?code|status|returncode)\W{1,3}-9\b",
    re.IGNORECASE,
)


def memory_kind_of(error: BaseException) -> MemoryKind | None:
    """Return the memory that an error says was too little; None: it says none.

    Errors that it was raised from, or while handling them, and members of a group count as well.
    """
    for one in _chain(error, set()):
        text = _text(one)
        names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(one).__mro__}
        if names & _DEVICE_CLASSES or _matches(_DEVICE, text):
            return MemoryKind.DEVICE
        if isinstance(one, MemoryError) or _matches(_HOST, text):
            return MemoryKind.HOST
    return None


def _text(error: BaseException) -> str:
    try:
        return f"{error}\n{error.story}" if isinstance(error, RankFailed) else str(error)
    except Exception:  # its own __str__ raised
        return ""


def tells_of_kill(error: BaseException) -> bool:
    """Return True if an error says that a process was killed, whatever for."""
    return _KILLED.search(_text(error)) is not None


def _matches(pattern: re.Pattern[str], text: str) -> bool:
    """Return True if a message matches, lines of source code aside."""
    return any(pattern.search(line) for line in text.splitlines() if not line.startswith(" "))


def _chain(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    """Yield an error, then those of which it is the consequence."""
    if id(error) in seen:
        return
    seen.add(id(error))
    yield error
    context = None if error.__suppress_context__ else error.__context__
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for other in (error.__cause__, context, *members):
        if other is not None:
            yield from _chain(other, seen)


def describe(found: OutOfMemory, tried: Placement | None, error: str) -> str:
    """Return why a trial ends, such as ``"out of device memory: ..."``.

    Parameters
    ----------
    tried : where it ran once more.
    error : the error itself, in a line.
    """
    match tried:
        case Alone(MemoryKind.DEVICE):
            where = ", also alone on its device"
        case Alone():
            where = ", also alone on its machine"
        case Larger(_, n_bytes) if found.n_bytes > n_bytes:
            where = ", also on a worker with more of it"
        case _:
            where = ""
    return f"{found.of.shown}{where}: {error}"


def placement_after(
    found: OutOfMemory, tried: Placement | None, on_oom: OnOutOfMemory
) -> Placement | None:
    """Return where a trial runs once more after it was out of memory; None: nowhere.

    Parameters
    ----------
    tried : where it runs once more already, which was of no use.
    """
    if tried is not None:
        return None
    match on_oom:
        case "retry_alone" if found.of is not MemoryKind.LIMIT:  # a limit is the same for it alone
            return Alone(found.of)
        case "larger" if found.has_larger:
            return Larger(found.of, found.n_bytes)
    return None
