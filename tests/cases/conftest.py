"""Fixtures of the cases."""

from pack_support import packs

__all__ = ["packs"]
