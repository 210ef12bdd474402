"""Request of a worker job, in the terms of ``slurm_cluster``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from daskhpo.cluster.container import check_container
from daskhpo.cluster.directives import (
    Option,
    asks_for_gpus,
    check_directives,
    is_gpu,
    parse_gres,
    parse_options,
    requested_devices,
)
from daskhpo.cluster.times import parse_walltime, slurm_time
from daskhpo.core.arguments import check_int, check_lines, check_text, check_word, optional


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
    python, container : Python of the workers, and their container, as in ``slurm_cluster``.

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
    python: str | None = None
    container: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name in ("queue", "account"):
            optional(check_word, name, getattr(self, name))
        for name in ("memory", "gres"):
            optional(check_text, name, getattr(self, name))
        optional(check_text, "python", self.python)
        if self.container is not None:
            object.__setattr__(self, "container", tuple(check_container(self.container)))
        check_int("gpus_per_job", self.gpus_per_job, at_least=0)
        optional(check_int, "cores", self.cores, at_least=1)
        check_lines("job_script_prologue", self.job_script_prologue, multiline=True)
        lines = check_directives(self.job_extra_directives)
        object.__setattr__(self, "job_extra_directives", tuple(lines))
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
        if (own := requested_devices(self._options())) or not (gres := self._gres()):
            return own
        return [parse_gres(text) for text in gres.split(",")]

    @property
    def n_gpus(self) -> int:
        """Total number of requested GPUs."""
        return sum(n for device, n in self.devices if is_gpu(device))

    @property
    def qos(self) -> str | None:
        """Quality of service that a directive names; None: none."""
        return next((value for name, value in self._options() if name in ("-q", "--qos")), None)

    def options(self, seconds: float | None) -> list[str]:
        """Return the options of ``sbatch``, each as after ``#SBATCH``.

        Parameters
        ----------
        seconds : time limit of the job; None: the site's default.
        """
        own_gres = asks_for_gpus(self.job_extra_directives)
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

    def _options(self) -> list[Option]:
        return [option for line in self.job_extra_directives for option in parse_options(line)]
