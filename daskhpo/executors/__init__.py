"""Executors, which run trials. No executor imports another one."""
