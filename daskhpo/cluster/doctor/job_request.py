"""What worker jobs would ask of Slurm, in the words of ``slurm_cluster``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from daskhpo.cluster.times import parse_walltime, slurm_time

_GPU_OPTIONS = ("--gres", "--gpus", "-G", "--gpus-per-node", "--gpus-per-task", "--gpus-per-socket")


@dataclass(frozen=True)
class Gres:
    """So many devices of a kind: ``gpu:a100:2`` is name ``gpu``, type ``a100``, count 2."""

    name: str
    type: str
    count: int

    def __str__(self) -> str:
        return ":".join(part for part in (self.name, self.type, str(self.count)) if part)


@dataclass(frozen=True)
class JobRequest:
    """What a worker job would ask for.

    Attributes
    ----------
    queue, account, cores, memory : as in ``slurm_cluster``; None: the site's default.
    walltime : ``"4h"``, ``"04:00:00"``, ``"1-00:00:00"``, or seconds; None: what Slurm gives.
    gpus_per_job : asked for as ``--gres=gpu:N``; 0: none.
    gres : in its place, such as ``"gpu:a100:1"``.
    job_extra_directives : more options of ``sbatch``. One that asks for GPUs replaces ``--gres``.
    job_script_prologue : lines of the job script before Python starts.
    python : the interpreter of the workers.

    Raises
    ------
    ValueError : values that Slurm could not read.
    """

    queue: str | None = None
    account: str | None = None
    walltime: float | str | None = None
    cores: int | None = None
    memory: str | None = None
    gpus_per_job: int = 1
    gres: str | None = None
    job_extra_directives: Sequence[str] = ()
    job_script_prologue: Sequence[str] = ()
    python: str = sys.executable

    def __post_init__(self) -> None:
        if self.gpus_per_job < 0:
            raise ValueError(f"gpus_per_job={self.gpus_per_job!r} must be 0 or more")
        if self.cores is not None and self.cores < 1:
            raise ValueError(f"cores={self.cores!r} must be at least 1")
        for directive in self.job_extra_directives:
            if not directive.startswith("-"):
                raise ValueError(
                    f"{directive!r} is no option of sbatch; write it as in a job script after "
                    "#SBATCH, such as '--constraint=gpu' or '-C gpu'"
                )
        if self.walltime is not None:
            parse_walltime(self.walltime)
        self.devices  # noqa: B018 - raises if a directive asks for none that there could be

    @property
    def seconds(self) -> float | None:
        """The walltime, in seconds."""
        return None if self.walltime is None else parse_walltime(self.walltime)

    @cached_property
    def devices(self) -> list[Gres]:
        """Generic resources that are asked for, by whichever option."""
        directed = [
            gres
            for name, value in self._directives()
            if name in _GPU_OPTIONS
            for part in value.split(",")
            if (gres := parse_gres(part if name == "--gres" else f"gpu:{part}"))
        ]
        if directed:
            return directed
        asked = self._gres()
        return [parse_gres(part) for part in asked.split(",")] if asked else []

    @property
    def n_gpus(self) -> int:
        """GPUs that are asked for, in all."""
        return sum(gres.count for gres in self.devices if gres.name == "gpu")

    @property
    def qos(self) -> str | None:
        """The quality of service that a directive names."""
        return next((value for name, value in self._directives() if name in ("-q", "--qos")), None)

    def options(self, seconds: float | None) -> list[str]:
        """Options of ``sbatch`` for a job of so many seconds, each as after ``#SBATCH``."""
        own_gres = any(name in _GPU_OPTIONS for name, _ in self._directives())
        named = {
            "partition": self.queue,
            "account": self.account,
            "cpus-per-task": self.cores,
            "mem": self.memory,
            "gres": None if own_gres else self._gres(),
            "time": None if seconds is None else slurm_time(seconds),
        }
        options = [f"--{name}={value}" for name, value in named.items() if value is not None]
        return [*options, *self.job_extra_directives]

    def _gres(self) -> str | None:
        if self.gres is not None:
            return self.gres
        return f"gpu:{self.gpus_per_job}" if self.gpus_per_job else None

    def _directives(self) -> Iterator[tuple[str, str]]:
        """Name and value of each directive: ``-C gpu``, ``-Cgpu``, ``--constraint=gpu``."""
        for directive in self.job_extra_directives:
            match = re.fullmatch(r"(--[\w-]+|-\w)(?:[=\s]\s*)?(.*)", directive.strip())
            if match is not None:
                yield match[1], match[2].strip("\"'")


def parse_gres(text: str) -> Gres:
    """One resource, as ``sbatch`` reads and ``sinfo`` writes it.

    >>> parse_gres("gpu:a100:4(S:0-1)")
    Gres(name='gpu', type='a100', count=4)

    Raises
    ------
    ValueError : it is of another form.
    """
    parts = re.sub(r"\(.*?\)", "", text.strip()).removeprefix("gres/").split(":")
    if parts[0] == "gres":
        parts = parts[1:]
    count = parts.pop() if len(parts) > 1 and re.fullmatch(r"\d+[KkMmGg]?", parts[-1]) else "1"
    if len(parts) not in (1, 2) or not all(re.fullmatch(r"[\w.+-]+", part) for part in parts):
        raise ValueError(f"{text!r} is no generic resource; give NAME:COUNT or NAME:TYPE:COUNT")
    factor = {"k": 1024, "m": 1024**2, "g": 1024**3}.get(count[-1].lower())
    number = int(count[:-1]) * factor if factor else int(count)
    return Gres(parts[0], parts[1] if len(parts) == 2 else "", number)
