"""One adaptor for every optimiser that can be asked for a configuration and told its loss."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from daskhpo.core.errors import MissingLibrary
from daskhpo.core.random import rng
from daskhpo.core.searcher import Searcher, checked_points, described_points
from daskhpo.core.space import Categorical, Domain, Integer, Ordinal, Real, Space
from daskhpo.core.types import Config, Report, Status, Trial, TrialId

logger = logging.getLogger(__name__)

T = TypeVar("T")
Handle = Any  #: by what an optimiser knows a trial again; never None


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """What is known of a trial by now.

    Attributes
    ----------
    loss : the best with its present configuration, finite and minimised; None if its code failed,
        or it has no report.
    resource : units of training behind ``loss``.
    complete : it was trained to the end, so that ``loss`` is its last.
    """

    loss: float | None
    resource: int
    complete: bool


class Optimiser(ABC):
    """Someone else's optimiser, told in our words. One object serves one study.

    Configurations have all hyperparameters of the space; those returned may lack its constants.
    """

    @abstractmethod
    def ask(self) -> tuple[Handle, Config] | None:
        """A proposal and its handle; None if there is none, and a random one shall do."""

    def add(self, config: Config) -> Handle | None:
        """A trial begins that was not proposed here; None: it need not be known before its loss."""
        return None

    @abstractmethod
    def tell(self, handle: Handle | None, config: Config, outcome: TrialOutcome) -> Handle:
        """The outcome by now; the last one told counts. Returns the trial's handle from now on.

        Parameters
        ----------
        handle : None if the trial was not proposed here, and is told for the first time.
        config : what was trained. It may differ from the proposal: a scheduler changed it.
        """

    def close(self) -> None:
        """Let go of processes and connections."""


class AskTellSearcher(Searcher):
    """A searcher made of an :class:`Optimiser`.

    - The optimiser is made when it is first asked, with all trials so far told to it at once.
      Neither the making of a study nor the replay of its journal starts anything.
    - Points to evaluate come first; they, and the trials of earlier sessions, are made known to
      the optimiser as trials that it did not propose.
    - At the end of every segment the optimiser is told the best that the trial reached with its
      present configuration, so it also learns from trials that wait in a pause, are stopped early,
      or are changed in mid-life.
    - If it cannot be made, that is raised, and ends the study. If it raises later, that is logged
      once, and the search goes on at random.

    Attributes
    ----------
    error : why the search goes on at random, or None.
    """

    slow = True

    def __init__(self, points_to_evaluate: Sequence[Config] | None = None) -> None:
        self.points_to_evaluate = points_to_evaluate

    @abstractmethod
    def described(self) -> list[str]:
        """The parameters that belong into the ``repr``, without the points."""

    @abstractmethod
    def optimiser(self, space: Space, seed: int) -> Optimiser:
        """A new optimiser for a space that has at least one domain.

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
                    "Ordinal and Categorical"
                )
        self._space, self._seed = space, seed
        self._points = checked_points(self.points_to_evaluate, space)
        self._optimiser: Optimiser | None = None
        self._is_made = False  # it may be lost since
        self._earlier: dict[TrialId, tuple[Config, TrialOutcome | None]] = {}  # for when it is made
        self._proposed: dict[str, list[Handle]] = {}  # not begun yet
        self._handles: dict[TrialId, Handle | None] = {}  # of living trials
        self._told: dict[TrialId, tuple[str, TrialOutcome]] = {}  # with what configuration
        self.error: str | None = None

    def suggest(self, trial: TrialId) -> dict[str, Any]:
        if trial < len(self._points):
            return dict(self._points[trial])  # the caller's own
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
        # The best since the last report: a trial's own best may be of a configuration before.
        losses = [min(report.losses)]
        config, known = self._told.get(trial.id, ("", None))
        if known is not None and known.loss is not None and config == self._key(trial.config):
            losses.append(known.loss)
        self._tell(trial, TrialOutcome(min(losses), report.resource, complete=False))

    def on_end(self, trial: Trial) -> None:
        config, known = self._told.get(trial.id, ("", None))
        if trial.status is Status.FAILED or known is None:
            self._tell(trial, TrialOutcome(None, trial.resource, complete=False))
        elif config == self._key(trial.config):  # else nothing is known of the one it has now
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
        """Do something with the optimiser; the first time that this fails is the last."""
        if self._optimiser is None:
            return None
        try:
            return act(self._optimiser)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            logger.exception("%r failed; the search goes on at random", self)
            lost, self._optimiser = self._optimiser, None
            lost.close()
            return None

    def _key(self, config: Config) -> str:
        """A text for a configuration, in which 1, 1.0 and True differ."""
        return json.dumps([config.get(name) for name in self._space.domains])


def _introduce(optimiser: Optimiser, config: Config, outcome: TrialOutcome | None) -> Handle | None:
    """Make a trial known that it did not propose."""
    return optimiser.add(config) if outcome is None else optimiser.tell(None, config, outcome)


def need(module: str, extra: str) -> None:
    """Check that a library is there, without loading it.

    Raises
    ------
    MissingLibrary : it is not.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingLibrary(
            f"{module} is not installed; install it with: pip install 'daskhpo[{extra}]'"
        )


def place(domain: Domain, value: Any) -> int:
    """Where a value stands in the list of an ``Ordinal`` or ``Categorical``; 1 is not True."""
    if not isinstance(domain, (Ordinal, Categorical)):
        raise TypeError(f"{domain!r} has no list of values")
    return int(domain.to_unit(value) * len(domain.values))


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch compute in one thread: these models are small, and its threads only fight.

    A suggestion of Ax takes a tenth of the CPU time so. The processors are for the trials anyway.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seed_below(limit: int, seed: int, step: int = 0) -> int:
    """The study's seed, for one use of a library, as an int that the library accepts."""
    return int(rng(seed, "optimiser", step=step).integers(limit))
