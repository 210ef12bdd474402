"""Searchers: which configuration next."""

from daskhpo.core.searcher import Searcher
from daskhpo.searchers.grid import GridSearch
from daskhpo.searchers.random import RandomSearch

__all__ = ["GridSearch", "RandomSearch", "Searcher"]
