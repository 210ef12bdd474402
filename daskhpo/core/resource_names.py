"""Names of what a trial needs of a worker, and what a wrong one may mean."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MEANT = {  # what users write, in small letters
    **dict.fromkeys(("cpu", "cpus", "core", "cores", "thread", "threads", "nthreads"), "cpu"),
    **dict.fromkeys(("ncpus", "num_cpus", "n_cpus", "cpus_per_task", "cpus_per_trial"), "cpu"),
    **dict.fromkeys(("gpu", "gpus", "ngpus", "num_gpus", "n_gpus", "gpus_per_trial"), "gpu"),
}
MEMORY_WORDS = ("mem", "memory", "ram", "mem_gb", "memory_gb")


def meant(name: str) -> str | None:
    """Return ``cpu`` or ``gpu`` for another spelling of it, such as ``GPU``."""
    found = MEANT.get(name.lower().replace("-", "_"))
    return None if found == name else found


def hint(names: Iterable[str], offered: Iterable[str] = ()) -> str:
    """Say what was meant by names that no worker offers; ``""`` if that is not known."""
    known = ["cpu", "gpu", *(name for name in offered if name != "GPU")]
    for name in names:
        if name in known:
            continue
        if close := meant(name) or next(iter(get_close_matches(name, known, 1, 0.7)), None):
            return f"did you mean {close!r} in the place of {name!r}?"
        if name.lower() in MEMORY_WORDS:
            return (
                f"{name!r} is not counted: a trial has the memory of its worker, and fewer "
                "workers, by max_concurrent=, have more each"
            )
    return ""
