"""ONNXProgram: calls, sessions, weights, names of dimensions."""

from __future__ import annotations

import dataclasses
import gc
import os

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from graph_support import FLOAT, INT64, Graph
from onnxport.emit.weights import TorchTensor
from onnxport.errors import InputError, SaveError, WeightError
from onnxport.program.onnx_program import ONNXProgram
from onnxport_builtin.program import running


def identity(dtype: ir.DataType, shape=("n", 3), **props: str) -> ONNXProgram:
    g = Graph()
    x = g.input("x", shape, dtype, **props)
    g.output(g.node("Identity", x, name="y", shape=shape, dtype=dtype), **props)
    return g.program()


class Model(torch.nn.Module):
    """Keyword, optional, baked and nested arguments; a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
        self.tied = self.weight
        self.unused = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, pair, scale: int = 2, *, mask=None, bias=None):
        return (x + pair["a"] - pair["b"][0] + bias) @ self.weight.t() @ self.tied * scale, mask


def exported_model() -> tuple[ONNXProgram, Model]:
    """The program of `Model` as a translator would make it."""
    model = Model()
    x, a, b, bias = (torch.randn(4, 3) for _ in range(4))
    batch = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        model,
        (x, {"a": a, "b": [b]}, 2),
        {"bias": bias, "mask": None},
        dynamic_shapes={"x": batch, "pair": {"a": batch, "b": [batch]}, "scale": None, "bias": batch, "mask": None},
    )
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    g = Graph()
    x, a, b, _, bias, _ = (
        g.input(f"in_{name}", ["batch", 3], origin=name) if name not in ("scale", "mask") else None for name in names
    )
    tied = TorchTensor(model.weight, "weight")
    tied.aliases = ("tied",)
    weight = g.weight("weight", tied)
    transposed = g.weight("weight_t", tied.derive(torch.t, "weight_t"))
    value = g.node("Add", x, a, name="sum", shape=["batch", 3])
    value = g.node("Sub", value, b, name="difference", shape=["batch", 3])
    value = g.node("Add", value, bias, name="biased", shape=["batch", 3])
    value = g.node("MatMul", value, transposed, name="first", shape=["batch", 2])
    value = g.node("MatMul", value, weight, name="second", shape=["batch", 3])
    g.output(g.node("Mul", value, g.weight("two", torch.tensor(2.0)), name="result", shape=["batch", 3]))
    return g.program(program), model


def arguments(n: int = 5) -> tuple[tuple, dict]:
    x, a, b, bias = (torch.randn(n, 3) for _ in range(4))
    return (x, {"b": [b], "a": a}, 2), {"bias": bias, "mask": None}


def test_call_flattens_like_the_forward() -> None:
    program, model = exported_model()
    args, kwargs = arguments()
    expected = model(*args, **kwargs)[0]
    (x, pair, _), bias = args, kwargs["bias"]
    for again in (
        lambda: program(*args, **kwargs),
        lambda: program(x, pair, mask=None, scale=2, bias=bias),
        lambda: program(bias=bias, x=x, pair={"a": pair["a"], "b": pair["b"]}),
    ):
        results = again()
        assert isinstance(results, tuple) and len(results) == 1
        torch.testing.assert_close(results[0], expected)
    torch.testing.assert_close(program.call_reference(*args, **kwargs)[0], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, k: (a[:1], k), "'pair' missing"),
        (lambda a, k: ((*a, 1, 2, 3), k), "1 positional argument.* too many.*'bias' given twice"),
        (lambda a, k: (a, {**k, "other": 1}), "'other' unknown"),
        (lambda a, k: (a, {**k, "x": a[0]}), "'x' given twice"),
        (lambda a, k: ((*a[:2], 3), k), "'scale' was 2 .* baked in; 3 can't"),
        (lambda a, k: ((*a[:2], True), k), "'scale' was 2"),
        (lambda a, k: (a, {**k, "mask": torch.ones(2)}), "'mask' was None .* a tensor of shape"),
        (lambda a, k: ((a[0], {"a": a[0]}, 2), k), "argument 2 is not nested as in the export"),
        (lambda a, k: ((a[0], {"a": a[0], "b": (a[0],)}, 2), k), "argument 2 is not nested"),
        (lambda a, k: ((a[0].double(), *a[1:]), k), r"in_x: float32\[batch, 3\] got torch.float64"),
        (lambda a, k: ((a[0][0], *a[1:]), k), "rank 1"),
        (lambda a, k: ((a[0][:, :2], *a[1:]), k), "axis 1 is fixed to 3.*dynamic_shapes"),
        (lambda a, k: ((a[0][:2], *a[1:]), k), "in_pair_a.*axis 0, 'batch', is 5, but it is 2 in in_x axis 0"),
        (lambda a, k: ((1.5, *a[1:]), k), "in_x.* needs a tensor, got 1.5"),
    ],
)
def test_bad_arguments(change, message: str) -> None:
    program, _ = exported_model()
    args, kwargs = change(*arguments())
    with pytest.raises(InputError, match=message):
        program(*args, **kwargs)


def test_containers_of_users() -> None:
    @dataclasses.dataclass
    class Pair:
        left: torch.Tensor
        right: torch.Tensor

    torch.export.register_dataclass(Pair, serialized_type_name="tests.core.test_program.Pair")

    class Sum(torch.nn.Module):
        def forward(self, pair: Pair) -> torch.Tensor:
            return pair.left + pair.right

    exported = torch.export.export(Sum(), (Pair(torch.ones(2), torch.ones(2)),))
    g = Graph()
    left, right = g.input("pair_left", [2]), g.input("pair_right", [2])
    g.output(g.node("Add", left, right, name="sum", shape=[2]))
    torch.testing.assert_close(g.program(exported)(Pair(torch.ones(2), torch.ones(2)))[0], torch.full((2,), 2.0))


def test_unnamed_inputs_go_by_order_and_removed_ones_are_skipped() -> None:
    class Skip(torch.nn.Module):
        def forward(self, a, b):
            return b * 1

    exported = torch.export.export(Skip(), (torch.ones(2), torch.ones(3)))
    g = Graph()
    g.output(g.node("Identity", g.input("b", [3]), name="y", shape=[3]))
    torch.testing.assert_close(g.program(exported)(torch.ones(2), torch.full((3,), 4.0))[0], torch.full((3,), 4.0))
    g = Graph()
    g.input("in_a", [2])
    g.output(g.node("Identity", g.input("in_b", [3]), name="y", shape=[3]))
    torch.testing.assert_close(g.program(exported)(torch.ones(2), torch.full((3,), 4.0))[0], torch.full((3,), 4.0))
    g = Graph()
    g.output(g.node("Identity", g.input("else", [3]), name="y", shape=[3]))
    with pytest.raises(InputError, match="no argument for"):
        g.program(exported)(torch.ones(2), torch.ones(3))


def test_symbolic_numbers_are_inputs() -> None:
    class Scale(torch.nn.Module):
        def forward(self, x, n):
            return x * n

    exported = torch.export.export(Scale(), (torch.ones(2), 3), dynamic_shapes=(None, torch.export.Dim.DYNAMIC))
    g = Graph()
    x, n = g.input("x", [2]), g.input("n", [], INT64)
    n = g.node("Cast", n, name="float", shape=[], to=1)
    g.output(g.node("Mul", x, n, name="y", shape=[2]))
    torch.testing.assert_close(g.program(exported)(torch.ones(2), 5)[0], torch.full((2,), 5.0))


DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.bool,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_goes_in_and_out(dtype: torch.dtype) -> None:
    program = identity(TorchTensor(torch.zeros(1, dtype=dtype)).dtype)
    for x in (torch.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype), torch.ones(0, 3).to(dtype)):
        (y,) = program(x.t().contiguous().t())
        assert y.dtype is dtype and y.shape == x.shape
        assert torch.equal(y.view(torch.uint8), x.view(torch.uint8))
    g = Graph()
    code = TorchTensor(torch.zeros((), dtype=dtype)).dtype
    g.output(g.node("Identity", g.input("x", [], code), name="y", shape=[], dtype=code))
    (y,) = g.program()(torch.tensor(1).to(dtype))
    assert y.shape == () and float(y) == 1.0


def test_complex_goes_in_and_out() -> None:
    program = identity(FLOAT, ("n", 3, 2), **{"onnxport.complex": "1"})
    x = torch.randn(4, 3, dtype=torch.complex64)
    (y,) = program(x.conj())
    torch.testing.assert_close(y, x.conj().resolve_conj())
    torch.testing.assert_close(program.call_reference(x)[0], x)


def test_arrays_and_gradients_are_accepted() -> None:
    program = identity(FLOAT)
    torch.testing.assert_close(program(np.ones((2, 3), np.float32))[0], torch.ones(2, 3))
    torch.testing.assert_close(program(x=torch.ones(2, 3, requires_grad=True))[0], torch.ones(2, 3))
    with pytest.raises(InputError, match=r"takes 1 input, x: float32\[n, 3\]; given: 2 tensors"):
        program(torch.ones(2, 3), torch.ones(2, 3))


def test_results_outlive_the_session() -> None:
    program = identity(FLOAT)
    (y,) = program(torch.ones(1000, 3))
    program.release()
    gc.collect()
    identity(FLOAT)(torch.zeros(1000, 3))
    assert y.sum() == 3000
    y += 1  # writable, and not what the next call returns


def test_mutated_buffers_are_left_out_of_calls() -> None:
    g = Graph()
    x = g.input("x", [2])
    g.output(g.node("Neg", x, name="state_out", shape=[2]), kind="BUFFER_MUTATION")
    g.output(g.node("Abs", x, name="y", shape=[2]))
    program = g.program()
    x = torch.tensor([1.0, -2.0])
    assert [list(result) for result in program(x)] == [[1, 2]]
    assert [list(result) for result in program.run((x,))] == [[-1, 2], [1, 2]]
    assert [list(result) for result in program.run((), {"x": x}, all_outputs=False)] == [[1, 2]]


def test_compute_values() -> None:
    program, model = exported_model()
    args, kwargs = arguments()
    values = program.compute_values(["first", "in_x", "weight", "result"], args, kwargs)
    assert list(values.keys()) == ["first", "in_x", "weight", "result"]
    assert torch.equal(values["in_x"], args[0]) and torch.equal(values["weight"], model.weight)
    torch.testing.assert_close(values["result"], program(*args, **kwargs)[0])
    assert values["first"].shape == (5, 2)
    assert [value.name for value in program.model.graph.outputs] == ["result"]
    with pytest.raises(InputError, match=r"no value.*'other'"):
        program.compute_values(["other"], args, kwargs)


def test_sessions() -> None:
    program = identity(FLOAT)
    seen = []

    def initializer(model):
        seen.append(model)
        return ort.InferenceSession(model, providers=["CPUExecutionProvider"])

    program.initialize_inference_session(initializer)
    program(torch.ones(2, 3))
    program(torch.ones(2, 3))
    assert len(seen) == 1 and isinstance(seen[0], bytes)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    program.initialize_inference_session(providers=["CPUExecutionProvider"], session_options=options)
    program(torch.ones(2, 3))
    with program as same:
        assert same is program
    assert program._session is None


def test_large_models_reach_the_session_through_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "IN_MEMORY_BYTES", 1000)
    g = Graph()
    weight = torch.randn(3, 500)
    x = g.input("x", ["n", 3])
    g.output(g.node("MatMul", x, g.weight("w", weight), name="y", shape=["n", 500]))
    program = g.program()
    seen = []

    def initializer(model):
        seen.append(model)
        assert os.path.exists(model + ".data")
        return ort.InferenceSession(model, providers=["CPUExecutionProvider"])

    program.initialize_inference_session(initializer)
    x = torch.randn(4, 3)
    torch.testing.assert_close(program(x)[0], x @ weight)
    torch.testing.assert_close(program.compute_values(["y"], (x,))["y"], x @ weight)
    program.release()
    assert not os.path.exists(os.path.dirname(seen[0]))


def test_save_and_load(tmp_path) -> None:
    program, model = exported_model()
    args, kwargs = arguments()
    program.save(tmp_path / "m.onnx", external_data=True)
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)
    loaded = ONNXProgram.load(tmp_path / "m.onnx")
    tensors = [args[0], args[1]["a"], args[1]["b"][0], kwargs["bias"]]
    torch.testing.assert_close(loaded(*tensors)[0], model(*args, **kwargs)[0])
    named = {value.name: tensor for value, tensor in zip(loaded.model.graph.inputs, tensors, strict=True)}
    torch.testing.assert_close(loaded(**named)[0], model(*args, **kwargs)[0])
    with pytest.raises(TypeError):
        program.save(open(os.devnull, "wb"), external_data=True)  # noqa: SIM115
    with pytest.raises(SaveError):
        program.save(tmp_path)
    assert program.model_proto == ir.serde.serialize_model(program.model)


def test_apply_weights() -> None:
    program, model = exported_model()
    args, kwargs = arguments()
    program(*args, **kwargs)
    other = Model()
    with torch.no_grad():
        other.weight.copy_(torch.randn(2, 3))
    program.apply_weights(other.state_dict())
    torch.testing.assert_close(program(*args, **kwargs)[0], other(*args, **kwargs)[0])
    program.apply_weights({"tied": model.weight})
    torch.testing.assert_close(program(*args, **kwargs)[0], model(*args, **kwargs)[0])
    program.apply_weights({"weight": other.weight})
    torch.testing.assert_close(program(*args, **kwargs)[0], other(*args, **kwargs)[0])


def test_weights_that_do_not_fit_are_listed() -> None:
    program, _ = exported_model()
    meta = TorchTensor(torch.empty(3, device="meta"), "empty")
    value = ir.Value(name="empty", type=ir.TensorType(FLOAT), shape=ir.Shape([3]), const_value=meta)
    program.model.graph.register_initializer(value)
    before = {name: value.const_value for name, value in program.model.graph.initializers.items()}
    with pytest.raises(WeightError) as caught:
        weights = {"weight": torch.ones(3, 3), "two": torch.tensor(2), "other": torch.ones(1), "unused": torch.ones(1)}
        program.apply_weights(weights)
    message = str(caught.value)
    assert "4 weights don't fit" in message
    assert "weight: shape [3, 3] given, [2, 3] expected" in message
    assert "two: dtype torch.int64 given, torch.float32 expected" in message
    assert "other: not a weight of the model" in message
    assert "empty: missing" in message
    assert before == {name: value.const_value for name, value in program.model.graph.initializers.items()}
    with pytest.raises(WeightError, match="tied: tied to weight in the model, but the values given differ"):
        program.apply_weights({"weight": torch.ones(2, 3), "tied": torch.zeros(2, 3), "empty": torch.ones(3)})
    program.apply_weights({"empty": torch.ones(3)}, strict=False)


def test_weights_that_the_optimizer_merged_cannot_be_replaced() -> None:
    program, model = exported_model()
    graph = program.model.graph
    for name in ("weight", "weight_t"):
        value = graph.initializers.pop(name)
        value.name = name + "_merged"
        value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)
        graph.register_initializer(value)
    with pytest.raises(WeightError, match="weight: computed into constants at export; export with optimize=False"):
        program.apply_weights({"weight": torch.zeros(2, 3)})
    program.apply_weights(model.state_dict())  # the values that it has already


def test_weights_computed_of_several_follow_all_of_them() -> None:
    g = Graph()
    scale, offset = TorchTensor(torch.tensor([2.0, 3.0]), "scale"), TorchTensor(torch.tensor([1.0, 1.0]), "offset")
    x = g.input("x", [2])
    fused = scale.combine(lambda s, o: s * 10 + o, [offset], "fused")
    g.output(g.node("Mul", x, g.weight("fused", fused), name="y", shape=[2]))
    program = g.program()
    assert program(torch.ones(2))[0].tolist() == [21, 31]
    program.apply_weights({"scale": torch.ones(2), "offset": torch.zeros(2)})
    assert program(torch.ones(2))[0].tolist() == [10, 10]
    program.apply_weights({"offset": torch.tensor([5.0, 6.0])})
    assert program(torch.ones(2))[0].tolist() == [15, 16]
    with pytest.raises(WeightError, match=r"offset: shape \[3\] given, \[2\] expected"):
        program.apply_weights({"offset": torch.zeros(3)})


def test_folded_weights_cannot_be_replaced() -> None:
    program, _ = exported_model()
    program.model.meta["onnxport.folded_weights"] = {"weight"}
    with pytest.raises(WeightError, match="tied: computed into constants at export"):
        program.apply_weights({"tied": torch.ones(2, 3)})


def test_rename_axes() -> None:
    g = Graph()
    x = g.input("x", ["s0", 3])
    y = g.node("Concat", x, x, name="y", shape=["2*s0", 3], axis=0)
    g.output(g.node("Identity", y, name="z", shape=["2*s0", "s1"]))
    program = g.program()
    program.rename_axes({"s0": "batch", "s1": "width"})
    assert program.model.graph.inputs[0].shape == ("batch", 3)
    assert program.model.graph.outputs[0].shape == ("2*batch", "width")
    program.rename_axes({"batch": "width", "width": "batch"})
    assert program.model.graph.outputs[0].shape == ("2*width", "batch")
    for names, message in [
        ({"s9": "a"}, r"no dimension 's9'; it has \['2\*width', 'batch', 'width'\]"),
        ({"batch": "a b"}, "no name for a dimension"),
        ({"batch": "width"}, "two dimensions"),
        ({"batch": "a", "width": "a"}, "two dimensions"),
    ]:
        with pytest.raises(InputError, match=message):
            program.rename_axes(names)
    torch.testing.assert_close(program(torch.ones(1, 3))[0], torch.ones(2, 3))


def test_representations() -> None:
    program, _ = exported_model()
    text = repr(program)
    assert "opset 20, 6 nodes, 3 initializers" in text and "in_x FLOAT[batch, 3]" in text and "result FLOAT" in text
    assert "MatMul" in str(program)
