"""The export is called inside ``torch.autocast``, or another block that changes what torch does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import onnxport
import pytest
import torch
from support import expect_equal, flat_tensors
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode


class Plain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2), nn.Softmax(-1))


class Regions(nn.Module):
    """Blocks of its own in forward: one off, one for another device, one of another dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.layer(x)
        with torch.autocast("cuda", enabled=False):
            y = self.layer(y)
        with torch.autocast("cpu", enabled=False):
            z = self.layer(y.float())
        return y, z, torch.cat([y, z]), self.norm(y).softmax(-1), torch.einsum("ij,kj->ik", y, z), y + z


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.left(x).relu(), lambda x: self.right(x) - 1, (x,))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(4, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        return self.rnn(x[:, None])


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": Plain,
    "regions": Regions,
    "branches": Branches,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "rnn": lambda: Recurrent(nn.RNN),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_model_that_eager_runs_there(name: str) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name]().eval(), torch.randn(5, 4)
    with torch.autocast("cpu", torch.float16), torch.no_grad():
        try:
            model(x)
        except RuntimeError as error:
            if "primitive descriptor" in str(error):
                pytest.skip("oneDNN has no float16 LSTM for this processor: eager fails")
            raise
        program = onnxport.export(model, (torch.randn(2, 4),), dynamic_shapes=({0: "n"},))
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") is torch.float16
        wanted = flat_tensors(model(x))
        got = program(x)
    assert "forward" not in vars(model)
    assert any(tensor.dtype is torch.float16 for tensor in wanted) or name == "gru"
    for one, other in zip(got, wanted, strict=True):
        expect_equal(one, other, rtol=2e-2, atol=5e-3)


def test_casts_of_bfloat16_and_what_check_says() -> None:
    model, x = Plain().eval(), torch.randn(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        program = onnxport.export(model, (x,))
        assert onnxport.check(model, (x,)).passed
    types = {node.outputs[0].dtype for node in program.model.graph if node.op_type == "Gemm"}
    assert types == {onnxport.DataType.BFLOAT16}
    assert program.model.graph.outputs[0].dtype == onnxport.DataType.BFLOAT16
    assert program.model.graph.inputs[0].dtype == onnxport.DataType.FLOAT


def test_a_decorated_function_and_a_nested_block() -> None:
    model, x = nn.Linear(4, 3).eval(), torch.randn(2, 4)

    @torch.autocast("cpu", torch.bfloat16)
    @torch.autocast("cpu", torch.float16)
    def exported() -> tuple[onnxport.ONNXProgram, torch.Tensor]:
        with torch.no_grad():
            return onnxport.export(model, (x,), verify=True), model(x)

    program, wanted = exported()
    assert wanted.dtype is torch.float16
    expect_equal(program(x)[0], wanted, atol=5e-3)
    with torch.autocast("cpu", torch.float16), torch.autocast("cpu", enabled=False):
        assert onnxport.export(model, (x,))(x)[0].dtype is torch.float32


@pytest.mark.parametrize("strict", [False, True])
def test_a_program_that_was_captured_inside(strict: bool) -> None:
    model, x = Plain().eval(), torch.randn(3, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        captured, wanted = torch.export.export(model, (x,), strict=strict), model(x)
    expect_equal(onnxport.export(captured)(x)[0], wanted, atol=5e-3)


def _default_dtype(dtype: torch.dtype) -> Callable[[], AbstractContextManager[None]]:
    @contextlib.contextmanager
    def block() -> Iterator[None]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)

    return block


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


class Literals(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + torch.zeros(2) + torch.tensor(0.1) + torch.arange(2.0) + torch.full((2,), 0.3)


@pytest.mark.parametrize(
    "block",
    [
        torch.no_grad,
        torch.inference_mode,
        torch.enable_grad,
        _default_dtype(torch.float64),
        lambda: torch.device("cpu"),
        _deterministic,
        torch.autograd.graph.save_on_cpu,
        lambda: torch.backends.mkldnn.flags(enabled=False),
    ],
)
def test_other_blocks(block: Callable[[], AbstractContextManager[Any]]) -> None:
    model, x = Literals().eval(), torch.randn(5, 4)
    with block():
        program = onnxport.export(model, (x[:3],), dynamic_shapes=({0: "n"},))
        wanted, got = model(x), program(x)[0]
    expect_equal(got, wanted)


def test_under_a_fake_mode() -> None:
    model, x = Literals().eval(), torch.randn(3, 4)
    with FakeTensorMode(allow_non_fake_inputs=True):
        program = onnxport.export(model, (x,))
    expect_equal(program(x)[0], model(x))
