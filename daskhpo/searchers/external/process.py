"""Optimisers that live in a Python environment of their own, and speak one JSON line per act."""

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
from pathlib import Path
from typing import IO, Any

from daskhpo.core.errors import OptimiserLost
from daskhpo.core.space import Categorical, Domain, Integer, Ordinal, Real, Space
from daskhpo.core.types import Config
from daskhpo.searchers.external.adapter import (
    AskTellSearcher,
    Handle,
    Optimiser,
    TrialOutcome,
    place,
    seed_below,
)

SHOWN = 2000  # characters of its last words
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


class OutOfProcess(AskTellSearcher):
    """An optimiser in a process of its own, for libraries that cannot live beside the study's.

    Parameters
    ----------
    script : path of a Python file that reads one JSON object a line from its standard input and
        answers each with one on its standard output; how-to/external-optimisers.md has the
        protocol and an example. It needs no daskhpo.
    python : interpreter that runs it, with whatever it imports; None: this one.
    options : handed to the script at its set-up, as they are.
    points_to_evaluate : configurations to try first, in this order.
    timeout : seconds that an answer may take.

    Notes
    -----
    If the process ends, does not answer in time, or answers with an error, it is killed; that is
    logged once with the end of its standard error, and the search goes on at random. It starts with
    the first suggestion and ends with the study. Where it runs (``python``, the folder of
    ``script``) and ``timeout`` are not part of a study's definition, and may change when it is
    resumed.

    Raises
    ------
    ValueError : no such script or interpreter.
    OptimiserLost : (when the study runs) it could not be started, or refused the space.
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
        if not timeout > 0:
            raise ValueError(f"timeout={timeout!r} must be a number of seconds above 0")
        self.script = Path(script).expanduser().absolute()
        if not self.script.is_file():
            raise ValueError(f"script={str(script)!r} is not a file")
        self.python = sys.executable if python is None else interpreter(python)
        self.options, self.timeout = dict(options or {}), timeout

    def described(self) -> list[str]:
        return [f"script={self.script.name!r}", f"options={self.options!r}"]

    def optimiser(self, space: Space, seed: int) -> Optimiser:
        command = [self.python, str(self.script)]
        return ProcessOptimiser(command, space, seed, self.options, self.timeout)


def interpreter(python: str | os.PathLike[str]) -> str:
    """The whole path of an interpreter; links stay, since a virtual environment is one.

    Raises
    ------
    ValueError : there is none.
    """
    found = shutil.which(os.path.expanduser(python))
    if found is None:
        raise ValueError(f"python={str(python)!r} is not the path of a program")
    return os.path.abspath(found)


class ProcessOptimiser(Optimiser):
    """The near end of the pipe. A copy starts a process of its own and tells it all of this one.

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
        self._said: list[str] = []
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
        twin._said, twin._process = [], _Process(self._command)
        for line in self._said:
            twin._say(line)
        return twin

    def _call(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return self._say(json.dumps(message))

    def _say(self, line: str) -> dict[str, Any]:
        self._said.append(line)
        try:
            answer = json.loads(self._process.call(line, self._timeout))
            if not isinstance(answer, dict):
                raise ValueError(f"it answered {answer!r}, which is no JSON object")
            if "error" in answer:
                raise ValueError(f"it answered with an error: {answer['error']}")
            return answer
        except (OSError, ValueError, TimeoutError) as error:
            words = self._process.end()
            raise OptimiserLost(
                f"the optimiser {' '.join(self._command)!r} is of no use any more: {error}\n"
                f"to the line {line[:SHOWN]}\nits last words were: {words or '(none)'}"
            ) from error


class _Process:
    """A child that is sent lines and answers each with one; it ends when this is let go of."""

    def __init__(self, command: Sequence[str]) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        environment = {name: v for name, v in os.environ.items() if name not in FOREIGN}
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                env=environment,
                start_new_session=True,  # an interrupt from the keyboard is for the study
            )
        except OSError as error:
            self._words.close()
            raise OptimiserLost(f"{' '.join(command)!r} could not be started: {error}") from error
        self._end = weakref.finalize(self, _end, self._child, self._words)

    def call(self, line: str, timeout: float) -> bytes:
        """The answer to a line.

        Raises
        ------
        TimeoutError, OSError : there is none: it takes too long, or the process has ended.
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
        """Kill it if it still lives; the end of what it said on standard error."""
        return self._end() or ""


def _kill(child: subprocess.Popen[bytes], late: threading.Event | None = None) -> None:
    """End it and all that it has started; both ends of the pipe are closed by that."""
    if late is not None:
        late.set()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # its session is its own


def _end(child: subprocess.Popen[bytes], words: IO[bytes]) -> str:
    _kill(child)
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # it would flush what nobody reads any more
                pipe.close()
    with words:
        size = words.seek(0, os.SEEK_END)
        words.seek(max(0, size - SHOWN))
        return words.read().decode(errors="replace").strip()


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
        raise OptimiserLost(f"it answered {param!r} as a place among {len(domain.values)} values")
    return domain.values[param]
