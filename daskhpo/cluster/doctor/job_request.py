"""Request of a worker job, in the terms of ``slurm_cluster``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from daskhpo.cluster.times import parse_walltime, slurm_time
from daskhpo.core.arguments import check_int, check_lines, check_text, check_word, optional

_GPU_OPTIONS = ("--gres", "--gpus", "-G", "--gpus-per-node", "--gpus-per-task", "--gpus-per-socket")
_GRES = re.compile(  # NAME, NAME:COUNT, NAME:TYPE or NAME:TYPE:COUNT
    r"(?:gres[:/])?([\w.+-]+(?::(?!\d+[KMG]?$)[\w.+-]+)?)(?::(\d+)([KMG]?))?", re.IGNORECASE
)


@dataclass(frozen=True)
class JobRequest:
    """Request of a worker job to Slurm.

    Attributes
    ----------
    queue, account, cores, memory : as in ``slurm_cluster``; None: the site's default.
    walltime : ``"4h"``, ``"04:00:00"``, ``"1-00:00:00"``, or seconds; None: the site's default.
    gpus_per_job : number of GPUs, requested by ``--gres=gpu:N``; 0: none.
    gres : generic resources instead of ``gpus_per_job``, such as ``"gpu:a100:1"``; None: not used.
    job_extra_directives : more options of ``sbatch``. One that requests GPUs replaces ``--gres``.
    job_script_prologue : lines of the job script before Python starts.
    python : Python interpreter of the workers.

    Raises
    ------
    ValueError : a value that Slurm could not read.
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
        for name in ("queue", "account"):
            optional(check_word, name, getattr(self, name))
        for name in ("memory", "gres"):
            optional(check_text, name, getattr(self, name))
        check_text("python", self.python)
        check_int("gpus_per_job", self.gpus_per_job, at_least=0)
        optional(check_int, "cores", self.cores, at_least=1)
        check_lines("job_script_prologue", self.job_script_prologue, multiline=True)
        for directive in check_lines("job_extra_directives", self.job_extra_directives):
            if not directive.startswith("-"):
                raise ValueError(
                    f"{directive!r} is not an option of sbatch; write it as in a job script after "
                    "#SBATCH, such as '--constraint=gpu' or '-C gpu'"
                )
        if self.walltime is not None:
            parse_walltime(self.walltime)
        self.devices  # noqa: B018 - raises if a gres cannot be read

    @property
    def seconds(self) -> float | None:
        """Walltime in seconds; None: the site's default."""
        return None if self.walltime is None else parse_walltime(self.walltime)

    @cached_property
    def devices(self) -> list[tuple[str, int]]:
        """Requested generic resources and their counts: ``[("gpu:a100", 2)]``."""
        texts = [
            part if name == "--gres" else f"gpu:{part}"
            for name, value in self._directives()
            if name in _GPU_OPTIONS
            for part in value.split(",")
        ]
        if not texts and (gres := self._gres()):
            texts = gres.split(",")
        return [parse_gres(text) for text in texts]

    @property
    def n_gpus(self) -> int:
        """Total number of requested GPUs."""
        return sum(n for device, n in self.devices if device.partition(":")[0] == "gpu")

    @property
    def qos(self) -> str | None:
        """Quality of service that a directive names; None: none."""
        return next((value for name, value in self._directives() if name in ("-q", "--qos")), None)

    def options(self, seconds: float | None) -> list[str]:
        """Return the options of ``sbatch``, each as after ``#SBATCH``.

        Parameters
        ----------
        seconds : time limit of the job; None: the site's default.
        """
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
        """Yield the name and value of ``-C gpu``, ``-Cgpu`` or ``--constraint=gpu``."""
        for directive in self.job_extra_directives:
            match = re.fullmatch(r"(--[\w-]+|-\w)(?:[=\s]\s*)?(.*)", directive.strip())
            if match is not None:
                yield match[1], match[2].strip("\"'")


def parse_gres(text: str) -> tuple[str, int]:
    """Parse one generic resource, as ``sbatch`` reads it.

    >>> parse_gres("gpu:a100:4")
    ('gpu:a100', 4)

    Raises
    ------
    ValueError : the text has another form.
    """
    found = _GRES.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a generic resource; give NAME:COUNT or NAME:TYPE:COUNT")
    device, count, unit = found.groups("")
    return device, int(count or 1) * 1024 ** " KMG".index(unit.upper() or " ")
