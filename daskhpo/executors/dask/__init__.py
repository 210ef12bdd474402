"""Trials on Dask workers: one lease per slot, one call per decision.

In the scheduler's event loop: ``scheduler_plugin`` (the session), ``lease_manager``, ``server`` and
``broker``. In the coordinator's thread: ``executor``. In the workers: ``lease``, ``trial_host`` and
``runners``. ``protocol`` and ``channel`` are between them.
"""
