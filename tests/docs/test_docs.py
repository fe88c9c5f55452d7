"""The pages of docs/: their code runs, prints what they say, their links lead somewhere, and they leave nothing out."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
import warnings
import xml.etree.ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnxport
import pytest
import torch
from onnxport import authoring, errors
from onnxport.host import hookspecs

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "coverage.md")
ALL_PAGES = sorted((ROOT / "docs").rglob("*.md"))
LINKED = [*ALL_PAGES, *ROOT.glob("*.md"), *(ROOT / "plugins").glob("*/README.md")]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass
class Block:
    """A fenced block: its language, its text, and the line of the page on which the text starts."""

    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1) for m in _FENCE.finditer(text)]


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """An importable module of the page's own: classes and pickles look theirs up by name."""
    name = "docs_" + request.node.callspec.id.replace("-", "_")
    made = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)
    yield made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_runs(
    page: Path,
    module: types.ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Python blocks run in order in one namespace; an ``output`` block is what the block before it printed."""
    monkeypatch.chdir(tmp_path)
    printed = ""
    for block in blocks_of(page):
        if block.language == "python":
            # A real file, with the page's line numbers: torch and onnxscript read the source of what they trace.
            file = tmp_path / f"{page.stem}_{block.line}.py"
            file.write_text("\n" * (block.line - 1) + block.text, encoding="utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), vars(module))
            printed = capsys.readouterr().out
        elif block.language == "output":
            parts = [re.escape(part) for part in block.text.strip().split("...")]
            assert re.search(".*?".join(parts), printed, re.DOTALL), f"line {block.line}: printed was\n{printed}"


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    dead = []
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            dead.append(link)
    assert not dead


def test_index_lists_every_page() -> None:
    links = set(_LINK.findall((ROOT / "docs/index.md").read_text(encoding="utf-8")))
    assert {page.relative_to(ROOT / "docs").as_posix() for page in ALL_PAGES} - {"index.md"} <= links


def test_the_site_has_every_page() -> None:
    """Its navigation, which `mkdocs build --strict` holds against the folder too."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"([\w/-]+\.md)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(
        page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")
    )


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    found = re.findall(r"^::: (onnxport(?:_\w+)?(?:\.\w+)+)\.(\w+)$", page, re.MULTILINE)
    for entry in (("onnxport.host", "hookspecs"), ("onnxport_builtin.aten", "kernels")):
        found.remove(entry)  # the page of a module, not of a name
    for module, name in found:
        assert getattr(importlib.import_module(module), name) is getattr(onnxport, name)
    elsewhere = {"DataType", "hookimpl", "__version__", "API_VERSION"}  # of onnx_ir, of pluggy, and values
    assert {name for _, name in found} | elsewhere == set(onnxport.__all__)
    for name in elsewhere:
        assert f"`onnxport.{name}`" in page


def test_the_reference_has_every_step_of_translations() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    members = re.search(r"members: \[([^\]]*)\]", page.partition("::: onnxport_builtin.aten.kernels")[2])
    listed = re.findall(r"\w+", members[1] if members else "")
    homes = {name: getattr(authoring, name) for name in authoring.__all__}
    assert {name for name, value in homes.items() if value.__module__ == "onnxport_builtin.aten.kernels"} == set(listed)
    guide = (ROOT / "docs/writing-a-translation.md").read_text(encoding="utf-8")
    undocumented = [name for name, value in homes.items() if not value.__doc__ or f"`{name}" not in guide]
    assert undocumented == ["Dim"]


def test_the_picture_of_the_pipeline_names_its_stages() -> None:
    picture = xml.etree.ElementTree.parse(ROOT / "docs/pipeline.svg").getroot()
    words = {element.text for element in picture.iter() if element.tag.endswith("}text")}
    assert {"capture", "functionalize", "translate", "optimize", "ONNXProgram"} <= words


def test_every_parameter_has_a_row() -> None:
    """Of torch's exporter and of ours."""
    page = (ROOT / "docs/coming-from-torch-onnx-export.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    for function in (torch.onnx.export, onnxport.export):
        names = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        assert not [name for name in names if name not in rows]


def test_no_row_is_made_up() -> None:
    page = (ROOT / "docs/coming-from-torch-onnx-export.md").read_text(encoding="utf-8")
    section = page.partition("## Parameters")[2].partition("\n## ")[0]
    known = {*inspect.signature(torch.onnx.export).parameters, *inspect.signature(onnxport.export).parameters}
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) <= known


def test_every_error_class_has_a_section() -> None:
    page = (ROOT / "docs/debugging-a-failed-export.md").read_text(encoding="utf-8")
    classes = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)]
    assert not [name for name in classes if f"\n## {name}\n" not in page and name != "OnnxExporterError"]


def test_every_hook_is_described() -> None:
    page = (ROOT / "docs/publishing-an-op-pack.md").read_text(encoding="utf-8")
    assert not [name for name in vars(hookspecs) if name.startswith("onnxport_") and name not in page]


def test_every_public_name_is_mentioned() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert not [name for name in onnxport.__all__ if not re.search(rf"(?<!\w){name}(?!\w)", text)]
