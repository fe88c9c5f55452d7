"""For the site: links to files of the repository become their paths, and Sphinx roles of docstrings plain code."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:class|data|func|meth|mod|attr|exc):<code>~?([^<]*)</code>")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replace links that lead out of the folder of pages, such as ``[text](../path)``: the site has pages only."""
    out = "../" * (page.file.src_uri.count("/") + 1)
    outside = re.compile(rf"\[([^\]]*)\]\({re.escape(out)}([^)\s]+)\)")
    return outside.sub(lambda link: f"{link[1]} (`{link[2]}`)" if link[1] != link[2] else f"`{link[2]}`", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Replace ``:func:`name```."""
    return _ROLE.sub(r"<code>\1</code>", html)
