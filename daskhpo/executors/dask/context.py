"""The context that a trial gets in its worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from daskhpo.cluster.walltime import remaining_walltime
from daskhpo.core.types import Config


class Context:
    """The :class:`daskhpo.trainable.TrialContext` of a trial in its slot."""

    def __init__(
        self,
        id: int,
        config: Config,
        resource: int,
        max_t: int,
        seed: int,
        device: str,
        asked_to_stop: Callable[[], bool],
        n_devices: int = 1,
    ) -> None:
        self.id, self.config = id, config
        self.resource, self.max_t = resource, max_t
        self.seed, self.device, self._n_devices = seed, device, n_devices
        self._checkpoint: Any = None
        self.checkpoint_was_read = False
        self.is_complete = False  # by its own decision
        self.is_stopped = False  # what it reports is not wanted
        self._asked_to_stop = asked_to_stop

    def __repr__(self) -> str:
        return f"<trial {self.id} at resource {self.resource} of {self.max_t}>"

    @property
    def checkpoint(self) -> Any:
        self.checkpoint_was_read = True
        return self._checkpoint

    @checkpoint.setter
    def checkpoint(self, state: Any) -> None:
        self._checkpoint, self.checkpoint_was_read = state, False

    @property
    def devices(self) -> tuple[str, ...]:
        """All devices of the slot: ``device``, and those that follow it."""
        kind, _, first = self.device.partition(":")
        if not first:
            return (self.device,)
        return tuple(f"{kind}:{int(first) + n}" for n in range(self._n_devices))

    def report(
        self, metrics: Mapping[str, Any] | float, state: Callable[[], Any] | None = None
    ) -> None:
        raise TypeError("report() is for functions; a Trainable returns its metrics from step()")

    def complete(self) -> None:
        self.is_complete = True

    def should_stop(self) -> bool:
        return self.is_stopped or self._asked_to_stop()

    def remaining_walltime(self) -> float | None:
        return remaining_walltime()
