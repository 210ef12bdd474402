"""Executors: where trials run. They never import one another."""
