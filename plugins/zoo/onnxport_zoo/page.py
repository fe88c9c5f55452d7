"""A run as one HTML file, with the data, the script and the styles in it, which asks for nothing from outside."""

from __future__ import annotations

import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

from onnxport import SaveError
from onnxport.kit import plain

from onnxport_zoo.diff import KINDS, WORSE, changes
from onnxport_zoo.markdown_page import markdown_of
from onnxport_zoo.results import as_line, read_run

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_page(folder: Path, output: Path, before: Path | None = None) -> Path:
    """Write the page of a run.

    Args:
        folder: of the run.
        output: the page; a folder gets an ``index.html``, and a name that ends in ``.md`` a page of documentation.
        before: the folder of an older run, to tell what changed since.

    Returns:
        The path of the page.

    Raises:
        UsageError: a folder has no run.
        SaveError: the page can't be written.
    """
    if output.suffix == ".md":
        return _written(output, markdown_of(folder, f"onnxport zoo page --output {output.name}"))
    run, records = read_run(folder)
    found = changes(before, folder) if before is not None else []
    data = {
        "run": {"name": folder.absolute().name, "zoo": run["zoo"], "versions": run["versions"]},
        "missing": [name for name in run["cases"] if name not in records],
        "cases": list(records.values()),
        "changes": [change.as_dict() for change in found],
        "kinds": {kind: {"meaning": meaning, "worse": kind in WORSE} for kind, meaning in KINDS.items()},
    }
    path = output if output.suffix in (".html", ".htm") else output / "index.html"
    return _written(path, page_of(data))


def _written(path: Path, text: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SaveError(
            f"The page can't be written to {path}: {error}. Give another --output.", path=str(path)
        ) from error
    return path


def page_of(data: dict[str, Any]) -> str:
    """The page for data as ``write_page`` has it."""
    assets = resources.files("onnxport_zoo") / "assets"
    style, body, script = ((assets / name).read_text("utf-8") for name in ("zoo.css", "zoo.html", "zoo.js"))
    title = html.escape(plain(data["run"]["name"]))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n{body}"
        f'<script type="application/json" id="data">{_embedded(data)}</script>\n'
        f"<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _embedded(data: dict[str, Any]) -> str:
    """JSON that ends no script element, whatever names and messages say."""
    text = as_line(json.loads(as_line(data)))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
