"""The adaptor for optimisers of other libraries that have ask and tell."""

from __future__ import annotations

import contextlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.random import rng
from daskhpo.core.searcher import Searcher, check_points, checked_points, described_points
from daskhpo.core.space import Space
from daskhpo.core.types import Config, Report, Status, Trial, TrialId

logger = logging.getLogger(__name__)

T = TypeVar("T")
Handle = Any  #: an optimiser's id of a trial; never None


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """The outcome of a trial so far.

    Attributes
    ----------
    loss : best loss with its current configuration, finite and minimised; None: the trial failed or
        has no report.
    resource : units of training behind ``loss``.
    complete : True if the trial was trained to the end; then ``loss`` is final.
    """

    loss: float | None
    resource: int
    complete: bool


class Optimiser(ABC):
    """An interface to an optimiser of another library. One object serves one study.

    Configurations have all hyperparameters of the space; returned ones may lack its constants.
    """

    @abstractmethod
    def ask(self) -> tuple[Handle, Config] | None:
        """Return a handle and a proposal; None: none, use a random configuration."""

    def add(self, config: Config) -> Handle | None:
        """Register a trial that this optimiser did not propose, when it starts.

        Returns its handle; None if the optimiser need not know it before its first loss.
        """
        return None

    @abstractmethod
    def tell(self, handle: Handle | None, config: Config, outcome: TrialOutcome) -> Handle:
        """Record the outcome so far, which replaces earlier ones.

        Returns the trial's handle for later calls.

        Parameters
        ----------
        handle : None: first outcome of a trial that this optimiser did not propose.
        config : the trained configuration. A scheduler may have changed the proposed one.
        """

    def close(self) -> None:
        """Release processes and connections."""


class AskTellSearcher(Searcher):
    """A searcher that uses an :class:`Optimiser`.

    - The optimiser is created at its first ``ask``, and then receives all trials so far. Creating
      a study or replaying its journal starts nothing.
    - Points to evaluate come first. The optimiser receives them, and the trials of earlier
      sessions, as trials that it did not propose.
    - At the end of each segment the optimiser receives the trial's best loss with its current
      configuration. So it also learns from trials that are paused, stopped early or exploited.
    - If the optimiser cannot be created, the error ends the study. If it raises later, the error is
      logged once, and the search continues with random configurations.

    Attributes
    ----------
    error : the error after which the search continued with random configurations, or None.
    """

    slow = True

    def __init__(self, points_to_evaluate: Sequence[Config] | None = None) -> None:
        self.points_to_evaluate = check_points(points_to_evaluate)

    @abstractmethod
    def described(self) -> list[str]:
        """Return the parameters for the ``repr``, except ``points_to_evaluate``."""

    @abstractmethod
    def optimiser(self, space: Space, seed: int) -> Optimiser:
        """Create an optimiser for a space with at least one domain.

        Raises
        ------
        MissingLibrary, OptimiserLost : it cannot be used here, or not for this space.
        """

    def __repr__(self) -> str:
        options = [*self.described(), *described_points(self.points_to_evaluate)]
        return f"{type(self).__name__}({', '.join(options)})"

    def setup(self, space: Space, seed: int) -> None:
        for name, domain in space.domains.items():
            if not isinstance(domain, (Real, Integer, Ordinal, Categorical)):
                raise ValueError(
                    f"space[{name!r}]={domain!r}: {type(self).__name__} can search Real, Integer, "
                    "Ordinal and Categorical only"
                )
        self._space, self._seed = space, seed
        self._points = checked_points(self.points_to_evaluate, space)
        self._optimiser: Optimiser | None = None
        self._is_made = False  # stays True after the optimiser is lost
        self._earlier: dict[TrialId, tuple[Config, TrialOutcome | None]] = {}  # before it is made
        self._proposed: dict[str, list[Handle]] = {}  # of trials that have not started
        self._handles: dict[TrialId, Handle | None] = {}  # of trials that have not ended
        self._told: dict[TrialId, tuple[str, TrialOutcome]] = {}  # last configuration and outcome
        self.error: str | None = None

    def suggest(self, trial: TrialId) -> dict[str, Any]:
        if trial < len(self._points):
            return dict(self._points[trial])  # a copy, which the caller may change
        if not self._is_made and self._space.domains:
            self._make()
        proposal = self._try(self._ask)
        if proposal is None:
            return self._space.sample(rng(self._seed, "suggest", trial))
        return proposal

    def on_start(self, trial: TrialId, config: Config) -> None:
        own = self._proposed.get(self._key(config))
        if own:
            self._handles[trial] = own.pop(0)
        elif self._is_made:
            self._handles[trial] = self._try(lambda optimiser: optimiser.add(config))
        else:
            self._handles[trial] = None
            self._earlier[trial] = config, None

    def observe(self, trial: Trial, report: Report) -> None:
        # The best since the last report; `trial.best_loss` may belong to an earlier configuration.
        losses = [min(report.losses)]
        config, known = self._told.get(trial.id, ("", None))
        if known is not None and known.loss is not None and config == self._key(trial.config):
            losses.append(known.loss)
        self._tell(trial, TrialOutcome(min(losses), report.resource, complete=False))

    def on_end(self, trial: Trial) -> None:
        config, known = self._told.get(trial.id, ("", None))
        if trial.status is Status.FAILED or known is None:
            self._tell(trial, TrialOutcome(None, trial.resource, complete=False))
        elif config == self._key(trial.config):  # else its current one has no outcome yet
            is_complete = trial.status is Status.COMPLETED
            self._tell(trial, TrialOutcome(known.loss, trial.resource, is_complete))
        self._handles.pop(trial.id, None)
        self._told.pop(trial.id, None)

    def close(self) -> None:
        if self._optimiser is not None:
            self._optimiser.close()
            self._optimiser = None

    def _make(self) -> None:
        self._optimiser, self._is_made = self.optimiser(self._space, self._seed), True
        earlier, self._earlier = self._earlier, {}
        for trial, (config, outcome) in earlier.items():
            handle = self._try(partial(_introduce, config=config, outcome=outcome))
            if trial in self._handles:
                self._handles[trial] = handle

    def _ask(self, optimiser: Optimiser) -> dict[str, Any] | None:
        proposal = optimiser.ask()
        if proposal is None:
            return None
        handle, values = proposal
        config = self._space.complete(values)
        self._proposed.setdefault(self._key(config), []).append(handle)
        return config

    def _tell(self, trial: Trial, outcome: TrialOutcome) -> None:
        known = self._key(trial.config), outcome
        if self._told.get(trial.id) == known:
            return
        self._told[trial.id] = known
        if not self._is_made:
            self._earlier[trial.id] = trial.config, outcome
            return
        handle = self._handles.get(trial.id)
        self._handles[trial.id] = self._try(lambda opt: opt.tell(handle, trial.config, outcome))

    def _try(self, act: Callable[[Optimiser], T]) -> T | None:
        """Call ``act`` with the optimiser; give the optimiser up if it raises."""
        if self._optimiser is None:
            return None
        try:
            return act(self._optimiser)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            logger.exception("%r failed; the search continues with random configurations", self)
            lost, self._optimiser = self._optimiser, None
            lost.close()
            return None

    def _key(self, config: Config) -> str:
        """Return a configuration as text, in which 1, 1.0 and True differ."""
        return json.dumps([config.get(name) for name in self._space.domains])


def _introduce(optimiser: Optimiser, config: Config, outcome: TrialOutcome | None) -> Handle | None:
    """Send the optimiser a trial that it did not propose."""
    return optimiser.add(config) if outcome is None else optimiser.tell(None, config, outcome)


def place(domain: Domain, value: Any) -> int:
    """Return a value's index in an ``Ordinal`` or ``Categorical``; 1 is not True."""
    if not isinstance(domain, (Ordinal, Categorical)):
        raise TypeError(f"{domain!r} has no list of values")
    return int(domain.to_unit(value) * len(domain.values))


def nearest(domain: Domain, param: Any) -> Any:
    """Return the domain's value that is nearest to a library's number.

    For a ``Categorical`` the number, which may be text, is the value's index.
    """
    match domain:
        case Real(low, high):
            return min(max(float(param), float(low)), float(high))
        case Integer(low, high):
            return min(max(round(float(param)), low), high)
        case Ordinal(values=values):
            return min(values, key=lambda value: abs(value - float(param)))
        case Categorical(values=values):
            return values[int(param)]
    raise TypeError(f"{domain!r} has no values to choose from")


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Limit torch to one thread: the models are small, and more threads compete.

    A suggestion of Ax then takes a tenth of the CPU time. Trials need the other processors.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seed_below(limit: int, seed: int, step: int = 0) -> int:
    """Derive an int below ``limit`` from the study's seed, to seed a library."""
    return int(rng(seed, "optimiser", step=step).integers(limit))
