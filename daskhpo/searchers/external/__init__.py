"""Optimisers of other libraries: one file each, one adaptor (``adapter.py``)."""
