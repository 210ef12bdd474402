"""Optimisers in a separate process, called by JSON lines over a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import IO, Any

from daskhpo.core.arguments import check_mapping, check_number, check_path
from daskhpo.core.domains import Categorical, Domain, Integer, Ordinal, Real
from daskhpo.core.errors import OptimiserLost
from daskhpo.core.space import Space
from daskhpo.core.types import Config
from daskhpo.searchers.external.adapter import (
    AskTellSearcher,
    Handle,
    Optimiser,
    TrialOutcome,
    place,
    seed_below,
)

SHOWN = 2000  # characters of the process's standard error in an error message
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


class OutOfProcess(AskTellSearcher):
    """An optimiser in a separate process, for libraries that conflict with others.

    Parameters
    ----------
    script : path of a Python file that reads one JSON object per line from standard input and
        answers each with one on standard output. how-to/external-optimisers.md has the protocol
        and an example. It does not need daskhpo.
    python : interpreter for the script, with all that it imports; None: the current one.
    options : passed unchanged to the script in its ``setup`` message.
    points_to_evaluate : configurations to try first, in this order.
    timeout : seconds for each answer.

    Notes
    -----
    The process starts with the first suggestion and ends with the study. If it ends earlier, does
    not answer in time, or answers with an error, it is killed. The error is then logged once, with
    the end of its standard error, and the search continues with random configurations.
    ``python``, the folder of ``script`` and ``timeout`` are not part of a study's definition; they
    may change when the study is resumed.

    Raises
    ------
    ValueError : no such script or interpreter.
    OptimiserLost : (when the study runs) the process could not be started, or refused the space.
    """

    def __init__(
        self,
        script: str | os.PathLike[str],
        python: str | os.PathLike[str] | None = None,
        options: Mapping[str, Any] | None = None,
        points_to_evaluate: Sequence[Config] | None = None,
        timeout: float = 600.0,
    ) -> None:
        super().__init__(points_to_evaluate)
        self.timeout = check_number("timeout", timeout, above=0, why="seconds")
        self.options = {} if options is None else check_mapping("options", options)
        self.script = check_path("script", script).absolute()
        if not self.script.is_file():
            raise ValueError(f"script={str(script)!r} is not a file; give the path of a script")
        self.python = sys.executable if python is None else interpreter(python)

    def described(self) -> list[str]:
        return [f"script={self.script.name!r}", f"options={self.options!r}"]

    def optimiser(self, space: Space, seed: int) -> Optimiser:
        command = [self.python, str(self.script)]
        return ProcessOptimiser(command, space, seed, self.options, self.timeout)


def interpreter(python: str | os.PathLike[str]) -> str:
    """Return the absolute path of an interpreter.

    Links are not resolved, because the interpreter of a virtual environment is one.

    Raises
    ------
    ValueError : no such program.
    """
    check_path("python", python)
    found = shutil.which(os.path.expanduser(python))
    if found is None:
        raise ValueError(f"python={str(python)!r} is not the path of a program")
    return os.path.abspath(found)


class ProcessOptimiser(Optimiser):
    """The parent's side of the pipe.

    A copy starts another process and sends it all messages that this one has received.

    Raises
    ------
    OptimiserLost : the process could not be started, or refused the space.
    """

    def __init__(
        self,
        command: Sequence[str],
        space: Space,
        seed: int,
        options: Mapping[str, Any],
        timeout: float,
    ) -> None:
        self._command, self._space, self._timeout = list(command), space, timeout
        self._sent: list[str] = []
        self._process = _Process(self._command)
        self._call(
            {
                "do": "setup",
                "seed": seed_below(2**31, seed),
                "space": [_described(name, domain) for name, domain in space.domains.items()],
                "options": dict(options),
            }
        )

    def ask(self) -> tuple[Handle, dict[str, Any]] | None:
        answer = self._call({"do": "ask"})
        if "values" not in answer:
            return None
        values, domains = answer["values"], self._space.domains
        if not isinstance(values, dict) or values.keys() != domains.keys():
            raise OptimiserLost(f"it answered {answer}, whose values are not {list(domains)}")
        return _handle(answer), {name: _value(domains[name], v) for name, v in values.items()}

    def tell(self, handle: Handle | None, config: Config, outcome: TrialOutcome) -> Handle:
        domains = self._space.domains.items()
        message = {
            "do": "tell",
            "handle": handle,
            "values": {name: _param(domain, config[name]) for name, domain in domains},
            "loss": outcome.loss,
            "resource": outcome.resource,
            "complete": outcome.complete,
        }
        return _handle(self._call(message))

    def close(self) -> None:
        self._process.end()

    def __deepcopy__(self, memo: Any) -> ProcessOptimiser:
        twin = object.__new__(ProcessOptimiser)
        twin._command, twin._space, twin._timeout = self._command, self._space, self._timeout
        twin._sent, twin._process = [], _Process(self._command)
        for line in self._sent:
            twin._send(line)
        return twin

    def _call(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return self._send(json.dumps(message))

    def _send(self, line: str) -> dict[str, Any]:
        self._sent.append(line)
        try:
            answer = json.loads(self._process.call(line, self._timeout))
            if not isinstance(answer, dict):
                raise ValueError(f"it answered {answer!r}, which is no JSON object")
            if "error" in answer:
                raise ValueError(f"it answered with an error: {answer['error']}")
            return answer
        except (OSError, ValueError, TimeoutError) as error:
            stderr = self._process.end()
            raise OptimiserLost(
                f"the optimiser {' '.join(self._command)!r} failed: {error}\n"
                f"message: {line[:SHOWN]}\nend of its standard error: {stderr or '(none)'}"
            ) from error


class _Process:
    """A child process that answers lines; it is killed when this object is deleted."""

    def __init__(self, command: Sequence[str]) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        environment = {name: v for name, v in os.environ.items() if name not in FOREIGN}
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=environment,
                start_new_session=True,  # Ctrl-C must reach the study only
            )
        except OSError as error:
            self._stderr.close()
            raise OptimiserLost(f"{' '.join(command)!r} could not be started: {error}") from error
        self._end = weakref.finalize(self, _end, self._child, self._stderr)

    def call(self, line: str, timeout: float) -> bytes:
        """Send a line and return the answer.

        Raises
        ------
        TimeoutError : no answer in time.
        OSError : the process has ended.
        """
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        late = threading.Event()
        timer = threading.Timer(timeout, _kill, [child, late])
        timer.start()
        try:
            child.stdin.write(line.encode() + b"\n")
            child.stdin.flush()
            answer = child.stdout.readline()
            if not answer.endswith(b"\n"):
                raise BrokenPipeError("the process has ended")
        except OSError:
            if late.is_set():
                raise TimeoutError(f"no answer within {timeout:g} seconds") from None
            raise
        finally:
            timer.cancel()
        return answer

    def end(self) -> str:
        """Kill the process if it runs; return the end of its standard error."""
        return self._end() or ""


def _kill(child: subprocess.Popen[bytes], late: threading.Event | None = None) -> None:
    """Kill the process and all that it started, which closes the pipe."""
    if late is not None:
        late.set()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # the child leads its process group


def _end(child: subprocess.Popen[bytes], stderr: IO[bytes]) -> str:
    _kill(child)
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # closing flushes, and the reader has gone
                pipe.close()
    with stderr:
        size = stderr.seek(0, os.SEEK_END)
        stderr.seek(max(0, size - SHOWN))
        return stderr.read().decode(errors="replace").strip()


def _described(name: str, domain: Domain) -> dict[str, Any]:
    match domain:
        case Real(low, high, log):
            return {"name": name, "kind": "real", "low": low, "high": high, "log": log}
        case Integer(low, high, log):
            return {"name": name, "kind": "integer", "low": low, "high": high, "log": log}
        case Ordinal(values=values):
            return {"name": name, "kind": "ordinal", "values": list(values)}
        case Categorical(values=values):
            return {"name": name, "kind": "categorical", "n": len(values)}
    raise ValueError(f"an optimiser in another process cannot search {domain!r}")


def _handle(answer: Mapping[str, Any]) -> Handle:
    if answer.get("handle") is None:
        raise OptimiserLost(f"it answered {answer}, which has no handle")
    return answer["handle"]


def _param(domain: Domain, value: Any) -> Any:
    return place(domain, value) if isinstance(domain, Categorical) else value


def _value(domain: Domain, param: Any) -> Any:
    if not isinstance(domain, Categorical):
        return param  # the space checks it
    if not isinstance(param, int) or not 0 <= param < len(domain.values):
        raise OptimiserLost(
            f"it answered {param!r} as a category; allowed are 0 to {len(domain.values) - 1}"
        )
    return domain.values[param]
