"""The program that runs workers: a Python of this machine, or one in a container.

Containers are images of Apptainer, or Singularity, its former name. Slurm's commands stay outside:
workers run inside, and what submits jobs does not.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskhpo.core.arguments import check_list, check_text, shown
from daskhpo.core.errors import InvalidArgument

IMAGE_VARIABLES = (  # that name the image in which a process runs
    *("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"),
    *("APPTAINER_NAME", "SINGULARITY_NAME"),
)
FIND_RUNTIME = (
    "daskhpo_runtime=$(command -v apptainer || command -v singularity) || { echo 'there is neither "
    "apptainer nor singularity on this node: load its module by job_script_prologue' >&2; "
    "exit 127; }"
)
FIND_GPU_OPTION = "daskhpo_gpus=$([ -e /dev/kfd ] && echo --rocm || echo --nv)"


@dataclass(frozen=True)
class Interpreter:
    """Start of Python in a job script.

    Attributes
    ----------
    prologue : lines of the script before.
    command : words of a shell that run Python; options and a module follow.
    """

    prologue: tuple[str, ...]
    command: str

    def argv(self, *arguments: str) -> list[str]:
        """Return a command line that runs Python with these arguments."""
        lines = [*self.prologue, f'exec {self.command} "$@"']
        return ["/bin/sh", "-c", "\n".join(lines), "sh", *arguments]


def interpreter(
    python: str | None,
    container: str | Sequence[str] | None,
    gpus: int,
    folders: Iterable[Path] = (),
) -> Interpreter:
    """Return how workers start Python.

    Parameters
    ----------
    python : words of a shell that run Python; None: this Python, or the container's ``python3``.
    container : an image, or options of ``apptainer exec`` and the image, as
        ``["--bind=/scratch", "image.sif"]``; None: no container.
    gpus : number of GPUs of a job; the container sees them.
    folders : folders of this machine that workers need.

    Raises
    ------
    InvalidArgument : there is no such image.
    """
    if container is None:
        return Interpreter((), python or shlex.quote(sys.executable))
    *options, image = check_container(container)
    binds = [f"--bind={folder}" for folder in dict.fromkeys((Path.cwd(), *folders))]
    words = [*binds, *options, image]
    run = ['"$daskhpo_runtime" exec', "$daskhpo_gpus" if gpus else "", shlex.join(words)]
    return Interpreter(
        (FIND_RUNTIME, *([FIND_GPU_OPTION] if gpus else [])),
        " ".join(filter(None, [*run, python or "python3"])),
    )


def check_container(given: Any) -> list[str]:
    """Return options of ``apptainer exec``, and the image, whose path is absolute.

    Raises
    ------
    InvalidArgument : it is neither text nor a list of text, or there is no such image.
    """
    if isinstance(given, str | os.PathLike):
        words = [check_text("container", os.fspath(given))]
    else:
        items = check_list("container", given, of="options of apptainer exec, and the image")
        words = [check_text(f"container[{n}]", item) for n, item in enumerate(items)]
    if not words or words[-1].startswith("-"):
        raise InvalidArgument(
            f"container={shown(given)} names no image: give 'image.sif', or options of apptainer "
            "exec and then the image"
        )
    for option in words[:-1]:
        if not option.startswith("-"):
            raise InvalidArgument(
                f"container={shown(given)}: {option!r} stands before the image, and is no option; "
                "write a value in the option's own word, as in '--bind=/scratch'"
            )
    *options, image = words
    if "://" in image:
        return words
    path = Path(image).expanduser()
    if not path.exists():
        raise InvalidArgument(
            f"container={shown(given)}: there is no image {path.absolute()}; give the path of a "
            ".sif file or of an unpacked image that compute nodes see, or a URI such as docker://..."
        )
    return [*options, str(path.absolute())]


def container_around(environ: Mapping[str, str]) -> str | None:
    """Return the image in which this process runs; None: none is known."""
    return next((environ[name] for name in IMAGE_VARIABLES if environ.get(name)), None)
