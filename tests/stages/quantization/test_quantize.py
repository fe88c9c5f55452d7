"""``quantize=``: integers and scales as onnxruntime's own quantizer gives them, and files that say what they mean."""

from __future__ import annotations

import copy
import json
import pickle
import re
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxport
import onnxport.kit
import onnxruntime
import pytest
import torch
from onnxport import InputError, ONNXProgram, OpsetError, WeightFormat
from onnxport.optimize.rewriting import QUANTIZED, all_nodes
from onnxruntime.quantization import matmul_nbits_quantizer as reference
from onnxruntime.quantization.quant_utils import QuantFormat
from torch import nn

KINDS = ["int4", "uint4", "int8", "uint8"]


class Net(nn.Module):
    """An embedding, two linear layers, and a head that may be tied to the embedding."""

    def __init__(self, tied: bool = False, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.up = nn.Linear(width, 96)
        self.down = nn.Linear(96, width, bias=False)
        self.head = nn.Linear(width, 50, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.down(self.up(self.embed(ids)).relu()))


def net(**options) -> Net:
    torch.manual_seed(0)
    return Net(**options).eval()


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, 50, shape or (2, 5), generator=torch.Generator().manual_seed(1))


def loaded_by_onnxruntime(program: ONNXProgram, path) -> list[str]:
    """The operators that a plain session runs."""
    program.save(path / "in.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path / "out.onnx")
    onnxruntime.InferenceSession(str(path / "in.onnx"), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path / "out.onnx").graph.node]


def exact(program: ONNXProgram, *args: torch.Tensor) -> torch.Tensor:
    """The output as the file says it, without activations in 8 bits."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    with copy.copy(program) as opened:
        opened.session_options = options
        return opened(*args)[0]


def dequantized(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """What the initializers of each DequantizeLinear stand for, computed here."""
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in arrays:
            block = onnx.helper.get_node_attr_value(node, "block_size")
            codes = arrays[node.input[0]].astype(np.float32)
            zeros = arrays[node.input[2]].astype(np.float32) if len(node.input) > 2 else np.zeros(1, np.float32)
            scales = arrays[node.input[1]].repeat(block, 0)[: len(codes)]
            zeros = zeros.repeat(block, 0)[: len(codes)] if zeros.ndim > 1 else zeros
            found[node.input[0]] = (codes - zeros) * scales
    return found


# The numbers ------------------------------------------------------------------------------------------------------


class OneProduct(nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def theirs(model: onnx.ModelProto, bits: int, block: int, symmetric: bool) -> dict[str, np.ndarray]:
    """Integers (K, N), scales and zero points (blocks, N) that onnxruntime's quantizer gives for the one product."""
    form = QuantFormat.QDQ if bits == 4 else QuantFormat.QOperator  # which has no Q/DQ of 8 bits
    config = reference.DefaultWeightOnlyQuantConfig(block, symmetric, quant_format=form, bits=bits)
    quantizer = reference.MatMulNBitsQuantizer(copy.deepcopy(model), algo_config=config)
    quantizer.process()
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in quantizer.model.model.graph.initializer]
    codes, scales, *zeros = arrays
    if bits == 8:
        rows = model.graph.initializer[0].dims[0]
        codes = codes.reshape(len(codes), -1)[:, :rows].T.astype(np.int16) - (128 if symmetric else 0)
        scales, zeros = scales.reshape(len(scales), -1).T, [z.reshape(len(scales), -1).T for z in zeros]
    return {"codes": codes.astype(np.int16), "scales": scales, "zeros": zeros[0].astype(np.int16) if zeros else None}


def numbers(kind: str, shape: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(kind))
    normal = torch.randn(shape, generator=generator)
    made = {
        "normal": normal,
        "positive": normal.abs() + 0.2,
        "negative": -normal.abs() - 0.2,
        "tiny": normal * 1e-6,
        "heavy tails": normal**7,
        "sparse": torch.where(normal.abs() < 1.5, 0.0, (normal * 4).round() / 4),
        "whole": (normal * 4).round(),
        "zero": torch.zeros(shape),
    }
    return made[kind]


def one_product(weight: torch.Tensor) -> onnx.ModelProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(weight.numpy().dtype)
    x, y = (onnx.helper.make_tensor_value_info(name, kind, None) for name in "xy")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [x],
        [y],
        [onnx.numpy_helper.from_array(weight.numpy(), "w")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("kind", ["normal", "positive", "negative", "tiny", "heavy tails", "sparse", "whole", "zero"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_numbers_are_those_of_onnxruntimes_quantizer(kind, dtype, bits, symmetric):
    for rows, columns, block in ((96, 64, 16), (200, 33, 32), (96, 33, 64), (100, 20, 128), (513, 17, 256)):
        weight = numbers(kind, (rows, columns)).to(dtype)
        model = one_product(weight)
        expected = theirs(model, bits, block, symmetric)
        program = ONNXProgram(ir.serde.deserialize_model(model))
        found = onnxport.quantize(program, WeightFormat(bits, block, symmetric)).model_proto
        arrays = [onnx.numpy_helper.to_array(tensor) for tensor in found.graph.initializer]
        np.testing.assert_array_equal(arrays[0].astype(np.int16), expected["codes"])
        assert arrays[1].dtype == expected["scales"].dtype
        np.testing.assert_array_equal(arrays[1], expected["scales"])
        assert (len(arrays) == 2) == symmetric
        if not symmetric:
            np.testing.assert_array_equal(arrays[2].astype(np.int16), expected["zeros"])


def test_an_export_has_these_numbers():
    torch.manual_seed(0)
    layer, x = nn.Linear(200, 63).eval(), torch.randn(2, 3, 200)
    expected = theirs(one_product(layer.weight.detach().t().contiguous()), 4, 32, False)
    program = onnxport.export(nn.Sequential(layer), (x,), quantize=WeightFormat(4, 32, False))
    values = {name: value.const_value.numpy() for name, value in program.model.graph.initializers.items()}
    np.testing.assert_array_equal(values["0.weight.T.uint4"].astype(np.int16), expected["codes"])
    np.testing.assert_array_equal(values["0.weight.T.scale"], expected["scales"])
    np.testing.assert_array_equal(values["0.weight.T.zero_point"].astype(np.int16), expected["zeros"])


def test_bfloat16_is_rounded_in_float32():
    weight = numbers("normal", (64, 32)).bfloat16()
    program = onnxport.export(OneProduct(weight), (torch.ones(3, 64).bfloat16(),), opset_version=21)
    expected = theirs(one_product(weight.float()), 4, 32, False)
    found = onnxport.quantize(program, WeightFormat(4, 32, False)).model_proto
    codes, scales, zeros = found.graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(codes).astype(np.int16), expected["codes"])
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(zeros).astype(np.int16), expected["zeros"])
    scales = onnx.numpy_helper.to_array(scales).astype(np.float32)
    np.testing.assert_array_equal(scales, torch.from_numpy(expected["scales"].copy()).bfloat16().float().numpy())


def test_weights_with_denormal_scales():
    weight = torch.randn(64, 8) * 1e-40  # scales have no reciprocal
    program = onnxport.export(OneProduct(weight), (torch.ones(3, 64),), quantize="int8")
    values = next(iter(dequantized(program.model_proto).values()))
    assert np.abs(values - weight.numpy()).max() <= float(weight.abs().max()) / 100


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(bad, tmp_path):
    weight = torch.randn(32, 8)
    weight[3, 4] = bad
    with pytest.raises(onnxport.WeightError, match=r"weight: .*Leave it out"):
        onnxport.export(OneProduct(weight), (torch.ones(3, 32),), tmp_path / "m.onnx", quantize="int4")
    assert not list(tmp_path.iterdir())


# The file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_products_are_written_as_onnxruntime_wants_them(kind, tied, tmp_path):
    model = net(tied=tied)
    for shape, optimize in (((), True), ((3,), True), ((2, 5), True), ((2, 5), False)):
        x = ids(*shape) if shape else torch.tensor(7)
        program = onnxport.export(model, (x,), quantize=kind, optimize=optimize)
        plain = program(x)[0]
        rounded = copy.deepcopy(model)
        state = onnxport.kit.load().items("onnxport_quantizers")[0].roundings(program.model, model.state_dict())
        rounded.load_state_dict({**model.state_dict(), **dict(state.items())})
        expected = rounded(x)
        torch.testing.assert_close(exact(program, x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(program.call_reference(x)[0], expected, rtol=1e-4, atol=1e-5)
        assert (plain - expected).norm() < 0.03 * expected.norm()  # activations in 8 bits
        operators = loaded_by_onnxruntime(program, tmp_path)
        assert operators.count("MatMulNBits") == 3
        assert not {"MatMul", "Gemm", "FusedGemm", "FusedMatMul"} & set(operators)
        assert operators.count("DequantizeLinear") == (1 if tied else 0)  # of the rows that are looked up


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_named_table_are_dequantized_after_the_lookup(kind):
    model = net(tied=False, width=72)  # no multiple of the block
    program = onnxport.export(model, (ids(),), quantize={"embed": kind}, verify=True)
    names = {str(value.name) for value in program.model.graph.initializers.values()}
    assert "embed.weight" not in names
    assert "head.weight.T" in names
    lookups = [node for node in program.model.graph if node.op_type == "Gather"]
    assert all(node.inputs[0].dtype.bitwidth >= 8 for node in lookups)
    tensor = [node for node in program.model.graph if node.op_type == "DequantizeLinear"]
    assert [node.outputs[0].shape.numpy() for node in tensor] == [(2, 5, 72)]


def test_an_odd_table_has_no_lookup_in_4_bits():
    model = net(width=65)
    with pytest.raises(InputError, match=r"embed.weight: .*odd number of elements: give it 8 bits"):
        onnxport.export(model, (ids(),), quantize={"embed": "int4", "*": "int4"})
    onnxport.export(model, (ids(),), quantize={"embed": "int8", "*": "int4"}, verify=True)


class Twice(nn.Module):
    """One linear layer, called several times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(self.layer(x).sin()).cos())


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_of_several_products_is_stored_once(kind, tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64)
    program = onnxport.export(Twice().eval(), (x,), quantize=kind, verify=True)
    sizes = [value.const_value.nbytes for value in program.model.graph.initializers.values()]
    assert sum(sizes) < 64 * 64 * (1 if "8" in kind else 0.5) + 64 * 4 * 4
    assert loaded_by_onnxruntime(program, tmp_path).count("MatMulNBits") == 3
    program.optimize()
    assert loaded_by_onnxruntime(program, tmp_path).count("MatMulNBits") == 3


class Both(nn.Module):
    """A weight that is summed over both of its axes."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Linear(64, 64)
        self.other = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(torch.relu(self.code(x)) @ self.code.weight)


def test_a_weight_that_is_read_along_both_axes_stays():
    x = torch.randn(2, 64)
    program = onnxport.export(Both().eval(), (x,), quantize="int4", verify=True)
    assert "code.weight" in {name.removesuffix(".T") for name in program.model.graph.initializers}
    with pytest.raises(InputError, match=r"code\.weight: it is read along both of its axes"):
        onnxport.export(Both().eval(), (x,), quantize={"code": "int4"})


class Activations(nn.Module):
    """What onnxruntime would take for a part of an integer product."""

    def __init__(self, activation: nn.Module, bias: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 48, bias=bias), nn.Linear(48, 32)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.activation(self.first(x)))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.GELU()])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 32), (2, 5, 32), (32,)])
def test_activations_dont_keep_the_kernel_away(activation, bias, shape, tmp_path):
    torch.manual_seed(0)
    program = onnxport.export(Activations(activation, bias).eval(), (torch.randn(shape),), quantize="int4")
    operators = loaded_by_onnxruntime(program, tmp_path)
    assert operators.count("MatMulNBits") == 2, operators


def test_conv1d_of_gpt2_lies_as_it_is():
    class Conv1D(nn.Module):  # transformers' own: (K, N)
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(40, 24)), nn.Parameter(torch.randn(24))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.addmm(self.bias, x.view(-1, 40), self.weight).view(2, 3, 24)

    program = onnxport.export(Conv1D().eval(), (torch.randn(2, 3, 40),), quantize="uint4", verify=True)
    assert program.model.graph.initializers["weight.uint4"].shape.numpy() == (40, 24)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_floats(dtype):
    layer = nn.Sequential(nn.Linear(64, 32)).eval().to(dtype)
    x = torch.randn(3, 64, dtype=dtype)
    program = onnxport.export(layer, (x,), quantize="int4", verify=dtype is torch.float16)
    scales = [v for name, v in program.model.graph.initializers.items() if name.endswith("scale")]
    assert [value.dtype for value in scales] == [onnxport.onnx_dtype(dtype)]


def test_a_weight_that_is_cast_is_rounded_in_the_type_that_it_is_read_in():
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(32, 64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x.half(), self.weight.half())

    # With optimize=True the cast is computed at the export, and the weight is a constant, which stays.
    x = torch.randn(3, 64)
    program = onnxport.export(Cast().eval(), (x,), quantize="int4", optimize=False, verify=True)
    assert [node.op_type for node in program.model.graph] == ["Cast", "DequantizeLinear", "Gemm"]


def test_double_and_small_weights_stay():
    with pytest.raises(InputError, match="double"):
        onnxport.export(nn.Sequential(nn.Linear(64, 32)).double(), (torch.randn(3, 64).double(),), quantize="int4")
    with pytest.raises(InputError, match="as much memory as before"):
        onnxport.export(nn.Sequential(nn.Linear(1, 32)), (torch.randn(3, 1),), quantize="int4")


def test_computed_and_foreign_weights_stay():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(32, 32)
            self.conv = nn.Conv1d(32, 32, 3)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(32, 32))
            self.register_buffer("matrix", torch.randn(32, 32))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.normed(self.linear(x) @ self.matrix).mT)

    model, x = Mixed().eval(), torch.randn(2, 5, 32)
    program = onnxport.export(model, (x,), quantize="int4", verify=True)
    assert [n for n in program.model.graph.initializers if "int4" in n] == ["linear.weight.T.int4"]
    named = onnxport.export(model, (x,), quantize={"matrix": "int8", "linear": None}, verify=True)
    assert [n for n in named.model.graph.initializers if "int8" in n] == ["matrix.int8"]


class Conditional(nn.Module):
    """Layers within branches: one in each, one in both, one before them, and a table."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.both = nn.Linear(64, 32), nn.Linear(64, 32, bias=False), nn.Linear(32, 32)
        self.table = nn.Embedding(10, 32)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        def then(v: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            return self.both(self.first(v).relu()) + self.table(ids)

        def otherwise(v: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            return self.both(self.second(v))

        return self.both(torch.cond(x.sum() > 0, then, otherwise, (x, ids)))


class Repeated(nn.Module):
    """A layer within a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        from torch._higher_order_ops.while_loop import while_loop

        count = torch.zeros((), dtype=torch.int64)
        return while_loop(lambda n, v: n < 3, lambda n, v: (n + 1, self.inside(v).tanh()), (count, x))[1]


def in_bodies(program: ONNXProgram, path) -> list[str]:
    """The operators of the branches and loops that a plain session runs."""
    program.save(path / "in.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path / "out.onnx")
    onnxruntime.InferenceSession(str(path / "in.onnx"), options, providers=["CPUExecutionProvider"])
    bodies = [a.g for node in onnx.load(path / "out.onnx").graph.node for a in node.attribute if a.HasField("g")]
    return [node.op_type for body in bodies for node in body.node]


COLUMNS: Any = {"bits": 8, "block_size": None}


@pytest.mark.parametrize("kind", [*KINDS, COLUMNS], ids=str)
def test_weights_in_branches_and_loops(kind, tmp_path):
    torch.manual_seed(0)
    values, places = torch.randn(3, 64), torch.tensor([1, 2, 0])
    for model, names in ((Conditional().eval(), ["both", "first", "second"]), (Repeated().eval(), ["inside"])):
        program = onnxport.export(model, (values, places), quantize=kind, verify=True)
        assert sorted(rounded_names(program)) == [f"{name}.weight" for name in names]
        for x in (values.abs(), -values.abs()):
            assert onnxport.verify(program, model, (x, places)).passed
        path = tmp_path / f"{names[0]}.onnx"
        program.save(path)
        other = type(model)().eval()
        loaded = ONNXProgram.load(path)
        loaded.apply_weights(other.state_dict())
        assert onnxport.verify(loaded, other, (values, places)).passed
        assert not onnxport.verify(loaded, model, (values, places)).passed
        if kind is not COLUMNS:
            types = in_bodies(program, tmp_path)
            assert types.count("MatMulNBits") == (4 if len(names) > 1 else 1), types


def rounded_names(program: ONNXProgram) -> set[str]:
    """The weights that a file has in few bits."""
    lines = [node.metadata_props.get(QUANTIZED) for node in all_nodes(program.model)]
    return {json.loads(line)["weight"] for line in lines if line}


def test_a_table_that_a_branch_looks_up():
    torch.manual_seed(0)
    model, x = Conditional().eval(), torch.randn(3, 64).abs()
    for kind in KINDS:
        program = onnxport.export(model, (x, torch.tensor([1, 2, 0])), quantize={"table": kind}, verify=True)
        assert rounded_names(program) == {"table.weight"}


def test_weights_in_functions():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(32, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).relu()

    blocks = nn.Sequential(Block(), Block(), Block()).eval()
    program = onnxport.export(blocks, (torch.randn(2, 5, 32),), functions=[Block], quantize="int4", verify=True)
    assert len([n for n in program.model.graph.initializers if "int4" in n]) == 3
    assert [node.op_type for node in program.model.graph].count("DequantizeLinear") == 3


def test_dynamic_sizes():
    model = net(tied=True)
    shapes = ({0: "batch", 1: "length"},)
    program = onnxport.export(model, (ids(),), dynamic_shapes=shapes, quantize="int4", verify=True)
    for shape in ((1, 1), (4, 3)):
        assert program(ids(*shape))[0].shape == (*shape, 50)
    assert onnxport.verify(program, other_inputs=[((ids(7, 2),), None)]).passed


def test_a_float_model_is_as_before():
    program = onnxport.export(net(), (ids(),), opset_version=21)
    assert not [n for n in program.model.graph if n.op_type == "DequantizeLinear"]
    plain = onnxport.export(net(), (ids(),))
    assert plain.model.opset_imports[""] == onnxport.kit.DEFAULT_OPSET


# Weights, files and copies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_saved_loaded_and_given_other_weights(kind, tmp_path):
    model, other, x = net(tied=True), Net(tied=True).eval(), ids()
    path = tmp_path / "model.onnx"
    program = onnxport.export(model, (x,), path, quantize=kind)
    loaded = ONNXProgram.load(path)
    torch.testing.assert_close(loaded(x)[0], program(x)[0], rtol=0, atol=0)
    loaded.optimize()
    torch.testing.assert_close(loaded(x)[0], program(x)[0], rtol=0, atol=0)
    torch.testing.assert_close(pickle.loads(pickle.dumps(program))(x)[0], program(x)[0], rtol=0, atol=0)
    loaded.apply_weights(other.state_dict())
    assert onnxport.verify(loaded, other, (x,)).passed
    loaded.save(tmp_path / "other.onnx")
    assert onnxport.verify(tmp_path / "other.onnx", other, (x,)).passed
    partly = ONNXProgram.load(path)
    with pytest.raises(onnxport.WeightError, match=r"embed\.weight: missing"):
        partly.apply_weights({"up.weight": other.up.weight})
    partly.apply_weights({"up.weight": other.up.weight}, strict=False)
    mixed = copy.deepcopy(model)
    mixed.up.weight = other.up.weight
    assert onnxport.verify(partly, mixed, (x,)).passed
    copied = copy.deepcopy(program)
    program.apply_weights(other.state_dict())
    assert onnxport.verify(program, other, (x,)).passed
    assert onnxport.verify(copied, model, (x,)).passed
    fresh = onnxport.export(other, (x,), quantize=kind)
    torch.testing.assert_close(program(x)[0], fresh(x)[0], rtol=0, atol=0)


def test_fake_weights_are_rounded_when_they_are_given(tmp_path):
    with torch.device("meta"):
        empty = Net(tied=True).eval()
    model, x = net(tied=True), ids()
    program = onnxport.export(empty, (torch.empty(2, 5, dtype=torch.int64, device="meta"),), quantize="uint4")
    with pytest.raises(onnxport.WeightError, match="has no data"):
        program.save(tmp_path / "m.onnx")
    program.apply_weights(model.state_dict())
    torch.testing.assert_close(program(x)[0], onnxport.export(model, (x,), quantize="uint4")(x)[0], rtol=0, atol=0)


def test_quantize_of_a_program(tmp_path):
    model, x = net(tied=True), ids()
    program = onnxport.export(model, (x,), opset_version=21)
    before = program(x)[0]
    rounded = onnxport.quantize(program, "int4")
    assert rounded is not program
    assert onnxport.verify(program).passed
    torch.testing.assert_close(program(x)[0], before, rtol=0, atol=0)
    assert onnxport.verify(rounded).passed
    exported = onnxport.export(model, (x,), opset_version=21, quantize="int4")
    torch.testing.assert_close(rounded(x)[0], exported(x)[0], rtol=0, atol=0)
    program.save(tmp_path / "float.onnx")
    loaded = onnxport.quantize(ONNXProgram.load(tmp_path / "float.onnx"), "int4")
    torch.testing.assert_close(loaded(x)[0], exported(x)[0], rtol=0, atol=0)
    result = onnxport.verify(loaded, model, (x,))
    assert result.passed and not result.weights.problem
    loaded.save(tmp_path / "int4.onnx")
    assert onnxport.verify(tmp_path / "int4.onnx", model, (x,)).passed
    with pytest.raises(OpsetError, match=r"opset 20 has no int4.*opset_version=21"):
        onnxport.quantize(onnxport.export(model, (x,), opset_version=20), "int4")
    with pytest.raises(InputError, match="program"):
        onnxport.quantize(model, "int4")


# Verification -----------------------------------------------------------------------------------------------------


def test_verification_tells_a_wrong_file_from_a_rounded_one(tmp_path):
    model, x = net(tied=True), ids()
    path = tmp_path / "model.onnx"
    program = onnxport.export(model, (x,), path, quantize="int4")
    result = onnxport.verify(path, model, (x,))
    assert result.passed
    assert result.weights.compared == 4 and not result.weights.problem
    assert {error.weight for error in result.rounding.errors} == {"embed.weight", "up.weight", "down.weight"}
    assert all(0 < error.relative < 0.2 and error.max_abs > 0 for error in result.rounding.errors)
    assert 0.01 < result.original.outputs[0].relative < 0.5
    assert "against the original" in result.table()
    other = onnxport.verify(path, Net(tied=True).eval(), (x,))
    assert not other.passed and "weights differ" in other.weights.problem
    codes = program.model.graph.initializers["up.weight.T.int4"]
    flipped = codes.const_value.numpy().copy()
    flipped[5, 7] = -flipped[5, 7] or 3
    codes.const_value = ir.tensor(flipped, dtype=ir.DataType.INT4)
    result = onnxport.verify(program, model, (x,))
    assert not result.passed  # one number of 6144
    assert "up.weight" in result.weights.differing


def test_find_mismatch_looks_past_the_rounding():
    model, x = net(tied=True), ids()
    assert onnxport.find_mismatch(onnxport.export(model, (x,), quantize="int4")).passed
    table = {torch.ops.aten.relu.default: lambda op, self: op.Neg(self)}
    wrong = onnxport.export(model, (x,), quantize="int4", custom_translation_table=table)
    assert onnxport.find_mismatch(wrong).mismatch.operator == "aten::relu"


def test_a_reference_without_the_weights_is_refused():
    model, x = net(), ids()
    program = onnxport.export(model, (x,), quantize="int4")
    with pytest.raises(InputError, match="Pass the module that was exported"):
        onnxport.verify(program, lambda i: model(i), (x,))


def test_the_report_has_the_errors(tmp_path):
    model, x = net(), ids()
    onnxport.export(model, (x,), quantize={"head": None, "*": "int8"}, report=True, artifacts_dir=tmp_path)
    page = next(tmp_path.glob("*.md")).read_text()
    section = page.split("## Quantization")[1].split("\n## ")[0]
    assert re.search(r"\| up.weight \| int8, blocks of 128 \| \d\.\d\de-0\d \| \d\.\d\de-0\d \|", section)
    assert "head.weight" not in section
    assert re.search(r"Output linear_2: max abs \d\.\d\de-0\d, relative \d\.\d\de-0\d", section)


# What is asked ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("int5", "there are 'int4', 'int8', 'uint4', 'uint8'"),
        (4, "quantize=4: give 'int4'"),
        (True, "quantize=True: give 'int4'"),
        ([], r"quantize=\[\]: give"),
        ({}, r"quantize=\{\}: give"),
        ({"bits": 3}, "bits=3: weights are written in 4 or 8 bits"),
        ({"bits": 4, "block_size": 48}, "block_size=48: give one of 16, 32, 64, 128, 256, or None"),
        ({"bits": 4, "block_size": 8}, "block_size=8: give one of"),
        ({"bits": 4, "symmetric": 1}, "symmetric=1: give True or False"),
        ({"head": {"bit": 4}}, "a format has no 'bit'; it has bits, block_size, symmetric"),
        ({"hed": None, "*": "int4"}, "'hed' matches no weight of the model.*Did you mean 'head'"),
        ({1: "int4"}, "1 is no name"),
        ({"*": None}, "no weight gets a format"),
        ({"head": "int4", "head.weight": None}, "'head.weight' matches is matched by an earlier pattern"),
    ],
)
def test_bad_requests_are_told_before_the_capture(given, message):
    class Uncaptured(Net):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            raise AssertionError("captured")

    with pytest.raises(InputError, match=message):
        onnxport.export(Uncaptured().eval(), (ids(),), quantize=given)


def test_opsets():
    model, x = net(), ids()
    for kind in KINDS:
        with pytest.raises(OpsetError, match=r"opset 20 has no .*give opset_version=21"):
            onnxport.export(model, (x,), opset_version=20, quantize=kind)
    assert onnxport.export(model, (x,), quantize="int4").model.opset_imports[""] == 21
    for opset in (18, 21):
        for symmetric in (True, False):
            form = WeightFormat(8, None, symmetric)
            program = onnxport.export(model, (x,), opset_version=opset, quantize=form, verify=True)
            assert program.model.graph.initializers["up.weight.T.scale"].shape.numpy() == (96,)


@pytest.mark.parametrize("opset", [23, 25])
def test_every_opset_from_21(opset):
    onnxport.export(net(tied=True), (ids(),), opset_version=opset, quantize="uint4", verify=True)


def rounded_in(request) -> dict[str, str]:
    program = onnxport.export(net(), (ids(),), quantize=request)
    return {
        n.split(".T.")[0].split(".int")[0]: n.rpartition(".")[2]
        for n in program.model.graph.initializers
        if ".int" in n
    }


def test_names_and_patterns():
    assert set(rounded_in("int4")) == {"up.weight", "down.weight", "head.weight"}
    assert rounded_in({"*": "int4", "head": None}) == {"up.weight": "int4", "down.weight": "int4"}
    assert rounded_in({"head": "int8", "*": "int4"})["head.weight"] == "int8"
    assert rounded_in({"up.weight": {"bits": 4, "block_size": 16}}) == {"up.weight": "int4"}
    assert set(rounded_in({"*p": "int4"})) == {"up.weight"}
    assert set(rounded_in({"d*": WeightFormat(), "u*": "int8"})) == {"up.weight", "down.weight"}


def test_a_tied_weight_has_one_format():
    model, x = net(tied=True), ids()
    with pytest.raises(InputError, match=r"embed\.weight and head\.weight are one tied weight"):
        onnxport.export(model, (x,), quantize={"embed": "int8", "head": "int4"})
    program = onnxport.export(model, (x,), quantize={"head": None, "*": "int4"}, verify=True)
    assert "embed.weight" in program.model.graph.initializers
    program = onnxport.export(model, (x,), quantize={"head": "int8", "*": "int4"}, verify=True)
    assert "embed.weight.int8" in program.model.graph.initializers


def test_a_profile_prefers_an_opset_and_a_format_needs_one():
    class Pack:
        @onnxport.hookimpl
        def onnxport_profiles(self):
            return [onnxport.Profile("old", opset=19), onnxport.Profile("new", opset=23)]

    for runtime, opset in (("old", 21), ("new", 23)):
        program = onnxport.export(net(), (ids(),), quantize="int4", runtime=runtime, plugins=[Pack()])
        assert program.model.opset_imports[""] == opset


def test_nothing_to_round():
    with pytest.raises(InputError, match="no weight of the model can be rounded"):
        onnxport.export(nn.Sequential(nn.Conv2d(3, 8, 3)), (torch.randn(1, 3, 8, 8),), quantize="int4")
    with pytest.raises(InputError, match=r"nothing that '0' matches can be rounded.*(\n.*)*0\.weight: it has 4 axes"):
        onnxport.export(nn.Sequential(nn.Conv2d(3, 8, 3)), (torch.randn(1, 3, 8, 8),), quantize={"0": "int4"})


def test_a_pack_may_bring_a_quantizer():
    class Halving:
        opset = 18

        def plan(self, request, opset, names):
            return self if request == "halves" else None

        def apply(self, program):
            program.model.graph.name = "halved"
            return self

        def roundings(self, model, weights):
            return None

        def restore(self, model):
            pass

    class Pack:
        @onnxport.hookimpl
        def onnxport_quantizers(self):
            return [Halving()]

    plugins = [Pack()]
    assert onnxport.export(net(), (ids(),), quantize="halves", plugins=plugins).model.graph.name == "halved"
    program = onnxport.export(net(), (ids(),), quantize="int4", plugins=plugins)
    assert "up.weight.T.int4" in program.model.graph.initializers
