"""Operators of other domains, custom operators that write, and translations given with the call."""

from __future__ import annotations

from typing import Any

import onnxscript
import torch
from onnxscript import opset18
from torch import nn

from models.structures.structure import BUFFER, INPUT, floats, structure

X, OTHER = floats(4, 6), floats(7, 6)
ROWS = ({0: "rows"},)


@torch.library.custom_op("structures::shift", mutates_args=())
def shift(x: torch.Tensor, by: float = 1.0) -> torch.Tensor:
    return x + by


@shift.register_fake
def _(x: torch.Tensor, by: float = 1.0) -> torch.Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("structures::halves", mutates_args=())
def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[:, :3].clone(), x[:, 3:].clone()


@halves.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_empty(x.shape[0], 3), x.new_empty(x.shape[0], 3)


@torch.library.custom_op("structures::raise_", mutates_args=("x",))
def raise_(x: torch.Tensor, by: float) -> None:
    x.add_(by)


def shift_onnx(op: Any, x: Any, *, by: float) -> Any:
    return op.Add(x, by)


def halves_onnx(op: Any, x: Any) -> Any:
    return op.Split(x, num_outputs=2, axis=1, outputs=2)


def raise_onnx(op: Any, x: Any, *, by: float) -> Any:
    return op.Add(x, by)


def _sign(op: Any, self: Any, *, approximate: str) -> Any:
    return op.Sign(self)


def _misnamed(op: Any, x: Any, *, approximate: str) -> Any:
    return op.Gelu(x)


def _is_sign(y: torch.Tensor) -> bool:
    return torch.equal(y, X.sign())


_domain = onnxscript.values.Opset("structures", 1)


@onnxscript.script(_domain, default_opset=opset18)
def shift_function(x, by: float):
    return opset18.Add(x, opset18.Constant(value_float=by))


OPS = torch.ops.structures


@structure(X, dynamic=ROWS, other=(OTHER,), options={"custom_translation_table": {OPS.shift.default: shift_onnx}})
def custom_operator_by_a_table(x: torch.Tensor) -> torch.Tensor:
    return torch.ops.structures.shift(x, 0.5).relu()


@structure(X, dynamic=ROWS, other=(OTHER,), options={"custom_translation_table": {OPS.halves.default: halves_onnx}})
def custom_operator_with_two_results(x: torch.Tensor) -> torch.Tensor:
    left, right = torch.ops.structures.halves(x)
    return left * right


@structure(X, options={"custom_translation_table": {OPS.shift.default: lambda x, by: opset18.Add(x, 1.0)}})
def custom_operator_by_a_traced_function(x: torch.Tensor) -> torch.Tensor:
    return torch.ops.structures.shift(x)


@structure(X, ops=("shift_function",), options={"custom_translation_table": {OPS.shift.default: shift_function}})
def custom_operator_by_a_script_function(x: torch.Tensor) -> torch.Tensor:
    return torch.ops.structures.shift(torch.ops.structures.shift(x, 2.0), -1.0)


@structure(X, refused=r"(?s)structures::shift.*module: deep.inner.*source: .*custom_ops.py:\d+: return torch.ops")
class CustomOperatorWithoutATranslation(nn.Module):
    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.structures.shift(x)

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.ModuleDict({"inner": self.Inner()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.deep["inner"](x)


@structure(X, dynamic=ROWS, other=(OTHER,), options={"custom_translation_table": {OPS.raise_.default: raise_onnx}})
def custom_operator_that_writes_a_temporary(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    torch.ops.structures.raise_(y[1:], 3.0)
    return y


@structure(X, buffers={"level": torch.zeros(6)}, mutates={"level": BUFFER, "x": INPUT},
           options={"custom_translation_table": {OPS.raise_.default: raise_onnx}})  # fmt: skip
def custom_operator_that_writes_a_buffer_and_an_input(self: Any, x: torch.Tensor) -> torch.Tensor:
    torch.ops.structures.raise_(self.level, 2.0)
    torch.ops.structures.raise_(x, -1.0)
    return x * self.level


@structure(X, dynamic=ROWS, other=(OTHER,), ops=("Celu",))
def operator_of_onnx_by_symbolic(x: torch.Tensor) -> torch.Tensor:
    if not torch.compiler.is_exporting():
        return torch.celu(x, 2.0)
    return torch.onnx.ops.symbolic("Celu", (x,), {"alpha": 2.0}, dtype=x.dtype, shape=x.shape)


@structure(X, refused="higher_order::auto_functionalized(.|\n)*structures::raise_: no translation")
def writing_operator_without_a_translation(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    torch.ops.structures.raise_(y, 3.0)
    return y


@structure(X, ops=("Sign",), options={"custom_translation_table": {torch.ops.aten.gelu.default: _sign}}, holds=_is_sign)
def builtin_operator_overridden(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x)


@structure(X, refused="has a parameter 'x', which the schema doesn't have",
           options={"custom_translation_table": {torch.ops.aten.gelu.default: _misnamed}})  # fmt: skip
def table_function_with_a_misnamed_parameter(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x)


@structure(X, dynamic=ROWS, other=(OTHER,))
class FreeFunctionCalledInALoop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _free_function(x, 3) + 1


def _free_function(x: torch.Tensor, times: int) -> torch.Tensor:
    for _ in range(times):
        x = x * 0.5 + x.mean()
    return x
