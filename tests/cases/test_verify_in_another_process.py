"""A file is verified, and run, in a process that has captured nothing: it knows containers of arguments and outputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnxport
import pytest
import torch

SOURCE = '''
import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
import torch
import onnxport
from torch.export import Dim

N = {0: "n"}
X, Y = torch.arange(6.0).reshape(2, 3), torch.ones(2, 3)


@dataclass
class State:
    a: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor | None = None


@dataclass
class Nested:
    first: State
    more: list


Pair = namedtuple("Pair", "left right")


class Held:
    """Of a pack: neither a dataclass nor known to torch."""

    def __init__(self, x, y):
        self.x, self.y = x, y


class Pack:
    @onnxport.hookimpl
    def onnxport_containers(self):
        return [onnxport.Container(Held, lambda h: ([h.x, h.y], None), lambda items, _: Held(*items),
                                   names=lambda _: ["x", "y"])]


class Model(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args, **kwargs):
        return self.function(*args, **kwargs)


class Named(torch.nn.Module):
    def forward(self, s, scale, count, x):
        return s.a * scale - s.b * count, x + s.a.sum()


def cached():
    from transformers import DynamicCache
    from transformers.modeling_outputs import BaseModelOutput

    def step(x, cache):
        keys, values = cache.update(x, x + 1, 0)
        return BaseModelOutput(last_hidden_state=keys - values, hidden_states=(keys, values))

    cache = DynamicCache()
    cache.update(torch.ones(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), 0)
    return Model(step), (torch.ones(1, 2, 1, 4) * 2, cache), {}, None


CASES = {
    "dataclass": lambda: (Model(lambda s: s.a - s.b), (State(X, Y),), {}, {"a": N, "b": N}),
    "nested": lambda: (Model(lambda n: n.first.a - n.first.b * n.more[0]), (Nested(State(X, Y), [X + 1]),), {}, None),
    "output": lambda: (Model(lambda x: Nested(State(x + 1, x * 2), [x])), (X,), {}, N),
    "namedtuple": lambda: (Model(lambda p: Pair(p.left - 1, p.right * 2)), (Pair(X, Y),), {}, Pair(N, N)),
    "dict": lambda: (Model(lambda d: OrderedDict(y=d[0]["a"] - d[0]["b"][0])), ([{"a": X, "b": (Y,)}],), {}, None),
    "trailing dict": lambda: (Named(), (State(X, Y), {"x": X, "count": 2, "scale": 3.0}), {}, None),
    "keywords": lambda: (Named(), (), {"x": X, "count": 2, "s": State(X, Y), "scale": 3.0}, None),
    "other order": lambda: (Named(), (State(X, Y), 3.0, 2, X), {}, None),
    "pack": lambda: (Model(lambda h: Held(h.x - h.y, h.x)), (Held(X, Y),), {}, None),
    "cache": cached,
}


def main(step, name, path):
    model, args, kwargs, shapes = CASES["other order" if name == "keywords" and step == "verify" else name]()
    if step == "export":
        onnxport.export(model.eval(), args, path, kwargs=kwargs, plugins=[Pack()],
                        dynamic_shapes=None if shapes is None else ((shapes,),))
        return
    result = onnxport.verify(path, model.eval(), args, kwargs, plugins=[Pack()])
    assert result.passed, result.failures()
    assert len(result.comparisons) == (1 if shapes is None else 3), result
    program = onnxport.ONNXProgram.load(path)
    if name not in ("other order", "keywords", "trailing dict"):  # numbers and an order that only a model tells
        assert torch.equal(program(*args, **kwargs)[0], program.run(args, kwargs)[0])
    print("passed")


if __name__ == "__main__":
    for name in sys.argv[3:]:
        main(sys.argv[1], name, f"{sys.argv[2]}/{name}.onnx")
'''
NAMES = [
    "dataclass",
    "nested",
    "output",
    "namedtuple",
    "dict",
    "trailing dict",
    "keywords",
    "other order",
    "pack",
    "cache",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, made by one process."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "case_states.py").write_text(SOURCE)
    run(folder, "export", *NAMES)
    return folder


def run(folder: Path, step: str, *names: str) -> str:
    command = [sys.executable, "case_states.py", step, str(folder), *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_passes(folder: Path) -> None:
    """Backwards, so that no case finds what another has registered, where one could."""
    assert run(folder, "verify", *reversed(NAMES)).split() == ["passed"] * len(NAMES)


def test_alone(folder: Path) -> None:
    assert run(folder, "verify", "dataclass").split() == ["passed"]


class Varied(torch.nn.Module):
    def forward(self, x: torch.Tensor, count: int, y: torch.Tensor, other: int) -> torch.Tensor:
        return x * count - y * other


def test_numbers_that_are_inputs_and_numbers_that_are_baked_in(tmp_path: Path) -> None:
    """The file tells which is which, also under names of the caller's."""
    x, shapes = torch.ones(2, 3), {"x": None, "count": torch.export.Dim.DYNAMIC, "y": None, "other": None}
    for names in (None, ["y", "times", "x"]):
        path = tmp_path / "m.onnx"
        onnxport.export(Varied(), (x, 5, x * 2, 7), path, dynamic_shapes=shapes, input_names=names)
        result = onnxport.verify(path, Varied(), (x, 9, x * 3, 7))
        assert result.passed and result.comparisons[0].outputs, result
        assert onnxport.verify(path, Varied(), (), {"other": 7, "y": x * 3, "x": x, "count": 4}).passed
        assert not onnxport.verify(path, Varied(), (x, 9, x * 3, 8)).passed  # 7 is in the file
