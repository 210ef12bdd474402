"""Cases of Ray Tune on two CPUs, set up for speed.

There are no log writers, no tables and no checkpoint at a trial's end. Run by ``overhead.py``; by
hand: ``python benchmarks/peers/ray_tune.py CASE``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

HERE = str(Path(__file__).parent)
os.environ["PYTHONPATH"] = HERE  # Ray's worker processes also import measuring
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import measuring  # noqa: E402
import ray  # noqa: E402
from measuring import UNITS  # noqa: E402
from ray import tune  # noqa: E402


class Times(tune.Callback):
    """A callback that records the end of each trial, in the driver."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.ends.append(time.monotonic())


class Noop(tune.Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self.watch = measuring.Stopwatch()
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        self.watch.new_trial()
        self.x, self.units = config["x"], config["units"]
        return True

    def step(self) -> dict[str, Any]:
        self.watch.enter()
        result = {"loss": self.x, "done": self.iteration + 1 >= self.units}
        self.watch.leave()
        return result

    def cleanup(self) -> None:
        measuring.note("gaps", self.watch.gaps)


def function(config: dict[str, Any]) -> None:
    measuring.note("first", [time.time()])
    tune.report({"loss": config["x"]})


def sleeps(config: dict[str, Any]) -> None:
    measuring.note("first", [time.time()])
    time.sleep(6)
    tune.report({"loss": 0.0})


def run(
    trainable: Any,
    n_trials: int,
    units: int = 1,
    reuse: bool = True,
    checkpoint_at_end: bool | None = False,
    scheduler: Any = None,
    during: Any = None,
) -> list[float]:
    times = Times()
    with contextlib.redirect_stdout(sys.stderr):
        ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR)
        tuner = tune.Tuner(
            trainable,
            param_space={"x": tune.uniform(0, 1), "units": units},
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                num_samples=n_trials,
                scheduler=scheduler,
                reuse_actors=reuse,
            ),
            run_config=tune.RunConfig(
                storage_path=str(measuring.folder() / "ray"),
                verbose=0,
                callbacks=[times],
                failure_config=tune.FailureConfig(fail_fast=True),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=checkpoint_at_end),
            ),
        )
        if during is not None:
            import threading

            thread = threading.Thread(target=during)
            thread.start()
        results = tuner.fit()
        if during is not None:
            thread.join()
        ray.shutdown()
    if results.num_errors:
        raise RuntimeError(f"{results.num_errors} trials failed")
    return times.ends


def trials() -> dict[str, float]:
    return {"trials": measuring.steady_rate(run(Noop, 150))}


def fresh() -> dict[str, float]:
    rate = measuring.steady_rate(run(function, 5, reuse=False, checkpoint_at_end=None))
    return {"fresh": rate, "start": measuring.started_after()}


def reports() -> dict[str, float]:
    rate = measuring.steady_rate(run(Noop, 40, units=UNITS))
    found = {"reports": rate * UNITS}
    if gaps := measuring.notes("gaps"):
        median, p99 = measuring.median_and_p99(gaps)
        found |= {"latency": median * 1e3, "latency_p99": p99 * 1e3}
    return found


def asha() -> dict[str, float]:
    scheduler = tune.schedulers.ASHAScheduler(max_t=UNITS, grace_period=1, reduction_factor=3)
    return {"asha": measuring.steady_rate(run(Noop, 80, units=UNITS, scheduler=scheduler))}


def memory() -> dict[str, float]:
    found: dict[str, float] = {}
    run(
        sleeps,
        2,
        checkpoint_at_end=None,
        during=lambda: found.update(memory=measuring.idle_memory()),
    )
    return found


def decisions() -> dict[str, float]:
    """Time ASHA's answer to a first report, after many trials."""
    from ray.tune.schedulers.async_hyperband import _Bracket

    found = {}
    for n in (10_000, 100_000):
        bracket = _Bracket(min_t=1, max_t=UNITS, reduction_factor=3, s=0)
        _, recorded = bracket._rungs[-1]
        recorded.update((str(i), i / n) for i in range(n))

        class Trial:
            trial_id = ""

        seconds = []
        for i in range(21):
            Trial.trial_id = f"new-{i}"
            before = time.perf_counter()
            bracket.on_result(Trial(), 1, 0.5)
            seconds.append(time.perf_counter() - before)
        found[f"decision_{n}"] = statistics.median(seconds) * 1e6
    return found


if __name__ == "__main__":
    measuring.run_case(
        {
            "trials": trials,
            "fresh": fresh,
            "reports": reports,
            "asha": asha,
            "memory": memory,
            "decisions": decisions,
        }
    )
