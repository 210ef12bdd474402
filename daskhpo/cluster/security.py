"""TLS credentials of a cluster, in files that only their owner can read."""

from __future__ import annotations

import datetime
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daskhpo.atomic_files import write_private

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


def new_certificate() -> tuple[str, str]:
    """Return a self-signed certificate and its key.

    They are as ``Security.temporary`` makes them, but the certificate is valid from a day ago: a
    machine whose clock is behind would reject one that is valid from now on.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
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
