"""`daskhpo tune`: a study of a program, from its command line alone."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from daskhpo.atomic_files import write_file
from daskhpo.cluster.jobs import is_over
from daskhpo.core.domains import (
    MOST_STEPS,
    Categorical,
    Domain,
    Integer,
    Ordinal,
    Real,
    n_steps,
)
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.parsing import parse_call
from daskhpo.engine.session import IfExists, check_startable, free_name
from daskhpo.schedulers import ASHA, FIFO, AsyncHyperband, GuardedASHA, Hyperband
from daskhpo.scripts.script import Passed, Script

RANGE = re.compile(r"^(?P<low>[^:]+?)\.\.(?P<high>[^:]+)(?::(?P<form>.+))?$")
GIVEN: tuple[tuple[str, Passed, str], ...] = (
    ("parameter", "option", "given as --NAME VALUE; the same as --NAME VALUES"),
    ("assign", "assignment", "given as NAME=VALUE; the same as NAME=VALUES"),
    ("env", "environment", "given as an environment variable"),
    ("set", "yaml", "given in the YAML file, such as model.lr"),
)
SCHEDULERS = {kind.__name__: kind for kind in (ASHA, AsyncHyperband, Hyperband, GuardedASHA, FIFO)}
TEMPLATE = '''"""Study of {script}, written by `daskhpo tune`; `daskhpo run` runs it."""

from daskhpo import Script, Study
from daskhpo.schedulers import ASHA, FIFO, AsyncHyperband, GuardedASHA, Hyperband
from daskhpo.space import Categorical, Integer, Ordinal, Real

study = Study(
    Script(
{arguments}
    ),
    space={{
{space}
    }},
    metric={metric!r},
    mode={mode!r},
    {method},
    storage={storage!r},
    name={name!r},
    seed={seed!r},
)
'''


class CommandParser(argparse.ArgumentParser):
    """A parser of a command.

    Parameters
    ----------
    keeps_unknown : True: options that it does not know are kept as ``script_options``, and so is
        all that follows ``--``, as ``script_arguments``.
    """

    def __init__(self, *args: Any, keeps_unknown: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": not keeps_unknown} | kwargs)
        self._keeps_unknown = keeps_unknown

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the arguments; see ``keeps_unknown``."""
        if not self._keeps_unknown or args is None:
            return super().parse_known_args(args, namespace)
        own, fixed = list(args), list[str]()
        if "--" in own:
            place = own.index("--")
            own, fixed = own[:place], own[place + 1 :]
        parsed, unknown = super().parse_known_args(own, namespace)
        parsed.script_options, parsed.script_arguments = unknown, fixed
        return parsed, []


def add_to(commands: Any) -> CommandParser:
    """Add the command; options of a run are added by the caller."""
    parser: CommandParser = commands.add_parser(
        "tune",
        keeps_unknown=True,
        help="tune a program that knows nothing of daskhpo",
        description="Tune a program. Its options are given with what they may be: --lr "
        "1e-4..1e-1:log, --layers 1..40, --width 32..512:32 (in steps of 32), --optimiser "
        "sgd,adam, --amp? (given, or not). All that follows -- is given to it as it is.",
    )
    parser.add_argument(
        "script", metavar="SCRIPT", help="a Python file, or any program; it is first"
    )
    parser.add_argument("--metric", required=True, help="name of the number to optimise")
    parser.add_argument("--mode", choices=("min", "max"), default="min")
    parser.add_argument(
        "--max-t", type=int, help="reports of a trial that is trained to the end; 1 if it has one"
    )
    parser.add_argument(
        "--method",
        metavar="SCHEDULER",
        help="such as 'ASHA(max_t=81, grace_period=3)' (default: the study's, for --max-t)",
    )
    for name, _, about in GIVEN:
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="NAME=VALUES", help=about
        )
    parser.add_argument("--yaml", metavar="FILE", help="file whose values --set replaces")
    parser.add_argument(
        "--read",
        default="output",
        help="'output' (default), or a file that it writes: '{folder}/log.csv', '.jsonl', or a "
        "folder of TensorBoard's files",
    )
    parser.add_argument("--pattern", help="regular expression with a group named as the metric")
    parser.add_argument("--step", metavar="NAME", help="number in a report that counts the units")
    parser.add_argument(
        "--checkpoint-arguments",
        default="",
        metavar="ARGUMENTS",
        help="such as '--output-dir {folder}'",
    )
    parser.add_argument(
        "--resume-arguments",
        default="",
        metavar="ARGUMENTS",
        help="such as '--resume {folder}/last.pt'",
    )
    parser.add_argument("--grace", default="30s", help="time to end after SIGTERM (default: 30s)")
    parser.add_argument("--storage", default="runs", help="directory of studies (default: runs)")
    parser.add_argument("--name", help="name of the study (default: from the script and the time)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--if-exists", choices=get_args(IfExists), default="error")
    parser.add_argument(
        "--write", metavar="FILE.py", type=Path, help="write the study to a file, and run nothing"
    )
    return parser


def written_study(options: argparse.Namespace) -> str:
    """Write a Python file that defines the study; return it as ``FILE.py:study``.

    Raises
    ------
    InvalidArgument : an option is not valid.
    """
    from daskhpo.study.study import Study

    space, passed, arguments = _parsed(options)
    if not space:
        raise InvalidArgument(
            f"nothing to tune: give options of {options.script} with what they may be, such as "
            "--lr 1e-4..1e-1:log"
        )
    given = {
        "passed": {name: how for name, how in passed.items() if how != "option"},
        "arguments": arguments,
        "yaml": None if options.yaml is None else str(Path(options.yaml).absolute()),
        "read": options.read,
        "pattern": options.pattern,
        "step": options.step,
        "checkpoint_arguments": options.checkpoint_arguments,
        "resume_arguments": options.resume_arguments,
        "grace": None if options.grace == "30s" else options.grace,
    }
    defaults = Script.__init__.__kwdefaults__ or {}
    given = {name: value for name, value in given.items() if value and value != defaults[name]}
    script = Script(options.script, options.metric, **given)
    if options.method is not None:
        scheduler, method = parse_call(options.method, SCHEDULERS), f"scheduler={options.method}"
        if options.max_t is not None:
            raise InvalidArgument("--max-t is part of --method: give one of the two")
    else:
        scheduler, method = None, f"max_t={options.max_t}"
    name = options.name or f"{script.path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    study = Study(
        script,
        space,
        options.metric,
        options.mode,
        scheduler=scheduler,
        max_t=options.max_t,
        storage=options.storage,
        name=name,
        seed=options.seed,
    )
    if options.if_exists == "new":
        study.name = free_name(study.storage, name)
    called = [repr(str(script.path)), repr(options.metric)]
    text = TEMPLATE.format(
        script=script.path.name,
        arguments="\n".join(
            f"        {each},"
            for each in [*called, *(f"{key}={value!r}" for key, value in given.items())]
        ),
        space="\n".join(f"        {key!r}: {value!r}," for key, value in space.items()),
        metric=options.metric,
        mode=options.mode,
        method=method,
        storage=str(study.storage.absolute()),
        name=study.name,
        seed=options.seed,
    )
    path = options.write or study.path / "study.py"
    if options.write is None:
        resume = options.if_exists == "resume"
        check_startable(study.path, study.problem, resume=resume, job_is_over=is_over)
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text)
    return f"{path}:study"


def _parsed(
    options: argparse.Namespace,
) -> tuple[dict[str, Any], dict[str, Passed], list[str]]:
    """Return the space, how each hyperparameter is given, and fixed arguments."""
    space: dict[str, Any] = {}
    passed: dict[str, Passed] = {}
    fixed: list[str] = []

    def add(name: str, values: str, how: Passed, always: bool = False) -> bool:
        domain = domain_of(values)
        if not (always or isinstance(domain, Domain)):
            return False
        if name in space:
            raise InvalidArgument(f"{name} is given twice")
        space[name], passed[name] = domain, how
        return True

    words = list(options.script_options)
    while words:
        word = words.pop(0)
        name, sign, values = word.partition("=")
        if not word.startswith("-"):
            if not (sign and add(name, values, "assignment")):
                if RANGE.match(word):
                    raise InvalidArgument(f"{word}: of which option? Write --NAME {word}")
                fixed.append(word)
        elif name.endswith("?") and not sign:
            space[name.strip("-?")] = Categorical([True, False])
        elif sign:
            if not add(name.lstrip("-"), values, "option"):
                fixed.append(word)
        elif words and not words[0].startswith("--") and add(name.lstrip("-"), words[0], "option"):
            words.pop(0)
        else:
            fixed.append(word)
    for option, how, _ in GIVEN:
        for word in getattr(options, option):
            name, sign, values = word.partition("=")
            if not sign or not name:
                raise InvalidArgument(f"--{option} {word} must be NAME=VALUES, such as lr=0..1")
            add(name, values, how, always=True)
    return space, passed, fixed + list(options.script_arguments)


def domain_of(text: str) -> Any:
    """Return the domain that a text describes, or its value if it is a single one.

    Raises
    ------
    InvalidArgument : it looks like a range and is none.

    Examples
    --------
    >>> domain_of("1e-4..1e-1:log")
    Real(low=0.0001, high=0.1, log=True)
    >>> domain_of("1..40")
    Integer(low=1, high=40, log=False)
    >>> domain_of("32..96:32")
    Ordinal(values=(32, 64, 96))
    >>> domain_of("sgd,adam")
    Categorical(values=('sgd', 'adam'))
    """
    if match := RANGE.match(text):
        low, high, form = match["low"], match["high"], match["form"]
        ends = _number(low), _number(high)
        if isinstance(ends[0], str) or isinstance(ends[1], str):
            if "/" in text or text.startswith(".."):
                return text  # a path, such as ../data
            raise InvalidArgument(f"{text} must be LOW..HIGH with numbers, such as 1e-4..1e-1:log")
        is_int = isinstance(ends[0], int) and isinstance(ends[1], int)
        if form == "log" or form is None:
            return (Integer if is_int else Real)(*ends, form == "log")  # type: ignore[arg-type]
        return _stepped(text, ends[0], ends[1], _number(form))
    values = [_number(each) for each in text.split(",")]
    if len(values) == 1:
        return values[0]
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) == len(values) and sorted(set(numbers)) == numbers:
        return Ordinal(numbers)
    return Categorical(values)


def _stepped(text: str, low: float, high: float, step: Any) -> Any:
    if isinstance(step, str) or step <= 0:
        raise InvalidArgument(f"{text}: after the colon stands log, or a step such as 32")
    if not 2 <= n_steps(low, high, step) <= MOST_STEPS:
        raise InvalidArgument(f"{text} must have between 2 and {MOST_STEPS} values")
    return Ordinal.steps(low, high, step)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
