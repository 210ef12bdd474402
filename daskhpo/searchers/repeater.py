"""Repeated trials of each configuration, for noisy losses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from daskhpo.core.arguments import check_int, check_kind
from daskhpo.core.searcher import Searcher
from daskhpo.core.space import Space
from daskhpo.core.types import Config, Report, Status, Trial, TrialId


class Repeater(Searcher):
    """A wrapper of a searcher that tries each of its configurations ``n`` times.

    The wrapped searcher sees one trial instead of ``n``: when all have ended, it receives the mean
    of their best losses. Trials that failed or have no loss are left out of the mean; if none is
    left, the one trial counts as failed. Each of the ``n`` trials has its own seed.

    Use a scheduler that trains all trials alike, such as ``FIFO``: a trial that is stopped early
    counts with its best loss until then.

    Parameters
    ----------
    searcher : the searcher that proposes the configurations.
    n : trials per configuration; at least 2.

    Raises
    ------
    ValueError : ``n`` is below 2. TypeError : ``searcher`` is not a searcher.
    """

    def __init__(self, searcher: Searcher, n: int) -> None:
        self.searcher = check_kind(
            "searcher", searcher, Searcher, "a searcher, such as RandomSearch()"
        )
        self.n = check_int("n", n, at_least=2)
        self.finite, self.slow = searcher.finite, searcher.slow

    def __repr__(self) -> str:
        return f"Repeater({self.searcher!r}, {self.n})"

    @property
    def points_to_evaluate(self) -> list[Config]:
        """The wrapped searcher's points, each ``n`` times."""
        points: Sequence[Config] = getattr(self.searcher, "points_to_evaluate", None) or ()
        return [point for point in points for _ in range(self.n)]

    def setup(self, space: Space, seed: int) -> None:
        self.searcher.setup(space, seed)
        self._next = 0  # number of the wrapped searcher's next trial
        self._groups: list[_Group] = []  # groups with trials that have not started
        self._group_of: dict[TrialId, _Group] = {}
        self._suggested: set[TrialId] = set()

    def suggest(self, trial: TrialId) -> dict[str, Any] | None:
        group = next((group for group in self._groups if group.n_to_suggest), None)
        if group is None:
            config = self.searcher.suggest(self._next)
            if config is None:
                return None
            group = self._new(config)
        group.n_to_suggest -= 1
        self._suggested.add(trial)
        return dict(group.config)

    def on_start(self, trial: TrialId, config: Config) -> None:
        same = (group for group in self._groups if _key(group.config) == _key(config))
        group = next(same, None) or self._new(config)
        if group.n_to_start == self.n:
            self.searcher.on_start(group.number, group.config)
        group.n_to_start -= 1
        if trial not in self._suggested:  # of an earlier session, or a fallback
            group.n_to_suggest = min(group.n_to_suggest, group.n_to_start)
        self._suggested.discard(trial)
        if not group.n_to_start:
            self._groups.remove(group)
        self._group_of[trial] = group

    def on_end(self, trial: Trial) -> None:
        group = self._group_of.pop(trial.id, None)
        if group is None:  # it ended as failed before, and counted then
            return
        group.ended.append(trial)
        if len(group.ended) == self.n:
            self._tell(group)

    def lesson(self) -> Callable[[], Any] | None:
        return self.searcher.lesson()

    def learn(self, result: Any) -> None:
        self.searcher.learn(result)

    def close(self) -> None:
        self.searcher.close()

    def _new(self, config: Config) -> _Group:
        group = _Group(self._next, dict(config), self.n, self.n)
        self._next += 1
        self._groups.append(group)
        return group

    def _tell(self, group: _Group) -> None:
        judged = [
            trial
            for trial in group.ended
            if trial.status is not Status.FAILED and math.isfinite(trial.best_loss)
        ]
        resource = max(trial.resource for trial in group.ended)
        one = Trial(group.number, group.config, Status.RUNNING, resource, resource=resource)
        if not judged:
            self.searcher.on_end(one._replace(status=Status.FAILED))
            return
        loss = fmean(trial.best_loss for trial in judged)
        one = one._replace(best_loss=loss)
        self.searcher.observe(one, Report(resource, (loss,), loss))
        self.searcher.on_end(one._replace(status=Status.COMPLETED))


@dataclass
class _Group:
    """The trials of one configuration."""

    number: int
    config: dict[str, Any]
    n_to_suggest: int
    n_to_start: int
    ended: list[Trial] = field(default_factory=list)


def _key(config: Config) -> str:
    return json.dumps(dict(config), sort_keys=True)
