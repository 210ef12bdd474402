"""Trials on Dask workers: a lease for each slot, reports by RPC to the scheduler's process.

``plugin`` (in the scheduler's event loop) owns leases and messages; ``executor`` (in the
coordinator's thread) owns the slots; ``broker`` shares workers between studies; ``lease`` and
``runners`` are the workers' side.
"""
