"""Trials on Dask workers: one lease per slot, reports by RPC to the scheduler.

``scheduler_plugin`` (in the scheduler's event loop) owns leases and messages. ``executor`` (in the
coordinator's thread) owns the slots. ``broker`` shares workers between studies. ``lease`` and
``runners`` run in the workers.
"""
