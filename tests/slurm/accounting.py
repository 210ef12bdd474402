"""Slurm's accounting for tests: a database and ``slurmdbd``, in a folder of their own.

Needs Debian's packages ``slurmdbd`` and ``mariadb-server-core``, which bring programs and no
service.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

PROGRAMS = ("slurmdbd", "mariadbd", "sacct", "sacctmgr")
TABLES = Path("/usr/share/mysql/mysql_system_tables.sql")


def missing() -> str | None:
    """Why Slurm's accounting cannot be started here; None if it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    absent += [] if TABLES.exists() else [str(TABLES)]
    if absent:
        packages = "slurmdbd mariadb-server-core"
        return f"{', '.join(absent)} not found; on Debian: apt-get install {packages}"
    return None


def make_database(folder: Path) -> None:
    """An empty database, with the tables that the server itself needs."""
    data = folder / "database"
    data.mkdir()
    (folder / "temporary").mkdir()
    script = f"create database mysql;\nuse mysql;\n{TABLES.read_text()}"
    with (folder / "make_database.out").open("wb") as log:
        subprocess.run(
            [*_mariadbd(folder), "--bootstrap"],
            input=script.encode(),
            stdout=log,
            stderr=log,
            check=True,
        )


def database(folder: Path, port: int) -> list[str]:
    """Command line of the database's server; it trusts whoever can reach the loopback interface."""
    return [
        *_mariadbd(folder),
        "--skip-grant-tables",
        "--bind-address=127.0.0.1",
        f"--port={port}",
        f"--socket={folder / 'mysql.sock'}",
        f"--pid-file={folder / 'mariadbd.pid'}",
        "--innodb-flush-log-at-trx-commit=0",
    ]


def configure(folder: Path, munge: Path, database_port: int, port: int) -> None:
    """Write ``slurmdbd``'s configuration, which it looks for beside ``slurm.conf``."""
    path = folder / "slurmdbd.conf"
    path.touch(mode=0o600)  # it holds a password, and nobody else may read it
    path.write_text(
        f"""\
AuthType=auth/munge
AuthInfo=socket={munge}
DbdHost={socket.gethostname().partition(".")[0]}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=root
StoragePass=none
StorageLoc=slurm_acct
"""
    )


def _mariadbd(folder: Path) -> list[str]:
    user = ["--user=root"] if os.geteuid() == 0 else []
    return [
        "mariadbd",
        "--no-defaults",
        f"--datadir={folder / 'database'}",
        f"--tmpdir={folder / 'temporary'}",  # a server deletes the tables of others there
        "--lc-messages-dir=/usr/share/mysql",
        "--innodb-log-file-size=8M",
        "--innodb-buffer-pool-size=64M",
        "--skip-log-bin",
        *user,
    ]
