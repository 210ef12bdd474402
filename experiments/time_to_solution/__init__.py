"""Comparison of schedulers and searchers in equal time on equal workers."""
