"""Configurations that would lack memory, known before they run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from daskhpo.core.errors import InvalidArgument
from daskhpo.core.memory_model import MemoryModel
from daskhpo.core.out_of_memory import MemoryKind, Shortage
from daskhpo.core.plain import short, to_python
from daskhpo.core.space import Space
from daskhpo.core.types import Config, PeakMemory, TrialId

MemoryOf = Callable[[Config], float]
NEAR = 0.25  # of what there is: below, no trial comes near it, and no model is asked


class Foresight(Protocol):
    """Says before a trial starts that there is too little memory for it."""

    def shortage(self, trial: TrialId, config: Config) -> Shortage | None:
        """Return what a new trial would lack; None: it may run."""


class MemoryForesight:
    """Prediction of what trials need, from what others have used.

    Parameters
    ----------
    space : of the study.
    memory_of : bytes that a configuration needs, of a GPU if trials use one, else of their machine;
        None: they are predicted from the trials so far.
    """

    def __init__(self, space: Space, memory_of: MemoryOf | None = None) -> None:
        self._memory_of = memory_of
        self._models = {kind: MemoryModel(space) for kind in (MemoryKind.HOST, MemoryKind.DEVICE)}
        self._largest = PeakMemory()
        self._seen = PeakMemory()

    def set_largest(self, host: int, device: int) -> None:
        """Receive the memory of the worker, and of the GPU, that has most; 0: not known."""
        self._largest = PeakMemory(host, device)

    def observe(self, trial: TrialId, config: Config, peak: PeakMemory) -> None:
        """Receive what a trial has used so far."""
        self._seen = PeakMemory(*map(max, self._seen, peak))
        if peak.host:
            self._models[MemoryKind.HOST].add(trial, config, peak.host)
        if peak.device:
            self._models[MemoryKind.DEVICE].add(trial, config, peak.device)

    def shortage(self, trial: TrialId, config: Config) -> Shortage | None:
        return self._given(config) if self._memory_of else self._predicted(config)

    def _given(self, config: Config) -> Shortage | None:
        assert self._memory_of is not None
        needs = check_memory(self._memory_of, config)
        host, device = self._largest
        of, has = (MemoryKind.DEVICE, device) if device else (MemoryKind.HOST, host)
        return Shortage(of, int(needs), has) if 0 < has < needs else None

    def _predicted(self, config: Config) -> Shortage | None:
        """Set aside only what even a low estimate puts above the largest worker."""
        for (of, model), has, seen in zip(
            self._models.items(), self._largest, self._seen, strict=True
        ):
            is_near = has and seen >= NEAR * has
            found = model.predict(config) if is_near else None
            if found is not None and found.low > has:
                return Shortage(of, int(found.middle), has)
        return None


def check_memory(memory_of: MemoryOf, config: Config) -> float:
    """Return the bytes that a user's function gives for a configuration.

    Raises
    ------
    InvalidArgument : it gives no number of bytes.
    """
    given = to_python(memory_of(dict(config)))
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not (is_number and 0 <= given < math.inf):
        raise InvalidArgument(
            f"memory= returned {short(given)} for {short(dict(config))}: it must return bytes, a "
            "number of 0 or more, such as 2**30"
        )
    return float(given)
