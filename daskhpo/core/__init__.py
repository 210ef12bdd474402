"""Floor 0: what a study is made of, in pure code. Standard library and numpy only."""
