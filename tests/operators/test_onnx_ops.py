"""ONNX operators called from torch: torch.ops.onnx.* and nodes spelled out by torch.onnx.ops.symbolic."""

from __future__ import annotations

import itertools
from typing import Any

import onnx
import onnxport
import pytest
import torch
from support import as_module, export_and_compare, op_types, run_model
from torch.onnx.ops import attention, rotary_embedding, symbolic, symbolic_multi_out

DYNAMIC = torch.export.Dim.DYNAMIC
X = torch.randn(2, 3)


def exported(function: Any, *args: Any, **options: Any) -> onnxport.ONNXProgram:
    return onnxport.export(as_module(function), args, **options)


# ---- any node


def test_symbolic_in_a_custom_domain_with_every_kind_of_attribute() -> None:
    attributes = {
        "an_int": 3,
        "a_bool": True,
        "a_float": 0.5,
        "a_string": "text",
        "ints": [1, 2],
        "bools": [True, False],
        "floats": [0.5, 1],
        "strings": ["a", "bc"],
        "outputs": 7,
        "domain": "of the attribute",
    }

    def function(x: torch.Tensor) -> torch.Tensor:
        y = symbolic(
            "some.domain::Op",
            (x + 1, None, x),
            attributes,
            dtype=torch.float16,
            shape=(x.shape[0], 7),
            version=4,
            metadata_props={"key": "value"},
        )
        return y.relu()

    program = exported(function, X, dynamic_shapes=({0: "batch"},))
    model = program.model_proto
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 20, "some.domain": 4}
    (node,) = (node for node in model.graph.node if node.domain)
    assert (node.op_type, node.input[1], node.input[2]) == ("Op", "", "args_0")
    found = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert found == {
        "an_int": 3,
        "a_bool": 1,
        "a_float": 0.5,
        "a_string": b"text",
        "ints": [1, 2],
        "bools": [1, 0],
        "floats": [0.5, 1.0],
        "strings": [b"a", b"bc"],
        "outputs": 7,
        "domain": b"of the attribute",
    }
    assert {entry.key: entry.value for entry in node.metadata_props}["key"] == "value"
    output = model.graph.output[0].type.tensor_type
    assert output.elem_type == onnx.TensorProto.FLOAT16
    assert [d.dim_param or d.dim_value for d in output.shape.dim] == ["batch", 7]


def test_symbolic_multi_out_in_a_custom_domain() -> None:
    def function(x: torch.Tensor) -> Any:
        a, _, c = symbolic_multi_out(
            "some.domain::Three",
            (x,),
            dtypes=(torch.int64, torch.bool, onnx.TensorProto.DOUBLE),
            shapes=([], [x.shape[0]], [4, 5]),
        )
        return a + 1, c

    program = exported(function, X)
    node = program.model_proto.graph.node[0]
    assert len(node.output) == 3
    assert {entry.domain: entry.version for entry in program.model_proto.opset_import}["some.domain"] == 1
    types = [value.type.tensor_type.elem_type for value in program.model_proto.graph.output]
    assert types == [onnx.TensorProto.INT64, onnx.TensorProto.DOUBLE]


def test_symbolic_nodes_of_onnx_run() -> None:
    def function(x: torch.Tensor) -> Any:
        leaky = symbolic("LeakyRelu", (x,), {"alpha": 1}, dtype=x.dtype, shape=x.shape)
        values, indices = symbolic_multi_out(
            "ai.onnx::TopK",
            (x, torch.tensor([2])),
            {"axis": -1, "largest": 0},
            dtypes=(x.dtype, torch.int64),
            shapes=([x.shape[0], 2],) * 2,
        )
        return leaky, values, indices

    program = exported(function, X, dynamic_shapes=({0: "batch"},))
    assert sorted(op_types(program)) == ["LeakyRelu", "TopK"]
    x = torch.randn(5, 3)
    leaky, values, indices = run_model(program, (x,))
    expected = x.topk(2, largest=False)
    torch.testing.assert_close(leaky, torch.nn.functional.leaky_relu(x, 1.0))
    torch.testing.assert_close(values, expected.values)
    assert torch.equal(indices, expected.indices)


def test_symbolic_onnxruntime_operator() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return symbolic("com.microsoft::QuickGelu", (x,), {"alpha": 1.702}, dtype=x.dtype, shape=x.shape, version=1)

    (found,) = run_model(exported(function, X), (X,))
    torch.testing.assert_close(found, X * torch.sigmoid(1.702 * X))


def test_symbolic_nodes_of_constants_stay_and_are_not_shared() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        table = symbolic("some.domain::Draw", (torch.ones(3),), dtype=torch.float32, shape=[3])
        other = symbolic("some.domain::Draw", (torch.ones(3),), dtype=torch.float32, shape=[3])
        return x + table + other

    assert op_types(exported(function, X)).count("Draw") == 2


def test_symbolic_under_is_in_onnx_export() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        if torch.onnx.is_in_onnx_export():
            return symbolic("Softplus", (x,), dtype=x.dtype, shape=x.shape)
        return torch.nn.functional.softplus(x)

    program = export_and_compare(function, (X,), dynamic_shapes=({0: DYNAMIC},), other_args=(torch.randn(4, 3),))
    assert op_types(program) == ["Softplus"]


def test_symbolic_version_of_the_default_domain() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return symbolic("Relu", (x,), dtype=x.dtype, shape=x.shape, version=18)

    assert op_types(exported(function, X)) == ["Relu"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"domain_op": "Cast", "attrs": {"to": 1}, "version": 18}, "export with opset_version=18"),
        ({"domain_op": "NoSuchOp"}, "ONNX has no operator 'NoSuchOp'"),
        ({"domain_op": "RotaryEmbedding"}, "needs opset 23"),
        ({"domain_op": "Relu", "attrs": {"alpha": 1.0}}, "has no attribute 'alpha'"),
        ({"domain_op": "Relu", "dtype": torch.float64}, "is FLOAT, the call says DOUBLE"),
        ({"domain_op": "Relu", "shape": [2, 4]}, "the call says"),
        ({"domain_op": "Relu", "inputs": 3}, "at most 1 inputs"),
    ],
)
def test_symbolic_refusals(arguments: dict[str, Any], reason: str) -> None:
    given = {"dtype": torch.float32, "shape": [2, 3], "inputs": 1, **arguments}
    name, count = given.pop("domain_op"), given.pop("inputs")

    def function(x: torch.Tensor) -> torch.Tensor:
        return symbolic(name, (x,) * count, given.pop("attrs", None), **given)

    with pytest.raises(onnxport.UnsupportedOperatorsError, match=reason):
        exported(function, X)


def test_symbolic_refuses_two_versions_of_one_domain() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        for version in (1, 2):
            x = symbolic("some.domain::Op", (x,), dtype=x.dtype, shape=x.shape, version=version)
        return x

    with pytest.raises(onnxport.UnsupportedOperatorsError, match=r"version 2 of the domain 'some\.domain'"):
        exported(function, X)


# ---- RotaryEmbedding


class Rotary(torch.nn.Module):
    def __init__(self, rank: int, interleaved: bool, with_ids: bool, turned: int) -> None:
        super().__init__()
        self.rank, self.interleaved, self.with_ids, self.turned = rank, interleaved, with_ids, turned

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, ids: Any = None) -> torch.Tensor:
        heads = 4 if self.rank == 3 else 0
        named: Any = {"interleaved": self.interleaved, "num_heads": heads, "rotary_embedding_dim": self.turned}
        return rotary_embedding(x, cos, sin, ids, **named) * 2

    def inputs(self, batch: int, length: int) -> tuple[torch.Tensor, ...]:
        x = torch.randn(batch, length, 32) if self.rank == 3 else torch.randn(batch, 4, length, 8)
        shape = (50,) if self.with_ids else (batch, length)
        caches = [torch.randn(*shape, (self.turned or 8) // 2) for _ in range(2)]
        ids = [torch.randint(0, 50, (batch, length))] if self.with_ids else []
        return (x, *caches, *ids)


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("rank", "with_ids", "turned"), list(itertools.product((3, 4), (False, True), (0, 4))))
def test_rotary_embedding(opset: int, interleaved: bool, rank: int, with_ids: bool, turned: int) -> None:
    model = Rotary(rank, interleaved, with_ids, turned)
    axes: Any = {0: "b", 1: "l"}
    cache = {} if with_ids else axes
    dynamic = ({0: "b", rank - 2: "l"}, cache, cache, *([axes] if with_ids else []))
    program = export_and_compare(
        model, model.inputs(2, 3), dynamic_shapes=dynamic, other_args=model.inputs(3, 5), opset_version=opset
    )
    assert ("RotaryEmbedding" in op_types(program)) == (opset == 23)


def test_rotary_embedding_of_doubles_is_composed() -> None:
    x, cache = torch.randn(2, 4, 3, 8, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    program = export_and_compare(rotary_embedding, (x, cache, cache), opset_version=23)
    assert "RotaryEmbedding" not in op_types(program)


# ---- Attention


def heads(length: int, count: int = 4, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, count, length, 8)


MASK = torch.tensor([[0.5, -1.0, 2.0, 0.0, 1.0], [0.0, 1.0, 0.5, 0.2, -0.3], [1.0, 1.5, 0.0, -2.0, 0.3]])
ALLOWED = torch.tensor([[True, False, True, True, False], [False] * 5, [True, True, False, True, True]])

ATTENTIONS = {
    "plain": ((heads(3), heads(5), heads(5)), {}, True),
    "grouped": ((heads(3), heads(5, 2), heads(5, 2)), {}, True),
    "causal": ((heads(3), heads(5), heads(5)), {"is_causal": True}, True),
    "float mask": ((heads(3), heads(5), heads(5), MASK), {}, True),
    "bool mask": ((heads(3), heads(5), heads(5), ALLOWED), {}, True),
    "past": ((heads(3), heads(5), heads(5), None, heads(2), heads(2)), {}, True),
    "causal past": ((heads(3), heads(5), heads(5), None, heads(2), heads(2)), {"is_causal": True}, False),
    "scale": ((heads(3), heads(5), heads(5)), {"scale": 0.3}, True),
    "softcap": ((heads(3), heads(5), heads(5)), {"softcap": 1.5}, True),
    "softcap of masked": ((heads(3), heads(5), heads(5), MASK), {"softcap": 1.5}, False),
    "mode 1": ((heads(3), heads(5), heads(5), MASK), {"qk_matmul_output_mode": 1}, False),
    "mode 2": ((heads(3), heads(5), heads(5), MASK), {"qk_matmul_output_mode": 2, "softcap": 2.0}, False),
    "mode 3": ((heads(3), heads(5), heads(5), MASK), {"qk_matmul_output_mode": 3}, True),
    "precision": ((heads(3), heads(5), heads(5), MASK), {"softmax_precision": 1}, True),
    "half precision": ((heads(3), heads(5), heads(5), MASK), {"softmax_precision": 10}, False),
    "grouped softcap": ((heads(3), heads(5, 2), heads(5, 2), MASK), {"softcap": 1.0}, False),
}


@pytest.mark.parametrize("opset", [18, 23])
@pytest.mark.parametrize("case", ATTENTIONS)
def test_attention(case: str, opset: int) -> None:
    args, named, native = ATTENTIONS[case]

    class Model(torch.nn.Module):
        def forward(self, *given: Any) -> Any:
            return attention(*given, **named)

    tolerance = 2e-3 if case == "half precision" else None
    program = export_and_compare(Model(), args, opset_version=opset, atol=tolerance, rtol=tolerance)
    assert ("Attention" in op_types(program)) == (native and opset == 23)


@pytest.mark.parametrize("opset", [18, 24])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_attention_of_three_axes_and_dynamic_sizes(opset: int, kv_heads: int) -> None:
    class Model(torch.nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pk: Any, pv: Any) -> Any:
            y, key, value, _ = attention(q, k, v, None, pk, pv, q_num_heads=4, kv_num_heads=kv_heads)
            return y, key, value

    def inputs(batch: int, queries: int, keys: int, past: int) -> tuple[torch.Tensor, ...]:
        q, k, v = torch.randn(batch, queries, 32), *torch.randn(2, batch, keys, 8 * kv_heads).unbind()
        return q, k, v, *torch.randn(2, batch, kv_heads, past, 8).unbind()

    new, old = {0: "b", 1: "s"}, {0: "b", 2: "past"}
    program = export_and_compare(
        Model(),
        inputs(2, 3, 5, 2),
        dynamic_shapes=({0: "b", 1: "l"}, new, new, old, old),
        other_args=inputs(3, 4, 6, 7),
        opset_version=opset,
    )
    assert ("Attention" in op_types(program)) == (opset == 24)


def test_attention_refuses_what_torch_captures_wrongly() -> None:
    with pytest.raises(onnxport.UnsupportedOperatorsError, match="captures them with a wrong shape"):
        exported(lambda q, k, v: attention(q, k, v)[0], heads(3), heads(5), torch.randn(2, 4, 5, 6), opset_version=23)
