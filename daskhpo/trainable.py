"""What the user writes: a class with ``setup`` and ``step``, or a function that reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any, Protocol

from daskhpo.core.types import Config

State = Any  # a tree of dicts, lists, tuples, arrays, tensors, numbers, strings, bytes, bools, None


class TrialContext(Protocol):
    """What a trial knows about itself while it runs.

    Attributes
    ----------
    id : number of the trial within its study.
    config : its hyperparameters.
    resource : units of training done.
    max_t : units at which it is fully trained.
    seed : an integer that depends on the study's seed and the trial alone.
    device : what this slot owns: ``"cuda:0"`` (or another index) or ``"cpu"``.
    checkpoint : the state to go on from, or None.
    """

    id: int
    config: Config
    resource: int
    max_t: int
    seed: int
    device: str
    checkpoint: State | None

    def report(self, metrics: dict[str, Any], state: Callable[[], State] | None = None) -> None:
        """Report one unit of training. ``state`` is called only if a checkpoint is needed."""

    def should_stop(self) -> bool:
        """Whether the trial shall hand over at its next report; costs nothing to ask.

        The study stops, or the worker goes and the trial goes on elsewhere: do not return.
        """

    def remaining_walltime(self) -> float | None:
        """Seconds until the worker's job ends, or None where that is not known."""


class Trainable(ABC):
    """A trial as a class: the object stays in its worker while the trial may go on.

    ``self.trial`` (a :class:`TrialContext`) is set before :meth:`setup` is called; use
    ``self.trial.device``, ``self.trial.seed`` and ``self.trial.should_stop()``.

    Attributes
    ----------
    shape_hyperparameters : names of those that change the shape of what :meth:`save_checkpoint`
        gives, such as the number of layers. Population based training may not mutate them: a
        member goes on from another one's state.
    adapts_checkpoints : :meth:`load_checkpoint` fits a state of another shape to this model, so
        population based training may mutate them after all.

    Examples
    --------
    >>> class Parabola(Trainable):
    ...     def setup(self, config):
    ...         self.x, self.best = config["x"], float("inf")
    ...
    ...     def step(self):
    ...         self.best = min(self.best, self.x**2)
    ...         return {"loss": self.best}
    """

    trial: TrialContext
    shape_hyperparameters: Collection[str] = ()
    adapts_checkpoints: bool = False

    @abstractmethod
    def setup(self, config: Config) -> None:
        """Build the model and whatever else one trial needs."""

    @abstractmethod
    def step(self) -> dict[str, Any]:
        """Train one unit of resource; return a flat dict of numbers."""

    def save_checkpoint(self) -> State | None:
        """State from which :meth:`load_checkpoint` goes on; None: this trial cannot be saved."""
        return None

    def load_checkpoint(self, state: State) -> None:
        """Go on from a state that :meth:`save_checkpoint` gave; called after :meth:`setup`."""
        raise NotImplementedError(
            f"{type(self).__name__}.save_checkpoint gave a state, "
            "but load_checkpoint is not written"
        )

    def reset_config(self, config: Config) -> bool:
        """Become another trial, as new. Return True if done; False: a new object is made."""
        return False

    def cleanup(self) -> None:
        """Give back what :meth:`setup` took; called once, at the end of the object's life."""
