"""The description that a package index shows; all else is in pyproject.toml.

Links of README.md lead to files of the repository, which an index doesn't have. With ``ONNXPORT_REPOSITORY``, the
address of these files, such as ``https://example.org/onnxport/blob/v0.1.0``, they become absolute. Without it they
become text with the path of the file, which is in the source distribution.
"""

import os
import re
from pathlib import Path

from setuptools import setup

ADDRESS = os.environ.get("ONNXPORT_REPOSITORY", "").rstrip("/")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)\s]+)\)")


def description(text: str, address: str) -> str:
    """A page whose links all lead somewhere, wherever it is shown."""
    if address:
        return _LINK.sub(lambda link: f"[{link[1]}]({address}/{link[2]})", text)
    return _LINK.sub(lambda link: f"{link[1]} (`{link[2]}`)", text)


README = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
setup(
    long_description=description(README, ADDRESS),
    long_description_content_type="text/markdown",
    project_urls={"Source": ADDRESS, "Changelog": f"{ADDRESS}/CHANGELOG.md"} if ADDRESS else {},
)
