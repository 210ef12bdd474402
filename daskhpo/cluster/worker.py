"""Former name of :mod:`daskhpo.executors.dask.slurm_worker`.

Job scripts that are still in a queue call it.
"""

import runpy

if __name__ == "__main__":
    runpy.run_module("daskhpo.executors.dask.slurm_worker", run_name="__main__", alter_sys=True)
