"""A problem whose best learning rate is known at every moment, trained in virtual slots."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from daskhpo.core.commands import Command, Delete, Flush, Release, Save, Train
from daskhpo.core.domains import Real
from daskhpo.core.events import Dropped, Event, Held, SessionStarted, SlotsChanged, Step, Trained
from daskhpo.core.objective import Objective
from daskhpo.core.random import rng
from daskhpo.core.scheduler import Scheduler
from daskhpo.core.space import Space
from daskhpo.core.types import CheckpointPolicy, Limits, TrialId
from daskhpo.engine.coordinator import Coordinator, Problem
from daskhpo.engine.drive import drive
from daskhpo.schedulers import PB2, PBT
from daskhpo.searchers import RandomSearch
from daskhpo.testing.journal import MemoryJournal


@dataclass(frozen=True)
class NoisyQuadratic:
    """Expected loss of stochastic gradient descent on ``curvature / 2 · x²`` with noisy gradients.

    A step with rate r takes the loss L to ``L (1 - r h)² + r² s``, where h is the curvature and s
    the noise. The greedy rate is the best in the long run as well, since a lower loss now never
    ends in a higher one later.

    References
    ----------
    Schaul, Zhang and LeCun 2013, *No More Pesky Learning Rates*; Wu et al. 2018, *Understanding
    Short-Horizon Bias in Stochastic Meta-Optimization* (with several curvatures).
    """

    curvature: float = 1.0
    noise: float = 1.0
    initial: float = 10.0

    def step(self, loss: float, rate: float) -> float:
        return loss * (1 - rate * self.curvature) ** 2 + rate**2 * self.noise

    def best_rate(self, loss: float) -> float:
        """Where the derivative of :meth:`step` by the rate is zero."""
        return self.curvature * loss / (self.curvature**2 * loss + self.noise)

    def best_loss(self, n_units: int) -> float:
        """After so many steps, each with the best rate: ``1/L`` grows by ``h²/s`` a step."""
        return 1 / (1 / self.initial + n_units * self.curvature**2 / self.noise)

    def constant_loss(self, rate: float, n_units: int) -> float:
        loss = self.initial
        for _ in range(n_units):
            loss = self.step(loss, rate)
        return loss


@dataclass(frozen=True)
class State:
    """What a member hands over: its loss, and how it came there, one rate and loss per unit."""

    loss: float
    rates: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()  # before each unit


class Slots:
    """An executor with stateful trials. Who comes next is drawn from a seed; nothing goes wrong."""

    def __init__(self, problem: NoisyQuadratic, n_slots: int, seed: int, jitter: float) -> None:
        self._problem, self._seed, self._jitter = problem, seed, jitter
        self._ready: deque[Event] = deque([SlotsChanged(n_slots, 0.0)])
        self._running: dict[TrialId, tuple[Train, State]] = {}
        self._jobs: list[TrialId] = []  # that have units to train
        self._held: dict[int, tuple[Held, State]] = {}
        self._order = rng(seed, "order of arrival")
        self._n_events = 0
        self.states: dict[TrialId, State] = {}  # the last of each trial

    def now(self) -> float:
        return float(self._n_events)

    def poll(self, deadline: float | None) -> Sequence[Event]:
        if not self._ready:
            trial = self._jobs.pop(int(self._order.integers(len(self._jobs))))
            job, state = self._running[trial]
            steps = []
            for resource in range(job.resource + 1, job.until + 1):
                rate = job.config["lr"]
                loss = self._problem.step(state.loss, rate)
                state = State(loss, (*state.rates, rate), (*state.losses, state.loss))
                spread = rng(self._seed, "seen", trial, resource).standard_normal()
                seen = loss * math.exp(self._jitter * spread)
                steps.append(Step(resource, {"loss": seen}, self.now()))
            self._running[trial] = replace(job, resource=job.until), state
            self.states[trial] = state
            self._ready.append(Trained(trial, job.attempt, tuple(steps), self.now()))
        self._n_events += 1
        return [self._ready.popleft()]

    def perform(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Train(trial, launch=True):
                    ref = command.checkpoint
                    state = State(self._problem.initial) if ref is None else self._held[ref.id][1]
                    assert len(state.rates) == command.resource, "another state than was said"
                    self._running[trial] = command, state
                    self._jobs.append(trial)
                case Train(trial):
                    self._running[trial] = command, self._running[trial][1]
                    self._jobs.append(trial)
                case Save(trial, attempt, ref):
                    held = Held(trial, attempt, ref, self.now())
                    self._held[ref.id] = held, self._running[trial][1]
                    self._ready.append(held)
                case Release(trial):
                    self._running.pop(trial, None)
                case Delete(ref):
                    self._held.pop(ref.id, None)
                case Flush():
                    for row, (held, _) in self._held.items():
                        dropped = Dropped(held.trial, held.attempt, row, "over", self.now())
                        self._ready.append(dropped)

    def close(self) -> None:
        self._running.clear()


@dataclass(frozen=True)
class Outcome:
    """What came of a population.

    Attributes
    ----------
    winner : state of the member with the lowest true loss at the end.
    journal : of the study; ``problem`` is what it replays with.
    """

    quadratic: NoisyQuadratic
    problem: Problem
    journal: MemoryJournal
    winner: State

    @property
    def distance(self) -> float:
        """Mean over the winner's units of ``|ln(rate / best rate)|``."""
        best = [self.quadratic.best_rate(loss) for loss in self.winner.losses]
        pairs = zip(self.winner.rates, best, strict=True)
        return sum(abs(math.log(rate / other)) for rate, other in pairs) / len(best)


def populate(
    scheduler: Scheduler,
    *,
    seed: int = 0,
    population: int = 16,
    n_slots: int = 5,
    jitter: float = 0.0,
    quadratic: NoisyQuadratic = NoisyQuadratic(),
) -> Outcome:
    """Train a population through the real coordinator; ``jitter``: relative noise of the metric."""
    space = Space({"lr": Real(1e-3, 1.0, log=True)})
    problem = Problem(space, Objective("loss"), scheduler, RandomSearch(), seed)
    journal = MemoryJournal()
    coordinator = Coordinator(problem, journal)
    slots = Slots(quadratic, n_slots, seed, jitter)
    began = SessionStarted(Limits(num_trials=population), CheckpointPolicy(keep_best=0), 0.0)
    slots.perform(coordinator.handle(began))
    drive(coordinator, slots, journal)
    full = [s for s in slots.states.values() if len(s.rates) == scheduler.max_t]
    return Outcome(quadratic, problem, journal, min(full, key=lambda state: state.loss))


def best_constant(
    n_units: int, quadratic: NoisyQuadratic = NoisyQuadratic(), n_rates: int = 2000
) -> tuple[float, float]:
    """The lowest loss of a constant rate, and that rate, on a fine grid of the space."""
    rates = Space({"lr": Real(1e-3, 1.0, log=True)}).domains["lr"].grid(n_rates)
    return min((quadratic.constant_loss(rate, n_units), rate) for rate in rates)


def compare(n_units: int = 240, n_seeds: int = 8) -> None:
    """Print the table in ``docs/how-to/choose-a-scheduler.md``, in a minute or two."""
    constant, _ = best_constant(n_units)
    for interval in (4, 8):
        for population, n_slots in ((4, 2), (8, 3), (16, 5)):
            cells = [f"{population}, {n_slots}", str(interval)]
            for kind in (PBT, PB2):
                found = [
                    populate(
                        kind(n_units, interval, ["lr"]),
                        seed=seed,
                        population=population,
                        n_slots=n_slots,
                        jitter=0.02,
                    )
                    for seed in range(n_seeds)
                ]
                losses = [outcome.winner.loss / constant for outcome in found]
                cells.append(f"{median(losses):.2f}, {max(losses):.2f}")
                cells.append(f"{math.exp(median(outcome.distance for outcome in found)):.1f}")
            print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    compare()
