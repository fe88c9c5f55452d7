"""Families of ATen operators."""
