"""Former name of :mod:`daskhpo.cli.submitted_job`.

Batch scripts that are still in a queue call it.
"""

import runpy

if __name__ == "__main__":
    runpy.run_module("daskhpo.cli.submitted_job", run_name="__main__", alter_sys=True)
