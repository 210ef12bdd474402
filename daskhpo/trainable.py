"""Trials as users write them.

Either a class with ``setup`` and ``step``, or a function that reports.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from daskhpo.core.errors import InvalidArgument
from daskhpo.core.types import Config

State = Any  # a tree of dicts, lists, tuples, arrays, tensors, numbers, strings, bytes, bools, None


class TrialContext(Protocol):
    """A running trial's view of itself.

    Attributes
    ----------
    id : number of the trial within its study.
    config : its hyperparameters.
    resource : units of training done.
    max_t : units at which it is fully trained.
    seed : an integer that depends on the study's seed and the trial alone.
    device : the slot's device: ``"cuda:0"`` (or another index) or ``"cpu"``.
    devices : all of the slot's devices, of which ``device`` is the first.
    checkpoint : the state to continue from, or None.
    """

    id: int
    config: Config
    resource: int
    max_t: int
    seed: int
    device: str
    checkpoint: State | None

    @property
    def devices(self) -> Sequence[str]: ...

    def report(
        self, metrics: Mapping[str, Any] | float, state: Callable[[], State] | None = None
    ) -> None:
        """Report one unit of training. ``state`` is called only if a checkpoint is needed.

        ``metrics``: numbers by name, or the value of the study's metric alone.
        """

    def complete(self) -> None:
        """Complete the trial after this unit, although ``max_t`` is not reached.

        For a class that stops itself; a function may simply return.
        """

    def should_stop(self) -> bool:
        """Return True if the trial will be preempted at its next report; cheap to call.

        Either the study stops, or the worker leaves and the trial continues elsewhere. A function
        must not return because of it: a trial whose function returns is complete.
        """

    def remaining_walltime(self) -> float | None:
        """Return the seconds until the worker's job ends; None: not known."""


class Trainable(ABC):
    """A trial as a class; its object stays in the worker while the trial continues.

    ``self.trial`` (a :class:`TrialContext`) is set before :meth:`setup` is called; use
    ``self.trial.device``, ``self.trial.seed`` and ``self.trial.should_stop()``.

    Attributes
    ----------
    shape_hyperparameters : names of those that change shapes in the state that
        :meth:`save_checkpoint` returns, such as the number of layers. Population based training
        may not mutate them, because a member continues from another one's state.
    adapts_checkpoints : True: :meth:`load_checkpoint` fits a state of another shape to this model,
        so population based training may mutate them.

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
        """Build the model and everything else that the trial needs."""

    @abstractmethod
    def step(self) -> Mapping[str, Any] | float:
        """Train one unit of resource; return its metrics, as for ``trial.report``."""

    def save_checkpoint(self) -> State | None:
        """Return a state for :meth:`load_checkpoint`; None: the trial cannot be saved."""
        return None

    def load_checkpoint(self, state: State) -> None:
        """Restore a state from :meth:`save_checkpoint`; called after :meth:`setup`."""
        raise NotImplementedError(
            f"{type(self).__name__}.save_checkpoint returned a state, "
            "but load_checkpoint is not implemented; implement it, too"
        )

    def reset_config(self, config: Config) -> bool:
        """Reset the object for another trial, as if it were new.

        Return True if this was done. False: a new object is made.
        """
        return False

    def cleanup(self) -> None:
        """Release what :meth:`setup` acquired; called once, when the object is discarded."""


def n_arguments(function: Callable[..., Any]) -> int:
    """Return 2 if a function takes ``(config, trial)``, 1 if ``config`` alone, else 0.

    A second parameter with a default is an option of the user's, unless its name is ``trial``.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # it does not tell
        return 2
    with contextlib.suppress(TypeError):
        signature.bind({}, None)
        second = [*signature.parameters.values()][1:2]
        if not second or second[0].name == "trial" or second[0].default is inspect.Parameter.empty:
            return 2
    with contextlib.suppress(TypeError):
        signature.bind({})
        return 1
    return 0


def check_runs(what: str, function: Callable[..., Any]) -> None:
    """Refuse functions whose call makes a coroutine or a generator, and runs nothing.

    Parameters
    ----------
    what : the function's name, for the message.
    """
    call: Any = function
    while isinstance(call, functools.partial):
        call = call.func
    if not inspect.isroutine(call):  # an object that can be called
        call = type(call).__call__
    if inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        raise InvalidArgument(
            f"{what} is an async function, which nothing would await: define it with def; inside, "
            "asyncio.run(...) runs what must be awaited"
        )
    if inspect.isgeneratorfunction(call):
        raise InvalidArgument(
            f"{what} is a generator, whose call runs nothing of it: report with "
            "trial.report({...}) instead of yield"
        )
