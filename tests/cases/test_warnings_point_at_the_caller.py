"""A warning's file and line are those of the caller, from every entry point and for every warning of the product."""

from __future__ import annotations

import contextlib
import functools
import linecache
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from onnxport.vocabulary.callers import warn
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
X = torch.randn(2, 3)
IMAGES = torch.randn(2, 3, 20, 30)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return x + self.seen


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[-1] > x.shape[-2] else x - 1


class Tying(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * 2 + y


class TwoViews(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x + 1
        return y, y.view(-1)


class Waiting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.apart = TwoViews()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, flat = self.apart(x)
        y.add_(1)
        return flat + 1


class Own(onnxport.ExportableModule):
    """It tells its own arguments, and is in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def example_arguments(self) -> tuple[tuple[Any, ...], None]:
        return (X,), None


def training() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), nn.Dropout()).train()


WARNINGS: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "mutation": lambda call: call(Counter().eval(), (X,), mutation="drop"),
    "training": lambda call: call(training(), (X,)),
    "deprecated": lambda call: call(nn.ReLU(), (X,), do_constant_folding=True),
    "axes": lambda call: call(nn.ReLU(), (X,), dynamic_axes={"input": {0: "n"}}),
    "limits": lambda call: call(Branching(), (IMAGES,), dynamic_shapes=({2: "h", 3: "w"},)),
    "tie": lambda call: call(Tying(), (X, X + 1), dynamic_shapes=({0: "a"}, {0: "b"})),
    "renamed": lambda call: call(nn.ReLU(), (X,), output_names=["input"]),
    "inline": lambda call: call(Waiting(), (X,), functions=[TwoViews]),
}


def told_by(call: Callable[[], Any]) -> list[str]:
    """The lines that the warnings of a call point at."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        call()
    assert {one.filename for one in told} == {__file__}
    return [linecache.getline(one.filename, one.lineno).strip() for one in told]


@pytest.mark.parametrize("name", WARNINGS)
def test_of_export(name: str) -> None:
    lines = told_by(lambda: WARNINGS[name](onnxport.export))
    assert lines and all(line.startswith(f'"{name}": lambda call: call(') for line in lines)


@pytest.mark.parametrize("name", ["training", "limits", "tie"])
def test_of_check(name: str) -> None:
    lines = told_by(lambda: WARNINGS[name](onnxport.check))
    assert lines and all(line.startswith(f'"{name}": lambda call: call(') for line in lines)


@functools.wraps(onnxport.export)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return onnxport.export(*args, **kwargs)  # in wrapped


@functools.singledispatch
def dispatched(model: nn.Module) -> Any:
    return onnxport.export(model, (X,))  # in dispatched


@contextlib.contextmanager
def block() -> Any:
    yield


@block()
@torch.no_grad()
def decorated() -> Any:
    return onnxport.export(training(), (X,))  # in decorated


@onnxport.as_torch_onnx()
def replaced() -> Any:
    return torch.onnx.export(training(), (X,), dynamo=True)  # in replaced


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: Own().to_onnx(), "Own().to_onnx()"),
        (lambda: onnxport.export(Own()), "onnxport.export(Own())"),
        (lambda: wrapped(training(), (X,)), "# in wrapped"),
        (lambda: dispatched(training()), "# in dispatched"),
        (decorated, "# in decorated"),
        (replaced, "# in replaced"),
        (functools.partial(onnxport.check, training(), (X,)), "call()"),
        (lambda: onnxport.infer_dynamic_shapes(training(), [(X,), (X[:1],)]), "onnxport.infer_dynamic_shapes("),
    ],
)
def test_through_wrappers_and_methods(call: Callable[[], Any], line: str) -> None:
    lines = told_by(call)
    assert lines and all(line in each for each in lines)


def test_a_script_is_told_of_what_is_deprecated(tmp_path: Path) -> None:
    """Python shows such a warning where ``__main__`` is the caller alone."""
    script = tmp_path / "script.py"
    script.write_text(
        "import torch, onnxport\nonnxport.export(torch.nn.ReLU(), (torch.ones(2),), do_constant_folding=True)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stderr.count(f"{script}:2: DeprecationWarning: do_constant_folding= is deprecated") == 1


def test_without_a_caller() -> None:
    """A frame that has none of the caller's above it, as under the command line, is no error."""
    with pytest.warns(UserWarning, match="alone") as told:
        exec("warn('alone')", {"__name__": "click.core", "warn": warn})
    assert told[0].filename == __file__


def test_all_warnings_go_through_it() -> None:
    folders = [ROOT / "core", ROOT / "plugins_builtin", *(ROOT / "plugins").glob("*/onnxport_*")]
    direct = [p for f in folders for p in f.rglob("*.py") if "warnings.warn(" in p.read_text(encoding="utf-8")]
    assert not direct, "use onnxport.vocabulary.callers.warn, which points at the caller"


def test_a_scripted_parts_own_warning() -> None:
    """It points at the line of the model that calls the part, as a part in Python would at its own."""

    class Warns(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            warnings.warn("look out", stacklevel=1)
            return x + 1

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = torch.jit.script(Warns())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.part(x) * 2  # the call

    model = Holder().eval()
    lines = told_by(lambda: onnxport.export(model, (X,)))
    assert lines and all("# the call" in line for line in lines)
