"""Compare the overhead of daskhpo and other systems; trials do nothing.

    python benchmarks/overhead.py [--peers PYTHON] [--rounds 3] [--out FILE]

``--peers`` is the interpreter of an environment with ``requirements-peers.txt``; without it only
daskhpo is measured. Each case runs in a fresh process with two workers. In each round the systems
take turns case by case, so that slow moments of a shared machine affect all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peers import measuring
from peers.measuring import UNITS

HERE = Path(__file__).parent
SYSTEMS = ("daskhpo", "Ray Tune", "Optuna, Dask storage", "Optuna, journal file")
TURNS = [  # a case of each system, in the order of SYSTEMS
    ("trials", "trials", "trials", "trials"),
    ("function", "fresh", None, None),
    ("reports", "reports", "reports", "reports"),
    ("asha", "asha", "asha", "asha"),
    ("units", None, None, None),
    ("start", None, "start", "start"),  # for Ray the case "fresh" measures it
]
ONCE = [  # in the first round only: they are medians, or hardly affected by other work
    ("memory", "memory", "memory", "memory"),
    ("decisions", "decisions", None, "decisions"),
    ("imports", "imports", "imports", None),
    ("alone", None, None, None),
]
IMPORTS = {"daskhpo": "daskhpo", "Ray Tune": "ray.tune", "Optuna, Dask storage": "optuna"}
MEASURES = [  # name of the measure, unit, digits, True if more is better, text
    ("trials", "/s", 0, True, "trials of one report, with reused objects or processes"),
    ("fresh", "/s", 1, True, "the same as a function, with default settings"),
    ("reports", "/s", 0, True, f"reports, {UNITS} per trial, with a decision on each"),
    ("asha", "/s", 0, True, f"trials under ASHA, 1 to {UNITS} units, η = 3"),
    ("latency", "ms", 2, False, "report that waits for its decision, both workers busy: median"),
    ("latency_p99", "ms", 2, False, "the same, 99th percentile"),
    ("latency_alone", "ms", 2, False, "the same with one worker: median"),
    ("unit", "µs", 1, False, "unit within a segment, class: median"),
    ("unit_function", "µs", 1, False, "unit within a segment, `trial.report`: median"),
    ("start", "s", 2, False, "start of the process to the first trial's first unit"),
    ("memory", "MB", 0, False, "memory of all processes (PSS), two workers in sleeping trials"),
    ("decision_10000", "µs", 1, False, "one decision of ASHA after 10,000 trials"),
    ("decision_100000", "µs", 1, False, "one decision of ASHA after 100,000 trials"),
    ("promotion_10000", "µs", 1, False, "one decision of ASHA by promotion after 10,000 trials"),
    ("promotion_100000", "µs", 1, False, "one decision of ASHA by promotion after 100,000 trials"),
    ("import", "s", 2, False, "import, without the start of Python"),
]

# -- cases of daskhpo ----------------------------------------------------------------------------


def study(trainable: Any, scheduler: Any, **options: Any) -> list[Any]:
    """Run a study; return its journal's records."""
    from daskhpo import Study
    from daskhpo.core.types import Status
    from daskhpo.engine.session import study_records
    from daskhpo.space import Real

    made = Study(
        trainable, {"x": Real(0, 1)}, "loss", scheduler=scheduler, storage=measuring.folder()
    )
    during = options.pop("during", None)
    handle = made.start(progress=False, max_concurrent=options.pop("max_concurrent", 2), **options)
    if during is not None:
        during()
    handle.wait()
    records = list(study_records(made.path))
    failed = [r for r in records if getattr(r, "status", None) is Status.FAILED]
    if failed:
        raise RuntimeError(f"{len(failed)} trials failed, such as {failed[0]}")
    return records


def ends(records: Iterable[Any]) -> list[float]:
    from daskhpo.core.events import Ended

    return [record.seconds for record in records if isinstance(record, Ended)]


def noop() -> Any:
    """Return a trainable whose units do nothing, and whose objects are reused."""
    from daskhpo import Trainable

    class Noop(Trainable):
        def setup(self, config: Any) -> None:
            from peers import measuring

            self.measuring, self.watch = measuring, measuring.Stopwatch()
            self.reset_config(config)

        def reset_config(self, config: Any) -> bool:
            self.watch.new_trial()
            self.x = config["x"]
            return True

        def step(self) -> dict[str, Any]:
            self.watch.enter()
            metrics = {"loss": self.x}
            self.watch.leave()
            return metrics

        def cleanup(self) -> None:
            if self.watch.gaps:
                self.measuring.note("gaps", self.watch.gaps)

    return Noop


def every_unit() -> Any:
    """Return a scheduler that decides on each of 27 reports, always to continue."""
    from daskhpo.schedulers import FIFO, MedianStopping

    return MedianStopping(FIFO(UNITS), interval=1, min_samples=10**9)


def trials() -> dict[str, float]:
    from daskhpo.schedulers import FIFO

    return {"trials": measuring.steady_rate(ends(study(noop(), FIFO(1), num_trials=1500)))}


def function() -> dict[str, float]:
    from daskhpo.schedulers import FIFO

    def report_once(config: Any, trial: Any) -> None:
        trial.report({"loss": config["x"]})

    return {"fresh": measuring.steady_rate(ends(study(report_once, FIFO(1), num_trials=1500)))}


def reports() -> dict[str, float]:
    rate = measuring.steady_rate(ends(study(noop(), every_unit(), num_trials=100)))
    median, p99 = measuring.median_and_p99(measuring.notes("gaps"))
    return {"reports": rate * UNITS, "latency": median * 1e3, "latency_p99": p99 * 1e3}


def alone() -> dict[str, float]:
    study(noop(), every_unit(), num_trials=40, max_concurrent=1)
    return {"latency_alone": statistics.median(measuring.notes("gaps")) * 1e3}


def asha() -> dict[str, float]:
    from daskhpo.schedulers import ASHA

    return {"asha": measuring.steady_rate(ends(study(noop(), ASHA(UNITS), num_trials=1200)))}


def units() -> dict[str, float]:
    from daskhpo.schedulers import FIFO

    def report_often(config: Any, trial: Any) -> None:
        from time import perf_counter

        from peers import measuring

        gaps = []
        for _ in range(trial.max_t - 1):
            before = perf_counter()
            trial.report({"loss": config["x"]})
            gaps.append(perf_counter() - before)
        measuring.note("inside", gaps)
        trial.report({"loss": config["x"]})

    study(noop(), FIFO(1000), num_trials=20)
    os.environ[measuring.FOLDER] += "-function"
    study(report_often, FIFO(1000), num_trials=20)
    inside = statistics.median(measuring.notes("inside"))
    os.environ[measuring.FOLDER] = os.environ[measuring.FOLDER].removesuffix("-function")
    gaps = statistics.median(measuring.notes("gaps"))
    return {"unit": gaps * 1e6, "unit_function": inside * 1e6}


def start() -> dict[str, float]:
    from daskhpo.schedulers import FIFO

    study(noop(), FIFO(1), num_trials=2)
    return {"start": measuring.started_after()}


def memory() -> dict[str, float]:
    from daskhpo.schedulers import FIFO

    def sleep(config: Any, trial: Any) -> None:
        import time

        from peers import measuring

        measuring.note("first", [time.time()])
        time.sleep(4)
        trial.report({"loss": 0.0})

    found: dict[str, float] = {}
    study(
        sleep,
        FIFO(1),
        num_trials=2,
        during=lambda: found.update(memory=measuring.idle_memory()),
    )
    return found


def decisions() -> dict[str, float]:
    found = {}
    for variant, name in (("stopping", "decision"), ("promotion", "promotion")):
        for n, seconds in decision_seconds(variant, (10_000, 100_000)).items():
            found[f"{name}_{n}"] = seconds * 1e6
    return found


def decision_seconds(variant: Any, marks: tuple[int, ...]) -> dict[int, float]:
    """Return the median seconds per report in all hooks, after each number of trials."""
    from random import Random

    from daskhpo.core.types import Continue, Pause, Resume, Start, Status, Stop
    from daskhpo.schedulers import ASHA
    from daskhpo.testing.driver import a_report, a_trial

    scheduler, order = ASHA(UNITS, variant=variant), Random(0)
    living: dict[int, Any] = {}
    recent: list[float] = []
    found: dict[int, float] = {}
    clock, n = time.perf_counter, 0
    while len(found) < len(marks):
        began = clock()
        action = scheduler.next_action(living, True)
        took = clock() - began
        match action:
            case Start(until, bracket):
                trial, n = a_trial(n, until, 0, bracket), n + 1
            case Resume(number, until):
                trial = living[number]._replace(status=Status.RUNNING, until=until)
        living[trial.id] = trial
        began = clock()
        scheduler.on_launch(trial)
        took += clock() - began
        while True:
            report = a_report(trial.until, order.random())
            began = clock()
            decision = scheduler.on_report(trial, report)
            took += clock() - began
            recent.append(took)
            took = 0.0
            if not isinstance(decision, Continue):
                break
            trial = trial._replace(until=decision.until, resource=trial.until)
        match decision:
            case Pause():
                living[trial.id] = trial._replace(status=Status.PAUSED, resource=trial.until)
            case Stop():
                del living[trial.id]
                began = clock()
                scheduler.on_end(trial._replace(status=Status.STOPPED))
                recent[-1] += clock() - began
        if n in marks and n not in found:
            found[n] = statistics.median(recent[-3000:])
    return found


CASES = {
    case.__name__: case
    for case in (trials, function, reports, alone, asha, units, start, memory, decisions)
}

# -- all systems ---------------------------------------------------------------------------------


def measure(system: str, python: str, case: str) -> dict[str, float]:
    """Run one case of one system in a separate process."""
    if case == "imports":
        return {"import": imports(python, IMPORTS[system])}
    script = (
        HERE
        / {
            "daskhpo": "overhead.py",
            "Ray Tune": "peers/ray_tune.py",
            "Optuna, Dask storage": "peers/optuna_dask.py",
            "Optuna, journal file": "peers/optuna_journal.py",
        }[system]
    )
    folder = tempfile.mkdtemp()
    paths = [str(HERE), os.environ.get("PYTHONPATH", "")]  # workers also import `peers`
    environment = os.environ | {
        measuring.FOLDER: f"{folder}/notes",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONWARNINGS": "ignore",
    }
    command = [python, str(script)] + (["--case"] if system == "daskhpo" else []) + [case]
    try:
        done = subprocess.run(
            command,
            env=environment | {measuring.SINCE: repr(time.time())},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=180,
        )
        if done.returncode:
            raise RuntimeError(f"{system}, {case}:\n{done.stderr[-3000:]}")
        found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def imports(python: str, module: str) -> float:
    """Return the median seconds of an import, without those of starting Python.

    Each is measured in three fresh interpreters.
    """

    def seconds(code: str) -> float:
        took = []
        for _ in range(3):
            before = time.perf_counter()
            subprocess.run([python, "-c", code], check=True, capture_output=True, cwd=HERE.parent)
            took.append(time.perf_counter() - before)
        return statistics.median(took)

    return seconds(f"import {module}") - seconds("pass")


def gather(peers: str | None, n_rounds: int) -> dict[tuple[str, str], list[float]]:
    """Measure all systems; return a list of rounds per system and measure."""
    pythons = [sys.executable] + [
        peers and os.path.abspath(peers)
    ] * 3  # absolute, because cases run in other folders
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(n_rounds):
        for turn in TURNS + (ONCE if number == 0 else []):
            for system, python, case in zip(SYSTEMS, pythons, turn, strict=True):
                if case is None or python is None:
                    continue
                began = time.monotonic()
                for name, value in measure(system, python, case).items():
                    found.setdefault((system, name), []).append(value)
                took = time.monotonic() - began
                print(f"round {number + 1}: {system}, {case}: {took:.1f} s", file=sys.stderr)
    return found


def table(found: dict[tuple[str, str], list[float]]) -> str:
    shown = [system for system in SYSTEMS if any(key[0] == system for key in found)]
    head = ["measure", "unit", *shown, "factor to the best other (above 1: better)"]
    lines = [head, ["---", "---"] + ["---:"] * (len(shown) + 1)]
    for name, unit, digits, more, text in MEASURES:
        medians = {s: statistics.median(found[s, name]) for s in shown if (s, name) in found}
        if "daskhpo" not in medians:
            continue
        others = [medians[s] for s in shown if s != "daskhpo" and s in medians]
        ratio = "—"
        if others:
            best = max(others) if more else min(others)
            ours = medians["daskhpo"]
            times = ours / best if more else best / ours
            ratio = f"{times:,.0f}×" if times >= 10 else f"{times:.2g}×"
        cells = [f"{medians[s]:,.{digits}f}" if s in medians else "—" for s in shown]
        lines.append([text, unit, *cells, ratio])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def versions(python: str, names: Iterable[str]) -> str:
    code = (
        "import platform, sys; from importlib.metadata import version; "
        "print('Python ' + platform.python_version(), "
        "*(f'{n} {version(n)}' for n in sys.argv[1:]), sep=', ')"
    )
    return subprocess.run(
        [python, "-c", code, *names], check=True, capture_output=True, text=True
    ).stdout.strip()


def load() -> str:
    return " / ".join(f"{x:.1f}" for x in os.getloadavg())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter with the other systems")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for the table; default: standard output")
    parser.add_argument("--case", choices=CASES, help="run one case of daskhpo, print its JSON")
    options = parser.parse_args()
    if options.case:
        sys.argv = [sys.argv[0], options.case]
        measuring.run_case(CASES)
        return
    began, load_before = time.monotonic(), load()
    found = gather(options.peers, options.rounds)
    lines = [
        "# Overhead: measured",
        "",
        "Trials do nothing, so that only the engine is measured. Written by",
        "",
        "    python -m venv .venv-peers",
        "    .venv-peers/bin/pip install -r benchmarks/requirements-peers.txt",
        "    python benchmarks/overhead.py --peers .venv-peers/bin/python "
        "--out benchmarks/results/overhead.md",
        "",
        f"Median of {options.rounds} rounds, in which the systems take turns case by case, each "
        "case in a fresh process, with two workers.",
        "One round: memory, ASHA's decision, imports, latency with one worker.",
        "Rates exclude the first fifth of the trials (start-up is measured separately).",
        "Compare within one table only, not between runs.",
        "",
        f"- machine: {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs; load average "
        f"(1/5/15 min) {load_before} before, {load()} after {time.monotonic() - began:.0f} s",
        "- daskhpo: " + versions(sys.executable, ["daskhpo", "distributed", "numpy"]),
    ]
    if options.peers:
        names = ["ray", "optuna", "optuna-integration", "distributed", "numpy"]
        lines.append(f"- others: {versions(options.peers, names)}")
    lines += ["", table(found), "", NOTES]
    text = "\n".join(lines)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text)


NOTES = f"""\
How to read it:

- *Ray Tune* is set up for speed: class trainables in reused actors, no log writers, no checkpoint
  at a trial's end. "With default settings" is a function in a fresh actor per trial.
- daskhpo writes its journal to disk throughout. Each of its {UNITS} reports is a segment; each of
  Optuna's is a `report` and a `should_prune`, with a pruner that never prunes.
- Under ASHA daskhpo needs a decision only at the rungs (1, 3, 9, {UNITS}); the others at every
  unit. All prune by the same rule with the same reduction factor.
- The latency of Ray and daskhpo is the time between the end of a unit and the start of the next one
  of the same trial; Optuna's the time in `report` and `should_prune`.
- Start: the Optuna cases start no server, or a Dask cluster; daskhpo starts a Dask cluster.
- ASHA's decision: all of the scheduler's hooks for daskhpo, only the rung's answer for Ray, the
  pruner's answer from a study in memory for Optuna.
"""


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
