"""Windows of a map whose height and width are dynamic: captured in little time, as the program of torch alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
import torch.nn.functional as F
from onnxport.kit import all_applied
from onnxport_builtin.capture.solver_memory import solver_memory
from support import FunctionModule
from torch.export import Dim
from torch.utils._sympy import interp


def attention(x: torch.Tensor, side: int = 4) -> torch.Tensor:
    b, h, w, c = x.shape
    y = torch.roll(F.pad(x, (0, 0, 0, (side - w % side) % side, 0, (side - h % side) % side)), (-2, -2), (1, 2))
    hp, wp = y.shape[1:3]
    t = y.view(b, hp // side, side, wp // side, side, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, c)
    t = torch.softmax(t @ t.transpose(1, 2), -1) @ t
    y = t.view(b, hp // side, wp // side, side, side, c).permute(0, 1, 3, 2, 4, 5).reshape(b, hp, wp, c)
    return torch.roll(y, (2, 2), (1, 2))[:, :h, :w].contiguous()


def test_each_question_about_a_size_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = 0
    original = interp._run_sympy_handler

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal computed
        computed += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(interp, "_run_sympy_handler", counting)
    axes = ({0: "b", 1: "h", 2: "w"},)
    program = onnxport.export(FunctionModule(attention), (torch.randn(2, 9, 10, 3),), dynamic_shapes=axes)
    assert computed < 12_000  # torch alone: 42,000
    for shape in ((1, 8, 13, 3), (3, 5, 4, 3)):
        x = torch.randn(*shape)
        torch.testing.assert_close(program(x)[0], attention(x), atol=1e-5, rtol=1e-4)


MODELS: dict[str, Callable[[torch.Tensor], Any]] = {
    "padded to whole windows": lambda x: F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)),
    "halves": lambda x: x.reshape(x.shape[0], x.shape[1], -1)[..., : x.shape[2] * x.shape[3] // 2],
    "shuffled": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2),
    "patches": lambda x: F.unfold(x, 3, stride=2),
    "resized": lambda x: F.interpolate(x, scale_factor=1.5),
    "chosen": lambda x: x[x > 0],
    "pooled": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "joined": lambda x: torch.cat([x, x[:, :, : x.shape[2] // 2]], 2).flatten(1),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_program_is_torchs(name: str) -> None:
    def capture() -> tuple[Any, ...]:
        dims = (({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},),)
        program = torch.export.export(FunctionModule(MODELS[name]), (torch.randn(2, 4, 8, 12),), dynamic_shapes=dims)
        shapes = [str(getattr(node.meta.get("val"), "shape", None)) for node in program.graph.nodes]
        ranges = {str(symbol): str(bounds) for symbol, bounds in program.range_constraints.items()}
        return program.graph_module.code, shapes, ranges

    alone = capture()
    with all_applied(solver_memory()):
        assert capture() == alone
