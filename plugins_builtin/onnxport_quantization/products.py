"""Where a float weight is read: by products, which sum over one of its axes, and by lookups of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import onnx_ir as ir
import torch
from onnxport import DataType
from onnxport.kit import ONNX_TO_TORCH
from onnxport.optimize.rewriting import attribute, is_standard

FLOATS = (DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16)
"""What DequantizeLinear gives."""


class Reader(Enum):
    """What reads a weight."""

    PRODUCT = "product"
    LOOKUP = "lookup"


@dataclass(frozen=True)
class Use:
    """One place where a weight is read.

    Attributes:
        reader: what reads it.
        node: the product or lookup, in the main graph or in a branch or loop, or a call of the function that has it.
        index: which of the node's inputs is the weight.
        axis: the axis of the weight that is summed, or along which the numbers of a row lie.
        dtype: the float type that it is read in.
        is_turned: the node takes it as (columns, rows), by an attribute of its own.
    """

    reader: Reader
    node: ir.Node
    index: int
    axis: int
    dtype: DataType
    is_turned: bool = False


@dataclass
class Uses:
    """All places where a weight is read.

    Attributes:
        places: those that can read a rounded weight.
        problem: why others can't; empty where there are none.
    """

    places: list[Use] = field(default_factory=list)
    problem: str = ""

    @property
    def products(self) -> list[Use]:
        """The products."""
        return [use for use in self.places if use.reader is Reader.PRODUCT]

    @property
    def lookups(self) -> list[Use]:
        """The lookups of rows."""
        return [use for use in self.places if use.reader is Reader.LOOKUP]

    @property
    def dtype(self) -> torch.dtype:
        """The float type that it is read in."""
        return ONNX_TO_TORCH[self.places[0].dtype]


def uses_of(model: ir.Model, weight: ir.Value) -> Uses:
    """Find where a matrix is read, through nodes that turn, cast or pass it on."""
    found = Uses()
    dtype = weight.dtype
    if dtype is None or weight.is_graph_output():
        found.problem = "it is an output"
        return found
    _follow(model, weight, (0, 1), dtype, found)
    if not found.problem and len({(use.axis, use.dtype) for use in found.places}) > 1:
        found.problem = "it is read along both of its axes, or in two types, and one rounding can't serve both"
    return found


def _follow(model: ir.Model, value: ir.Value, order: Sequence[int], dtype: DataType, found: Uses) -> None:
    for node, index in value.uses():
        result = node.outputs[0]
        if is_standard(node, "Transpose") and not result.is_graph_output():
            perm = attribute(node, "perm") or (1, 0)
            _follow(model, result, [order[axis] for axis in perm], dtype, found)
        elif is_standard(node, "Identity") and not result.is_graph_output():
            _follow(model, result, order, dtype, found)
        elif is_standard(node, "Cast") and result.dtype in FLOATS and not result.is_graph_output():
            if dtype is not value.dtype or result.dtype is None:
                found.problem = "it is cast twice"
            else:
                _follow(model, result, order, result.dtype, found)
        elif (use := _use(model, node, index, order, dtype)) is not None:
            found.places.append(use)
        else:
            found.problem = f"a {node.op_type} reads it"


def _use(model: ir.Model, node: ir.Node, index: int, order: Sequence[int], dtype: DataType) -> Use | None:
    if is_product(node, index):
        turned = bool(attribute(node, "transB", 0))
        return Use(Reader.PRODUCT, node, index, order[1 if turned else 0], dtype, turned)
    if is_standard(node, "Gather") and index == 0 and attribute(node, "axis", 0) == 0 and tuple(order) == (0, 1):
        return Use(Reader.LOOKUP, node, index, 1, dtype)
    if _is_product_within(model, node, index):
        return Use(Reader.PRODUCT, node, index, order[0], dtype)
    return None


def is_product(node: ir.Node, index: int) -> bool:
    """Whether a node multiplies by the matrix that it reads, as onnxruntime's kernels for integer weights do."""
    if index != 1 or not is_standard(node, "MatMul", "Gemm") or node.inputs[0] is node.inputs[1]:
        return False
    if is_standard(node, "Gemm"):
        return not attribute(node, "transA", 0) and all(attribute(node, name, 1.0) == 1.0 for name in ("alpha", "beta"))
    return is_standard(node, "MatMul")


def _is_product_within(model: ir.Model, node: ir.Node, index: int) -> bool:
    """A call of a function in which one product, and nothing else, reads what is passed."""
    while (function := model.functions.get(node.op_identifier())) is not None:
        uses = tuple(function.inputs[index].uses()) if index < len(function.inputs) else ()
        if len(uses) != 1 or uses[0].node.graph is not function.graph or function.inputs[index].is_graph_output():
            return False
        node, index = uses[0].node, uses[0].idx
        if is_product(node, index):
            return not attribute(node, "transB", 0)
    return False
