"""Functions of onnxscript's own collection in custom_translation_table, and others written as they are."""

from __future__ import annotations

import json
from typing import Any

import onnxport
import onnxscript
import pytest
import torch
import torch.nn.functional as F
from onnxscript import opset18 as onnx_op
from onnxscript.function_libs.torch_lib.ops import core, nn
from onnxscript.function_libs.torch_lib.registration import default_registry
from support import FunctionModule, expect_equal, export_and_compare, op_types

aten = torch.ops.aten
X, Y = torch.randn(2, 3), torch.randn(2, 3)
IMAGE = torch.randn(1, 4, 6, 6)
Z = torch.randn(2, 3, dtype=torch.complex64)


#: Name: operator, function, model, inputs
FUNCTIONS: dict[str, tuple[Any, Any, Any, tuple[Any, ...]]] = {
    "relu": (aten.relu.default, nn.aten_relu, torch.relu, (X,)),
    "private variants": (aten.gelu.default, nn.aten_gelu, lambda x: F.gelu(x, approximate="tanh"), (X,)),
    "an attribute": (aten.leaky_relu.default, nn.aten_leaky_relu, lambda x: F.leaky_relu(x, 0.3), (X,)),
    "an integer for a float": (aten.elu.default, nn.aten_elu, lambda x: F.elu(x, 2), (X,)),
    "the default of an attribute": (aten.elu.default, nn.aten_elu, F.elu, (X,)),
    "a dtype": (aten.sum.dim_IntList, core.aten_sum_dim_IntList, lambda x: x.sum(0, dtype=torch.float64), (X,)),
    "none": (aten.clamp.default, core.aten_clamp, lambda x: x.clamp(None, 0.5), (X,)),
    "a number beside a tensor": (aten.add.Tensor, core.aten_add, lambda x: torch.add(x, 2, alpha=3), (X,)),
    "a list of tensors": (aten.cat.default, core.aten_cat, lambda x, y: torch.cat([x, y, x], 1), (X, Y)),
    "a list of numbers": (aten.permute.default, core.aten_permute, lambda x: x.permute(1, 0), (X,)),
    "a sequence as result": (aten.split.Tensor, core.aten_split, lambda x: x.split(2, 1), (X,)),
    "sizes of a sequence": (aten.split_with_sizes.default, core.aten_split_with_sizes,
        lambda x: x.split([1, 2], 1)[1] * 2, (X,)),
    "several outputs": (aten.topk.default, core.aten_topk, lambda x: torch.topk(x, 2), (X,)),
    "outputs left over": (aten.layer_norm.default, core.aten_layer_norm, lambda x: F.layer_norm(x, (3,)), (X,)),
    "a script function": (aten.hardswish.default, nn.aten_hardswish, F.hardswish, (X,)),
    "attributes of a script function": (aten.addcmul.default, core.aten_addcmul,
        lambda x, y: torch.addcmul(x, y, y, value=2), (X, Y)),
    "a question of a script function": (aten.amax.default, core.aten_amax, lambda x: x.amax(1, keepdim=True), (X,)),
    "integers for floats": (aten.sin.default, core.aten_sin, torch.sin, (torch.arange(3),)),
    "two types": (aten.div.Tensor, core.aten_div, torch.div, (X, torch.arange(1, 4))),
    "bool": (aten.logical_not.default, core.aten_logical_not, torch.logical_not, (X > 0,)),
    "modes of another opset": (aten.grid_sampler.default, core.aten_grid_sampler,
        lambda x: F.grid_sample(x, torch.zeros(1, 2, 2, 2) + 0.3, align_corners=True), (IMAGE,)),
    "complex numbers": (aten.mul.Tensor, core.aten_mul_complex, lambda x: x * x, (Z,)),
    "complex beside real": (aten.add.Tensor, core.aten_add_complex, lambda z, x: z + x, (Z, X)),
    "complex to real": (aten.abs.default, core.aten_abs_complex, torch.abs, (Z,)),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_the_collection(name, tmp_path):
    target, function, model, inputs = FUNCTIONS[name]
    module = FunctionModule(model).eval()
    options = {"report": True, "artifacts_dir": tmp_path}
    program = onnxport.export(module, inputs, custom_translation_table={target: function}, **options)
    want = module(*inputs)
    want = want if isinstance(want, (tuple, list)) else [want]
    for got, expected in zip(program(*inputs), want, strict=True):
        expect_equal(got, expected, atol=1e-5)
    (report,) = tmp_path.glob("*.json")
    assert "custom_translation_table" in {used["plugin"] for used in json.loads(report.read_text())["translations"]}


def test_models_with_the_whole_collection():
    """Every operator of a network, by the collection's functions, at another size than the example's."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(2),
        torch.nn.LayerNorm(9),
        torch.nn.GELU(),
        torch.nn.Linear(9, 5),
        torch.nn.Softmax(-1),
    ).eval()
    x = torch.randn(2, 3, 6, 6)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    table = {}
    for node in exported.graph.nodes:
        name = node.target.name() if node.op == "call_function" else ""
        if name in default_registry:
            table[node.target] = default_registry[name].overloads[0]
    assert len(table) > 6
    program = onnxport.export(exported, custom_translation_table=table)
    for batch in (2, 5):
        other = torch.randn(batch, 3, 6, 6)
        expect_equal(program(other)[0], model(other), atol=1e-5)


def test_real_functions_are_not_asked_for_complex_numbers():
    def both(x, z):
        return x * x, z * z

    table = {aten.mul.Tensor: core.aten_mul}
    program = onnxport.export(FunctionModule(both), (X, Z), custom_translation_table=table)
    for got, want in zip(program(X, Z), both(X, Z), strict=True):
        expect_equal(got, want)
    table = {aten.mul.Tensor: [core.aten_mul_complex, core.aten_mul]}
    program = onnxport.export(FunctionModule(both), (X, Z), custom_translation_table=table)
    for got, want in zip(program(X, Z), both(X, Z), strict=True):
        expect_equal(got, want)


def test_what_a_function_is_not_written_for_goes_to_the_next():
    x = torch.arange(6).reshape(2, 3)
    table = {aten.ceil.default: core.aten_ceil}  # floats alone, and the result of integers is no float
    program = onnxport.export(FunctionModule(torch.ceil), (x,), custom_translation_table=table)
    expect_equal(program(x)[0], x)


def test_a_function_made_the_same_way():
    domain = onnxscript.values.Opset("tests.torchlib", 1)

    def doubled(self, *, approximate: str = "none"):
        return onnx_op.Mul(self, onnx_op.CastLike(2, self))

    function = onnxscript.values.TracedOnnxFunction(domain, doubled)
    program = onnxport.export(torch.nn.GELU().eval(), (X,), custom_translation_table={aten.gelu.default: function})
    assert op_types(program)[-1] == "Mul" and "Gelu" not in op_types(program)
    expect_equal(program(X)[0], 2 * X)


def test_outputs_of_an_operator_as_onnxscript_gives_them():
    """All of them, whether they are taken apart, returned as they are or given on."""

    def apart(self, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
        values, _ = onnx_op.MaxPool(self, kernel_shape=kernel_size, strides=kernel_size)
        return values

    def returned(self, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
        return onnx_op.MaxPool(self, kernel_shape=kernel_size, strides=kernel_size)

    def given_on(self, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
        return onnx_op.Identity(onnx_op.MaxPool(self, kernel_shape=kernel_size, strides=kernel_size))

    class Pool(torch.nn.Module):
        def forward(self, x):
            return F.max_pool2d(x, [2, 2])

    for function in (apart, returned, given_on):
        program = onnxport.export(Pool(), (IMAGE,), custom_translation_table={aten.max_pool2d.default: function})
        (node,) = (node for node in program.model.graph if node.op_type == "MaxPool")
        assert len(node.outputs) == 1  # the indices, which nothing reads, aren't computed
        expect_equal(program(IMAGE)[0], F.max_pool2d(IMAGE, 2))


def test_arguments_of_traced_functions_are_plain():
    """As torch's exporter gives them: the number of a dtype, the name of a device, defaults that are the function's."""
    seen = []

    def to_copy(self, dtype: int = -1, device: str = "", **others: Any):
        seen.append((dtype, device, others))
        return onnx_op.Cast(self, to=dtype)

    def model(x):
        return aten._to_copy(x, dtype=torch.float64, device=torch.device("cpu"))

    table = {aten._to_copy.default: to_copy}
    program = onnxport.export(FunctionModule(model), (X,), custom_translation_table=table)
    expect_equal(program(X)[0], X.double())
    assert seen == [(11, "cpu", {})] and isinstance(seen[0][0], int)


def test_dynamic_sizes():
    class Reshaped(torch.nn.Module):
        def forward(self, x):
            return x.reshape(x.shape[0] * 3, -1)

    export_and_compare(
        Reshaped(),
        (torch.randn(4, 3, 2),),
        dynamic_shapes=({0: "n"},),
        other_args=(torch.randn(7, 3, 2),),
        custom_translation_table={aten.reshape.default: core.aten_reshape},
    )
