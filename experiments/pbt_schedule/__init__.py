"""Population-based training of a learning rate; the result is a schedule."""
