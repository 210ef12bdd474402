"""A program as a trial: its command, its reports, its end and its continuation."""

from __future__ import annotations

import os
import queue
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from daskhpo.core.arguments import (
    check_choice,
    check_list,
    check_mapping,
    check_path,
    check_text,
    optional,
)
from daskhpo.core.errors import InvalidArgument
from daskhpo.core.quantities import check_duration
from daskhpo.distributed.processes import rank_gpus
from daskhpo.scripts.checkpoint_files import Stamps, read_files, stamps, write_files
from daskhpo.scripts.program import Program
from daskhpo.scripts.readers import Numbers, OutputReader, file_reader, step_of
from daskhpo.trainable import TrialContext

Passed = Literal["option", "assignment", "environment", "yaml"]

QUOTED_LINES = 20  # of a program that failed, in its error
FILE_SECONDS = 0.1  # between looks at a program's files
LATE_SAVE_SECONDS = 10.0  # to wait until a program has saved what it has reported
WRITTEN_SECONDS = 0.5  # without a change: all files of a checkpoint are written


class ScriptFailed(RuntimeError):
    """The program of a trial failed, or reported nothing."""


class Script:
    """A trainable that is a program, such as ``python train.py --lr 0.1``.

    A unit is one report of the metric: a line that it prints, or a row that it adds to a file. It
    is frozen, by SIGSTOP, while the study decides. A trial that is stopped or paused gets SIGTERM,
    with all its processes, and SIGKILL after ``grace``.

    In ``read`` and all arguments, ``{folder}`` is a folder of the trial
    on its worker's machine, whose files are its state; ``{yaml}`` the YAML file made for it,
    ``{trial}`` its number, ``{seed}`` its seed, ``{max_t}`` the units of a full training.

    Parameters
    ----------
    path : a Python file, or any program.
    metric : name of the number in its reports that the study optimises.
    passed : for each hyperparameter, how it is given: as an ``"option"`` (``--lr 0.1``, the
        default; True is ``--lr``, False nothing), an ``"assignment"`` (``lr=0.1``), in the
        ``"environment"``, or in the ``"yaml"`` file (``model.lr`` there is ``lr`` of ``model``).
    arguments : further ones, given as they are.
    yaml : file whose values those of ``passed`` replace.
    read : ``"output"``, or a file that the program writes: ``"{folder}/log.csv"``, ``.jsonl``, or
        a folder of TensorBoard's event files.
    pattern : regular expression with named groups for lines of its output; None: JSON, or
        ``name=0.1`` and ``name: 0.1``.
    step : number in a report that counts the units; None: ``epoch``, ``step``, ``iteration``, if
        there is one. A unit that is printed again after a program has continued is not counted.
    checkpoint_arguments : those that tell the program where its checkpoints are.
    resume_arguments : those that let it continue from there. A program with one of the two can be
        continued; any other one trains again from its start.
    grace : seconds, or text such as ``"1m"``, that it has to end after SIGTERM.
    environment : variables that it gets besides those of its worker.

    Raises
    ------
    TypeError, ValueError : an argument is not valid.

    Examples
    --------
    >>> import sys
    >>> script = Script(sys.executable, metric="val_loss", arguments=["train.py"])
    >>> script.command({"lr": 0.1, "amp": True}, {})[1:]
    ['train.py', '--lr', '0.1', '--amp']
    """

    def __init__(
        self,
        path: str | Path,
        metric: str,
        *,
        passed: Mapping[str, Passed] | None = None,
        arguments: Sequence[str] = (),
        yaml: str | Path | None = None,
        read: str = "output",
        pattern: str | None = None,
        step: str | None = None,
        checkpoint_arguments: str = "",
        resume_arguments: str = "",
        grace: float | str = 30.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        given = check_path("path", path)
        found = given if given.is_file() else Path(shutil.which(str(given)) or given)
        if not found.is_file():
            raise InvalidArgument(f"path={str(given)!r} is neither a file nor a program")
        self.path = found.absolute()
        if self.path.suffix != ".py" and not os.access(self.path, os.X_OK):
            raise InvalidArgument(f"path={str(given)!r} is not executable: chmod +x {given}")
        self.metric = check_text("metric", metric)
        self.passed = {
            name: check_choice(f"passed[{name!r}]", how, get_args(Passed))
            for name, how in check_mapping("passed", passed or {}).items()
        }
        self.arguments = [str(each) for each in check_list("arguments", arguments, of="texts")]
        self.yaml = optional(check_path, "yaml", yaml)
        self.read, self.step = check_text("read", read), optional(check_text, "step", step)
        self.pattern = optional(_check_pattern, "pattern", pattern)
        self.checkpoint_arguments = _check_words("checkpoint_arguments", checkpoint_arguments)
        self.resume_arguments = _check_words("resume_arguments", resume_arguments)
        self.grace = check_duration("grace", grace)
        self.environment = dict(check_mapping("environment", environment or {}))
        self.folder = Path.cwd()
        self._check()

    def __repr__(self) -> str:
        return f"Script({str(self.path)!r}, {self.metric!r})"

    def _check(self) -> None:
        if self.read != "output" and "{folder}" not in self.read:
            raise InvalidArgument(
                f"read={self.read!r} would be one file for all trials: give '{{folder}}/"
                f"{Path(self.read).name}', and let the program write there, such as by "
                "arguments=['--output', '{folder}']"
            )
        is_yaml = [name for name, how in self.passed.items() if how == "yaml"]
        if is_yaml and self.yaml is None:
            raise InvalidArgument(
                f"passed={{{is_yaml[0]!r}: 'yaml'}} needs the YAML file: give yaml="
            )
        if self.yaml is not None:
            if not self.yaml.is_file():
                raise InvalidArgument(f"yaml={str(self.yaml)!r} is not a file")
            if not any("{yaml}" in each for each in [*self.arguments, self.checkpoint_arguments]):
                raise InvalidArgument(
                    "yaml= is given, but not to the program: add its option to arguments, such as "
                    "['--config', '{yaml}']"
                )
            self.yaml = self.yaml.absolute()
        if self.pattern is None or self.metric in re.compile(self.pattern).groupindex:
            return
        raise InvalidArgument(
            f"pattern={self.pattern!r} has no group of the metric: write (?P<{self.metric}>...)"
            if self.metric.isidentifier()
            else f"pattern= needs a metric that can be a group's name, not {self.metric!r}"
        )

    @property
    def continues(self) -> bool:
        """True if it can continue from its own checkpoints."""
        return bool(self.checkpoint_arguments or self.resume_arguments)

    def command(
        self, config: Mapping[str, Any], values: Mapping[str, str], resumed: bool = False
    ) -> list[str]:
        """Return the command of a trial; ``values``: of the placeholders."""
        words = [sys.executable, str(self.path)] if self.path.suffix == ".py" else [str(self.path)]
        words += [_filled(each, values) for each in self.arguments]
        for name, value in config.items():
            match self.passed.get(name, "option"):
                case "option" if value is True:
                    words.append(_option(name))
                case "option" if value is not False:
                    words += [_option(name), str(value)]
                case "assignment":
                    words.append(f"{name}={value}")
        for text in (self.checkpoint_arguments, self.resume_arguments if resumed else ""):
            words += [_filled(word, values) for word in shlex.split(text)]
        return words

    def __call__(self, config: Mapping[str, Any], trial: TrialContext) -> None:
        with ScriptRun(self, config, trial) as run:
            run.restore(trial.checkpoint)
            for metrics in run.units():
                trial.report(metrics, state=run.state if self.continues else None)
                if trial.resource >= trial.max_t:
                    run.finish()
                    return


class ScriptRun:
    """The program of one trial while it is in a slot."""

    def __init__(self, script: Script, config: Mapping[str, Any], trial: TrialContext) -> None:
        self._script, self._config, self._trial = script, config, trial
        self._folder = Path(tempfile.mkdtemp(prefix=f"daskhpo-trial-{trial.id}-"))
        self._checkpoints = self._folder / "state"
        self._checkpoints.mkdir()
        self._values = {
            "folder": str(self._checkpoints),
            "yaml": str(self._folder / "config.yaml"),
            "trial": str(trial.id),
            "seed": str(trial.seed),
            "max_t": str(trial.max_t),
        }
        self._program: Program | None = None
        self._last: deque[str] = deque(maxlen=QUOTED_LINES)
        self._ahead: deque[Numbers] = deque()  # reported by the program, and not by the trial
        self._step: float | None = None
        self._began: Stamps = {}  # its checkpoints when the program started
        self._reported: Stamps | None = None  # when it reported last; None: not since
        self._saves_late = False  # it reports before it saves
        self._output = OutputReader(script.metric, script.pattern)
        self._file = None
        if script.read != "output":
            path = Path(_filled(script.read, self._values))
            self._file = file_reader(path, script.metric)

    def __enter__(self) -> ScriptRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Restore a state of :meth:`state`."""
        if state is None:
            return
        write_files(self._checkpoints, state["files"])
        self._ahead.extend(dict(row) for row in state["ahead"])
        self._step = state["step"]
        if self._file is not None:
            self._file.n_read = state["n_read"]

    def state(self) -> dict[str, Any] | None:
        """Stop the program, and return its checkpoints; None: it has none.

        They are copied while it is frozen and writes to none of them, since SIGTERM may hit a
        program in the middle of a file. One that ends by itself after SIGTERM has saved, if it
        saves then, so that what it leaves counts. One that reports before it saves has a moment
        to save.
        """
        program = self._program
        if program is not None:
            if self._saves_late and not self._ahead:
                self._let_it_save(program)
            program.freeze_between_writes(self._checkpoints)
        files = read_files(self._checkpoints)
        self.stop()
        if program is not None and program.wait() >= 0:
            files = read_files(self._checkpoints)
        if not files:
            return None
        return {
            "files": files,
            "ahead": [dict(row) for row in self._ahead],
            "step": self._step,
            "n_read": 0 if self._file is None else self._file.n_read,
        }

    def _let_it_save(self, program: Program) -> None:
        """Let it run until it has saved, reports again or ends; not for long."""
        program.go_on()
        known = self._reported
        deadline = time.monotonic() + LATE_SAVE_SECONDS
        while not self._ahead and time.monotonic() < deadline:
            try:
                line = program.line(FILE_SECONDS)
            except queue.Empty:
                self._look()
            else:
                if line is None:
                    return
                self._read(line)
            if (found := stamps(self._checkpoints)) != known:
                known, deadline = found, time.monotonic() + WRITTEN_SECONDS

    def units(self) -> Iterator[Numbers]:
        """Yield what the program reports, until it ends; it is frozen meanwhile."""
        while True:
            while self._ahead:
                if self._program is not None:
                    self._program.freeze()
                    self._note_stamps()
                yield self._ahead.popleft()
                if self._program is not None and not self._ahead:
                    self._program.go_on()
            if self._program is None:
                self._program = self._begun()
            if not self._wait(self._program):
                return

    def _note_stamps(self) -> None:
        """Note its checkpoints at a report; at the first, whether it has saved."""
        before, self._reported = self._reported, stamps(self._checkpoints)
        if before is None:
            self._saves_late = self._reported == self._began

    def finish(self) -> None:
        """Let a fully trained program end by itself, for a while, unless it trains on."""
        if self._program is None:
            return
        self._program.go_on()
        deadline = time.monotonic() + self._script.grace
        while not self._ahead and (left := deadline - time.monotonic()) > 0:
            try:
                line = self._program.line(min(left, FILE_SECONDS))
            except queue.Empty:
                self._look()
                continue
            if line is None:
                return
            self._read(line)

    def stop(self) -> None:
        """Stop the program with all its processes; what it has reported is kept."""
        program, self._program = self._program, None
        if program is None:
            return
        program.stop(self._script.grace)
        for line in program.remaining_lines():
            self._read(line)
        self._look()

    def _begun(self) -> Program:
        """Start the program."""
        script, resumed = self._script, any(self._checkpoints.iterdir())
        self._began, self._reported = stamps(self._checkpoints), None
        gpus = rank_gpus(os.environ, self._trial.devices).environment(0)
        environment = {"OMP_NUM_THREADS": str(_n_cpus()), **os.environ, **gpus}
        environment |= {"PYTHONUNBUFFERED": "1", "DASKHPO_TRIAL": self._values["trial"]}
        environment |= script.environment
        for name, how in script.passed.items():
            if how == "environment":
                environment[name] = str(self._config[name])
        if script.yaml is not None:
            self._write_yaml(script.yaml)
        command = script.command(self._config, self._values, resumed)
        print("$ " + shlex.join(command), flush=True)
        return Program(command, environment, script.folder)

    def _wait(self, program: Program) -> bool:
        """Wait until the program has reported; False: it has ended."""
        while not self._ahead:
            try:
                line = program.line(None if self._file is None else FILE_SECONDS)
            except queue.Empty:
                self._look()
                continue
            if line is None:
                self._look()
                self._check_end(program.wait())
                return bool(self._ahead)
            self._read(line)
        return True

    def _check_end(self, status: int) -> None:
        last = "\n".join(self._last)
        if status != 0:
            how = f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"
            raise ScriptFailed(f"{self._script.path.name} {how}; it printed last:\n{last}")
        if self._trial.resource == 0 and not self._ahead:
            raise ScriptFailed(
                f"{self._script.path.name} ended well and reported no {self._script.metric!r} "
                f"({'in its output' if self._file is None else 'in ' + self._script.read}); it "
                f"printed last:\n{last}"
            )

    def _read(self, line: str) -> None:
        print(line, flush=True)
        self._last.append(line)
        if self._file is None and (metrics := self._output.read(line)) is not None:
            self._add(metrics)

    def _look(self) -> None:
        if self._file is not None:
            for metrics in self._file.new():
                self._add(metrics)

    def _add(self, metrics: Numbers) -> None:
        step = step_of(metrics, self._script.step)
        if step is not None:
            if self._step is not None and step <= self._step:
                return  # it was trained again
            self._step = step
        self._ahead.append(metrics)

    def _write_yaml(self, base: Path) -> None:
        import yaml

        data = yaml.safe_load(base.read_text()) or {}
        for name, how in self._script.passed.items():
            if how == "yaml":
                at = data
                *keys, last = name.split(".")
                for key in keys:
                    at = at.setdefault(key, {})
                at[last] = self._config[name]
        Path(self._values["yaml"]).write_text(yaml.safe_dump(data, sort_keys=False))


def _check_pattern(name: str, value: Any) -> str:
    text = check_text(name, value)
    try:
        re.compile(text)
    except re.error as error:
        raise InvalidArgument(f"{name}={text!r} is no regular expression: {error}") from None
    return text


def _check_words(name: str, value: Any) -> str:
    """Return arguments as one text, as a shell has them."""
    if value == "":
        return ""
    text = check_text(name, value)
    try:
        shlex.split(text)
    except ValueError as error:
        raise InvalidArgument(f"{name}={text!r} cannot be split into words: {error}") from None
    return text


def _n_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _option(name: str) -> str:
    return f"-{name}" if len(name) == 1 else f"--{name}"


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text
