"""Fixtures of the tests of the workbench."""

from pack_support import packs

__all__ = ["packs"]
