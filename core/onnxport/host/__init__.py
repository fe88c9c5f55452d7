"""Plugins: their records, hooks, discovery, ranking, and what is told about them."""
