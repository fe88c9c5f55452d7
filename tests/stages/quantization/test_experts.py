"""Experts of mixtures in 4 and 8 bits: a stack of matrices, each of which its own product reads."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import onnxport
import onnxruntime
import pytest
import torch
from onnxport import InputError, ONNXProgram
from support import optimized_types
from torch import nn

transformers = pytest.importorskip("transformers")

EXPERTS = 4
STACKS = ("gate_up_proj", "down_proj")


class Mixture(nn.Module):
    """The experts of a layer of Mixtral, and who chooses them."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        config = transformers.MixtralConfig(
            hidden_size=64, intermediate_size=96, num_local_experts=EXPERTS, num_experts_per_tok=2
        )
        config._experts_implementation = "grouped_mm"
        self.experts = transformers.models.mixtral.modeling_mixtral.MixtralExperts(config)
        for parameter in self.experts.parameters():
            nn.init.normal_(parameter, std=0.3)
        self.router = nn.Linear(64, EXPERTS, bias=False)
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, places = self.router(x).softmax(-1).topk(2)
        return self.experts(x, places, weights)


def mixture(seed: int = 0, **options: Any) -> Mixture:
    torch.manual_seed(seed)
    return Mixture(**options).eval()


def tokens(count: int) -> torch.Tensor:
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(count))


def export(model: nn.Module, **options: Any) -> ONNXProgram:
    return onnxport.export(model, (tokens(5),), dynamic_shapes=({0: "tokens"},), verbose=False, **options)


@pytest.mark.parametrize("kind", ["int4", "uint4", "int8"])
def test_each_expert_is_a_product_of_integers(kind: str) -> None:
    model = mixture()
    program = export(model, quantize={"router": None, "*": kind}, verify=True)
    large = [name for name, value in program.model.graph.initializers.items() if value.const_value.size >= 64 * 96]
    assert len(large) == 2 * EXPERTS and all(kind in name for name in large)
    assert optimized_types(program).count("MatMulNBits") == 2 * EXPERTS
    plain = export(model)
    for count in (1, 2, 5, 40):  # with one token, most experts have none
        found, expected = program(tokens(count))[0], plain(tokens(count))[0]
        assert found.shape == expected.shape
        assert (found - expected).norm() / expected.norm() < (0.03 if kind == "int8" else 0.4)


def exact(program: ONNXProgram, x: torch.Tensor) -> torch.Tensor:
    """The output without activations in 8 bits."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    with copy.copy(program) as opened:
        opened.session_options = options
        return opened(x)[0]


def test_the_numbers_are_those_of_the_rounded_matrices() -> None:
    model, x = mixture(), tokens(7)
    program = export(model, quantize={"router": None, "*": "uint4"})
    with torch.no_grad():
        for name in STACKS:
            for matrix in getattr(model.experts, name):
                linear = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
                linear.weight = nn.Parameter(matrix.clone())
                unit = torch.eye(matrix.shape[1])
                one = onnxport.export(linear, (unit,), quantize="uint4", verbose=False)
                matrix.copy_(exact(one, unit).t())
    torch.testing.assert_close(exact(program, x), model(x), rtol=1e-3, atol=1e-3)


def test_saved_loaded_verified_and_given_other_weights(tmp_path: Path) -> None:
    model, other, path = mixture(), mixture(1), tmp_path / "model.onnx"
    asked: Any = {"router": None, "*": "uint4"}
    onnxport.export(model, (tokens(5),), path, quantize=asked, verbose=False)
    assert onnxport.verify(path, model, (tokens(5),)).passed
    assert not onnxport.verify(path, other, (tokens(5),)).passed
    program = ONNXProgram.load(path)
    program.apply_weights(other.state_dict())
    expected = onnxport.export(other, (tokens(5),), quantize=asked, verbose=False)
    torch.testing.assert_close(program(tokens(5))[0], expected(tokens(5))[0])


def test_errors_name_each_expert() -> None:
    program = export(mixture(), opset_version=21)
    result = onnxport.quantize(program, "int4")
    assert len(result.model.graph.initializers) > len(program.model.graph.initializers)
    rounded = onnxport.verify(result, mixture(), (tokens(5),)).rounding.errors
    names = {error.weight for error in rounded}
    assert {f"experts.{name}[{i}]" for name in STACKS for i in range(EXPERTS)} <= names
    assert all(0 < error.relative < 0.2 for error in rounded)


def test_one_stack_by_its_name() -> None:
    program = export(mixture(), quantize={"experts.down_proj": "int8"}, verify=True)
    assert optimized_types(program).count("MatMulNBits") == EXPERTS


def test_a_stack_with_another_reader_stays_as_it_is() -> None:
    class Shown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mixture()

        def forward(self, x: torch.Tensor) -> Any:
            return self.inner(x), self.inner.experts.down_proj.sum(0)

    with pytest.raises(InputError, match="3 axes"):
        export(Shown().eval(), quantize={"inner.experts.down_proj": "int4"})
    program = export(Shown().eval(), quantize="int8", verify=True)
    assert optimized_types(program).count("MatMulNBits") == EXPERTS + 1  # the other stack, and the router


def test_a_batch_of_matrices_stays_as_it_is() -> None:
    class Batch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.head = nn.Parameter(torch.randn(3, 64, 64)), nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x @ self.weight)

    program = onnxport.export(Batch(), (torch.randn(3, 2, 64),), quantize="int4", verbose=False)
    assert program.model.graph.initializers["weight"].dtype.name == "FLOAT"
