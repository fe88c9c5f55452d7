"""Text of foreign origin on markdown pages. Stage plugins reach it by ``onnxport.kit``."""

from __future__ import annotations

from onnxport.kit import plain

_MARKUP = str.maketrans({"\\": "\\\\", "`": "\\`", "|": "\\|", "<": "&lt;"})


def markdown(text: object) -> str:
    """A text as a cell of a table, or in a paragraph, of a markdown page: it is no markup, no link and no HTML."""
    return plain(text).translate(_MARKUP).replace("](", "]\\(").replace("\n", "<br>")


def fenced(text: object) -> str:
    """A text as a block of a markdown page that shows it as it is."""
    return f"```text\n{plain(text).replace('```', chr(39) * 3)}\n```"
