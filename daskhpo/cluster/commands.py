"""Calls of Slurm's commands, without options that were not given to them.

Slurm's commands read options from variables. Some were set for another purpose, such as the
SQUEUE_PARTITION of an alias, or belong to the job in which this process runs.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping, Sequence
from typing import Any

from daskhpo.cluster.container import container_around
from daskhpo.cluster.directives import script_options
from daskhpo.cluster.shell import CommandMissing, call

JOBS_PER_CALL = 200  # the length of a command line is limited

CONFIGURATION = {  # what Slurm's commands need to find and trust their controller
    "SLURM_CONF",
    "SLURM_CONF_SERVER",
    "SLURM_JWT",
    "SLURM_SACK_JWKS",
    "SLURM_SACK_KEY",
}
OPTIONS = re.compile(r"(SLURM|SBATCH|SALLOC|SRUN|SQUEUE|SACCT|SCANCEL|SCONTROL|SINFO|SPRIO)_\w+")
CLUSTERS = {"SLURM_CLUSTERS"}  # the user's choice, and the same for all commands
SUBMISSION = {  # choices of a user or site for all their jobs, and the options that overrule them
    "SBATCH_ACCOUNT": ("-A", "--account"),
    "SBATCH_CLUSTERS": ("-M", "--clusters", "--cluster"),
    "SBATCH_CONSTRAINT": ("-C", "--constraint"),
    "SBATCH_PARTITION": ("-p", "--partition"),
    "SBATCH_QOS": ("-q", "--qos"),
    "SBATCH_RESERVATION": ("--reservation",),
    "SBATCH_WCKEY": ("--wckey",),
}
SETTINGS = {"SLURM_TIME_FORMAT": "standard"}  # times in the form that is parsed here


def ask(argv: Sequence[str]) -> str:
    """Run one of Slurm's commands and return what it prints.

    Raises
    ------
    CommandError : it is missing here, failed, or did not answer in time.
    """
    return _run(argv, environ=query_environment(os.environ))


def sbatch(*argv: str, script: str, text: str | None = None) -> str:
    """Run ``sbatch`` and return what it prints, its warnings too.

    Parameters
    ----------
    argv : its arguments.
    script : content of the job's script, whose lines overrule variables.
    text : its standard input; None: empty.

    Raises
    ------
    CommandError : it is missing here, failed, or did not answer in time.
    """
    environ = submission_environment(os.environ, script)
    return _run(["sbatch", *argv], environ=environ, text=text, with_errors=True)


def _run(argv: Sequence[str], **how: Any) -> str:
    try:
        return call(argv, **how)
    except CommandMissing as error:
        if (image := container_around(os.environ)) is None:
            raise
        raise CommandMissing(
            f"{error} This process runs in the container {image}, where Slurm's commands are not: "
            "start it outside, and give container= to let the workers run in one"
        ) from error


def user_name() -> str:
    """Return the name of this process's user, whatever LOGNAME says."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container without an entry
        return str(os.geteuid())


def query_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for commands that ask or cancel."""
    kept = CONFIGURATION | CLUSTERS
    own = {n: v for n, v in environ.items() if n in kept or not OPTIONS.fullmatch(n)}
    return own | SETTINGS


def submission_environment(environ: Mapping[str, str], script: str) -> dict[str, str]:
    """Return the environment for ``sbatch``.

    Variables overrule the lines of a script. So only those of :data:`SUBMISSION` are kept, and
    only if the script is silent there. The job inherits no variable of the job that submits it.
    """
    given = {name for name, _ in script_options(script)}
    kept = {
        name: environ[name]
        for name, options in SUBMISSION.items()
        if name in environ and not given.intersection(options)
    }
    own = {n: v for n, v in query_environment(environ).items() if n not in SETTINGS}
    return own | kept
