"""``hydra/sweeper=daskhpo``: Hydra finds plugins in this namespace package."""
