"""Text of foreign origin, as a terminal, a log or a page may show it: nothing in it is taken for an order."""

from __future__ import annotations

import re


def writable(text: str) -> str:
    """A text without surrogates, which UTF-8, and so an ONNX file, doesn't have: they are written as Python does."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


# Control characters but tab and newline, which terminals take for sequences; marks that turn the direction of text, so
# that it shows another name; other ends of lines; surrogates, which no file and no terminal takes.
_ORDERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def plain(text: object) -> str:
    """A text without control characters: they are written as Python writes them, such as ``\\x1b``."""
    return _ORDERS.sub(lambda match: _escaped(match[0]), str(text))


def counted(count: int, noun: str) -> str:
    """A number with its noun, such as ``2 nodes``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
