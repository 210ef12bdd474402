"""Measurements for all optimisers of benchmarks/search.py; standard library only.

Each case runs in a separate process and prints lines of JSON. The formulas of the problems are in
their docstrings: numbers are comparable only if those agree.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Config = dict[str, Any]


@dataclass(frozen=True)
class Float:
    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Int:
    low: int
    high: int


@dataclass(frozen=True)
class Choice:
    values: tuple[str, ...]


Space = dict[str, Float | Int | Choice]


@dataclass(frozen=True)
class Problem:
    """A function to minimise; ``regret`` is its value minus its minimum."""

    space: Space
    regret: Callable[[Config], float]


def branin(x: Config) -> float:
    """Branin-Hoo on [-5, 10] × [0, 15]; three minima of 0.397887.

    Dixon and Szegő 1978: (y - 5.1/(4π²) x² + 5/π x - 6)² + 10 (1 - 1/(8π)) cos x + 10
    """
    a, b = x["x"], x["y"]
    bend = b - 5.1 / (4 * math.pi**2) * a * a + 5 / math.pi * a - 6
    value: float = bend * bend + 10 * (1 - 1 / (8 * math.pi)) * math.cos(a) + 10
    return value - 10 / (8 * math.pi)


ALPHA = (1.0, 1.2, 3.0, 3.2)
A = (
    (10, 3, 17, 3.5, 1.7, 8),
    (0.05, 10, 17, 0.1, 8, 14),
    (3, 3.5, 1.7, 10, 17, 8),
    (17, 8, 0.05, 10, 0.1, 14),
)
P = (
    (1312, 1696, 5569, 124, 8283, 5886),
    (2329, 4135, 8307, 3736, 1004, 9991),
    (2348, 1451, 3522, 2883, 3047, 6650),
    (4047, 8828, 8732, 5743, 1091, 381),
)


def hartmann6(x: Config) -> float:
    """Hartmann's function on [0, 1]⁶; minimum -3.322368.

    Dixon and Szegő 1978: -Σᵢ αᵢ exp(-Σⱼ Aᵢⱼ (xⱼ - 10⁻⁴ Pᵢⱼ)²), with the usual α, A and P
    """
    total = 0.0
    for alpha, a, p in zip(ALPHA, A, P, strict=True):
        squares = (w * (v - 1e-4 * m) ** 2 for v, w, m in zip(x.values(), a, p, strict=True))
        total += alpha * math.exp(-sum(squares))
    return 3.322368011415515 - total


OFFSET = {"a": 2.0, "b": 0.0, "c": 1.0, "d": 3.0}


def mixed_ackley(x: Config) -> float:
    """Ackley's function of a real, a log real, two ints and a category; minimum 0.

    20 + e - 20 exp(-0.2 √(Σzᵢ²/5)) - exp(Σ cos(2π zᵢ)/5) with z = (x - 0.5, log₁₀ lr + 2.5, m, n,
    offset of the category: a 2, b 0, c 1, d 3); x in [-3, 3], lr in [1e-5, 1e-1], m in -4 … 6,
    n in -6 … 4
    """
    z = (x["x"] - 0.5, math.log10(x["lr"]) + 2.5, x["m"], x["n"], OFFSET[x["kind"]])
    root = math.sqrt(sum(v * v for v in z) / 5)
    waves = sum(math.cos(2 * math.pi * v) for v in z) / 5
    return max(20 + math.e - 20 * math.exp(-0.2 * root) - math.exp(waves), 0.0)


def egg_carton(x: Config) -> float:
    """A bowl with bumps on [-5, 5]², three dents per side; minimum 0 off-centre.

    a² + b² + 25 (sin² a + sin² b) with a = x - 1.3, b = y + 0.7 ("egg crate" of Jamil and Yang
    2013, no. 47, whose minimum is at the centre)
    """
    a, b = x["x"] - 1.3, x["y"] + 0.7
    value: float = a * a + b * b + 25 * (math.sin(a) ** 2 + math.sin(b) ** 2)
    return value


PROBLEMS = {
    "Branin": Problem({"x": Float(-5, 10), "y": Float(0, 15)}, branin),
    "Hartmann-6": Problem({f"x{i}": Float(0, 1) for i in range(6)}, hartmann6),
    "mixed Ackley": Problem(
        {
            "x": Float(-3, 3),
            "lr": Float(1e-5, 1e-1, log=True),
            "m": Int(-4, 6),
            "n": Int(-6, 4),
            "kind": Choice(("a", "b", "c", "d")),
        },
        mixed_ackley,
    ),
    "egg carton": Problem({"x": Float(-5, 5), "y": Float(-5, 5)}, egg_carton),
}


class Optimiser(Protocol):
    """A library's optimiser for one space."""

    def ask(self) -> tuple[Any, Config]:
        """Return a token for `tell`, and a configuration."""

    def tell(self, token: Any, loss: float) -> None:
        """Record the loss of a configuration from `ask`."""

    def feed(self, configs: Sequence[Config], losses: Sequence[float]) -> None:
        """Record results of other configurations."""


Make = Callable[[Space, int], Optimiser]  # the int is the seed


def regrets(make: Make, problem: Problem, seed: int, n: int) -> list[float]:
    """Return the regrets of ``n`` sequential evaluations."""
    optimiser, found = make(problem.space, seed), []
    for _ in range(n):
        token, config = optimiser.ask()
        found.append(problem.regret(config))
        optimiser.tell(token, found[-1])
    return found


def milliseconds(make: Make, problem: Problem, n: int, n_rounds: int) -> float:
    """Return the mean CPU ms of one `tell` and one `ask` after ``n`` results."""
    optimiser = make(problem.space, 0)
    generator = random.Random(0)
    configs = [_draw(problem.space, generator) for _ in range(n)]
    optimiser.feed(configs, [problem.regret(config) for config in configs])
    token, config = optimiser.ask()
    began = time.process_time()
    for _ in range(n_rounds):
        optimiser.tell(token, problem.regret(config))
        token, config = optimiser.ask()
    return 1e3 * (time.process_time() - began) / n_rounds


def _draw(space: Space, generator: random.Random) -> Config:
    config: Config = {}
    for name, domain in space.items():
        match domain:
            case Float(low, high, log=True):
                config[name] = low * (high / low) ** generator.random()
            case Float(low, high):
                config[name] = generator.uniform(low, high)
            case Int(low, high):
                config[name] = generator.randint(low, high)
            case Choice(values):
                config[name] = generator.choice(values)
    return config


def run_case(methods: dict[str, Make]) -> None:
    """Run the case that the command line names, and print its measurements.

    Cases: ``regret METHOD PROBLEM N SEED...`` (one line per seed) and
    ``time METHOD PROBLEM N ROUNDS``.
    """
    match sys.argv[1:]:
        case ["regret", method, problem, n, *seeds]:
            for seed in map(int, seeds):
                found = regrets(methods[method], PROBLEMS[problem], seed, int(n))
                print(json.dumps([seed, found]), flush=True)
        case ["time", method, problem, n, rounds]:
            print(milliseconds(methods[method], PROBLEMS[problem], int(n), int(rounds)), flush=True)
        case _:
            sys.exit(
                "give 'regret METHOD PROBLEM N SEED...' or 'time METHOD PROBLEM N ROUNDS'; "
                f"methods: {', '.join(methods)}"
            )
