"""The command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def daskhpo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``daskhpo`` with these arguments in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "daskhpo.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
