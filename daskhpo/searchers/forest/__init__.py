"""The searcher with a random forest."""
