"""TLS credentials of a cluster, in files that only their owner can read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import write_private


def credentials(folder: Path) -> Any:
    """Create credentials for a cluster, in files that its workers can read.

    Returns a ``distributed.Security``. The files replace those of an earlier job, whose credentials
    are then no longer valid.

    Raises
    ------
    PermissionError : other users may read or replace the key in this folder.
    """
    from distributed import Security

    made = Security.temporary()
    folder.mkdir(exist_ok=True, parents=True, mode=0o700)
    check_private(folder)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    write_private(certificate, made.tls_ca_file)
    write_private(key, made.tls_worker_key)
    check_private(key)
    sides = ("client", "scheduler", "worker")
    return Security(
        require_encryption=True,
        tls_ca_file=str(certificate),
        **{f"tls_{side}_cert": str(certificate) for side in sides},
        **{f"tls_{side}_key": str(key) for side in sides},
    )


def check_private(path: Path) -> None:
    """Check that no other user can read a file, or replace the files in a folder.

    Raises
    ------
    PermissionError : another user can; the message says what to do.
    """
    found = path.stat()
    mode = found.st_mode & 0o777
    if found.st_uid != os.geteuid():
        raise PermissionError(
            f"{path} belongs to user {found.st_uid}: a user who has the key can run code as "
            "you. Set shared_temp_directory= to a folder of your own"
        )
    if mode & 0o077:
        raise PermissionError(
            f"{path} has mode {mode:03o}: a user who has the key can run code as you. Run `chmod "
            f"go= {path}`, or set shared_temp_directory= to a folder on a file system that keeps "
            "file modes"
        )
