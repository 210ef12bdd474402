"""Dask clusters for trials."""
