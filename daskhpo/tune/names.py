"""Ray Tune's words for a trial, its state and its progress."""

from daskhpo.core.types import Status

ITERATION = "training_iteration"
STATUS = {
    Status.QUEUED: "PENDING",
    Status.RUNNING: "RUNNING",
    Status.PAUSED: "PAUSED",
    Status.COMPLETED: "TERMINATED",
    Status.STOPPED: "TERMINATED",
    Status.FAILED: "ERROR",
}


def trial_name(trial: int) -> str:
    """Return the id of a trial, as Ray writes it."""
    return f"{trial:05d}"
