"""Credentials of a cluster whose connections leave the machine: files for their owner only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import write_private


def credentials(folder: Path) -> Any:
    """A ``distributed.Security`` made for this cluster, in files that its workers can read.

    Of an earlier job nothing stays valid: the files are replaced.

    Raises
    ------
    PermissionError : others may read or replace the key in this folder.
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
    """Check that nobody else can read a file, or put another one into a folder.

    Raises
    ------
    PermissionError : somebody can; the message says what to do.
    """
    found = path.stat()
    mode = found.st_mode & 0o777
    if found.st_uid != os.geteuid():
        raise PermissionError(
            f"{path} belongs to user {found.st_uid}: who has its key can run code as you. Give "
            "shared_temp_directory= a folder of your own"
        )
    if mode & 0o077:
        raise PermissionError(
            f"{path} has mode {mode:03o}: who has its key can run code as you. Say `chmod go= "
            f"{path}`, or give shared_temp_directory= a folder on a file system that keeps modes"
        )
