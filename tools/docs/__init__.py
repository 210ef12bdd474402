"""Programs for the documentation."""
