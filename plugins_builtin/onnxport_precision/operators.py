"""What ONNX operators are in half precision: which types they take, and which are computed in float32."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnxport.kit import onnx_schema

WIDE = "tensor(float)"
_HALVES = {ir.DataType.FLOAT16: "tensor(float16)", ir.DataType.BFLOAT16: "tensor(bfloat16)"}


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Computed in float32: sums over many numbers, what grows fast or is steep, random numbers, and places in images, of
#: which half precision has too few.
FLOAT32 = _set(
    """
    Softmax LogSoftmax Softplus Mish Exp Log Pow Reciprocal ReduceSum ReduceMean ReduceProd ReduceSumSquare ReduceL1
    ReduceL2 ReduceLogSum ReduceLogSumExp CumSum CumProd GlobalAveragePool GlobalLpPool LpPool LpNormalization LRN
    InstanceNormalization MeanVarianceNormalization SoftmaxCrossEntropyLoss NegativeLogLikelihoodLoss Sin Cos Tan Asin
    Acos Atan Sinh Cosh Asinh Acosh Atanh Det DFT STFT MelWeightMatrix HannWindow HammingWindow BlackmanWindow
    GridSample AffineGrid RoiAlign MaxRoiPool Range EyeLike RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Multinomial Bernoulli QuantizeLinear DynamicQuantizeLinear
    """
)
#: Norms: in half precision where their statistics are computed in float32 all the same (``stash_type``).
NORMS = _set("LayerNormalization GroupNormalization RMSNormalization")
#: Whose results are used up by the next steps in float32: a sum, a root or a power may be too large or too small.
STEEP = _set(
    """
    Exp Log Pow Reciprocal Softplus ReduceSum ReduceMean ReduceProd ReduceSumSquare ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp CumSum CumProd
    """
)
#: Number by number, without weights to speak of: computed in float32 where what is around them is.
ELEMENTWISE = _set("Add Sub Mul Div Sqrt Neg Abs Max Min Clip Sum Mean Where")
#: They move numbers, and compute none.
MOVING = _set(
    """
    Identity Reshape Transpose Squeeze Unsqueeze Flatten Expand Slice Split Gather GatherElements GatherND Concat Tile
    Pad
    """
)
#: Whose numbers beyond the range may become the largest: they are bounds, or fill places.
BOUNDS = MOVING | _set(
    """
    Where Max Min Clip ConstantOfShape ScatterElements ScatterND Scatter OneHot MaxPool Constant Attention
    MultiHeadAttention GroupQueryAttention
    """
)


@dataclass(frozen=True)
class Signature:
    """The types of an operator's inputs and outputs.

    Attributes:
        inputs: of each input, the allowed types; the last holds for all further ones.
        outputs: likewise.
    """

    inputs: Sequence[frozenset[str]]
    outputs: Sequence[frozenset[str]]

    def of(self, node: ir.Node) -> list[tuple[ir.Value | None, frozenset[str]]]:
        """The inputs and outputs of a node, each with the types allowed for it."""
        return [
            (value, formals[min(i, len(formals) - 1)])
            for values, formals in ((node.inputs, self.inputs), (node.outputs, self.outputs))
            for i, value in enumerate(values if formals else ())
        ]


def signature_of(node: ir.Node, opsets: Mapping[str, int]) -> Signature | None:
    """The types that an operator takes; None where nobody knows it."""
    if node.domain in ("", "ai.onnx.ml"):
        return _standard(node.op_type, node.domain, opsets.get(node.domain, 1))
    return _of_onnxruntime().get((node.domain, node.op_type))


def half_of(dtype: ir.DataType) -> str:
    """A half precision as schemas write it."""
    return _HALVES[dtype]


@functools.cache
def _standard(operator: str, domain: str, opset: int) -> Signature | None:
    schema = onnx_schema(operator, domain, opset)
    if schema is None:
        return None
    return _signature(schema, [[f.type_str for f in formals] for formals in (schema.inputs, schema.outputs)])


def _signature(schema: onnx.defs.OpSchema, kinds: Sequence[Sequence[str]]) -> Signature:
    allowed = {each.type_param_str: frozenset(each.allowed_type_strs) for each in schema.type_constraints}
    inputs, outputs = ([allowed.get(kind, frozenset([kind])) for kind in formals] for formals in kinds)
    return Signature(inputs, outputs)


@functools.cache
def _of_onnxruntime() -> Mapping[tuple[str, str], Signature]:
    """The operators of onnxruntime's own domains, as the installed one tells; none where it doesn't."""
    try:
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        schemas = state.get_all_operator_schema()
    except (ImportError, AttributeError):
        return {}
    return {
        (schema.domain, schema.name): _signature(
            schema, [[f.typeStr for f in formals] for formals in (schema.inputs, schema.outputs)]
        )
        for schema in schemas
        if schema.domain not in ("", "ai.onnx.ml")
    }
