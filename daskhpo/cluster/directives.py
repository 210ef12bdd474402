"""Options of ``sbatch`` in the lines of a job script."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from daskhpo.cluster.job_shape import JobShape
from daskhpo.core.arguments import check_lines
from daskhpo.core.errors import InvalidArgument

OWN_OPTIONS = (  # options that daskhpo sets or counts, and what to do instead
    (("-t", "--time"), "give walltime="),
    (("-J", "--job-name"), "give job_name= to slurm_cluster"),
    (("-a", "--array"), "daskhpo submits jobs as needed: give jobs=, or chain="),
    (("-o", "--output", "-e", "--error"), "give log_directory="),
    (("-W", "--wait"), "sbatch would wait until the job has ended"),
    (("--wrap", "--test-only", "-h", "--help", "--usage", "-V", "--version"), "no job would run"),
)
ONE_NODE = (("-N", "--nodes"), ("-n", "--ntasks"))
GPU_OPTIONS = ("--gres", "--gpus", "-G", "--gpus-per-node", "--gpus-per-task", "--gpus-per-socket")
_GRES = re.compile(  # NAME, NAME:COUNT, NAME:TYPE or NAME:TYPE:COUNT
    r"(?:gres[:/])?([\w.+-]+(?::(?!\d+[KMG]?$)[\w.+-]+)?)(?::(\d+)([KMG]?))?", re.IGNORECASE
)

Option = tuple[str, str]
"""Name and value of an option: ``("--gres", "gpu:4")``, ``("-C", "gpu")``; no value: empty."""


def check_directives(given: Any, name: str = "job_extra_directives") -> list[str]:
    """Return options of ``sbatch``, without ``#SBATCH``, each a line of a script.

    Raises
    ------
    InvalidArgument : something is no list of lines, or an option contradicts what daskhpo sets.
    """
    lines = [line.removeprefix("#SBATCH").strip() for line in check_lines(name, given)]
    for line in lines:
        if line and not line.startswith("-"):
            raise InvalidArgument(
                f"{name}: {line!r} is not an option of sbatch; write it as in a job script after "
                "#SBATCH, such as '--constraint=gpu' or '-C gpu'"
            )
        for option, _ in parse_options(line):
            for names, instead in OWN_OPTIONS:
                if any(_means(option, own) for own in names):
                    raise InvalidArgument(f"{name}: {line!r} cannot be given: {instead}")
    return lines


def check_worker_directives(lines: Sequence[str], shape: JobShape) -> None:
    """Check that jobs of workers get as many nodes and GPUs as are counted.

    Raises
    ------
    InvalidArgument : a directive requests another number.
    """
    options = [option for line in lines for option in parse_options(line)]
    for name, value in options:
        if any(_means(name, own) for names in ONE_NODE for own in names) and value != "1":
            raise InvalidArgument(
                f"job_extra_directives: '{name} {value}' cannot be given: the workers of a job "
                "run on one node, in one task; give jobs= for more, or nodes_per_trial= for trials "
                "that use several nodes"
            )
    asked = sum(n for device, n in requested_devices(options) if is_gpu(device))
    if not asked or asked == shape.gpus_per_node:
        return
    if shape.nodes > 1:
        raise InvalidArgument(
            f"job_extra_directives request {asked} GPUs on each node, and gpus_per_trial="
            f"{shape.gpus_per_trial} on {shape.nodes} nodes are {shape.gpus_per_node}: give "
            f"gpus_per_trial={asked * shape.nodes}, so that all are used and counted"
        )
    raise InvalidArgument(
        f"job_extra_directives request {asked} GPUs for each job, and gpus_per_job is "
        f"{shape.gpus}: give gpus_per_job={asked}, so that all are used and counted"
    )


def requested_devices(options: Iterable[Option]) -> list[tuple[str, int]]:
    """Return the requested generic resources and their counts: ``[("gpu:a100", 2)]``.

    Raises
    ------
    ValueError : one cannot be read.
    """
    found = []
    for name, value in options:
        for part in value.split(","):
            if name == "--gres":
                found.append(parse_gres(part))
            elif name in GPU_OPTIONS:
                found.append(parse_gres(f"gpu:{part}"))
            elif name.startswith("--tres-per") and part.startswith("gres"):
                found.append(parse_gres(part.replace("=", ":")))
    return found


def asks_for_gpus(lines: Iterable[str]) -> bool:
    """Return True if an option requests generic resources, such as GPUs."""
    names = [name for line in lines for name, _ in parse_options(line)]
    return any(name in GPU_OPTIONS or name.startswith("--tres-per") for name in names)


def is_gpu(device: str) -> bool:
    """Return True if a generic resource is a GPU: ``"gpu"``, ``"gpu:a100"``."""
    return device.partition(":")[0] == "gpu"


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


def script_options(script: str) -> list[Option]:
    """Return all options in a script's ``#SBATCH`` lines."""
    lines = re.findall(r"^#SBATCH[ \t]+(.*)$", script, re.MULTILINE)
    return [option for line in lines for option in parse_options(line)]


def parse_options(line: str) -> list[Option]:
    """Return the options of a line, as ``sbatch`` reads it.

    >>> parse_options('-C gpu --gres=gpu:4 -N1 --comment="two words"')
    [('-C', 'gpu'), ('--gres', 'gpu:4'), ('-N', '1'), ('--comment', 'two words')]
    """
    found: list[Option] = []
    for word in _words(line):
        long = re.fullmatch(r"(--[\w-]+)(?:=(.*))?", word, re.DOTALL)
        short = re.fullmatch(r"(-[A-Za-z])=?(.*)", word, re.DOTALL)
        if long is not None:
            found.append((long[1], long[2] or ""))
        elif short is not None:
            found.append((short[1], short[2]))
        elif found and not found[-1][1]:
            found[-1] = (found[-1][0], word)
    return found


def _means(given: str, option: str) -> bool:
    """Return True if ``sbatch`` reads one as the other: long options may be shortened."""
    if given == option:
        return True
    return len(given) > 5 and option.startswith(given)


def _words(line: str) -> list[str]:
    """Split a line at blanks; quotes hold words together, and ``#`` begins a comment."""
    words, word, quote, inside = [], "", "", False
    for letter in line:
        if quote:
            if letter == quote:
                quote = ""
            else:
                word += letter
        elif letter in "\"'":
            quote, inside = letter, True
        elif letter.isspace():
            if inside or word:
                words.append(word)
            word, inside = "", False
        elif letter == "#" and not word and not inside:
            break
        else:
            word += letter
    return [*words, word] if inside or word else words
