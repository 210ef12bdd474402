"""Readers of the journal: progress, results, costs, lineage and schedules."""
