"""Local functions: ``op.function`` of the builder, sharing of equal bodies, ``export(functions=)`` in its details."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx_ir as ir
import onnxport
import onnxruntime
import onnxscript
import pytest
import torch
from onnx_ir.passes.common import InlinePass
from onnxport import DataType
from onnxport.host.discovery import load
from onnxport.kit import components
from onnxport.optimize.pipeline import optimize
from onnxscript import opset18
from support import expect_equal, export_and_compare, flat_tensors, op_types
from torch import nn

X = torch.randn(3, 4)


def _bodies(program: onnxport.ONNXProgram) -> dict[str, list[str]]:
    """Operators of each function's body, without its constants."""
    functions = program.model.functions.values()
    return {f.name: [node.op_type for node in f if node.op_type != "Constant"] for f in functions}


def _inlined(program: onnxport.ONNXProgram) -> list[onnx.ModelProto]:
    """The model without functions, by onnx's inliner and by that of onnx_ir."""
    proto = program.model_proto
    model = ir.from_proto(proto)
    InlinePass()(model)
    return [onnx.inliner.inline_local_functions(proto), ir.to_proto(model)]


def _export(
    model: nn.Module, args: Sequence[torch.Tensor], functions: Sequence[Any], **options: Any
) -> onnxport.ONNXProgram:
    """Export with functions; the file, and the file with its functions inlined, must give what eager gives."""
    program = export_and_compare(model, args, functions=functions, **options)
    sets = [args, options["other_args"]] if options.get("other_args") is not None else [args]
    for proto in _inlined(program):
        assert not proto.functions
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        for given in sets:
            feeds = {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), given)}
            expected = flat_tensors(model(*given))
            for got, want in zip(session.run(None, feeds), expected):
                if not want.is_complex():
                    expect_equal(torch.from_numpy(np.asarray(got)), want)
    return program


class Affine(nn.Module):
    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size))
        self.linear = nn.Linear(size, size)

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        y = self.linear(x) * self.weight
        return torch.relu(y) + sum(others) if others else torch.relu(y)


# The builder -------------------------------------------------------------------------------------------------------


@torch.library.custom_op("test_functions::scaled", mutates_args=())
def scaled(x: torch.Tensor, y: torch.Tensor, scale: float) -> torch.Tensor:
    return x + scale * y


@scaled.register_fake
def _(x: torch.Tensor, y: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.empty_like(x)


def _scaled_body(op: Any, x: Any, y: Any, scale: Any) -> Any:
    return op.Add(x, op.Mul(y, op.CastLike(op.Constant(value_float=scale), y)))


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.ops.test_functions.scaled(x, x.exp(), 0.5)
        z = torch.ops.test_functions.scaled(y.t(), x.t(), 2.0)
        return torch.ops.test_functions.scaled(z.double(), z.double(), 3.0).float()


def _with_table(body: Any, model: nn.Module | None = None, **options: Any) -> onnxport.ONNXProgram:
    table = {torch.ops.test_functions.scaled.default: body}
    return export_and_compare(model or Scaled(), (X,), custom_translation_table=table, **options)


def test_portable_body_with_an_attribute_is_one_function_for_all_shapes_types_and_values() -> None:
    def translate(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        return op.function("com.example", "Scaled", lambda x, y, **refs: _scaled_body(op, x, y, **refs), x, y,
                           key="scaled", scale=scale)  # fmt: skip

    program = _with_table(translate)
    assert _bodies(program) == {"Scaled": ["CastLike", "Mul", "Add"]}
    calls = [node for node in program.model.graph if node.domain == "com.example"]
    assert [call.attributes["scale"].as_float() for call in calls] == [0.5, 2.0, 3.0]
    (function,) = program.model.functions.values()
    assert function.identifier() == ("com.example", "Scaled", "")
    assert function.inputs[0].dtype is None  # float32 and float64 are passed
    assert program.model.opset_imports["com.example"] == 1


def test_bodies_that_differ_are_numbered() -> None:
    def translate(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        return op.function("com.example", "Scaled", lambda x, y: op.Add(x, op.Mul(y, scale)), x, y, key=scale)

    assert list(_bodies(_with_table(translate))) == ["Scaled", "Scaled_2", "Scaled_3"]


def test_without_a_key_other_closures_are_other_bodies() -> None:
    def translate(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        return op.function("com.example", "Scaled", lambda x, y: op.Add(x, op.Mul(y, scale)), x, y)

    assert len(_bodies(_with_table(translate))) == 3


def test_numbers_and_none_go_to_the_body_as_they_are() -> None:
    def body(op: Any) -> Any:
        return lambda x, nothing, y, scale: op.Add(x, op.Mul(y, scale if nothing is None else 0))

    def translate(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        return op.function("com.example", "Scaled", body(op), x, None, y, scale, key=())

    program = _with_table(translate)
    assert len(program.model.functions) == 3
    assert all(len(function.inputs) == 2 for function in program.model.functions.values())


def test_large_constants_are_held_once_and_passed() -> None:
    table = np.arange(2000, dtype=np.float32)

    def body(op: Any) -> Any:
        def emit(x: Any, y: Any) -> Any:
            one = op.CastLike(op.Gather(op.const(table), op.const(1)), x)
            return op.Add(op.Mul(one, x), op.Mul(y, 0.0))

        return emit

    def translate(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        return op.function("com.example", "Scaled", body(op), op.Add(x, op.Mul(y, scale)), y, key=())

    program = _with_table(translate, optimize=False)
    assert [len(f.inputs) for f in program.model.functions.values()] == [3, 3]  # its 0.0 is float32 or float64
    sizes = [tensor.const_value.nbytes for tensor in program.model.graph.initializers.values()]
    assert sizes.count(8000) == 1


def test_several_results_and_results_that_are_arguments() -> None:
    seen: list[Any] = []

    def translate(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        results = op.function("com.example", "Two", lambda x, y: (y, op.Mul(y, scale), None), x, y, key=scale)
        seen.append((results[0] is y, results[2]))
        return op.Add(x, results[1])

    program = _with_table(translate)
    assert seen == [(True, None)] * 3
    assert all(len(function.inputs) == 1 for function in program.model.functions.values())  # x isn't read


def test_a_body_that_computes_nothing_is_no_call() -> None:
    def translate(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        return op.Add(op.function("com.example", "Same", lambda x: x, x), op.Mul(y, scale))

    assert not _with_table(translate).model.functions


def test_a_body_sees_no_outer_tensor() -> None:
    def translate(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        return op.function("com.example", "Scaled", lambda x: op.Add(x, op.Mul(y, scale)), x)

    with pytest.raises(onnxport.TranslationError, match=r"body of com\.example::Scaled uses .*: pass it"):
        _with_table(translate)


def test_a_refusal_in_a_body_leaves_nothing_behind() -> None:
    def refuses(op: Any, x: Any) -> Any:
        op.Neg(x)
        raise onnxport.Unsupported("not today")

    def translate(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        return op.function("com.example", "Bad", lambda x: refuses(op, x), x)

    def plain(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        return op.Add(x, op.Mul(y, scale))

    program = _with_table([translate, plain])
    assert not program.model.functions
    assert "com.example" not in {node.domain for node in program.model.graph}


def test_functions_that_are_rolled_back_are_not_written() -> None:
    def translate(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        op.function("com.example", "Unused", lambda x: op.Neg(x), x)
        raise onnxport.Unsupported("not today")

    def plain(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        return op.Add(x, op.Mul(y, scale))

    assert not _with_table([translate, plain]).model.functions


def test_subgraphs_and_sizes_in_a_body() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.ops.test_functions.scaled(x, x, 2.0)
            return torch.ops.test_functions.scaled(y, y, 2.0)

    def translate(op: Any, x: Any, y: Any, *, scale: float) -> Any:
        def body(x: Any, y: Any) -> Any:
            rows = op.cast(x.shape[0], DataType.FLOAT)
            twice = op.subgraph(lambda: op.Div(op.Mul(op.Mul(y, scale), rows), rows), name="then")
            never = op.subgraph(lambda: op.Neg(y), name="else")
            branch = op.If(op.const(True), then_branch=twice, else_branch=never)
            return op.Add(x, branch)

        return op.function("com.example", "Branch", body, x, y, key=())

    table = {torch.ops.test_functions.scaled.default: translate}
    program = export_and_compare(
        Model(), (X,), custom_translation_table=table, dynamic_shapes=({0: "n"},), other_args=(torch.randn(7, 4),)
    )
    assert list(_bodies(program)) == ["Branch"]


# Modules -----------------------------------------------------------------------------------------------------------


def test_equal_calls_are_one_function() -> None:
    program = _export(nn.Sequential(Affine(), Affine(), Affine()), (X,), [Affine], dynamic_shapes=({0: "n"},),
                      other_args=(torch.randn(5, 4),))  # fmt: skip
    assert _bodies(program) == {"Affine": ["Gemm", "Mul", "Relu"]}
    assert op_types(program) == ["Affine"] * 3
    (function,) = program.model.functions.values()
    assert function.domain == "pkg.test_functions"
    assert [value.name for value in function.inputs] == ["input", "linear.weight", "linear.bias", "weight"]


@pytest.mark.parametrize("name", [Affine, "Affine", "test_functions.Affine"])
def test_classes_are_given_as_classes_or_names(name: Any) -> None:
    program = onnxport.export(nn.Sequential(Affine(), Affine()), (X,), functions=[name])
    assert op_types(program) == ["Affine"] * 2


def test_calls_that_differ_are_other_functions() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Affine(), Affine(), Affine(8), Affine(8), Affine()])
            self.wide, self.narrow = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.layers[1](self.layers[0](x))
            x = self.narrow(self.layers[3](self.layers[2](self.wide(x))))
            return self.layers[4](x, x)

    program = _export(Model(), (X,), [Affine])
    assert _bodies(program)["Affine_2"] == ["Gemm", "Mul", "Relu", "Add", "Add"]
    assert op_types(program) == ["Affine", "Affine", "Gemm", "Affine", "Affine", "Gemm", "Affine_2"]


def test_dtypes_share_a_body_where_nothing_in_it_depends_on_them() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Affine(), Affine().double()

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.a(x), self.b(y)

    program = _export(Model(), (X, X.double()), [Affine])
    (function,) = program.model.functions.values()
    assert {value.dtype for value in function.inputs} == {None}
    assert [value.dtype for value in program.model.graph.outputs] == [DataType.FLOAT, DataType.DOUBLE]


def test_symbols_that_differ_share_a_body() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Affine(), Affine()

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.a(x), self.b(y)

    args = (torch.randn(2, 3, 4), torch.randn(2, 5, 4))
    others = (torch.randn(3, 6, 4), torch.randn(3, 2, 4))
    shapes = ({0: "n", 1: "s"}, {0: "n", 1: "t"})
    program = _export(Model(), args, [Affine], dynamic_shapes=shapes, other_args=others)
    (function,) = program.model.functions.values()
    dims = [dim.value if isinstance(dim, ir.SymbolicDim) else dim for dim in function.inputs[0].shape]
    assert dims[1:] == [None, 4]


def test_nested_functions_and_the_whole_model() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Affine(), Affine()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x)) + x

    program = _export(nn.Sequential(Pair(), Pair()), (X,), [Pair, Affine])
    assert _bodies(program) == {"Affine": ["Gemm", "Mul", "Relu"], "Pair": ["Affine", "Affine", "Add"]}
    assert op_types(program) == ["Pair", "Pair"]
    names = [value.name for value in program.model.functions["pkg.test_functions", "Pair", ""].inputs]
    assert names[:4] == ["input", "one.linear.weight", "one.linear.bias", "one.weight"]
    assert op_types(_export(nn.Sequential(Pair()), (X,), [nn.Sequential, Affine])) == ["Sequential"]


def test_a_module_that_is_called_twice_and_tied_weights() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Affine(), Affine()
            self.b.linear.weight = self.a.linear.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(self.a(x)))

    program = _export(Model(), (torch.randn(2, 3, 4),), [Affine])
    assert op_types(program) == ["Transpose"] + ["Affine"] * 3  # a tied weight keeps the layout of the state dict
    _, first, second, third = program.model.graph
    assert first.inputs[1:] == second.inputs[1:]
    assert third.inputs[1] is first.inputs[1]
    assert sum("weight" in name for name in program.model.graph.initializers) == 3


class Several(nn.Module):
    def forward(self, x: torch.Tensor, size: int) -> tuple[Any, None, torch.Tensor, torch.Tensor]:
        rows = torch.arange(size)[:, None] * 1.0
        return x.split(2, -1), None, x, rows


def test_lists_unchanged_arguments_and_sizes_that_no_argument_tells() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Several(), Several()

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
            (p, q), _, same, rows = self.a(x.sum(0), x.shape[0])
            (r, s), _, _, others = self.b(y.sum(0), y.shape[0])
            return p * q + r * s, same, rows, others

    args, others = (X, torch.randn(5, 4)), (torch.randn(6, 4), torch.randn(2, 4))
    program = _export(Model(), args, [Several], dynamic_shapes=({0: "n"}, {0: "m"}), other_args=others)
    (function,) = program.model.functions.values()
    assert [value.name for value in function.inputs] == ["input", "n"]
    assert len(function.outputs) == 3


class Found(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.nonzero(), x.sum()


class Counted(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        count = x[0].item()
        torch._check(count >= 1)
        torch._check(count < 100)
        return x + 1, count


def test_sizes_that_a_call_brings_forth() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = Found(), Found(), Counted(), Counted()

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
            (i, s), (j, t) = self.a(x), self.b(x.relu())
            (u, m), (v, n) = self.c(y), self.d(y + 1)
            return i, j, s + t, u + v, torch.arange(m), torch.zeros(n, i.shape[0])

    other = (torch.randn(3, 4), torch.tensor([6, 1]))
    program = _export(Model(), (X, torch.tensor([3, 4])), [Found, Counted], other_args=other)
    assert set(_bodies(program)) == {"Found", "Counted"}
    assert len(program.model.functions["pkg.test_functions", "Counted", ""].outputs) == 2


class Spectral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft(x) * self.weight


def test_complex_tensors_go_in_and_out() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Spectral() for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layers[0](x)
            return self.layers[2](self.layers[1](y)).abs()

    program = _export(Model(), (X,), [Spectral])
    assert [name for name in op_types(program) if "Spectral" in name] == ["Spectral", "Spectral_2", "Spectral_2"]


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.linear(x), lambda x: x * 2, (x,))


def test_control_flow_in_a_function() -> None:
    program = _export(nn.Sequential(Branches(), Branches()), (X,), [Branches], dynamic_shapes=({0: "n"},),
                      other_args=(-torch.rand(5, 4),))  # fmt: skip
    assert _bodies(program) == {"Branches": ["ReduceSum", "Greater", "If"]}


class Constants(nn.Module):
    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.full((4,), decay))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = torch.ones(64, 64).triu()
        return x * torch.exp(-self.decay) + torch.tensor([1.0, 2.0, 3.0, 4.0]) + large[: x.shape[0], :4].sum()


def test_constants_and_what_is_computed_of_weights() -> None:
    program = _export(nn.Sequential(Constants(0.5), Constants(2.0)), (X,), [Constants], dynamic_shapes=({0: "n"},),
                      other_args=(torch.randn(6, 4),))  # fmt: skip
    (function,) = program.model.functions.values()
    assert op_types(program) == ["Constants"] * 2
    assert len(function.inputs) == 3  # x, exp(-decay) and the large mask; the small constant is in the body


class Updated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        y = self.linear(x)
        y[:, 0] += self.count
        return y.relu_()


def test_buffers_that_calls_change_are_outputs() -> None:
    model = nn.Sequential(Updated(), Updated()).eval()
    program = onnxport.export(model, (X,), functions=[Updated])
    assert op_types(program) == ["Updated", "Updated"]
    results = program.run((X,))
    expected = model(X)
    torch.testing.assert_close(results[0], expected)
    torch.testing.assert_close(results[1], torch.ones(1))


class Replaced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total = self.total + x.sum(0)
        self.total = self.total * 0.5
        return nn.functional.dropout(self.total + x, training=False)


def test_a_buffer_that_is_assigned_and_a_body_of_nothing() -> None:
    program = onnxport.export(nn.Sequential(Replaced()).eval(), (X,), functions=[Replaced])
    assert op_types(program) == ["Replaced"]
    torch.testing.assert_close(program(X)[0], X.sum(0) * 0.5 + X)
    assert not _export(nn.Sequential(nn.Dropout()).eval(), (X,), [nn.Dropout]).model.functions


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


@pytest.mark.parametrize(("seed", "functions"), [(None, 1), (7, 2)])
def test_random_numbers_differ_from_call_to_call(seed: int | None, functions: int) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Noisy(), Noisy()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) - self.b(x)

    program = onnxport.export(Model(), (X,), functions=[Noisy], seed=seed)
    assert len(program.model.functions) == functions
    assert program(X)[0].abs().max() > 1e-3


class Marked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    @torch.compiler.nested_compile_region
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu_(self.linear(x)) + x


def test_nested_compile_regions_are_functions() -> None:
    model = nn.Sequential(Marked(), Marked(), Marked()).eval()
    with torch.no_grad():
        shapes = ({0: torch.export.Dim("n")},)
        captured = torch.export.export(model, (X,), dynamic_shapes=shapes, strict=True)
    program = onnxport.export(captured)
    assert _bodies(program) == {"subgraph_0": ["Gemm", "Relu", "Add"]}
    assert op_types(program) == ["subgraph_0"] * 3
    for size in (3, 6):
        x = torch.randn(size, 4)
        torch.testing.assert_close(program(x)[0], model(x))


class MarkedTwice(nn.Module):
    """A region in a region, with results of several kinds, a captured value and a mutated buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Marked() for _ in range(2))
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        @torch.compiler.nested_compile_region
        def outer(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            for layer in self.layers:
                x = layer(x)
            self.seen.add_(1)
            return x + shift, x[x > 0].sum() + x.shape[0]

        first, total = outer(x)
        second, more = outer(first)
        return second * self.seen + total + more


@pytest.mark.parametrize("functions", [(), ["Linear"]])
def test_nested_compile_regions_of_a_non_strict_capture_are_functions(functions: list[str]) -> None:
    model = nn.Sequential(Marked(), Marked(), Marked()).eval()
    shapes = ({0: torch.export.Dim("n")},)
    program = onnxport.export(model, (X,), dynamic_shapes=shapes, functions=functions)
    assert op_types(program) == ["Marked"] * 3
    bodies = (
        {"Marked": ["Linear", "Relu", "Add"], "Linear": ["Gemm"]} if functions else {"Marked": ["Gemm", "Relu", "Add"]}
    )
    assert _bodies(program) == bodies
    for size in (3, 6):
        x = torch.randn(size, 4)
        torch.testing.assert_close(program(x)[0], model(x))


def test_regions_in_regions_write_and_give_several_results() -> None:
    args = X, torch.randn(4)
    program = onnxport.export(MarkedTwice().eval(), args, dynamic_shapes=({0: torch.export.Dim("n")}, None))
    assert op_types(program).count("outer") == 2
    assert _bodies(program)["outer"].count("Marked") == 2
    assert onnxport.verify(program).passed


class Rotated(nn.Module):
    def forward(self, x: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        return x * angle.unsqueeze(0)


def test_views_that_calls_have_in_common_dont_make_them_differ() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Rotated() for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            angle = x[0] * 2
            y = x.clone()
            y[0] = 1  # with a write in the graph, equal views are one node
            for layer in self.layers:
                y = layer(y, angle)
            return y

    program = _export(Model(), (X,), [Rotated])
    assert op_types(program).count("Rotated") == 3


class Filled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.exp()
        return y + y.new_ones(4) - y.tanh()


def test_nodes_that_fill_with_constants_or_that_no_module_is_known_of() -> None:
    """``new_ones`` reads the shape of its tensor alone; a node of an FX pass has no provenance."""
    model = nn.Sequential(Filled(), Filled()).eval()
    program = _export(model, (X,), [Filled])
    assert op_types(program) == ["Filled", "Filled"]
    captured = torch.export.export(model, (X,))
    for node in captured.graph.nodes:
        if node.target is torch.ops.aten.tanh.default:
            del node.meta["nn_module_stack"]
    program = onnxport.export(captured, functions=[Filled])
    assert op_types(program) == ["Filled", "Filled"]
    torch.testing.assert_close(program(X)[0], model(X))


@onnxscript.script(onnxscript.values.Opset("test.scripts", 1), default_opset=opset18)
def silu(x):
    return opset18.Mul(x, opset18.Sigmoid(x))


def test_script_functions_are_called_from_functions() -> None:
    class Smooth(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.gelu(x) + 1

    table = {torch.ops.aten.gelu.default: silu}
    model = nn.Sequential(Smooth(), Smooth())
    program = onnxport.export(model, (X,), functions=[Smooth], custom_translation_table=table)
    assert _bodies(program) == {"silu": ["Sigmoid", "Mul"], "Smooth": ["silu", "Add"]}
    smooth = program.model.functions["pkg.test_functions", "Smooth", ""]
    assert smooth.opset_imports == {"": 20, "test.scripts": 1}
    onnx.checker.check_model(program.model_proto, full_check=True)
    y = nn.functional.silu(X) + 1
    torch.testing.assert_close(program(X)[0], nn.functional.silu(y) + 1)


# What can't be a function ------------------------------------------------------------------------------------------


class TwoViews(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x * 2
        return y, y.view(-1)


def test_calls_that_wait_for_what_is_around_them_stay_inline() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.apart, self.whole = TwoViews(), TwoViews()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, flat = self.apart(x)
            y.add_(1)  # the view of y is made anew behind this
            a, b = self.whole(flat.view(3, 4) + 1)
            return a + b.view(3, 4)

    with pytest.warns(
        UserWarning, match=r"apart: what it computes goes through aten\.add\.Tensor \(.*comes back to it"
    ):
        program = _export(Model(), (X,), [TwoViews])
    assert op_types(program).count("TwoViews") == 1


def test_a_class_that_isnt_there() -> None:
    model = nn.Sequential(Affine(), nn.ReLU())
    with pytest.raises(onnxport.InputError, match=r"in a module Afine\. Did you mean test_functions\.Affine, "):
        onnxport.export(model, (X,), functions=["Afine"])
    with pytest.raises(onnxport.InputError, match=r"module torch\.nn\.modules\.rnn\.LSTM\. There are: "):
        onnxport.export(model, (X,), functions=[nn.LSTM])


@pytest.mark.parametrize("function", [onnxport.export, onnxport.check])
@pytest.mark.parametrize("functions", [Affine, "Affine", [3], [Affine()]])
def test_functions_must_be_a_list_of_classes(function: Any, functions: Any) -> None:
    with pytest.raises(onnxport.InputError, match="functions="):
        function(Affine(), (X,), functions=functions)


def test_check_counts_a_body_once() -> None:
    model = nn.Sequential(Affine(), Affine())
    assert onnxport.check(model, (X,)).operators["aten::relu"] == 2
    found = onnxport.check(model, (X,), functions=[Affine])
    assert found.passed
    assert found.operators["aten::relu"] == 1


def test_refusals_are_those_of_the_model() -> None:
    @torch.library.custom_op("test_functions::unknown", mutates_args=())
    def unknown(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    unknown.register_fake(lambda x: torch.empty_like(x))

    class Refused(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.test_functions.unknown(x) + 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(onnxport.UnsupportedOperatorsError) as caught:
            onnxport.export(nn.Sequential(Refused(), Refused()), (X,), functions=[Refused])
    (refusal,) = caught.value.refusals
    assert (refusal.target, refusal.count) == ("test_functions::unknown", 2)


# The file and the program ------------------------------------------------------------------------------------------


def test_provenance_of_calls_and_of_bodies() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Affine(), Affine()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x)) + x

    program = onnxport.export(nn.Sequential(Pair(), Pair()), (X,), functions=[Pair, Affine])
    second = list(program.model.graph)[1].metadata_props
    assert second["pkg.torch.onnx.name_scopes"] == "['', '1']"
    assert second["namespace"].endswith("/1: test_functions.test_provenance_of_calls_and_of_bodies.<locals>.Pair")
    pair = program.model.functions["pkg.test_functions", "Pair", ""]
    assert pair[1].metadata_props["pkg.torch.onnx.name_scopes"] == "['', 'two']"
    gemm = program.model.functions["pkg.test_functions", "Affine", ""][0].metadata_props
    assert gemm["pkg.torch.onnx.name_scopes"] == "['', 'linear', 'linear']"
    assert "test_functions.py" in gemm["pkg.torch.onnx.stack_trace"]
    bare = onnxport.export(nn.Sequential(Pair(), Pair()), (X,), functions=[Pair], metadata="none")
    assert not any(node.metadata_props for node in bare.model.graph)


def test_report_counts_bodies_once(tmp_path: Path) -> None:
    model = nn.Sequential(Affine(), Affine(), nn.Linear(4, 4))
    onnxport.export(model, (X,), functions=[Affine], report=True, artifacts_dir=tmp_path)
    data = json.loads(next(tmp_path.glob("*.json")).read_text())
    (entry,) = data["functions"]
    assert entry["name"] == "pkg.test_functions::Affine"
    assert entry["module"] == "test_functions.Affine"
    assert entry["calls"] == ["0", "1"]
    assert data["operators_after_passes"] == {"Affine": 2, "Gemm": 2, "Mul": 1, "Relu": 1}
    assert "pkg.test_functions::Affine" in next(tmp_path.glob("*.md")).read_text()


def test_two_exports_give_the_same_file() -> None:
    model = nn.Sequential(Affine(), Constants(1.0), Affine(), Constants(2.0)).eval()

    def text() -> bytes:
        program = onnxport.export(model, (X,), functions=[Affine, Constants], dynamic_shapes=({0: "n"},))
        return program.model_proto.SerializeToString(deterministic=True)

    assert text() == text()


def test_program_methods(tmp_path: Path) -> None:
    model = nn.Sequential(Affine(), Affine()).eval()
    x = torch.randn(2, 3, 4)
    program = onnxport.export(model, (x,), functions=[Affine], dynamic_shapes=({0: "n"},), optimize=False)
    program.optimize()
    program.rename_axes({"n": "batch"})
    text = str(program.model)
    assert "batch" in text
    assert not re.search(r"\bn,3", text)
    other = nn.Sequential(Affine(), Affine()).eval()
    program.apply_weights(other.state_dict())
    program.save(tmp_path / "model.onnx", external_data=True)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    loaded = onnxport.ONNXProgram.load(tmp_path / "model.onnx")
    torch.testing.assert_close(loaded(x)[0], other(x))
    torch.testing.assert_close(program.call_reference(x)[0], other(x), rtol=1e-4, atol=1e-5)
    assert onnxport.verify(onnxport.export(model, (x,), functions=[Affine])).passed


@pytest.mark.parametrize("opset", [18, 21, 23])
def test_opsets(opset: int) -> None:
    program = _export(nn.Sequential(Affine(), Affine()), (X,), [Affine], opset_version=opset)
    assert all(function.opset_imports[""] == opset for function in program.model.functions.values())


# Passes ------------------------------------------------------------------------------------------------------------


def test_transposes_of_weights_leave_the_functions() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.linear = Affine(), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.inner(x))

    program = _export(nn.Sequential(Outer(), Outer()), (torch.randn(2, 3, 4),), [Outer, Affine])
    assert _bodies(program) == {"Affine": ["MatMul", "Add", "Mul", "Relu"], "Outer": ["Affine", "MatMul", "Add"]}
    assert op_types(program) == ["Outer", "Outer"]
    assert "0.inner.linear.weight.T" in program.model.graph.initializers


def test_transposes_of_weights_that_are_read_otherwise_stay() -> None:
    class Reads(nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return x @ w.t()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.reads = nn.Parameter(torch.randn(4, 4)), Reads()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.reads(self.reads(x, self.weight), x[:, :4] @ x[:, :4].t())

    program = _export(Model(), (torch.randn(4, 4),), [Reads])
    assert "weight" in program.model.graph.initializers and "weight.T" not in program.model.graph.initializers


def test_passes_in_function_bodies() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20, "f": 1]>
    g (float[2,3] x) => (float[2,3] y, float[2,3] z) { y, u = f.One(x) z, v = f.One(y) }
    <domain: "f", opset_import: ["" : 20, "f": 1]>
    One (x) => (c, u) {
        i = Identity(x) a = Neg(i) b = Neg(x) c = Add(a, b) dead = Exp(x) u = f.Two(x)
    }
    <domain: "f", opset_import: ["" : 20]>
    Two (x) => (y) { s = Constant<value = int64[2] {3, 2}>() t = Constant<value = int64[2] {0, 0}>() k = Add(s, t)
        y = Reshape(x, k) }
    <domain: "f", opset_import: ["" : 20]>
    Three (x) => (y) { y = Abs(x) }"""
    model = ir.from_onnx_text(text)
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)

    def run() -> list[np.ndarray]:
        proto = ir.to_proto(model)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})

    before = run()
    for function in model.functions.values():
        for node in function:
            if node.op_type == "Constant":
                node.outputs[0].const_value = node.attributes["value"].value
                node.outputs[0].type = ir.TensorType(DataType.INT64)
            elif node.op_type == "Add":
                node.outputs[0].type = ir.TensorType(DataType.INT64)
    optimize(model, load(()).ir_passes())
    for old, new in zip(before, run(), strict=True):
        np.testing.assert_allclose(old, new)
    bodies = {f.name: [node.op_type for node in f] for f in model.functions.values()}
    assert bodies["One"] == ["Neg", "Add", "Two"]
    assert bodies["Two"] == ["Constant", "Reshape"]
    assert "Three" not in bodies


def test_random_functions_are_never_shared() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20, "f": 1]>
    g (float[2] x) => (float[2] y) { a = f.Outer(x) b = f.Outer(x) c = f.Plain(x) d = f.Plain(x)
        e = Sub(a, b) h = Sub(c, d) y = Add(e, h) }
    <domain: "f", opset_import: ["" : 20, "f": 1]> Outer (x) => (y) { y = f.Noise(x) }
    <domain: "f", opset_import: ["" : 20]> Noise (x) => (y) { r = RandomNormalLike(x) y = Add(x, r) }
    <domain: "f", opset_import: ["" : 20]> Plain (x) => (y) { y = Neg(x) }"""
    model = ir.from_onnx_text(text)
    optimize(model, load(()).ir_passes())
    assert [node.op_type for node in model.graph] == ["Outer", "Outer", "Plain", "Sub", "Sub", "Add"]


# Components --------------------------------------------------------------------------------------------------------


def test_components_come_after_what_they_depend_on() -> None:
    edges = {"a": "b", "b": "c", "c": "ad", "d": "", "e": "a", "f": "e", "g": "g"}
    assert components(edges, edges.__getitem__) == [["d"], ["a", "b", "c"], ["e"], ["f"], ["g"]]


def test_components_of_a_long_chain() -> None:
    assert components(range(20_000), lambda n: [n + 1] if n < 19_999 else []) == [[n] for n in range(19_999, -1, -1)]
