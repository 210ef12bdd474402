"""Contract tests that a plug-in inherits, and what they are built from."""
