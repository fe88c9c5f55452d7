"""Plugins: hooks, checks of records, discovery, ranking, and what is told about them."""
