"""Population based training: the worst members take over from the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import Any

from daskhpo.core.arguments import (
    check_bool,
    check_each,
    check_int,
    check_kind,
    check_list,
    check_mapping,
    check_number,
    check_text,
    shown,
)
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.random import rng
from daskhpo.core.rungs import RESOURCE
from daskhpo.core.scheduler import Compare, Scheduler, check_compare
from daskhpo.core.space import Space
from daskhpo.core.types import (
    Action,
    Config,
    Continue,
    Decision,
    Exploit,
    Pause,
    Report,
    Resume,
    Start,
    Status,
    Stop,
    Trial,
    TrialId,
    Wait,
)
from daskhpo.schedulers.explore import Explorer, Perturb

MAX_CANDIDATES = 20  # configurations to try until one is new
MAX_FAILURES = 3  # failures in a row up to which a member exploits another one and continues


@dataclass(frozen=True, slots=True)
class _Score:
    resource: int
    loss: float


class Population(Scheduler):
    """Base class of :class:`PBT` and ``PB2``: everything except exploration.

    Parameters
    ----------
    explorer : chooses the configuration of a member that exploited.
    described : further arguments of the subclass's constructor, for ``repr``.
    max_t, perturbation_interval, mutations, quantile_fraction, synchronous, compare : see
        :class:`PBT`.
    """

    is_population = True

    def __init__(
        self,
        explorer: Explorer,
        described: Mapping[str, Any],
        max_t: int,
        perturbation_interval: int,
        mutations: Sequence[str] | Mapping[str, Domain],
        quantile_fraction: float,
        synchronous: bool,
        compare: Compare,
    ) -> None:
        self.max_t = check_int("max_t", max_t, at_least=1, why=RESOURCE)
        self._interval = check_interval(perturbation_interval)
        if self._interval >= self.max_t:
            raise InvalidArgument(
                f"perturbation_interval={self._interval} must be at least 1 and below "
                f"max_t={self.max_t}, or no member would ever be ranked"
            )
        self._mutations = _checked(mutations)
        self.mutates = tuple(self._mutations)
        self._quantile = check_number("quantile_fraction", quantile_fraction, above=0, at_most=0.5)
        self._synchronous = check_bool("synchronous", synchronous)
        self._compare = check_compare(compare)
        self._explorer, self._described = explorer, dict(described)
        self._seed = 0
        self._scores: dict[TrialId, _Score] = {}  # of members that have not ended
        self._due: dict[TrialId, None] = {}  # members that have to exploit, in order
        self._broken: dict[TrialId, None] = {}  # the same, after a failure or a rollback
        self._waiting: set[TrialId] = set()  # paused, or about to be
        self._n_segments: dict[TrialId, int] = {}  # reported, even if rolled back later
        self._n_exploits: dict[TrialId, int] = {}
        # By source: a checkpoint, and the configurations with which others continued from it.
        self._begun: dict[TrialId, tuple[int, list[Config]]] = {}
        self._n_failures: dict[TrialId, int] = {}  # in a row
        self._judged = 0  # synchronous: all members were ranked up to this resource

    def __repr__(self) -> str:
        described = "".join(f"{name}={value!r}, " for name, value in self._described.items())
        return (
            f"{type(self).__name__}(max_t={self.max_t}, perturbation_interval={self._interval}, "
            f"mutations={self._mutations!r}, quantile_fraction={self._quantile}, {described}"
            f"synchronous={self._synchronous}, compare={self._compare!r})"
        )

    def setup(self, space: Space, seed: int) -> None:
        self._seed = seed
        for name in self._mutations:
            own = self._mutations[name] if isinstance(self._mutations, dict) else None
            if name not in space or (own is None and name not in space.domains):
                there = ", ".join(space.domains) or "none"
                what = "is a constant" if name in space else "is not"
                raise ValueError(
                    f"mutations: {name!r} {what} in the space; its hyperparameters: {there}"
                )
            if own is not None and _is_whole(space[name]) and not _is_whole(own):
                raise ValueError(
                    f"mutations[{name!r}]={own!r} has values that are not ints, but {name} is "
                    f"{space[name]!r} in the space; give an Integer, or an Ordinal of ints"
                )
        given = self._mutations if isinstance(self._mutations, dict) else space.domains
        self._explorer.setup({name: given[name] for name in self._mutations}, seed)

    # -- actions ---------------------------------------------------------------------------------

    def next_action(self, trials: Mapping[TrialId, Trial], can_start: bool) -> Action:
        if can_start:
            return Start(until=self._interval)
        paused = [trial for trial in trials.values() if trial.status is Status.PAUSED]
        is_open = not self._synchronous or self._is_barrier_open(trials)
        if not is_open:  # only members that lag behind
            paused = [t for t in paused if t.resource < self._judged + self._interval]
        turns = sorted(paused, key=lambda t: (self._n_segments.get(t.id, 0), t.resource, t.id))
        _, worst = self._quantiles()  # a due member may no longer be among the worst
        due = {member for member in self._due if is_open and member in worst} | set(self._broken)
        if any(trial.status is not Status.PAUSED for trial in trials.values()):
            # A member that failed would fail again: it waits until another one has a state.
            failed = self._broken.keys() & self._n_failures.keys()
            turns = [t for t in turns if t.id not in failed or self._source(t, trials)]
        # Synchronous: all pending exploits run before any member resumes. Else: each at its turn.
        for trial in turns if self._synchronous else turns[:1]:
            source = self._source(trial, trials) if trial.id in due else None
            if source is not None:
                return Exploit(trial.id, source.id, self._explored(trial.id, source))
        if not turns:
            return Wait()
        first = turns[0]
        return Resume(first.id, self._next_stop(max(first.resource, first.decided_at)))

    def _is_barrier_open(self, trials: Mapping[TrialId, Trial]) -> bool:
        """Return True if all members have reached the resource of the next ranking."""
        barrier = self._judged + self._interval
        return all(
            trial.status is Status.PAUSED and trial.resource >= barrier for trial in trials.values()
        )

    def _source(self, trial: Trial, trials: Mapping[TrialId, Trial]) -> Trial | None:
        """Return one of the best at random that has the state of its newest report.

        A member that is more than an interval behind is not taken: its ranking was not fair.
        """
        best, _ = self._quantiles()
        if trial.id in self._broken:
            best = best or list(self._scores)  # at most one member has a score
        order = rng(self._seed, "exploit", trial.id, self._n_exploits.get(trial.id, 0))
        for i in order.permutation(len(best)):
            found = trials.get(best[i])
            if found is None or found.id == trial.id or found.newest is None:
                continue
            resource = found.newest.resource
            is_near = trial.id in self._broken or resource >= trial.resource - self._interval
            if is_near and resource == self._scores[found.id].resource:
                return found
        return None

    def _explored(self, member: TrialId, source: Trial) -> dict[str, Any]:
        """Return a configuration that is new for the source's state, if one is found.

        Training is usually deterministic, so two members with the same one would train the same.
        """
        assert source.newest is not None, "a source has a state"
        row, taken = self._begun.get(source.id, (-1, []))
        taken = [source.config, *(taken if row == source.newest.id else [])]
        n_exploits = self._n_exploits.get(member, 0)
        candidates = self._explorer.candidates(member, n_exploits, source.config, source.id)
        for config in islice(candidates, MAX_CANDIDATES):
            if config not in taken:
                break
        return config

    # -- events ----------------------------------------------------------------------------------

    def on_launch(self, trial: Trial) -> None:
        self._due.pop(trial.id, None)
        self._broken.pop(trial.id, None)
        self._waiting.discard(trial.id)
        if self._synchronous and trial.until > self._judged + self._interval:
            self._judged += self._interval

    def on_exploit(self, trial: Trial, source: TrialId) -> None:
        self._n_exploits[trial.id] = self._n_exploits.get(trial.id, 0) + 1
        assert trial.newest is not None, "it has the source's state"
        row, configs = self._begun.get(source, (-1, []))
        taken = configs if row == trial.newest.id else []
        self._begun[source] = trial.newest.id, [*taken, trial.config]
        self._due.pop(trial.id, None)
        self._broken.pop(trial.id, None)
        self._scores.pop(trial.id, None)  # its score belongs to another state
        self._explorer.on_exploit(trial, source)

    def on_report(self, trial: Trial, report: Report) -> Decision:
        self._n_failures.pop(trial.id, None)
        self._n_segments[trial.id] = self._n_segments.get(trial.id, 0) + 1
        loss = report.loss if self._compare == "last" else min(report.losses)
        self._explorer.on_report(trial, report, loss)
        if report.resource >= self.max_t:
            return Stop("fully trained")
        self._scores[trial.id] = _Score(report.resource, loss)
        best, worst = self._quantiles()
        is_worst = trial.id in worst
        if self._synchronous:
            self._due = dict.fromkeys(worst)
        elif is_worst:
            self._due[trial.id] = None
        elif report.resource > self._interval and not self._waiting:
            return Continue(self._next_stop(report.resource), keep=trial.id in best)
        self._waiting.add(trial.id)
        return Pause(keep=not is_worst)

    def on_rollback(self, trial: Trial) -> bool:
        # Its older state is not the one that was ranked: it exploits another one's newest instead.
        self._explorer.on_failure(trial)
        self._scores.pop(trial.id, None)
        self._broken[trial.id] = None
        self._waiting.add(trial.id)
        return True

    def on_failure(self, trial: Trial) -> bool:
        self._explorer.on_failure(trial)
        n_failures = self._n_failures.get(trial.id, 0) + 1
        if n_failures > MAX_FAILURES:
            return False
        self._n_failures[trial.id] = n_failures
        self._scores.pop(trial.id, None)
        self._broken[trial.id] = None
        self._waiting.add(trial.id)
        return True

    def on_end(self, trial: Trial) -> None:
        self._explorer.on_end(trial)
        self._waiting.discard(trial.id)
        for each in (
            self._scores,
            self._due,
            self._broken,
            self._n_segments,
            self._n_exploits,
            self._begun,
            self._n_failures,
        ):
            each.pop(trial.id, None)

    def on_retry(self, trial: Trial) -> bool:
        return trial.decision is None  # else it was ranked, and may have no state of that report

    def on_extend(self, max_t: int, ended: Sequence[Trial]) -> dict[TrialId, Pause]:
        """Let the members that ended continue, ranked by their last reports.

        One that took over a state, and has none left of its own since, exploits another one.
        """
        members, old = {trial.id: trial for trial in ended}, self.max_t
        broken = [t.id for t in ended if t.since > (t.newest.resource if t.newest else 0)]
        if broken and not any(t.newest and t.newest.resource == old for t in ended):
            raise InvalidArgument(
                f"max_t={max_t}: no member's state at {old} is left, and what a member was that "
                "took over others' states cannot be trained again. A population that is to be "
                "extended needs checkpoint='end', which keeps the states of all members"
            )
        self.max_t = max_t
        for trial in ended:
            self._waiting.add(trial.id)
            loss = trial.losses[-1] if self._compare == "last" else min(trial.losses)
            if trial.id in broken:
                self._broken[trial.id] = None
            else:
                self._scores[trial.id] = _Score(trial.resource, loss)
                self._explorer.on_extend(trial, loss)
        self._due |= dict.fromkeys(member for member in self._quantiles()[1] if member in members)
        return {trial.id: Pause() for trial in ended}

    def _quantiles(self) -> tuple[list[TrialId], list[TrialId]]:
        """Return the best and the worst of the population by their newest reports."""
        ranked = sorted(self._scores, key=lambda member: (self._scores[member].loss, member))
        n = min(ceil(len(ranked) * self._quantile), len(ranked) // 2)
        return ranked[:n], ranked[len(ranked) - n :]

    def _next_stop(self, resource: int) -> int:
        return min(self.max_t, (resource // self._interval + 1) * self._interval)


class PBT(Population):
    """Population based training; the population is all trials of the study.

    Every ``perturbation_interval`` units a member is ranked among all by its newest report. A
    member of the worst ``quantile_fraction`` *exploits*: it takes over the state and configuration
    of one of the best, drawn at random. It then *explores*: each hyperparameter of ``mutations``
    is perturbed, or with ``resample_probability`` drawn from its domain again. This is repeated, at
    most 20 times, until no other member continued from that state with the same configuration, so
    that no two members train the same. The other members continue.

    A member that fails, or whose metric is not finite, exploits as well, up to three times in a
    row. It waits if no other member has a state yet. If there are more members than slots, they
    train in turns, the least trained first, and exploit at their turn. A member can be exploited
    if its newest report is among the best and the state of that report exists. If there is no such
    member, the worst continue unchanged.

    Parameters
    ----------
    max_t : resource of a fully trained member.
    perturbation_interval : units of training between two rankings.
    mutations : hyperparameters that may change: names of the study's space, with its domains, or
        a mapping from names to domains of their own. All members begin with the same value of one
        that is a constant in the space.
    quantile_fraction : share of the population that exploits, and share that may be exploited; in
        (0, 0.5].
    resample_probability : probability, in [0, 1], that a hyperparameter is drawn from its domain
        again instead of being perturbed.
    synchronous : True: rank only when all members have reached the same resource.
    compare : rank by the ``"last"`` report, or by the ``"best"`` since the previous ranking, for a
        metric that jumps from one unit to the next. (An older one would be of another state.)

    Raises
    ------
    TypeError, ValueError : numbers out of range, or no mutations; from ``setup``: hyperparameters
        that the space does not have, or has as constants without a domain of their own, and floats
        for an int of the space.

    References
    ----------
    Jaderberg et al. 2017, *Population Based Training of Neural Networks*, Algorithm 1; truncation
    selection and perturbation as in its Appendix A.
    """

    def __init__(
        self,
        max_t: int,
        perturbation_interval: int,
        mutations: Sequence[str] | Mapping[str, Domain],
        quantile_fraction: float = 0.25,
        resample_probability: float = 0.25,
        synchronous: bool = False,
        compare: Compare = "last",
    ) -> None:
        resample_probability = check_number(
            "resample_probability", resample_probability, at_least=0, at_most=1
        )
        super().__init__(
            Perturb(resample_probability),
            {"resample_probability": resample_probability},
            max_t,
            perturbation_interval,
            mutations,
            quantile_fraction,
            synchronous,
            compare,
        )


def _is_whole(domain: Any) -> bool:
    """Return True if all values of the domain are ints; so is a constant that is one."""
    match domain:
        case Integer():
            return True
        case Ordinal(values) | Categorical(values):
            return all(type(value) is int for value in values)
        case _:
            return type(domain) is int


def _checked(mutations: Any) -> tuple[str, ...] | dict[str, Domain]:
    of = "names of hyperparameters, such as ['lr'], or a dict of names to domains"
    if isinstance(mutations, Mapping):
        named = check_mapping("mutations", mutations)
        for name, domain in named.items():
            check_kind(f"mutations[{name!r}]", domain, Domain, "a domain, such as Real(0, 1)")
        names = list(named)
    else:
        names = check_each("mutations", check_list("mutations", mutations, of=of), check_text)
    if not names or len(set(names)) < len(names):
        raise InvalidArgument(f"mutations={shown(mutations)} must be {of}, each once")
    return named if isinstance(mutations, Mapping) else tuple(names)


def check_interval(interval: int) -> int:
    """Return a population's ``perturbation_interval``, checked."""
    return check_int("perturbation_interval", interval, at_least=1, why=RESOURCE)
