"""A captured program as a graph of pure operators, and constants folded."""
