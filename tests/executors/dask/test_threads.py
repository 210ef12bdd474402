"""Libraries of a trial get as many threads as CPUs that it asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import numpy
from threadpoolctl import threadpool_info
from daskhpo.executors.dask.threads import set_threads
set_threads({n})
import os
print(os.environ["OMP_NUM_THREADS"], *{{lib["num_threads"] for lib in threadpool_info()}})
"""


@pytest.mark.parametrize("n", [1, 2])
def test_loaded_and_later_libraries_have_so_many_threads(n: int) -> None:
    code = CODE.format(n=n)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(n), str(n)]
