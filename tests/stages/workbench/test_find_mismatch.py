"""find_mismatch: the first value that departs, found in clean and in deliberately broken models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxport
import onnxruntime
import pytest
import torch
from onnxport import find_mismatch
from onnxport.errors import InputError, SaveError
from support import FunctionModule
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

aten = torch.ops.aten


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.sigmoid(self.norm(self.linear(x)))


class Deep(nn.Module):
    def __init__(self, layers: int = 6) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def wrong_in(path: str, change: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A translation of sigmoid that is wrong in one module only."""

    def sigmoid(op, self):
        value = op.Sigmoid(self)
        modules = [name for name, _ in op.node.meta["nn_module_stack"].values()]
        return change(op, value) if any(name.endswith(path) for name in modules) else value

    return sigmoid


def exported(model: Any, *args: Any, table: Any = None, **options: Any) -> onnxport.ONNXProgram:
    module = model if isinstance(model, nn.Module) else FunctionModule(model)
    table = {torch.ops.aten.sigmoid.default: table} if callable(table) else table
    return onnxport.export(module.eval(), args, custom_translation_table=table, **options)


@pytest.mark.parametrize("optimize", [True, False])
def test_a_clean_model_has_no_mismatch(optimize: bool) -> None:
    result = find_mismatch(exported(Deep(), torch.randn(2, 8), optimize=optimize))
    assert result.passed and result.mismatch is None and result.runs == 1
    assert result.compared == result.comparable == result.nodes == 24
    assert result.outputs is not None and result.outputs.passed
    assert str(result).startswith("No mismatch inside the graph.\nCompared 24 of 24 values")


@pytest.mark.parametrize("error", [1.5, 1.001])
def test_an_error_in_one_layer_of_several_is_found_there(error: float) -> None:
    program = exported(Deep(), torch.randn(2, 8), table=wrong_in("blocks.3", lambda op, x: op.Mul(x, error)))
    result = find_mismatch(program)
    found = result.mismatch
    assert found is not None and not result.passed
    assert (found.operator, found.module, found.node) == ("aten::sigmoid", "blocks.3", "sigmoid_3")
    assert found.source.endswith("return x + torch.sigmoid(self.norm(self.linear(x)))")
    assert "test_find_mismatch" in found.translation and found.plugin == "custom_translation_table"
    assert found.onnx_operator == "Mul" and found.onnx_nodes == ["Sigmoid", "Mul"] and found.starts_here
    assert found.difference.max_rel == pytest.approx(error - 1, rel=1e-2)
    assert [check.max_abs < 1e-6 for check in found.inputs] == [True]
    text = str(result)
    for part in ("aten::sigmoid (FX node sigmoid_3)", "blocks.3", "torch.sigmoid", "custom_translation_table", "here:"):
        assert part in text
    assert result.as_dict()["mismatch"]["node"] == "sigmoid_3"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda op, x: op.Div(x, op.Sub(x, x)), "infinite instead of 0"),
        (lambda op, x: op.Log(op.Neg(x)), "NaN instead of 0"),
    ],
)
def test_values_that_are_not_finite_are_found_where_they_arise(change: Any, word: str) -> None:
    result = find_mismatch(exported(Deep(), torch.randn(2, 8), table=wrong_in("blocks.2", change)))
    assert result.mismatch is not None and result.mismatch.node == "sigmoid_2"
    assert word in str(result)


def test_a_nan_that_never_reaches_an_output_is_found() -> None:
    def masked(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x.sigmoid() > 2, x, x * 2)

    program = exported(masked, torch.randn(4), table=lambda op, self: op.Log(op.Neg(op.Sigmoid(self))))
    assert onnxport.verify(program).passed
    result = find_mismatch(program)
    assert result.mismatch is not None and result.mismatch.operator == "aten::sigmoid"


def test_bisection_finds_the_same_in_little_memory() -> None:
    program = exported(Deep(12), torch.randn(2, 8), table=wrong_in("blocks.7", lambda op, x: op.Mul(x, 1.01)))
    one = find_mismatch(program)
    assert one.runs == 1
    for budget, runs in ((1, 49), (512, 12), (1500, 8)):
        some = find_mismatch(program, memory_budget=budget)
        assert some.mismatch is not None and one.mismatch is not None
        assert some.mismatch.node == one.mismatch.node == "sigmoid_7"
        assert 1 < some.runs <= runs, (budget, some.runs)
    clean = find_mismatch(exported(Deep(3), torch.randn(2, 8)), memory_budget=600)
    assert clean.passed and clean.runs > 1 and clean.compared == clean.comparable


def test_an_amplified_difference_is_told_from_one_that_starts_there() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return (torch.sigmoid(x) - 0.5) * 1000

    program = exported(model, torch.randn(64) / 100, table=lambda op, self: op.Add(op.Sigmoid(self), 1e-5))
    result = find_mismatch(program)
    assert result.mismatch is not None and result.mismatch.operator == "aten::mul.Tensor"
    assert not result.mismatch.starts_here and "amplifies" in str(result)


def test_several_results_are_told_apart() -> None:
    def swapped(op, self, k, dim=-1, largest=True, sorted=True):
        values, indices = op.TopK(self, [k], axis=dim, largest=int(largest))
        return values, op.Add(indices, op.const(1))

    program = exported(
        lambda x: torch.topk(x, 2), torch.tensor([3.0, 1.0, 2.0, 0.0]), table={aten.topk.default: swapped}
    )
    result = find_mismatch(program)
    assert result.mismatch is not None and result.mismatch.operator == "aten::topk"
    assert result.mismatch.difference.dtype == "int64" and result.compared == 2
    good = exported(lambda x: [part * 2 for part in x.split(2)], torch.randn(7, 3))
    result = find_mismatch(good)
    assert result.passed and result.compared == result.comparable


def test_complex_values() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.fft.ifft(torch.fft.fft(x) * 2j).conj()

    result = find_mismatch(exported(model, torch.randn(3, 8)))
    assert result.passed and result.compared >= 3

    def twice_real(op, self, n=None, dim=-1, norm=None):
        return op.complex(self, self)

    wrong = exported(model, torch.randn(3, 8), table={aten.fft_fft.default: twice_real})
    result = find_mismatch(wrong)
    assert result.mismatch is not None and result.mismatch.operator == "aten::fft_fft"
    assert result.mismatch.difference.dtype == "complex64" and result.mismatch.starts_here


def test_control_flow_is_reported_as_one_operator() -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: x.sigmoid() * 2, lambda x: x.cos(), (x * 1.5,)) + 1

    x = torch.rand(4) + 1
    assert find_mismatch(exported(Branch(), x)).passed
    result = find_mismatch(exported(Branch(), x, table=lambda op, self: op.Mul(op.Sigmoid(self), 1.1)))
    assert result.mismatch is not None and result.mismatch.operator == "higher_order::cond"
    assert result.mismatch.onnx_operator == "If" and result.mismatch.starts_here


def test_decomposed_operators_are_reported_as_themselves() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return aten.silu_backward(x, x) + 1

    assert find_mismatch(exported(model, torch.randn(5))).passed
    result = find_mismatch(exported(model, torch.randn(5), table=lambda op, self: op.Neg(op.Sigmoid(self))))
    assert result.mismatch is not None and result.mismatch.operator == "aten::silu_backward"
    assert "Sigmoid" in result.mismatch.onnx_nodes


def test_random_numbers_are_taken_from_the_model() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        noise = torch.rand_like(x)
        return (x + noise).sigmoid() + nn.functional.dropout(x, 0.5, False)

    result = find_mismatch(exported(model, torch.randn(16)))
    assert result.passed and result.random == ["rand_like"] and result.outputs is None
    assert "Random, not compared: rand_like" in str(result)
    result = find_mismatch(exported(model, torch.randn(16), table=lambda op, self: op.Sigmoid(op.Neg(self))))
    assert result.mismatch is not None and result.mismatch.operator == "aten::sigmoid"


def test_random_numbers_in_a_branch() -> None:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda x: x + torch.rand_like(x), lambda x: x.cos(), (x,)).sigmoid()

    result = find_mismatch(exported(Branch(), torch.rand(50)))
    assert result.passed and result.random == ["cond"]


def test_what_was_computed_in_half_precision_keeps_its_tolerance() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)).half().eval()

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x).float().sigmoid()

    x = torch.randn(32, 64, dtype=torch.float16)
    assert find_mismatch(exported(Mixed(), x)).passed
    wrong = exported(Mixed(), x, table=lambda op, self: op.Mul(op.Sigmoid(self), 1.05))
    result = find_mismatch(wrong)
    assert result.mismatch is not None and result.mismatch.operator == "aten::sigmoid"


def test_another_choice_among_equal_values_is_no_mismatch() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        values, indices = torch.sort(x)
        return values + torch.arange(4.0)[indices]

    def backwards(op, self, dim=-1, descending=False):
        negative = op.Neg(self if wrong else op.Slice(self, [-1], [-10], [0], [-1]))
        values, indices = op.TopK(negative, [4], axis=0)
        return op.Neg(values), op.Sub(op.const(3), indices)

    x = torch.tensor([1.0, 1.0, 0.0, 2.0])
    wrong = False
    result = find_mismatch(exported(model, x, table={aten.sort.default: backwards}))
    assert result.ties == ["sort"] and result.passed and "equal values or steps: sort" in str(result)
    result = find_mismatch(exported(model, x, table={aten.sort.default: backwards}), each=True)
    assert result.ties == ["sort"] and result.passed and result.outputs is None
    wrong = True
    result = find_mismatch(exported(model, x, table={aten.sort.default: backwards}))
    assert result.mismatch is not None and result.mismatch.node == "sort" and not result.ties


@pytest.mark.parametrize("budget", [2 * 2**30, 1])
def test_each_operator_has_the_values_of_the_file(budget: int) -> None:
    """Differences that grow on their way are none of the operators'; what is wrong after them is found."""

    def model(x: torch.Tensor) -> torch.Tensor:
        steps = (x.sigmoid() * 1e6).floor()
        left, right = (steps % 2).split(2)  # a last place before makes a 1 of a 0
        return (left - right).tanh()

    def rounded(op, self):
        return op.Mul(op.Sigmoid(self), 1.000003)  # within the tolerance

    def wrong(op, self):
        return op.Tanh(op.Mul(self, 0.5))

    x = torch.randn(4, 64)
    program = exported(model, x, table={aten.sigmoid.default: rounded})
    amplified = find_mismatch(program).mismatch
    assert amplified is not None and not amplified.starts_here
    result = find_mismatch(program, each=True, memory_budget=budget)
    assert (
        result.passed
        and result.compared == result.comparable > 3
        and result.runs == (1 if budget > 1 else result.comparable)
    )
    program = exported(model, x, table={aten.sigmoid.default: rounded, aten.tanh.default: wrong})
    result = find_mismatch(program, each=True, memory_budget=budget)
    assert result.mismatch is not None and (result.mismatch.operator, result.mismatch.starts_here) == (
        "aten::tanh",
        True,
    )


@pytest.mark.parametrize(("error", "start", "passes"), [(1 + 2**-22, 1.0, True), (1.02, 1.5, False)])
def test_what_is_between_two_steps_may_be_rounded_to_either(error: float, start: float, passes: bool) -> None:
    def stepped(op, self):
        return op.Ceil(op.Mul(self, error))

    x = start + torch.arange(64.0)
    program = exported(lambda x: x.ceil() * 2, x, table={aten.ceil.default: stepped})
    result = find_mismatch(program, each=True)
    assert result.passed is passes and result.ties == (["ceil"] if passes else [])
    assert find_mismatch(program).mismatch is not None


def test_each_operator_of_a_graph_with_views_functions_and_random_numbers() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        y = x.t().reshape(2, -1) + torch.rand(2, 6)
        values, places = y.topk(2)
        return torch.fft.fft(values).abs() * places

    result = find_mismatch(exported(model, torch.randn(3, 4)), each=True)
    assert result.passed and result.compared and result.random == ["rand"]


def test_optimized_graphs_in_place_operators_and_dynamic_shapes() -> None:
    class Convolutions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(self.conv(x)).relu_()
            y[:, 0] += 1
            return y.flatten(1).sigmoid()

    x = torch.randn(2, 3, 6, 6)
    shapes = ({0: "batch"},)
    result = find_mismatch(exported(Convolutions(), x, dynamic_shapes=shapes), (torch.randn(5, 3, 6, 6),))
    assert result.passed and 0 < result.compared < result.nodes
    result = find_mismatch(
        exported(Convolutions(), x, table=lambda op, self: op.Sigmoid(op.Neg(self)), dynamic_shapes=shapes)
    )
    assert result.mismatch is not None and result.mismatch.operator == "aten::sigmoid"


def test_a_file_with_the_program_it_came_from(tmp_path: Path) -> None:
    program = exported(Deep(2), torch.randn(2, 8), table=wrong_in("blocks.1", lambda op, x: op.Mul(x, 1.1)))
    program.save(tmp_path / "deep.onnx")
    with pytest.raises(InputError, match="pass `exported_program`"):
        find_mismatch(tmp_path / "deep.onnx")
    result = find_mismatch(tmp_path / "deep.onnx", exported_program=program.exported_program)
    assert result.mismatch is not None and result.mismatch.node == "sigmoid_1"
    assert result.mismatch.plugin == "custom_translation_table"


def test_the_reproduction_stands_alone(tmp_path: Path) -> None:
    program = exported(
        Deep(3), torch.randn(2, 8), table=wrong_in("blocks.1", lambda op, x: op.Mul(x, 1.1)),
        dynamic_shapes=({0: "batch"},),
    )  # fmt: skip
    result = find_mismatch(program, repro=tmp_path / "repro")
    assert result.mismatch is not None and result.mismatch.repro == str(tmp_path / "repro")
    saved = torch.load(tmp_path / "repro" / "inputs.pt")
    session = onnxruntime.InferenceSession(tmp_path / "repro" / "node.onnx")
    found = session.run(None, {name: value.numpy() for name, value in saved["feeds"].items()})[0]
    torch.testing.assert_close(torch.tensor(found), saved["found"])
    single = torch.export.load(tmp_path / "repro" / "node.pt2")
    assert [node.target for node in single.graph.nodes if node.op == "call_function"] == [aten.sigmoid.default]
    torch.testing.assert_close(single.module()(*saved["args"]), saved["expected"])
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(SaveError, match="Give another folder"):
        find_mismatch(program, repro=blocked)


def test_weights_in_the_reproduction(tmp_path: Path) -> None:
    def wrong(op, input, weight, bias=None):
        return op.Gemm(input, weight, bias, transB=1, alpha=1.1)

    model = Deep(2)
    program = exported(model, torch.randn(2, 8), table={aten.linear.default: wrong})
    result = find_mismatch(program, repro=tmp_path)
    assert result.mismatch is not None and result.mismatch.operator == "aten::linear"
    saved = torch.load(tmp_path / "inputs.pt")
    assert list(saved["feeds"]) == ["x"] and len(saved["args"]) == 3
    assert torch.equal(saved["args"][1], model.blocks[0].linear.weight)


def test_what_cannot_be_searched() -> None:
    with FakeTensorMode():
        program = onnxport.export(nn.Linear(4, 4).eval(), (torch.randn(2, 4),))
    with pytest.raises(InputError, match="no data for p_weight, p_bias"):
        find_mismatch(program, (torch.randn(2, 4),))
    with pytest.raises(InputError):
        find_mismatch(exported(Deep(1), torch.randn(2, 8)), (torch.randn(3, 8),))


class Grown(nn.Module):
    """Its sigmoid is above 0.9 in the fifth call, which starts from 0.1."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        nn.init.eye_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.linear(x)) + x


def clipped(op: Any, self: Any) -> Any:
    return op.Min(op.Sigmoid(self), 0.9)


@pytest.mark.parametrize("functions", [["Grown"], ["Grown", "Linear"], ["Pair", "Grown"]])
def test_a_node_of_a_function_that_departs_is_found_in_the_call_that_it_departs_in(functions: list[str]) -> None:
    class Pair(nn.Sequential):
        pass

    model = nn.Sequential(*(Pair(Grown(), Grown()) for _ in range(3)))
    program = exported(model, torch.full((2, 4), 0.1), table=clipped, functions=functions)
    assert len(program.model.functions) == len(functions)
    result = find_mismatch(program)
    found = result.mismatch
    assert found is not None and (found.operator, found.module) == ("aten::sigmoid", "2.0")
    assert found.starts_here and found.onnx_nodes[-2:] == ["Sigmoid", "Min"] and found.translation.endswith("clipped")
    assert result.comparable == 3 * 6
    clean = find_mismatch(exported(model, torch.full((2, 4), 0.1), functions=functions))
    assert clean.passed and clean.compared == 3 * 6


def test_functions_of_a_file_are_compared_by_their_results(tmp_path: Path) -> None:
    model = nn.Sequential(*(Grown() for _ in range(6)))
    program = exported(model, torch.full((2, 4), 0.1), table=clipped, functions=[Grown])
    program.save(tmp_path / "model.onnx")
    result = find_mismatch(tmp_path / "model.onnx", exported_program=program.exported_program)
    assert result.comparable == 6
    assert result.mismatch is not None and result.mismatch.node == "add_4"
