"""Text of foreign origin, as a terminal, a log or a page may show it: nothing in it is taken for an order."""

from __future__ import annotations

from onnxport.errors import plain

_MARKUP = str.maketrans({"\\": "\\\\", "`": "\\`", "|": "\\|", "<": "&lt;"})


def writable(text: str) -> str:
    """A text without surrogates, which UTF-8, and so an ONNX file, doesn't have: they are written as Python does."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def markdown(text: object) -> str:
    """A text as a cell of a table, or in a paragraph, of a markdown page: it is no markup, no link and no HTML."""
    return plain(text).translate(_MARKUP).replace("](", "]\\(").replace("\n", "<br>")


def fenced(text: object) -> str:
    """A text as a block of a markdown page that shows it as it is."""
    return f"```text\n{plain(text).replace('```', chr(39) * 3)}\n```"
