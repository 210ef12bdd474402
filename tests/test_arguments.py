"""Every public parameter, with values that are accepted and values that are refused by name.

A bad value is refused before anything starts: no file is written, no process begins. A parameter
without a row fails the first test.
"""

from __future__ import annotations

import enum
import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest

import daskhpo
from daskhpo import (
    Result,
    RunOptions,
    Script,
    Study,
    Trainable,
    from_optuna,
    load_study,
    recommend,
)
from daskhpo.callbacks import (
    Callback,
    ConsoleProgress,
    CSVLogger,
    JSONLogger,
    MLflowLogger,
    OptunaJournal,
    TensorBoardLogger,
    WandbLogger,
)
from daskhpo.checkpoints import CheckpointPolicy, ZarrStore
from daskhpo.cluster import slurm_cluster
from daskhpo.cluster.doctor.job_request import JobRequest
from daskhpo.core import arguments
from daskhpo.core.errors import (
    CheckpointMissing,
    InvalidArgument,
    MissingLibrary,
    StudyNotRunning,
)
from daskhpo.core.events import Launched, Reported, SessionStarted, Step, Suggested
from daskhpo.core.objective import Objective
from daskhpo.core.types import Limits, ScheduleSegment, Stop
from daskhpo.distributed import launch
from daskhpo.engine.checkpoint_policy import check_policy
from daskhpo.executors.dask.context import Context
from daskhpo.results.schedule import Schedule
from daskhpo.schedulers import (
    ASHA,
    FIFO,
    PASHA,
    PB2,
    PBT,
    AsyncHyperband,
    GuardedASHA,
    Hyperband,
    MedianStopping,
    PBTReplay,
    SuccessiveHalving,
)
from daskhpo.searchers import (
    AxSearch,
    DragonflySearch,
    ForestSearch,
    GPSearch,
    GridSearch,
    HyperOptSearch,
    OptunaSearch,
    OutOfProcess,
    RandomSearch,
    Repeater,
    SigOptSearch,
    SkoptSearch,
)
from daskhpo.simulation import ClusterModel, Simulation
from daskhpo.simulation.compare import compare_schedulers, parse_scheduler, standard_schedulers
from daskhpo.simulation.curves import CurveTable, SyntheticCurves
from daskhpo.simulation.planning import plan
from daskhpo.simulation.profiling import profile
from daskhpo.space import Categorical, Integer, Ordinal, Real, Space

NAN, INF = math.nan, math.inf
X = {"x": Real(0, 1)}


class Reached(Exception):
    """All arguments have passed; the work would begin now."""


class Color(enum.StrEnum):
    RED = "red"


class Net(Trainable):
    def setup(self, config: Any) -> None: ...

    def step(self) -> dict[str, Any]:
        return {"loss": 1.0}


class NoConfig(Net):
    def setup(self) -> None: ...  # type: ignore[override]


class NeedsArguments(Net):
    def __init__(self, depth: int) -> None: ...


class StepsWithConfig(Net):
    def step(self, config: Any) -> dict[str, Any]:  # type: ignore[override]
        return {}


class LoadsNothing(Net):
    def load_checkpoint(self) -> None: ...  # type: ignore[override]


class ResetsNothing(Net):
    def reset_config(self) -> bool:  # type: ignore[override]
        return True


class AwaitsStep(Net):
    async def step(self) -> dict[str, Any]:  # type: ignore[override]
        return {}


class YieldsSteps(Net):
    def step(self) -> Any:
        yield {}


class HasDefaults(Net):
    def __init__(self, depth: int = 3) -> None: ...

    def setup(self, config: Any, *, more: int = 1) -> None: ...

    @staticmethod
    def cleanup() -> None: ...  # type: ignore[override]


def train(config: Any, trial: Any) -> None: ...


def no_argument() -> None: ...


async def awaits(config: Any, trial: Any) -> None: ...


async def awaits_and_yields(config: Any, trial: Any) -> Any:
    yield {}


def yields(config: Any, trial: Any) -> Any:
    yield {"loss": 1.0}


class Callable2:
    def __call__(self, config: Any, trial: Any) -> None: ...


class AwaitsWhenCalled:
    async def __call__(self, config: Any, trial: Any) -> None: ...


class Decay:
    def __init__(self, config: Any) -> None:
        self.x = config["x"]

    def metric(self, resource: int) -> float:
        return float(self.x) + 1 / resource

    def seconds(self, resource: int) -> float:
        return float(resource)


# -- values --------------------------------------------------------------------------------------

NO_INTS = [1.5, 2.0, "3", True, np.True_, [], NAN, 2**63, 10**5000, np.float64(2), Color.RED]
NO_SIZES = [value for value in NO_INTS if value != "3"]
COUNTS = ([1, 7, np.int64(3), np.uint8(3)], [0, -1, None, *NO_INTS])
COUNTS_OR_NONE = ([None, 1, np.int32(7)], [0, -1, *NO_INTS])
LONGER = ([None], COUNTS_OR_NONE[1])  # a study that has not ended cannot be extended
FROM_ZERO = ([0, 3, np.int8(1)], [-1, None, *NO_INTS])
FROM_ZERO_OR_NONE = ([None, 0, np.int8(1)], [-1, *NO_INTS])
NO_NUMBERS = ["1", True, [], NAN, INF, -INF, 1j, b"1", 10**400]
AT_LEAST_ZERO = ([0, 2.5, np.float32(1.5), np.int64(2)], [-1, -0.1, None, *NO_NUMBERS])
ABOVE_ZERO = ([1, 2.5, np.float32(1.5)], [0, -1, None, *NO_NUMBERS])
NUMBERS_OR_NONE = ([None, 1, -2.5, np.float64(0.1)], NO_NUMBERS)
TRIAL_OR_NONE = ([None, 0, np.int64(0)], NO_INTS)
BOOLS = ([True, False, np.True_], ["no", "False", 0, 1, None, [], 1.0])
UNREADABLE = ["", "  ", "a\nb", "a\rb", "a\x1b[31mb", "a\x00b", "a\x85b", "a\u2028b", "a\u202eb"]
NO_TEXTS = [3, b"x", ["x"], True, 1.5, "a\ud800b", *UNREADABLE]
TEXTS = (["abc", "grün", "数据", np.str_("abc"), Color.RED], [None, *NO_TEXTS])
NO_PATHS = ["", 3, b"x", [], True, "a\x00b", "a\nb", "s3://b/x", "gs://b", "file:///tmp", "a\ud800"]
NO_DURATIONS = [
    *("1h1h", "30m1h", "", " ", "soon", "1e3h", "-5m", "h", "1h 5", "0s", "999999d", b"1h"),
    *(0, 0.0, -1, NAN, INF, True, [], 1e300, 10**400),
]
DURATIONS = (["8h", "1h30m", "1d 2h", "90", 90, 1.5, np.float32(3), "1.5h", "5 m"], NO_DURATIONS)
DURATIONS_OR_NONE = ([None, *DURATIONS[0]], NO_DURATIONS)
WORDS_OR_NONE = ([None, "gpu", "gpu,long"], ["a b", "gpu\n#SBATCH -x", "a\tb", *NO_TEXTS])
LINES = (
    [(), ["-C gpu"], ("-C gpu", "--mail-type=END"), np.array(["-C gpu"])],
    ["-C gpu", ["-C\ngpu"], [3], 3, b"x", {"a": 1}, [""], ["a\x1b"], [None], {"-C gpu"}, None],
)
PROLOGUE = (
    [(), ["module load cuda"], ["if true; then\n\techo\nfi"]],
    ["x", [3], 3, {"a": 1}, ["a\x1b"], ["a\x00"], [None], None],
)
CONTAINERS = (
    [None, "docker://python", ["--nv", "/"]],
    ["missing.sif", "--nv", [], ["--nv"], ["--bind", "/a", "/"], 3, True, "a\nb", ""],
)
COMPARES = (["last", "best"], ["Last", "", None, 3, [], "mean"])
POINTS = (
    [None, [], [{"x": 0.5}], ({"x": 1},), [{"x": np.float32(0.25)}]],
    [{"x": 0.5}, "x", [1], 3, [("x", 0.5)], [None], [{3: 1}]],
)
CALLBACKS = (
    [(), [Callback()], (CSVLogger(),)],
    [CSVLogger(), CSVLogger, [CSVLogger], "x", 3, None],
)
SEEDS = ([0, 5, np.int64(3), 2**63 - 1], [-1, None, *NO_INTS])
MODES = (["min", "max", np.str_("max")], ["Min", "minimize", "", None, True, 3])
SCHEDULERS = ([FIFO(3), ASHA(3)], [FIFO, "ASHA", None, 3, RandomSearch()])
SEARCHERS = ([RandomSearch(), GridSearch()], [RandomSearch, "random", 3, FIFO(3)])
SPACES = (
    [X, Space(X), {"x": Real(0, 1), "c": 3, "t": (1, 2, 3), "n": None, "b": np.True_}],
    [
        *({}, [("x", Real(0, 1))], "x", None, 3, {"x": [1, 2]}, {"x": {"y": 1}}, {"x": Real}),
        *({3: Real(0, 1)}, {"": Real(0, 1)}, {"a\nb": Real(0, 1)}, {"a\x1b": 1}, {"x": {1, 2}}),
        *({"x": range(3)}, {"x": np.arange(3)}, {"x": print}),
    ],
)
METRICS = (
    ["loss", "val/loss", "grün"],
    [None, *NO_TEXTS, "trial", "seconds", "resource", "status"],
)
CHECKPOINTS = (
    ["auto", "every:3", "end", "rung", "never", CheckpointPolicy(max_bytes="2 GB")],
    [
        *("every", "every:", "every:0", "every:x", "every:1.5", "Auto", "", None, 3, ["auto"]),
        *(CheckpointPolicy, "rung:2", CheckpointPolicy("auto", every=2)),
    ],
)
RESOURCES = (
    [None, {}, {"cpu": 2}, {"gpu": 0.5}, {"cpu": np.int64(2), "gpu": 1, "fpga": 1.0}],
    [
        *({"gpu": NAN}, {"gpu": INF}, {"gpu": -1}, {"gpu": "1"}, {"gpu": True}, {"gpu": 1.5}),
        *(
            {"GPU": 1},
            {"cpu": 0},
            {"cpu": 1.5},
            {"cpu": 10**400},
            {"gpu": None},
            {3: 1},
            {"": 1},
            {"a\n": 1},
        ),
        *({"GPU": 1}, [("gpu", 1)], "gpu", 3),
    ],
)
RUN = {
    "num_trials": COUNTS_OR_NONE,
    "time_budget": DURATIONS_OR_NONE,
    "target": NUMBERS_OR_NONE,
    "resources": RESOURCES,
    "max_concurrent": COUNTS_OR_NONE,
    "worker_timeout": DURATIONS_OR_NONE,
    "checkpoint": CHECKPOINTS,
    "fail_fast": BOOLS,
    "max_failures": FROM_ZERO,
    "max_failed_trials": FROM_ZERO,
    "trial_time_limit": DURATIONS_OR_NONE,
    "step_timeout": DURATIONS_OR_NONE,
    "memory_limit": (
        [None, "8 GB", "512MiB", 2**30, np.int64(2**30)],
        [0, -1, "much", "8 GHz", 1.5, NAN, True, [], "1e30 TB"],
    ),
    "on_oom": (["infeasible", "retry_alone", "larger"], ["", "retry", "Larger", 1, None, [], True]),
    "reuse_actors": BOOLS,
    "verify_reuse": BOOLS,
}
# As a keyword of a call, None is the same as leaving an option out.
KEYWORDS = {
    name: ([*good, None], [b for b in bad if b is not None]) for name, (good, bad) in RUN.items()
}
START = {
    **KEYWORDS,
    "options": ([None, RunOptions(max_failures=2)], [{}, "x", 3, RunOptions]),
    "client": ([None], ["tcp://127.0.0.1:1", 3, object()]),
    "executor": ([None, Decay], ["dask", 3]),
    "callbacks": CALLBACKS,
    "progress": BOOLS,
}
IF_EXISTS = (["error", "resume", "new"], ["Error", "", None, 3, True])
FALSE = ([False], BOOLS[1])  # True needs another argument
WORKERS = {"jobs": 2, "cores": 2, "memory": "4GB"}
SUBMIT = {
    **KEYWORDS,
    "options": START["options"],
    "walltime": (
        ["12h", 3600, "1-00:00:00", "2:00:00"],
        [None, "90", 3, "1h1h", "", True, NAN, INF, "a:b", [], -1],
    ),
    "workers": (
        [WORKERS, {**WORKERS, "queue": "gpu"}],
        [
            *("jobs=2", 3, [("jobs", 2)], {}, {**WORKERS, "jobs": 0}, {**WORKERS, "x\n": 1}),
            *({**WORKERS, "queue": "a\nb"}, {**WORKERS, "job_script_prologue": "x"}),
            *({**WORKERS, "account": "a b"}, {**WORKERS, "job_extra_directives": ["a\nb"]}),
            *({**WORKERS, "processes": 0}, {**WORKERS, "security": print}),
        ],
    ),
    "chain": COUNTS,
    "one_allocation": ([False], ["no", 1, None, 0]),
    "queue": WORDS_OR_NONE,
    "account": WORDS_OR_NONE,
    "cores": COUNTS_OR_NONE,
    "memory": ([None, "4GB", "512 MiB"], ["", "much", "4GB\n-x", [], 3, True]),
    "job_extra_directives": LINES,
    "job_script_prologue": PROLOGUE,
}
LADDER = {"max_t": ([9, np.int64(9), 27], COUNTS[1]), "grace_period": COUNTS}
LADDER["reduction_factor"] = ([2, np.int64(3)], [1, *COUNTS[1]])
PBT_ROWS = {
    "max_t": ([9, np.int64(9)], COUNTS[1]),
    "perturbation_interval": ([1, np.int64(3)], [9, *COUNTS[1]]),
    "mutations": (
        [["x"], ("x",), {"x": Real(0, 2)}],
        ["x", [], {}, None, 3, [3], {"x": 3}, {"x": Real}, ["x", "x"], {3: Real(0, 1)}, ["a\nb"]],
    ),
    "quantile_fraction": ([0.5, 0.1], [0, 0.6, 1, None, *NO_NUMBERS]),
    "synchronous": BOOLS,
    "compare": COMPARES,
}
VALUES = ["abc", 3, None, {"a": 1}, b"ab", {1, 2}, [], [1]]
WARM_STARTS = (
    [None, "runs/other", Path("runs"), [({"x": 0.5}, 1.0)], [({"x": 1}, np.float32(2))]],
    [3, "s3://b/x", {"x": 0.5}, [3], [({"x": 1}, "2")], [("x", 1.0)], b"x", ""],
)
PROCESS = {
    "python": ([], ["/nowhere/python", "", 3, b"x", "s3://x", "a\nb"]),
    "options": ([None, {}, {"a": 1}], ["x", 3, [1], {3: 1}]),
    "points_to_evaluate": POINTS,
    "timeout": ABOVE_ZERO,
}
CURVES = pd.DataFrame(
    {
        **{"trial": [0, 0, 1, 1], "resource": [1, 2, 1, 2], "seconds": [1.0, 2.0, 1.0, 2.0]},
        **{"loss": [2.0, 1.0, 4.0, 3.0], "config/x": [0.1, 0.1, 0.7, 0.7]},
    }
)
TRIAL = Context(0, {"x": 1}, 0, 9, 5, "cpu", lambda: False)
NO_FUNCTIONS = [no_argument, lambda config: None, (lambda lock: lambda c, t: lock)(Lock())]
TABLE = CurveTable.of(CURVES, "loss")
PIECE = ScheduleSegment(0, 3, {"x": 0.5}, 0)

# -- the table -----------------------------------------------------------------------------------

Rows = dict[str, tuple[list[Any], list[Any]]]


@dataclass
class Door:
    """A public callable: how it is called, and the values of each parameter."""

    of: Callable[..., Any]
    rows: Rows
    others: dict[str, Any]  # valid arguments for the other parameters
    call: Callable[..., Any] | None = None  # if it is no plain call of ``of``


def a_study(**options: Any) -> Study:
    study = Study(
        **{"trainable": train, "space": X, "metric": "loss", "scheduler": FIFO(2)} | options
    )
    study.source = "tune.py:study"
    return study


def method(name: str, rows: Rows, /, **others: Any) -> Door:
    """A method of a study that nobody has begun."""
    return Door(
        getattr(Study, name), rows, others, lambda **given: getattr(a_study(), name)(**given)
    )


def or_none(values: tuple[list[Any], list[Any]]) -> tuple[list[Any], list[Any]]:
    """Values of which None is a good one."""
    good, bad = values
    return [None, *good], [value for value in bad if value is not None]


def of_options(**given: Any) -> Any:
    return check_policy(CheckpointPolicy(**given))


def a_result() -> Result:
    records = [
        SessionStarted(Limits(), CheckpointPolicy(), 0.0),
        Suggested(0, {"x": 0.5}, 0, 0.0),
        Launched(0, 1, 0, 1, 0.0),
        Reported(0, 1, (Step(1, {"loss": 2.0}, 1.0),), 1.0, decision=Stop("done")),
    ]
    return Result(records, Objective("loss"))


def a_schedule() -> Schedule:
    return Schedule([ScheduleSegment(0, 2, {"x": 0.5}, 0), ScheduleSegment(2, 3, {"x": 0.1}, 0)])


LIMITED = {"num_trials": 2, "target": -1.0}
DOORS = [
    Door(
        Study,
        {
            "trainable": (
                [None, Net, HasDefaults, train, partial(train), Callable2(), lambda c, t: None],
                [
                    *(NoConfig, NeedsArguments, StepsWithConfig, LoadsNothing, ResetsNothing),
                    *(AwaitsStep, YieldsSteps, no_argument, awaits, awaits_and_yields, yields),
                    *(partial(awaits), partial(yields), AwaitsWhenCalled(), Net(), "train", 3),
                    *(Trainable, int, Callable2, len),
                ],
            ),
            "space": SPACES,
            "metric": METRICS,
            "mode": MODES,
            "scheduler": SCHEDULERS,
            "searcher": ([None, *SEARCHERS[0]], SEARCHERS[1]),
            "max_t": ([None], [1, *COUNTS_OR_NONE[1]]),  # the scheduler has its own
            "storage": (["runs", Path("runs"), "~/runs"], [None, Path("s3://b/x"), *NO_PATHS]),
            "name": (
                [None, "a", "a b.c", "grün"],
                [*NO_TEXTS, "a/b", ".a", "..", " a", "a ", "x" * 300],
            ),
            "seed": SEEDS,
            "memory": (
                [None, lambda config: 2**30, lambda config: np.float32(0)],
                [2**30, "8 GB", lambda config: "8 GB", lambda config: -1, lambda config: NAN],
            ),
        },
        {"trainable": None, "space": X, "metric": "loss", "scheduler": FIFO(3)},
    ),
    method("run", {**START, "if_exists": IF_EXISTS}, **LIMITED),
    method("start", {**START, "if_exists": IF_EXISTS, "retry_failed": FALSE}, **LIMITED),
    method("resume", {**START, "retry_failed": BOOLS, "max_t": LONGER}, **LIMITED),
    method(
        "extend",
        {**START, "num_trials": COUNTS_OR_NONE, "max_t": LONGER},
        **{**LIMITED, "time_budget": 9},
    ),
    method("enqueue", {"config": ([{"x": 0.5}], [None, {}, {"x": 2}, [("x", 0.5)], "x", 3])}),
    method(
        "stop_trial",
        {"trial": ([], [-1, *NO_INTS]), "reason": ([], NO_TEXTS)},
        trial=0,
    ),
    method("pause_trial", {"trial": ([], [-1, *NO_INTS])}),
    method("resume_trial", {"trial": ([], [-1, *NO_INTS])}),
    method("submit", SUBMIT, walltime="1h", workers=WORKERS, **LIMITED),
    method("job_script", SUBMIT, walltime="1h", workers=WORKERS, **LIMITED),
    method("attach", {"callbacks": CALLBACKS, "progress": BOOLS}),
    method(
        "branch",
        {
            "name": (["b"], [None, *NO_TEXTS, "a/b", ".a"]),
            "seconds": ([None, 0, 2.5, INF], [-1, "1", True, NAN, []]),
            "space": or_none(SPACES),
            "defaults": ([None], [{}, {"x": 1}, "x", 3]),  # only with a space
            "scheduler": or_none(SCHEDULERS),
            "searcher": or_none(SEARCHERS),
        },
        name="b",
    ),
    method(
        "at",
        {
            "path": (["elsewhere/s", Path("s")], [None, *NO_PATHS]),
            "source": ([None, "tune.py:study"], NO_TEXTS),
        },
        path="s",
    ),
    Door(RunOptions, RUN, {}),
    Door(
        Script,
        {
            "path": ([__file__, Path(__file__)], ["nowhere.py", None, *NO_PATHS]),
            "metric": (["loss"], [None, *NO_TEXTS]),
            "passed": (
                [None, {}, {"x": "environment"}],
                [{"x": "Yaml"}, {"x": "yaml"}, {3: "option"}, ["x"], "x"],
            ),
            "arguments": ([(), ["--a", "{folder}"]], ["--a", 3, {"a": 1}]),
            "yaml": ([None], ["nowhere.yaml", __file__, *NO_PATHS]),
            "read": (["output", "{folder}/a.csv"], ["a.csv", None, *NO_TEXTS]),
            "pattern": ([None, "(?P<loss>.)"], ["(?P<x>.)", "(", 3]),
            "step": ([None, "epoch"], NO_TEXTS),
            "checkpoint_arguments": (["", "--o {folder}"], ["'", None, 3]),
            "resume_arguments": (["", "--r {folder}"], ["'", None, 3]),
            "grace": DURATIONS,
            "environment": ([None, {}, {"A": "1"}], [["A"], {3: "1"}, "A"]),
        },
        {"path": __file__, "metric": "loss"},
    ),
    Door(
        from_optuna,
        {
            "objective": ([lambda trial: trial.suggest_float("x", 0, 1)], [None, 3, "f"]),
            "space": ([None, X, {}], [3, "x", {"x": object()}]),
            "direction": (["minimize", "maximize"], ["min", "", None, 3]),
            "probe_seconds": AT_LEAST_ZERO,
            "scheduler": or_none(SCHEDULERS),
            "searcher": ([None, *SEARCHERS[0]], SEARCHERS[1]),
            "max_t": ([None], [1, *COUNTS_OR_NONE[1]]),  # the scheduler has its own
            "storage": (["runs", Path("runs"), "~/runs"], [None, *NO_PATHS]),
            "name": ([None, "a"], [*NO_TEXTS, "a/b"]),
            "seed": SEEDS,
        },
        {"objective": lambda trial: trial.suggest_float("x", 0, 1), "scheduler": FIFO(1)},
    ),
    Door(load_study, {"path": (["nowhere"], [None, *NO_PATHS])}, {}),
    Door(
        recommend,
        {
            "space": SPACES,
            "budget": DURATIONS,
            "workers": COUNTS,
            "seconds_per_unit": DURATIONS,
            "max_t": COUNTS,
            "early": (["unknown", "telling", "misleading"], ["", "yes", None, 3, []]),
            "schedule": ([(), ["x"]], ["x", ["y"], 3, {"x": 1}, None]),
            "architecture": ([(), ["x"]], ["x", ["y"], 3, {"x": 1}, None]),
            "models": COUNTS,
        },
        {"space": X, "budget": "90d", "workers": 4, "seconds_per_unit": 0.01, "max_t": 27},
    ),
    Door(
        CheckpointPolicy,
        {
            "write": (["auto", "rung", "every"], ["", "Auto", None, 3, "every:2", []]),
            "every": ([None, 2], [0, *NO_INTS]),
            "keep_best": FROM_ZERO_OR_NONE,
            "max_bytes": ([None, 10**9, "2 GB", "1.5 MiB"], [0, "0 B", "much", "-1 GB", *NO_SIZES]),
            "max_files": COUNTS_OR_NONE,
            "durability": ([1, 2.5, INF], [0, -1, "1", True, NAN, None]),
            "memory": ([None, 0, "2 GB"], [-1, "much", *NO_SIZES]),
            "staging": ([None, "/scratch/$USER", Path("/scratch")], NO_PATHS),
        },
        {},
        lambda **given: of_options(**({"write": "every"} if "every" in given else {}) | given),
    ),
    # -- space
    *(
        Door(
            kind,
            {
                "low": ([1, np.int64(2)], [10, 11, "0", None, True, NAN, -INF, 10**400, []]),
                "high": ([2, np.int64(9)], [1, 0, "9", None, True, NAN, INF, 10**400, []]),
                "log": BOOLS,
            },
            {"low": 1, "high": 10},
        )
        for kind in (Real, Integer)
    ),
    Door(
        Ordinal,
        {"values": ([[1, 2], (1, 2.5), range(3), np.array([1, 2])], [*VALUES, ["a", "b"], [2, 1]])},
        {},
    ),
    Door(
        Categorical,
        {"values": ([["a", "b"], (1, None), [True, (1, 2)]], [*VALUES, "sgd", [1, print], [1, 1]])},
        {},
    ),
    Door(Space, {"space": SPACES}, {}),
    # -- schedulers
    Door(FIFO, {"max_t": COUNTS}, {}),
    Door(
        ASHA,
        {
            **LADDER,
            "brackets": ([1, np.int64(2)], [4, *COUNTS[1]]),
            "variant": (["stopping", "promotion"], ["", "Stopping", None, 3, []]),
            "compare": COMPARES,
        },
        {"max_t": 9},
    ),
    Door(
        AsyncHyperband,
        {**LADDER, "variant": (["promotion"], ["", None, 3, []]), "compare": COMPARES},
        {"max_t": 9},
    ),
    Door(
        SuccessiveHalving,
        {**LADDER, "num_configs": ([None, 9, 10], [8, 0, *NO_INTS]), "compare": COMPARES},
        {"max_t": 9},
    ),
    Door(Hyperband, {**LADDER, "compare": COMPARES}, {"max_t": 9}),
    Door(PASHA, {**LADDER, "compare": COMPARES}, {"max_t": 9}),
    Door(
        MedianStopping,
        {
            "scheduler": (SCHEDULERS[0], SCHEDULERS[1]),
            "grace_period": ([1, 3], [4, *COUNTS[1]]),
            "interval": COUNTS,
            "min_samples": COUNTS,
        },
        {"scheduler": FIFO(3)},
    ),
    Door(
        PBT,
        {**PBT_ROWS, "resample_probability": ([0, 1, 0.5], [-0.1, 1.1, None, *NO_NUMBERS])},
        {"max_t": 9, "perturbation_interval": 3, "mutations": ["x"]},
    ),
    Door(PB2, PBT_ROWS, {"max_t": 9, "perturbation_interval": 3, "mutations": ["x"]}),
    Door(PBTReplay, {"schedule": ([[PIECE]], [[], None, "x", 3, [3], {"a": 1}])}, {}),
    Door(
        GuardedASHA,
        {**LADDER, "grace_period": (["auto", *COUNTS[0]], ["Auto", "", *COUNTS[1]])},
        {"max_t": 9},
    ),
    # -- searchers
    Door(ForestSearch, {"warm_start": WARM_STARTS, "points_to_evaluate": POINTS}, {}),
    Door(RandomSearch, {"points_to_evaluate": POINTS}, {}),
    Door(
        GridSearch,
        {
            "num_points": (
                [1, 7, {"x": 3}, {}, np.int64(3)],
                [0, {"x": 0}, {"x": 1.5}, {3: 3}, [3], None, *NO_INTS[:3]],
            ),
            "points_to_evaluate": POINTS,
            "sampled": ([(), ["x"]], ["x", [3], {"x": 1}, 3, None]),
            "repeats": COUNTS,
        },
        {},
    ),
    Door(
        GPSearch,
        {
            "acq": (["EI", "LCB", "PI"], ["UCB", "ei", "", None, 3]),
            "n_initial_points": COUNTS,
            "kappa": AT_LEAST_ZERO,
            "xi": AT_LEAST_ZERO,
            "warm_start": WARM_STARTS,
            "points_to_evaluate": POINTS,
        },
        {},
    ),
    Door(
        OptunaSearch,
        {"sampler": (["tpe"], ["TPE", "", None, 3]), "points_to_evaluate": POINTS},
        {},
    ),
    Door(HyperOptSearch, {"n_startup_trials": COUNTS, "points_to_evaluate": POINTS}, {}),
    Door(AxSearch, {"points_to_evaluate": POINTS}, {}),
    Door(
        SkoptSearch,
        {
            "base_estimator": (["GP", "RF", "ET", "GBRT"], ["gp", "", None, 3, int, object()]),
            "acq_func": (["EI", "LCB"], ["ei", "", None, 3, []]),
            "n_initial_points": COUNTS,
            "initial_point_generator": (["random", "sobol"], ["", None, 3]),
            "acq_optimizer": (["auto", "sampling"], ["", None, 3]),
            "points_to_evaluate": POINTS,
        },
        {},
    ),
    Door(DragonflySearch, PROCESS, {"python": "python3"}),
    Door(
        OutOfProcess,
        {**PROCESS, "script": ([__file__, Path(__file__)], ["/nowhere.py", None, *NO_PATHS])},
        {"script": __file__},
    ),
    Door(
        SigOptSearch,
        {
            "address": (["https://a.b", "http://a"], ["a.b", "ftp://a", None, *NO_TEXTS]),
            "token": (["abc"], [None, "", " ", 3, "a\nb"]),
            "project": ([None, "p"], NO_TEXTS),
            "points_to_evaluate": POINTS,
            "timeout": ABOVE_ZERO,
        },
        {"address": "https://a.b", "token": "abc"},
    ),
    Door(
        Repeater,
        {"searcher": SEARCHERS, "n": ([2, np.int64(3)], [1, *COUNTS[1]])},
        {"searcher": RandomSearch(), "n": 2},
    ),
    # -- callbacks, stores
    Door(ConsoleProgress, {"file": ([None], ["x", 3, []])}, {}),
    Door(CSVLogger, {"path": ([None, "a.csv", Path("a.csv")], NO_PATHS)}, {}),
    Door(JSONLogger, {"path": ([None, "a.jsonl", Path("a.jsonl")], NO_PATHS)}, {}),
    Door(OptunaJournal, {"path": ([None, "a.log", Path("a.log")], NO_PATHS)}, {}),
    Door(TensorBoardLogger, {"logdir": ([None, "a", Path("a")], NO_PATHS)}, {}),
    Door(
        WandbLogger,
        {
            "project": TEXTS,
            "trials": (["all", "finished", 1, np.int64(3)], ["best", "", 0, -1, None, True, 1.5]),
            "module": (["wandb", "trackio"], [None, *NO_TEXTS]),
            "options": ([{"mode": "offline"}], [{"id": "x"}, {"group": "x"}, {"resume": True}]),
        },
        {},
        call=lambda options=(), **given: WandbLogger(**given, **dict(options)),
    ),
    Door(
        MLflowLogger,
        {
            "experiment": ([None, "a"], NO_TEXTS),
            "tracking_uri": ([None, "http://localhost:5000", "sqlite:///a.db"], NO_TEXTS),
        },
        {},
    ),
    Door(ZarrStore, {"path": (["a.zarr", Path("a")], [None, *NO_PATHS])}, {}),
    # -- clusters
    Door(
        slurm_cluster,
        {
            "jobs": COUNTS,
            "queue": WORDS_OR_NONE,
            "account": WORDS_OR_NONE,
            "walltime": or_none(SUBMIT["walltime"]),
            "cores": COUNTS_OR_NONE,
            "memory": SUBMIT["memory"],
            "gpus_per_job": ([None, *FROM_ZERO[0]], [b for b in FROM_ZERO[1] if b is not None]),
            "trials_per_gpu": COUNTS,
            "gpus_per_trial": ([1], COUNTS[1]),
            "nodes_per_trial": ([1], COUNTS[1]),
            "processes": ([None], [0, -1, *NO_INTS]),
            "max_gpu_hours": ([None, 1, 2.5, np.float32(1)], [0, -1, *NO_NUMBERS]),
            "idle_timeout": DURATIONS,
            "interface": ([None, "ib0"], ["a b", "a\nb", *NO_TEXTS]),
            "security": ([True], ["yes", 1, 3, []]),
            "python": ([None, "python3"], NO_TEXTS),
            "container": CONTAINERS,
            "job_extra_directives": or_none(LINES),
            "job_script_prologue": or_none(PROLOGUE),
            "log_directory": ([None, "logs"], NO_PATHS),
            "shared_temp_directory": ([None, "shared"], NO_PATHS),
            "job_name": (["a-b"], ["", "a\nb"]),  # one of SLURMCluster's
        },
        {"jobs": 1},
    ),
    Door(
        JobRequest,
        {
            "queue": ([None, "gpu"], NO_TEXTS),
            "account": ([None, "a"], NO_TEXTS),
            "walltime": ([None, "4h"], ["90", "1h1h", 3, True]),
            "cores": COUNTS_OR_NONE,
            "memory": ([None, "4GB"], NO_TEXTS),
            "gpus_per_job": FROM_ZERO,
            "gres": ([None, "gpu:a100:1"], NO_TEXTS),
            "job_extra_directives": LINES,
            "job_script_prologue": PROLOGUE,
            "python": ([None, "/usr/bin/python"], NO_TEXTS),
            "container": CONTAINERS,
        },
        {},
    ),
    Door(
        launch,
        {
            "function": (
                [train, partial(train), Callable2(), lambda c, t: None],
                [*NO_FUNCTIONS, awaits, yields, Net, Net(), "train", None, 3],
            ),
            "trial": ([TRIAL], [None, 3, "x", {"lr": 1}, Net()]),
            "n_processes": COUNTS_OR_NONE,
            "sharded": BOOLS,
            "reshard": ([None, lambda parts, n: parts], ["x", 3, []]),
        },
        {"function": train, "trial": TRIAL, "n_processes": 2, "sharded": True},
    ),
    # -- simulation
    Door(
        Simulation,
        {
            "curve": ([Decay], [None, 3, "x"]),
            "space": SPACES,
            "metric": METRICS,
            "mode": MODES,
            "scheduler": SCHEDULERS,
            "searcher": (SEARCHERS[0], [None, *SEARCHERS[1]]),
            "num_workers": COUNTS,
            "seed": SEEDS,
            "resizes": (
                [(), [(5, 2)], ((1.5, 0),)],
                [3, "x", [3], [(1, 2, 3)], [(-1, 2)], [(1, -1)]],
            ),
            "cluster": ([ClusterModel(walltime=9)], [None, 3, {"walltime": 9}]),
        },
        {
            **{"curve": Decay, "space": X, "metric": "loss", "mode": "min", "scheduler": FIFO(2)},
            **{"searcher": RandomSearch(), "num_workers": 2},
        },
    ),
    Door(
        Simulation.run,
        {name: RUN[name] for name in ("num_trials", "time_budget", "target", "checkpoint")},
        {"num_trials": 2, "time_budget": 50},
        lambda **given: Simulation(
            Decay, X, "loss", "min", FIFO(1), RandomSearch(), num_workers=2
        ).run(**given),
    ),
    Door(
        ClusterModel,
        {
            "walltime": ([1, 2.5, INF], [0, -1, "1h", NAN, True, None]),
            "requeue_seconds": AT_LEAST_ZERO,
            "launch_seconds": AT_LEAST_ZERO,
            "state_bytes": ([None, 0, 10], [-1, *NO_NUMBERS]),
            "durability": ([None, 1, INF], [0, -1, "1", NAN, True]),
        },
        {},
    ),
    Door(
        plan,
        {
            "num_workers": COUNTS,
            "seconds_per_unit": ([1, 2.5, (1, 2)], [0, -1, "1", NAN, (1, 0), True, ("1",)]),
            "curves": ([], [3, "x", CURVES]),
            "num_trials": ([2, np.int64(3)], [0, *NO_INTS]),
            "time_budget": ([None, "5m"], NO_DURATIONS),
            "cluster": ([ClusterModel(walltime=9)], [None, 3]),
            "checkpoint": CHECKPOINTS,
            "seeds": ([1, np.int64(1)], [0, *NO_INTS]),
        },
        {"num_workers": 2, "seconds_per_unit": 1.0, "num_trials": 2, "seeds": 1},
        lambda **given: plan(a_study(), **given),
    ),
    Door(
        profile,
        {
            "n_configs": COUNTS,
            "n_units": COUNTS,
            "time_budget": DURATIONS,
            "gpu": AT_LEAST_ZERO,
        },
        {},
        lambda **given: profile(a_study(), **given),
    ),
    Door(
        compare_schedulers,
        {
            "table": ([TABLE], [None, CURVES, 3]),
            "schedulers": ([None, {"a": FIFO(2)}], [[FIFO(2)], {"a": 3}, {3: FIFO(2)}, "ASHA"]),
            "workers": ([(1,), [1, 2]], [3, [0], [1.5], "1", [True], None]),
            "seeds": ([1], [0, None, *NO_INTS]),
            "target": NUMBERS_OR_NONE,
        },
        {"table": TABLE, "workers": (1,), "seeds": 1},
    ),
    Door(standard_schedulers, {"max_t": COUNTS}, {}),
    Door(parse_scheduler, {"text": (["FIFO(3)"], [None, "", 3, []])}, {}),
    Door(
        SyntheticCurves,
        {
            "seconds_per_unit": ([(1,), (1, 2.5)], [(), (0,), ("1",), 3, None, (NAN,), "12"]),
            "max_t": COUNTS,
            "mode": MODES,
            "rank_correlation": ([0, 1, 0.5], [-0.1, 1.1, None, *NO_NUMBERS]),
            "trend": ([0, -1.5, 10], [None, *NO_NUMBERS]),
            "seed": FROM_ZERO,
        },
        {"seconds_per_unit": (1.0,), "max_t": 3},
    ),
    # -- results
    *(
        Door(
            getattr(of, act),
            rows,
            {},
            lambda make=make, act=act, **given: getattr(make(), act)(**given),
        )
        for of, make, act, rows in (
            (Result, a_result, "best_trials", {"k": COUNTS}),
            (
                Result,
                a_result,
                "to_html",
                {"path": (["nowhere/report.html"], [None, *NO_PATHS])},
            ),
            (Result, a_result, "top_k_curve", {"k": COUNTS}),
            (Result, a_result, "time_to_solution", {"target": ([1, -2.5], [None, *NO_NUMBERS])}),
            (Result, a_result, "trial", {"trial_id": ([0, np.int64(0)], [None, *NO_INTS])}),
            (Result, a_result, "trials", {"metrics": COMPARES}),
            (Result, a_result, "schedule", {"trial_id": TRIAL_OR_NONE}),
            (Result, a_result, "training", {"trial_id": TRIAL_OR_NONE}),
            (Result, a_result, "checkpoint", {"trial_id": TRIAL_OR_NONE}),
            (Schedule, a_schedule, "at", {"unit": ([1, np.int64(3)], [0, 4, None, *NO_INTS])}),
            (Schedule, a_schedule, "values", {"name": (["x"], [None, *NO_TEXTS])}),
            (Schedule, a_schedule, "stretch", {"max_t": COUNTS}),
            (
                Schedule,
                a_schedule,
                "save",
                {"path": (["s.json", Path("s.json")], [None, *NO_PATHS])},
            ),
            (Schedule, a_schedule, "load", {"path": (["no.json"], [None, *NO_PATHS])}),
            (
                Schedule,
                a_schedule,
                "fit_multistep",
                {
                    "name": (["x"], NO_TEXTS),
                    "max_steps": ([0, np.int64(2)], [-1, None, *NO_INTS]),
                    "tolerance": ([0.1, np.float32(1)], [0, -1, None, *NO_NUMBERS]),
                },
            ),
        )
    ),
]
NAMED = {door.of: door for door in DOORS}

# What takes no values of users, and parameters that are not checked by name.
WITHOUT_VALUES = {
    *("Trainable", "Result", "Recommendation", "Scheduler", "Searcher", "Domain", "Callback"),
    *("StudyInfo", "FrozenTrial", "FrozenReport", "StudySummary", "Curve", "MemoryStore"),
    *(
        "RankTrial",
        "CleanupResult",
        "Snapshot",
        "snapshot",
        "restore",
    ),  # any state: tested where it is written
}
WITH_OBJECTS = {Study.tell, Result.apply}  # of ask(), of a journal
UNCHECKED = {
    (plan, "study"): "an object of this package, as in `self`",
    (profile, "study"): "the same",
    (slurm_cluster, "options"): "SLURMCluster's own",
}


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """All that users call."""
    for module in (
        *(daskhpo, daskhpo.space, daskhpo.schedulers, daskhpo.searchers, daskhpo.callbacks),
        *(daskhpo.checkpoints, daskhpo.cluster, daskhpo.simulation, daskhpo.distributed),
    ):
        for name in getattr(module, "__all__", None) or vars(module):
            found = getattr(module, name)
            if callable(found) and not name.startswith("_") and name not in WITHOUT_VALUES:
                yield name, found
    for of in (Study, Result, Schedule):
        for name in vars(of):
            found = getattr(of, name)
            if inspect.isroutine(found) and not name.startswith("_") and found not in WITH_OBJECTS:
                yield f"{of.__name__}.{name}", found


def parameters(of: Callable[..., Any]) -> set[str]:
    """The names of its parameters, also of those that a TypedDict names."""
    names = set()
    function = of.__init__ if inspect.isclass(of) else of  # type: ignore[misc]
    for parameter in inspect.signature(of).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            hint = get_type_hints(function, include_extras=True)[parameter.name]
            names |= set(get_type_hints(get_args(hint)[0])) if get_args(hint) else {parameter.name}
        elif parameter.name not in ("self", "cls"):
            names.add(parameter.name)
    return names - {name for door, name in UNCHECKED if door is of}


@pytest.mark.parametrize(
    ("name", "of"), list(public()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_public_parameter_has_a_row(name: str, of: Callable[..., Any]) -> None:
    if not (wanted := parameters(of)):
        return
    assert of in NAMED, f"{name} has parameters {wanted} and no row in DOORS"
    if of is RunOptions:
        wanted = set(RUN)
    missing = wanted - set(NAMED[of].rows)
    assert not missing, f"{name}: parameters without a row: {missing}"


CASES = [(door, name) for door in DOORS for name in door.rows]
IDS = [f"{door.of.__qualname__}-{name}" for door, name in CASES]
ACCEPTED = (Reached, MissingLibrary, FileNotFoundError, StudyNotRunning, CheckpointMissing)


@pytest.fixture(autouse=True)
def doors_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing begins behind the doors, and the folder is empty."""

    def reached(*_: Any, **__: Any) -> Any:
        raise Reached

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("daskhpo.study.study.check_startable", reached)
    monkeypatch.setattr("daskhpo.remote.submit.check_startable", reached)
    monkeypatch.setattr("daskhpo.cluster.slurm.cluster_class", reached)
    monkeypatch.setattr("daskhpo.distributed.launcher.RankProcess", reached)
    monkeypatch.setattr("daskhpo.remote.submit.known_options", lambda: {*WORKERS, *WORKER_WORDS})
    return tmp_path


WORKER_WORDS = inspect.signature(slurm_cluster).parameters


def called(door: Door, name: str, value: Any) -> Any:
    return (door.call or door.of)(**door.others | {name: value})


@pytest.mark.parametrize(("door", "name"), CASES, ids=IDS)
def test_good_values_are_accepted(door: Door, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if door.of is profile:
        monkeypatch.setattr(Study, "run", NAMED[Study.run].of)

        def reached(*_: Any, **__: Any) -> Any:
            raise Reached

        monkeypatch.setattr(Study, "run", reached)
    for value in door.rows[name][0]:
        try:
            called(door, name, value)
        except ACCEPTED:
            pass
        except Exception as error:
            raise AssertionError(f"{name}={value!r} was refused") from error


@pytest.mark.parametrize(("door", "name"), CASES, ids=IDS)
def test_bad_values_are_refused_by_name_before_anything_starts(
    door: Door, name: str, doors_only: Path
) -> None:
    for value in door.rows[name][1]:
        try:
            called(door, name, value)
        except (TypeError, ValueError) as error:
            message = str(error)
        except Reached:
            pytest.fail(f"{name}={arguments.shown(value)} was accepted")
        else:
            pytest.fail(f"{name}={arguments.shown(value)} was accepted")
        assert name in message, f"{name}={arguments.shown(value)}: {message}"
        assert message.isprintable() or "\n" in message
        assert not list(doors_only.iterdir())


# -- warnings ------------------------------------------------------------------------------------


def test_a_pair_that_looks_like_a_range_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"space\['lr'\].*Real\(0.0001, 0.1\)"):
        Study(None, {"lr": (1e-4, 1e-1), **X}, "loss", scheduler=FIFO(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Space({"a": (3, 1), "b": ("x", "y"), "c": (1, 2, 3), "d": (True, False)})


@pytest.mark.parametrize("security", [False, None])
def test_a_cluster_that_is_open_to_everybody_says_so(security: Any) -> None:
    with (
        pytest.warns(UserWarning, match="neither encrypted nor authenticated"),
        pytest.raises(Reached),
    ):
        slurm_cluster(1, security=security)


@pytest.mark.parametrize(
    ("scheduler", "n", "warned"),
    [
        (ASHA(27, variant="promotion"), 20, True),
        (ASHA(27, variant="promotion"), 26, True),
        (ASHA(27, variant="promotion"), 27, False),
        (ASHA(27, grace_period=9, variant="promotion"), 2, True),
        (ASHA(27, grace_period=9, variant="promotion"), 3, False),
        (AsyncHyperband(27, variant="promotion"), 40, False),
        (MedianStopping(ASHA(27, variant="promotion")), 20, True),
        (ASHA(27), 1, False),
        (FIFO(27), 1, False),
        (Hyperband(27), 1, False),
    ],
)
def test_a_study_that_may_train_no_trial_to_the_end_says_so(
    scheduler: Any, n: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Reached):
        a_study(scheduler=scheduler).start(num_trials=n)
    assert ("may be too few" in caplog.text) == warned
    space = {"x": Integer(0, 99)}  # the best comes first: no other one is promoted
    simulation = Simulation(Decay, space, "loss", "min", scheduler, GridSearch(100), 1)
    assert (simulation.run(n).trials()["resource"].max() == 27) == (not warned)


def test_a_population_of_one_is_refused() -> None:
    study = a_study(scheduler=PBT(9, 3, ["x"]))
    with pytest.raises(ValueError, match="num_trials=1 is the size of the population"):
        study.start(num_trials=1)


# -- what is kept --------------------------------------------------------------------------------


def test_numbers_of_numpy_become_pythons() -> None:
    options = RunOptions(
        num_trials=np.int64(3),
        target=np.float32(0.5),
        fail_fast=np.True_,
        resources={"gpu": np.int8(1)},
    )
    assert [type(v) for v in (options.num_trials, options.target, options.fail_fast)] == [
        int,
        float,
        bool,
    ]
    assert type(options.resources["gpu"]) is int
    assert repr(ASHA(np.int64(9), grace_period=np.int8(3))) == repr(ASHA(9, grace_period=3))
    assert repr(GPSearch(kappa=np.float64(2))) == repr(GPSearch(kappa=2.0))
    assert repr(MedianStopping(FIFO(np.int64(3)), np.int64(2))) == repr(MedianStopping(FIFO(3), 2))
    assert type(Study(None, X, "loss", scheduler=FIFO(1), seed=np.int64(3)).problem.seed) is int
    assert Real(np.float32(0.5), np.int64(1), log=np.True_) == Real(0.5, 1, log=True)


def test_a_refusal_is_both_a_type_error_and_a_value_error() -> None:
    for kind in (TypeError, ValueError, InvalidArgument):
        with pytest.raises(kind, match="num_trials='3' must be an int of at least 1"):
            RunOptions(num_trials="3")  # type: ignore[arg-type]


def test_a_message_is_short_and_safe_to_print() -> None:
    class Loud:
        def __repr__(self) -> str:
            return "\x1b[31m" + "x" * 10_000

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    for value in (Loud(), Broken(), 10**5000, "y" * 10_000, "\x1b]0;title\x07", "\ud800"):
        with pytest.raises(InvalidArgument) as refusal:
            Study(None, X, "loss", scheduler=FIFO(1), name=value)  # type: ignore[arg-type]
        message = str(refusal.value)
        assert len(message) < 600
        assert message.isprintable()
