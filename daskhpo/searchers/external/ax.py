"""The searcher that uses Ax, with BoTorch's Gaussian processes."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real, n_values
from daskhpo.core.libraries import need
from daskhpo.core.space import Space
from daskhpo.core.types import Config
from daskhpo.searchers.external.adapter import (
    AskTellSearcher,
    Optimiser,
    TrialOutcome,
    nearest,
    one_torch_thread,
    place,
    seed_below,
)


class AxSearch(AskTellSearcher):
    """Ax with BoTorch's Gaussian processes; ``pip install 'daskhpo[ax]'``.

    Parameters
    ----------
    points_to_evaluate : configurations to try first, in this order.

    Notes
    -----
    The first five configurations are the centre of the space and points of a Sobol sequence; more
    of them follow until the first losses are known. ``Real`` and ``Integer`` become Ax's ranges,
    ``Ordinal`` an ordered choice of its values, ``Categorical`` an unordered one. A trial's loss
    is its running best, at any resource. A failed trial is marked as failed; its configuration may
    be proposed again. When all configurations of a finite space were tried, random ones follow.

    Raises
    ------
    MissingLibrary : Ax is not installed.

    References
    ----------
    Olson et al. 2025, *Ax: A Platform for Adaptive Experimentation*; Balandat et al. 2020,
    *BoTorch: A Framework for Efficient Monte-Carlo Bayesian Optimization*.
    """

    def __init__(self, points_to_evaluate: Sequence[Config] | None = None) -> None:
        super().__init__(points_to_evaluate)
        need("ax", "ax")

    def described(self) -> list[str]:
        return []

    def optimiser(self, space: Space, seed: int) -> Optimiser:
        return _Ax(space, seed)


class _Ax(Optimiser):
    """An Ax client; handles are trial indices."""

    def __init__(self, space: Space, seed: int) -> None:
        from ax.api.client import Client
        from ax.exceptions.core import SearchSpaceExhausted
        from ax.exceptions.generation_strategy import GenerationStrategyRepeatedPoints
        from ax.utils.common.logger import set_stderr_log_level

        set_stderr_log_level(logging.WARNING)
        self._space = space
        self._all_tried = (SearchSpaceExhausted, GenerationStrategyRepeatedPoints)
        # Ax's rules for names are stricter than ours.
        self._names = {name: f"x{number}" for number, name in enumerate(space.domains)}
        self._params: dict[int, dict[str, Any]] = {}
        self._completed: set[int] = set()
        self._tried: set[tuple[Any, ...]] = set()
        self._size = math.prod(n_values(d) or math.inf for d in space.domains.values())
        self._worst = -math.inf
        small = seed_below(2**31, seed)
        self._client = Client(random_seed=small)
        self._client.configure_experiment(
            [_parameter(self._names[name], domain) for name, domain in space.domains.items()]
        )
        self._client.configure_optimization("-loss")
        self._client.configure_generation_strategy(
            initialization_random_seed=small, allow_exceeding_initialization_budget=True
        )

    def ask(self) -> tuple[int, dict[str, Any]] | None:
        if len(self._tried) >= self._size:  # Ax would search long for another one
            return None
        try:
            with one_torch_thread():
                proposals = self._client.get_next_trials(1)
        except self._all_tried:
            return None
        for index, params in proposals.items():
            domains = self._space.domains.items()
            config = {name: nearest(d, params[self._names[name]]) for name, d in domains}
            self._know(index, self._translated(config))
            return index, config
        return None

    def add(self, config: Config) -> int:
        params = self._translated(config)
        index = int(self._client.attach_trial(params))
        self._know(index, params)
        return index

    def tell(self, handle: int | None, config: Config, outcome: TrialOutcome) -> int:
        index = self._index(handle, config)
        if outcome.loss is not None:
            self._worst = max(self._worst, outcome.loss)
        if index in self._completed:  # Ax cannot mark a completed trial as failed
            loss = self._worst if outcome.loss is None else outcome.loss
            self._client.attach_data(index, {"loss": loss})
        elif outcome.loss is None:
            self._client.mark_trial_failed(index)
        else:
            self._client.complete_trial(index, {"loss": outcome.loss})
            self._completed.add(index)
        return index

    def _index(self, handle: int | None, config: Config) -> int:
        """Return the trial's index; a new one if its configuration was changed."""
        if handle is not None and self._params[handle] == self._translated(config):
            return handle
        if handle is not None and handle not in self._completed:
            self._client.mark_trial_abandoned(handle)
        return self.add(config)

    def _know(self, index: int, params: dict[str, Any]) -> None:
        self._params[index] = params
        self._tried.add(tuple(params.values()))

    def _translated(self, config: Config) -> dict[str, Any]:
        domains = self._space.domains.items()
        return {self._names[name]: _param(domain, config[name]) for name, domain in domains}


def _parameter(name: str, domain: Domain) -> Any:
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    match domain:
        case Real(low, high, log):
            scaling = "log" if log else "linear"
            return RangeParameterConfig(name, (low, high), "float", scaling=scaling)
        case Integer(low, high, log):
            scaling = "log" if log else "linear"
            return RangeParameterConfig(name, (low, high), "int", scaling=scaling)
        case Ordinal(values=values):
            return ChoiceParameterConfig(name, [float(v) for v in values], "float", is_ordered=True)
        case Categorical(values=values):
            names = [str(number) for number in range(len(values))]
            return ChoiceParameterConfig(name, names, "str", is_ordered=False)
    raise ValueError(f"Ax cannot search {domain!r}")


def _param(domain: Domain, value: Any) -> Any:
    match domain:
        case Integer():
            return int(value)
        case Categorical():
            return str(place(domain, value))
        case _:
            return float(value)
