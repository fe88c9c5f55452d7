"""The stub of ``op``: it is what onnx's schemas say, and packs that use it pass ``mypy --strict``."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx

ROOT = Path(__file__).parents[3]
TOOL: dict[str, Any] = runpy.run_path(str(ROOT / "tools/operator_stub.py"))
STUB = (ROOT / "core/onnxport/emit/operators.pyi").read_text(encoding="utf-8")

PACK = """
from onnxport import Builder, Size, Tensor, Unsupported, translation
from onnxport.authoring import expand, iota


@translation("mypack::scaled_rows")
def scaled_rows(op: Builder, x: Tensor, scale: float, *, count: int | Size = 1) -> Tensor:
    if op.rank(x) != 2:
        raise Unsupported("only matrices")
    rows = op.cast(iota(op, count), x.dtype)
    value: Tensor = op.Softmax(op.Mul(x, scale), axis=-1)
    top, _ = op.TopK(value, [1], largest=1)
    return op.Concat(op.Add(value, op.Unsqueeze(rows, [1])), expand(op, top, x.shape), axis=0)
"""


def test_the_stub_is_current() -> None:
    methods = {node.name for node in ast.walk(ast.parse(STUB)) if isinstance(node, ast.FunctionDef)}
    if f"from onnx {onnx.__version__}." in STUB:
        assert TOOL["text"]() == STUB, "run python tools/operator_stub.py"
    else:  # written with another onnx, which may have operators that this one lacks, and the other way round
        assert set(TOOL["versions"]()) & methods


#: What is written in place of what, and what mypy says of it.
MISTAKES = [
    ("op.Softmax(", "op.Softmaxx(", '"Builder" has no attribute "Softmaxx"'),
    ("axis=-1", "axes=-1", 'Unexpected keyword argument "axes" for "Softmax"'),
    (", axis=0)", ")", 'Missing named argument "axis" for "Concat"'),
    ("op.Mul(x, scale)", "op.Mul(x)", 'Too few arguments for "Mul"'),
    ("op.cast(iota", "op.casts(iota", '"Builder" has no attribute "casts"'),
]


def test_packs_are_checked_strictly_and_mistakes_are_found(tmp_path: Path) -> None:
    """In one run; torch and its like are taken as untyped, which spares reading them."""
    (tmp_path / "right.py").write_text(PACK)
    for number, (before, after, _) in enumerate(MISTAKES):
        assert before in PACK
        (tmp_path / f"wrong_{number}.py").write_text(PACK.replace(before, after))
    own = [f"{folder.name}.*" for folder in sorted((ROOT / "plugins_builtin").iterdir()) if folder.is_dir()]
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\n"
        f"mypy_path = {ROOT / 'core'}:{ROOT / 'plugins_builtin'}\n"
        f"[mypy-onnxport.*,{','.join(own)}]\nfollow_imports = silent\n"
        "[mypy-torch.*,numpy.*,onnx.*,onnxruntime.*,sympy.*,pluggy.*]\nfollow_imports = skip\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "."]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    errors = [line for line in told.splitlines() if ": error: " in line]
    assert len(errors) == len(MISTAKES), told
    for number, (_, _, message) in enumerate(MISTAKES):
        assert any(line.startswith(f"wrong_{number}.py") and message in line for line in errors), told
