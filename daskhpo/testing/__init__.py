"""Contract tests for plug-ins to inherit, and their helpers."""
