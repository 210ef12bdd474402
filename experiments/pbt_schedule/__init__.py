"""Population based training of a learning rate, and the schedule as a result."""
