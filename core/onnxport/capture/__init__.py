"""The contract of a capture: what is asked of it, and what comes of it."""
