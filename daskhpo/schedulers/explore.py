"""How a member that takes over another one's state comes to a configuration of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from daskhpo.core.random import rng
from daskhpo.core.space import Domain
from daskhpo.core.types import Config, Report, Trial, TrialId


class Explorer(ABC):
    """How a member that exploited gets a configuration of its own, near its source's or not.

    The hooks tell it what happens in the population; most explorers need not know.
    """

    @abstractmethod
    def setup(self, domains: Mapping[str, Domain], seed: int) -> None:
        """Learn what may change, before anything else.

        Raises
        ------
        ValueError : it has no use for such domains.
        """

    @abstractmethod
    def candidates(
        self, member: TrialId, n_exploits: int, config: Config, source: TrialId | None
    ) -> Iterator[dict[str, Any]]:
        """Configurations for a member that takes over this one, without end; changes nothing.

        The first is used, unless somebody else goes on from the same state with it.

        Parameters
        ----------
        n_exploits : of this member before; with it the key of what is drawn.
        config : the source's, which may be changed where ``setup`` said.
        source : whose newest state it takes over; None: not known.
        """

    def on_report(self, trial: Trial, report: Report, loss: float) -> None:
        """A member reported; ``loss`` is what it is ranked by."""

    def on_exploit(self, trial: Trial, source: TrialId) -> None:
        """A member goes on from another one's newest state, with its new configuration."""

    def on_failure(self, trial: Trial) -> None:
        """A member failed; it goes on only with another one's state."""

    def on_end(self, trial: Trial) -> None:
        """A member will not return."""


class Perturb(Explorer):
    """Perturbs each hyperparameter, or draws it anew (Jaderberg et al. 2017, App. A).

    Parameters
    ----------
    resample_probability : that a hyperparameter is drawn anew from its domain.
    """

    def __init__(self, resample_probability: float) -> None:
        self._resample = resample_probability
        self._domains: dict[str, Domain] = {}
        self._seed = 0

    def setup(self, domains: Mapping[str, Domain], seed: int) -> None:
        self._domains, self._seed = dict(domains), seed

    def candidates(
        self, member: TrialId, n_exploits: int, config: Config, source: TrialId | None
    ) -> Iterator[dict[str, Any]]:
        generator = rng(self._seed, "explore", member, n_exploits)
        while True:
            explored = dict(config)
            for name, domain in self._domains.items():
                if generator.random() < self._resample or not domain.contains(config.get(name)):
                    explored[name] = domain.sample(generator)
                else:
                    explored[name] = domain.perturb(config[name], generator)
            yield explored
