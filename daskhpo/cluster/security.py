"""TLS credentials of a cluster, and folders for its user alone."""

from __future__ import annotations

import datetime
import functools
import logging
import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import write_private

logger = logging.getLogger("daskhpo")

VALID_BEFORE = datetime.timedelta(days=1)  # a worker's clock may be behind, or in another zone
VALID_FOR = datetime.timedelta(days=365)


def credentials(folder: Path, option: str = "shared_temp_directory=") -> Any:
    """Create credentials for a cluster, in files that its workers can read.

    Returns a ``distributed.Security``. The files replace those of an earlier job, whose credentials
    are then no longer valid.

    Parameters
    ----------
    option : name of what the user may set to have another folder.

    Raises
    ------
    PermissionError : other users may read or replace the key in this folder.
    """
    from distributed import Security

    certificate, key = folder / "certificate.pem", folder / "key.pem"
    is_new = not folder.exists()
    folder.mkdir(exist_ok=True, parents=True, mode=0o700)
    try:
        check_private(folder, option)
        made = new_certificate()
        write_private(certificate, made[0])
        write_private(key, made[1])
        check_private(key, option)
    except BaseException:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    sides = ("client", "scheduler", "worker")
    return Security(
        require_encryption=True,
        tls_ca_file=str(certificate),
        **{f"tls_{side}_cert": str(certificate) for side in sides},
        **{f"tls_{side}_key": str(key) for side in sides},
    )


def credentials_in_memory() -> Any:
    """Create credentials for a cluster whose processes are started by this one.

    Returns a ``distributed.Security``. It reaches worker processes through the pipe that starts
    them, and is in no file.
    """
    from distributed import Security

    certificate, key = new_certificate()
    sides = ("client", "scheduler", "worker")
    return Security(
        require_encryption=True,
        tls_ca_file=certificate,
        **{f"tls_{side}_cert": certificate for side in sides},
        **{f"tls_{side}_key": key for side in sides},
    )


def new_certificate() -> tuple[str, str]:
    """Return a self-signed certificate and its key, of the elliptic curve P-256.

    They are as ``Security.temporary`` makes them, but the certificate is valid from a day ago: a
    machine whose clock is behind would reject one that is valid from now on.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())  # RSA takes 0.1 s
    name = "dask-internal"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - VALID_BEFORE)
        .not_valid_after(now + VALID_FOR)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), secret.decode()


def removing_on_error(make: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """Return a function that calls ``make``, and removes the folder if that raises."""

    def call(*args: Any, **options: Any) -> Any:
        try:
            return make(*args, **options)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    return call


def private_folder(parent: str | None = None) -> Path:
    """Return a folder for sockets and spilled data that this user alone can enter.

    It is ``daskhpo-<user id>`` in ``parent``, by default the folder for temporary files. If another
    user has taken that name, or opened the folder, a new one of a random name is made.
    """
    folder = Path(parent or tempfile.gettempdir()) / f"daskhpo-{os.geteuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        found = folder.lstat()  # a link would lead into a folder of another user
        is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
        if not is_own or found.st_mode & 0o077:
            return Path(tempfile.mkdtemp(prefix="daskhpo-", dir=parent))
    return folder


@functools.cache
def warn_if_open(address: str) -> None:
    """Warn, once, that everyone who can reach a Dask scheduler can run code there."""
    if address.startswith(("tcp://", "ws://")):
        logger.warning(
            "the Dask cluster at %s asks for no certificate: every user who can reach that "
            "address can run code as you, and change this study. LocalCluster(security=True) and "
            "slurm_cluster() ask; so does client=None, the default",
            address,
        )


def check_private(path: Path, option: str) -> None:
    """Check that no other user can read a file, or replace the files in a folder.

    Parameters
    ----------
    option : name of what the user may set to have another folder.

    Raises
    ------
    PermissionError : another user can; the message says what to do.
    """
    found = path.stat()
    mode = found.st_mode & 0o777
    if found.st_uid != os.geteuid():
        raise PermissionError(
            f"{path} belongs to user {found.st_uid}: a user who has the key can run code as "
            f"you. Set {option} to a folder of your own"
        )
    if mode & 0o077:
        raise PermissionError(
            f"{path} has mode {mode:03o}: a user who has the key can run code as you. Run `chmod "
            f"go= {shlex.quote(str(path))}`, or set {option} to a folder on a file system that "
            "keeps file modes"
        )
