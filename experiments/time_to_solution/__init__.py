"""What a scheduler brings, and what a cleverer search brings, for equal time on equal workers."""
