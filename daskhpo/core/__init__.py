"""Vocabulary of a study, in pure code: standard library and numpy only."""
