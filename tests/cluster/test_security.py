"""Certificates of a cluster, and what is left of them."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from daskhpo.cluster.security import credentials, new_certificate, removing_on_error


def test_a_certificate_is_valid_where_the_clock_is_behind_and_for_long() -> None:
    text, _ = new_certificate()
    made = x509.load_pem_x509_certificate(text.encode())
    now = datetime.datetime.now(datetime.UTC)
    assert made.not_valid_before_utc <= now - datetime.timedelta(hours=1, minutes=5)
    assert made.not_valid_after_utc >= now + datetime.timedelta(days=300)


def test_a_certificate_fits_its_key_and_is_trusted_by_itself(tmp_path: Path) -> None:
    security = credentials(tmp_path / "tls")
    arguments = security.get_connection_args("worker")
    context = arguments["ssl_context"]
    assert isinstance(context, ssl.SSLContext)  # it has loaded both
    assert context.cert_store_stats()["x509"] == 1
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()} == {0o600}


def test_credentials_that_could_not_be_made_leave_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "stat", lambda *args, **options: (_ for _ in ()).throw(OSError("x")))
    with pytest.raises(OSError, match="x"):
        credentials(tmp_path / "tls-1")
    monkeypatch.undo()
    assert not (tmp_path / "tls-1").exists()


def test_a_cluster_that_could_not_be_made_leaves_no_key(tmp_path: Path) -> None:
    def make(fails: bool) -> str:
        if fails:
            raise ValueError("Slurm refuses")
        return "made"

    folder = tmp_path / "tls-2"
    credentials(folder)
    make_or_remove = removing_on_error(make, folder)
    assert make_or_remove(False) == "made"
    assert (folder / "key.pem").exists()
    with pytest.raises(ValueError, match="refuses"):
        make_or_remove(fails=True)
    assert not folder.exists()
