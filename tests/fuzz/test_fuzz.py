"""Damaged directories of studies: each is read to its end, or refused by one clear error.

``make fuzz N=...`` tries more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
N_INPUTS = int(os.environ.get("FUZZ_INPUTS", "60"))
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
PART = 30  # inputs of one process, whose memory is limited


def fuzzed(first: int, last: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.fuzz.surfaces", str(first), str(last)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FIRST, FIRST + N_INPUTS, PART))
def test_damaged_studies_give_one_clear_error(first: int) -> None:
    found = fuzzed(first, min(first + PART, FIRST + N_INPUTS))
    print(f"{found['inputs']} inputs, {found['calls']} calls, {found['seconds']:.0f} s")
    assert found["findings"] == []
    assert found["inputs"] <= PART
    assert found["calls"] > 15 * found["inputs"]
