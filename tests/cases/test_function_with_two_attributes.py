"""Attributes of a function's nodes refer to those of the call: no pass takes two of them for equal, or for absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxport
import onnxruntime
import onnxscript
import pytest
import torch
from onnxport.host.discovery import load
from onnxport.optimize.pipeline import optimize
from onnxport_builtin.passes.order import PASSES
from onnxscript import opset18 as op
from support import expect_equal, run_model

domain = onnxscript.values.Opset("case.functions", 1)


@onnxscript.script(domain, default_opset=op)
def Line(x, slope: float, offset: float):
    return x * slope + offset


@onnxscript.script(domain, default_opset=op)
def Defaults(x, slope: float = 2.0, offset: float = 2.0):
    return x * slope + offset


@onnxscript.script(domain, default_opset=op)
def Crossed(x, slope: float, offset: float):
    return Line(x, slope, offset) + Line(x, offset, slope)


@onnxscript.script(domain, default_opset=op)
def Branched(x, slope: float, offset: float):
    if op.ReduceSum(x, keepdims=0) > 0.0:
        y = x * slope + offset
    else:
        y = x * offset + slope
    return y


@onnxscript.script(domain, default_opset=op)
def Repeated(x, slope: float, count: int):
    y = x
    for _ in range(count):
        y = y * slope + slope
    return y


@onnxscript.script(domain, default_opset=op)
def Doubled(x, first: int, second: int):
    y = op.Concat(x, x, axis=first)
    return op.Concat(y, y, axis=second)


@onnxscript.script(domain, default_opset=op)
def Vectors(x, factors: Sequence[float], terms: Sequence[int]):
    return x * op.Constant(value_floats=factors) + op.Cast(op.Constant(value_ints=terms), to=1)


def _repeated(x: torch.Tensor, slope: float, count: int) -> torch.Tensor:
    for _ in range(count):
        x = x * slope + slope
    return x


OPERATORS: Mapping[str, tuple[str, Callable[..., torch.Tensor]]] = {
    "line": ("Tensor x, float slope, float offset", lambda x, a, b: x * a + b),
    "scalars": ("Tensor x, Scalar slope, Scalar offset", lambda x, a, b: x * a + b),
    "defaults": ("Tensor x, float slope=2.0, float offset=2.0", lambda x, a=2.0, b=2.0: x * a + b),
    "crossed": ("Tensor x, float slope, float offset", lambda x, a, b: x * a + b + x * b + a),
    "branched": ("Tensor x, float slope, float offset", lambda x, a, b: torch.where(x.sum() > 0, x * a + b, x * b + a)),
    "repeated": ("Tensor x, float slope, int count", _repeated),
    "doubled": ("Tensor x, int first, int second", lambda x, a, b: torch.cat([torch.cat([x, x], a)] * 2, b)),
    "vectors": ("Tensor x, float[] f, int[] t", lambda x, f, t: x * torch.tensor(f) + torch.tensor(t).float()),
    "casts": ("Tensor x, int first, int second", lambda x, a, b: x.to(_DTYPES[a]).to(_DTYPES[b])),
    "turned": ("Tensor x, int[] first, int[] second", lambda x, a, b: x.permute(a).permute(b).clone()),
    "soft": ("Tensor x, int first, int second", lambda x, a, b: x.softmax(a) + x.softmax(b)),
    "product": ("Tensor x, Tensor w, int[] perm", lambda x, w, perm: x @ w.permute(perm)),
    "sized": ("Tensor x, SymInt n", lambda x, n: x * n),
}
_DTYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 11: torch.float64}
LIBRARY = torch.library.Library("case_two_attributes", "DEF")
for _name, (_schema, _function) in OPERATORS.items():
    LIBRARY.define(f"{_name}({_schema}) -> Tensor")
    LIBRARY.impl(_name, _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"case_two_attributes::{_name}", _function, lib=LIBRARY)
ops = torch.ops.case_two_attributes


def nested(op: onnxport.Builder, x: Any, slope: float, offset: float) -> Any:
    """A function that calls another, whose attributes have other names, in both orders."""

    def inner(x: Any, k: Any, m: Any) -> Any:
        return op.Add(op.Mul(x, op.Constant(value_float=k)), op.Constant(value_float=m))

    def outer(x: Any, slope: Any, offset: Any) -> Any:
        first = op.function("case", "Inner", inner, x, key="inner", k=slope, m=offset)
        return op.Add(first, op.function("case", "Inner", inner, x, key="inner", k=offset, m=slope))

    return op.function("case", "Outer", outer, x, key="outer", slope=slope, offset=offset)


def _of_two(name: str, body: Callable[..., Any]) -> Callable[..., Any]:
    def function(op: onnxport.Builder, x: Any, first: Any, second: Any) -> Any:
        return op.function("case", name, lambda x, a, b: body(op, x, a, b), x, key=name, a=first, b=second)

    return function


def product(op: onnxport.Builder, x: Any, w: Any, perm: Any) -> Any:
    return op.function(
        "case", "Product", lambda x, w, perm: op.MatMul(x, op.Transpose(w, perm=perm)), x, w, key="product", perm=perm
    )


def sized(op: onnxport.Builder, x: Any, n: Any) -> Any:
    body = lambda x, n: op.Mul(x, op.Cast(op.Constant(value_int=n), to=1))  # noqa: E731
    return op.function("case", "Sized", body, x, key="sized", n=n)


TABLE = {
    ops.line.default: Line,
    ops.scalars.default: Line,
    ops.defaults.default: Defaults,
    ops.crossed.default: Crossed,
    ops.branched.default: Branched,
    ops.repeated.default: Repeated,
    ops.doubled.default: Doubled,
    ops.vectors.default: Vectors,
    ops.casts.default: _of_two("Casts", lambda op, x, a, b: op.Cast(op.Cast(x, to=a), to=b)),
    ops.turned.default: _of_two("Turned", lambda op, x, a, b: op.Transpose(op.Transpose(x, perm=a), perm=b)),
    ops.soft.default: _of_two("Soft", lambda op, x, a, b: op.Add(op.Softmax(x, axis=a), op.Softmax(x, axis=b))),
    ops.product.default: product,
    ops.sized.default: sized,
}


class Model(torch.nn.Module):
    def __init__(self, function: Callable[..., tuple[torch.Tensor, ...]]) -> None:
        super().__init__()
        self.function = function
        self.weight, self.other = (torch.nn.Parameter(torch.randn(3, 3)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.function(self, x)


CALLS: Mapping[str, Callable[..., tuple[torch.Tensor, ...]]] = {
    "line": lambda m, x: (ops.line(x, 2.0, 5.0), ops.line(x, -1.0, 0.25), ops.line(x, 5.0, 5.0)),
    "ints for floats": lambda m, x: (ops.scalars(x, 2, 5), ops.scalars(x, 2.0, -1.0), ops.scalars(x, True, -1)),
    "zeros of both signs": lambda m, x: (1 / ops.line(x * 0, 0.0, -0.0), 1 / ops.line(x * 0, -0.0, -0.0)),
    "not numbers": lambda m, x: (ops.line(x, float("nan"), 5.0), ops.line(x, float("inf"), 0.0)),
    "defaults": lambda m, x: (ops.defaults(x), ops.defaults(x, 3.0), ops.defaults(x, 2.0, 7.0)),
    "a function in a function": lambda m, x: (ops.crossed(x, 2.0, 5.0), ops.crossed(x, -1.0, 0.25)),
    "a branch": lambda m, x: (ops.branched(x, 2.0, 5.0), ops.branched(-x, 2.0, 0.25), ops.branched(-x, 2.0, 5.0)),
    "a loop": lambda m, x: (ops.repeated(x, 2.0, 3), ops.repeated(x, 3.0, 2)),
    "axes": lambda m, x: (ops.doubled(x, 0, 1), ops.doubled(x, 1, 0), ops.doubled(x, 0, 0)),
    "lists": lambda m, x: (ops.vectors(x, [1, 2, 3], [1, 2, 3]), ops.vectors(x, [1.0, 2.5, 3.0], [1, 2, 4])),
    "casts": lambda m, x: (ops.casts(x, 7, 11), ops.casts(x, 6, 1), ops.casts(x, 11, 7)),
    "permutations": lambda m, x: (ops.turned(x, [1, 0], [0, 1]), ops.turned(x, [0, 1], [0, 1])),
    "a permuted weight": lambda m, x: (ops.product(x, m.weight, [0, 1]),),
    "two permuted weights": lambda m, x: (ops.product(x, m.weight, [1, 0]), ops.product(x, m.other, [0, 1])),
    "softmax": lambda m, x: (ops.soft(x, 0, 1), ops.soft(x, 1, 1), ops.soft(x, 0, 0)),
}


@pytest.mark.parametrize("optimized", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_each_call_reads_its_own_values(name: str, optimized: bool) -> None:
    model = Model(CALLS[name]).eval()
    x, longer = 3 * torch.randn(2, 3), 3 * torch.randn(5, 3)
    program = onnxport.export(
        model, (x,), dynamic_shapes=({0: "n"},), optimize=optimized, custom_translation_table=TABLE
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for value in (x, longer):
        for got, want in zip(session.run(None, {"x": value.numpy()}), model(value), strict=True):
            expect_equal(torch.from_numpy(np.asarray(got)), want)


@pytest.mark.parametrize("optimized", [True, False])
def test_a_reference_is_passed_on_under_another_name(optimized: bool) -> None:
    model, x = Model(lambda m, x: (ops.crossed(x, 2.0, 5.0), ops.crossed(x, -1.0, 0.25))), torch.randn(2, 3)
    program = onnxport.export(model, (x,), optimize=optimized, custom_translation_table={ops.crossed.default: nested})
    for got, want in zip(run_model(program, (x,)), model(x), strict=True):
        expect_equal(got, want)


def test_a_size_is_no_attribute() -> None:
    model, x = Model(lambda m, x: (ops.sized(x, x.shape[0]),)), torch.randn(2, 3)
    program = onnxport.export(model, (x,), custom_translation_table=TABLE)
    expect_equal(run_model(program, (x,))[0], x * 2)
    with pytest.raises(onnxport.UnsupportedOperatorsError, match="'n' of Sized is known at run time only"):
        onnxport.export(model, (x,), dynamic_shapes=({0: "n"},), custom_translation_table=TABLE)


BODIES: Mapping[str, str] = {
    "casts": "a = Cast<to: int = @i>(x) b = Cast<to: int = @j>(a) y = Cast<to = 1>(b)",
    "equal casts": "a = Cast<to: int = @j>(x) b = Cast<to: int = @j>(a) y = Cast<to = 1>(b)",
    "transposes": "a = Transpose<perm: ints = @p>(x) y = Transpose<perm: ints = @q>(a)",
    "a constant transpose before": "a = Transpose<perm = [1, 0]>(x) y = Transpose<perm: ints = @q>(a)",
    "a constant transpose behind": "a = Transpose<perm: ints = @q>(x) y = Transpose<perm = [1, 0]>(a)",
    "constants": """
        a = Constant<value_float: float = @f>() b = Constant<value_float: float = @g>() c = Mul(x, a) y = Add(c, b)""",
    "operators over constants": """
        a = Constant<value_ints = [2, 3, 4]>() b = Unsqueeze(a, a0) c = Softmax<axis: int = @k>(x)
        d = ArgMax<axis: int = @k, keepdims = 0>(b) e = Cast<to = 1>(d) f = ReduceSum<keepdims = 0>(e) y = Mul(c, f)""",
    "a part of the shape": """
        a = Shape<start: int = @k>(x) b = Shape<start: int = @l>(x) c = Concat<axis = 0>(a, b)
        d = ReduceProd<keepdims = 0>(c) e = Cast<to = 1>(d) y = Mul(x, e)""",
    "a reshape": "a = Reshape<allowzero: int = @k>(x, s) y = Reshape(a, s)",
    "two softmaxes": "a = Softmax<axis: int = @k>(x) b = Softmax<axis: int = @l>(x) y = Sub(a, b)",
    "a branch": """
        t = Constant<value_float: float = @f>() b = Cast<to = 9>(t)
        y = If(b) <then_branch = g1 () => (u) { u = LeakyRelu<alpha: float = @f>(x) },
                   else_branch = g2 () => (v) { v = LeakyRelu<alpha: float = @g>(x) }>""",
}


def _text(body: str) -> str:
    values = (
        "i = 7, j = 1, k = 0, l = 1, f = 2.0, g = 5.0, p = [0, 1], q = [1, 0]",
        "i = 1, j = 11, k = 1, l = 0, f = 0.0, g = -0.5, p = [1, 0], q = [1, 0]",
    )
    constants = "a0 = Constant<value_ints = [0]>() s = Constant<value_ints = [2, -1]>()"
    calls = " ".join(f"y{n} = case.F<{value}>(x)" for n, value in enumerate(values))
    return f"""<ir_version: 10, opset_import: ["" : 20, "case" : 1]>
        g (float[2,2] x) => (float[?,?] y0, float[?,?] y1) {{ {calls} }}
        <domain: "case", opset_import: ["" : 20]>
        F <i, j, k, l, f, g, p, q> (x) => (y) {{ {constants} {body} }}"""


def _run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


@pytest.mark.parametrize("name", BODIES)
def test_every_pass_leaves_what_references_say(name: str) -> None:
    text = _text(BODIES[name])
    x = np.array([[1.5, -2.5], [3.5, 0.25]], dtype=np.float32)
    before = _run(ir.from_onnx_text(text), x)
    for steps in [[step] for step in PASSES] + [list(PASSES)]:
        model = ir.from_onnx_text(text)
        for value in [value for function in model.functions.values() for value in function.inputs]:
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, 2])
        optimize(model, load(()).ir_passes(), without=set(PASSES) - set(steps))
        for got, want in zip(_run(model, x), before, strict=True):
            np.testing.assert_array_equal(got, want, err_msg=f"{name} after {steps}")
