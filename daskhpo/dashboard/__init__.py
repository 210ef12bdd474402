"""Pages of studies in the dashboard of Dask's scheduler."""
