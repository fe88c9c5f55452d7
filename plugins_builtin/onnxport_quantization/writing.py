"""Rounded weights in a model: ``DequantizeLinear, MatMul`` as onnxruntime turns it into ``MatMulNBits`` on load.

The integers of a product are stored as (K, N) with blocks along the first axis::

    codes (K, N), scales (K / block, N) -> DequantizeLinear(axis=0) -> MatMul

onnxruntime 1.32 takes that form where one node reads them, in the graph that has them. Where several products have one
weight, or one in a branch or loop, the integers are stored once, by rows and with axes of size 1, and each product
transposes them in a way of its own: a runtime folds that when it loads the file, in the product's own graph, and
doesn't take two of them for one::

    codes (N, 1, .., K) -> Transpose -> Squeeze ----------+
    scales (N, 1, .., K / block) -> Transpose -> Squeeze -+-> DequantizeLinear(axis=0) -> MatMul

Rows are looked up before they are dequantized. ONNX has no lookup of 4-bit types, so that those are stored two a byte::

    bytes (V, K / 2) -> Gather -> BitwiseAnd 15, BitShift 4 -> Concat -+
    scales (V, K / block) -> Gather ------------------------------------+-> DequantizeLinear(axis=-1)

A runtime that has an operator for that looks rows up in the integers that a product reads, which are stored once then::

    codes (V, K), scales (V, K / block) -> GatherBlockQuantized
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxport import DataType
from onnxport.kit import FreeNames, TorchTensor
from onnxport.optimize.rewriting import (
    QUANTIZED,
    add_initializer,
    bodies,
    forward,
    is_standard,
    remove_if_unused,
    sole_use,
)

from onnxport_quantization.formats import WeightFormat
from onnxport_quantization.marks import LOOKUP, LOOKUP_DOMAIN, Mark
from onnxport_quantization.packed import KEPT
from onnxport_quantization.products import Use, Uses
from onnxport_quantization.tensors import Part, RoundedTensor

_ZERO = 8
"""The code that stands for 0 in symmetric blocks of 4 bits, where they are unsigned."""


class Writer:
    """Puts rounded weights into a model, with names that are free.

    Args:
        model: the model, which is changed.
        has_lookup: the runtime that the file is for looks rows up in 4 bits.
    """

    def __init__(self, model: ir.Model, *, has_lookup: bool = False) -> None:
        self.model = model
        self.has_lookup = has_lookup
        self.unique = FreeNames(model, *bodies(model)).take

    def write(self, value: ir.Value, tensor: TorchTensor, uses: Uses, mark: Mark) -> None:
        """Let every node that reads a weight read its rounded form, and remove the weight."""
        weight = _Weight(self, str(value.name), tensor, uses, mark)
        readers = [node for node, _ in value.uses()]
        for use in uses.products:
            self._product(use, weight)
        for use in uses.lookups:
            if weight.has_lookup:
                self._lookup_of_codes(use, weight)
            else:
                self._lookup(use, weight)
        for node in readers:
            _remove(node)
        if not value.uses() and not value.is_graph_output():
            self.model.graph.initializers.pop(str(value.name), None)

    def keep(self, product: ir.Node, form: WeightFormat, tensors: Sequence[TorchTensor]) -> None:
        """Let a product read integers that a model brought, with their scales and zero points."""
        old = product.inputs[1]
        inputs = [self.stored(tensor) for tensor in tensors]
        attributes = [ir.AttrInt64("axis", 0), ir.AttrInt64("block_size", form.block_size or 0)]
        shape, dtype = tensors[0].shape.numpy(), tensors[1].dtype
        made = self.node("DequantizeLinear", inputs, shape, dtype, product, attributes)
        made.producer().metadata_props[QUANTIZED] = KEPT  # type: ignore[union-attr]
        product.replace_input_with(1, made)
        if "transB" in product.attributes:
            product.attributes["transB"] = ir.AttrInt64("transB", 0)
        producer = None if old is None else old.producer()
        if producer is not None:
            _remove(producer)
        self._keep_apart(product)

    def _product(self, use: Use, weight: _Weight) -> None:
        before, old = use.node, use.node.inputs[use.index]
        form = weight.form
        inputs = [weight.part(part, use) for part in weight.parts]
        attributes = [ir.AttrInt64("axis", 1)]
        if form.block_size is not None:
            attributes = [ir.AttrInt64("axis", 0), ir.AttrInt64("block_size", form.block_size)]
        made = self.node("DequantizeLinear", inputs, weight.product_shape, use.dtype, before, attributes, weight.name)
        made.producer().metadata_props[QUANTIZED] = weight.mark  # type: ignore[union-attr]
        use.node.replace_input_with(use.index, made)
        if use.is_turned:
            use.node.attributes["transB"] = ir.AttrInt64("transB", 0)
        producer = None if old is None else old.producer()
        if producer is not None:
            _remove(producer)
        self._keep_apart(use.node)

    def _keep_apart(self, product: ir.Node) -> None:
        """Separate a product from a Relu or Clip behind it by a Sum of one number.

        onnxruntime 1.32 takes them for parts of an integer product, or of a Gemm with an activation, and dequantizes
        the weight at each run then.
        """
        user = sole_use(product.outputs[0])
        flat = product.inputs[0] is None or product.inputs[0].shape is None or len(product.inputs[0].shape) == 2
        if user is not None and flat and is_standard(user, "Add"):
            user = sole_use(user.outputs[0])
        if user is None or not is_standard(user, "Relu", "Clip"):
            return
        value = user.inputs[0]
        if value is not None and is_standard(product, "MatMul", "Gemm"):
            made = self.node("Sum", [value], list(value.shape or ()), value.dtype, user)
            made.shape = value.shape
            user.replace_input_with(0, made)

    def _lookup(self, use: Use, weight: _Weight) -> None:
        gather, form = use.node, weight.form
        places, result = gather.inputs[1], gather.outputs[0]
        dims: list[Any] = list(places.shape or ())  # type: ignore[union-attr]
        is_one = not dims
        if is_one:  # onnxruntime 1.32 takes a vector of one scale for one of all numbers, which has no blocks
            dims, first = [1], self.vector([0])
            places = self.node("Unsqueeze", [places, first], dims, places.dtype, gather)  # type: ignore[union-attr]
        width, count = weight.width, -(-weight.width // form.block(weight.width))

        def rows(table: ir.Value, length: int) -> ir.Value:
            return self.node("Gather", [table, places], [*dims, length], table.dtype, gather, (), weight.name)

        scales = rows(weight.stored(Part.SCALES, by_rows=True), count)
        zeros: ir.Value | None = None
        if form.bits == 8:
            codes = rows(weight.stored(Part.CODES, by_rows=True), width)
            if not form.symmetric:
                zeros = rows(weight.stored(Part.ZEROS, by_rows=True), count)
        else:
            pairs = rows(weight.stored(Part.HALVES, by_rows=True), width // 2)
            half, byte = [*dims, width // 2], DataType.UINT8
            low = self.node("BitwiseAnd", [pairs, self.byte(15)], half, byte, gather)
            shift = [ir.AttrString("direction", "RIGHT")]
            high = self.node("BitShift", [pairs, self.byte(4)], half, byte, gather, shift)
            codes = self.node("Concat", [low, high], [*dims, width], byte, gather, [ir.AttrInt64("axis", -1)])
            if form.symmetric:
                size = self.node("Shape", [scales], [len(dims) + 1], DataType.INT64, gather)
                fill = ir.AttrTensor("value", ir.tensor([_ZERO], dtype=byte))
                zeros = self.node("ConstantOfShape", [size], [*dims, count], byte, gather, [fill])
            else:
                zeros = rows(weight.stored(Part.BYTES, by_rows=True), count)
        attributes = [ir.AttrInt64("axis", -1), ir.AttrInt64("block_size", form.block(width))]
        inputs = [codes, scales, *([] if zeros is None else [zeros])]
        made = self.node("DequantizeLinear", inputs, [*dims, width], use.dtype, gather, attributes, weight.name)
        made.producer().metadata_props[QUANTIZED] = weight.mark  # type: ignore[union-attr]
        if is_one:
            made = self.node("Squeeze", [made, first], [width], use.dtype, gather)
        else:  # onnxruntime looks for integer operators behind it, and gives each reader one of its own
            made = self.node("Sum", [made], [*dims, width], use.dtype, gather)
        made.metadata_props.update(result.metadata_props)
        forward(result, made)

    def _lookup_of_codes(self, use: Use, weight: _Weight) -> None:
        """Look rows up in the integers that products read, or that are stored for it alone."""
        gather, result = use.node, use.node.outputs[0]
        places = gather.inputs[1]
        tables = [weight.stored(part, by_rows=True) for part in weight.parts]
        made = self.node(
            LOOKUP,
            [tables[0], places, *tables[1:]],
            [*(places.shape or ()), weight.width],  # type: ignore[union-attr]
            use.dtype,
            gather,
            [
                ir.AttrInt64("gather_axis", 0),
                ir.AttrInt64("quantize_axis", 1),
                ir.AttrInt64("block_size", weight.form.block(weight.width)),
            ],
            weight.name,
            LOOKUP_DOMAIN,
        )
        self.model.graph.opset_imports.setdefault(LOOKUP_DOMAIN, 1)
        made.producer().metadata_props[QUANTIZED] = weight.mark  # type: ignore[union-attr]
        made.metadata_props.update(result.metadata_props)
        forward(result, made)

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Sequence[Any],
        dtype: DataType | None,
        before: ir.Node,
        attributes: Sequence[ir.Attr] = (),
        name: str = "",
        domain: str = "",
    ) -> ir.Value:
        """Add a node before another one, with that one's metadata; its result."""
        result = self.unique(f"{name or before.outputs[0].name}_{op_type}")
        made = ir.Node(domain, op_type, inputs, attributes, name=self.unique(f"node_{result}"))
        made.metadata_props.update(before.metadata_props)
        value = made.outputs[0]
        value.name, value.shape = result, ir.Shape(list(shape))
        value.type = None if dtype is None else ir.TensorType(dtype)
        before.graph.insert_before(before, made)  # type: ignore[union-attr]
        return value

    def byte(self, number: int) -> ir.Value:
        """A scalar of uint8."""
        return self._constant(np.array(number, np.uint8))

    def vector(self, numbers: Sequence[int]) -> ir.Value:
        """A vector of int64."""
        return self._constant(np.array(numbers, np.int64))

    def _constant(self, array: np.ndarray[Any, Any]) -> ir.Value:
        name = self.unique("const_" + "_".join(map(str, array.reshape(-1))))
        data = ir.tensor(array, name=name)
        value = ir.Value(name=name, type=ir.TensorType(data.dtype), shape=ir.Shape(array.shape), const_value=data)
        return add_initializer(self.model, value)

    def stored(self, tensor: TorchTensor) -> ir.Value:
        """An initializer."""
        tensor.name = self.unique(str(tensor.name))
        value = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        return add_initializer(self.model, value)


class _Weight:
    """One weight, and the parts of it that are in the model by now."""

    def __init__(self, writer: Writer, name: str, tensor: TorchTensor, uses: Uses, mark: Mark) -> None:
        self.name, self.form, self.mark = name, mark.format, mark.text()
        self._writer, self._tensor, self._dtype = writer, tensor, uses.dtype
        self._axis = uses.places[0].axis
        self._stored: dict[tuple[Part, bool, int], ir.Value] = {}
        self._products = uses.products
        self.has_lookup = (
            writer.has_lookup
            and self.form.bits == 4
            and len(uses.products) < 2  # which read tables with more axes
            and uses.dtype is not torch.bfloat16
        )
        shared = len(uses.lookups) if self.form.bits == 8 or self.has_lookup else 0
        is_within = any(use.node.graph is not writer.model.graph for use in uses.products)
        self._is_shared = is_within or len(uses.products) + shared > 1
        self._ones = 0
        while math.comb(self._ones + 2, 2) < len(uses.products):
            self._ones += 1
        dims = tensor.shape.numpy()
        self.width = dims[self._axis]
        self.product_shape = [self.width, dims[1 - self._axis]]
        self.parts = [Part.CODES, Part.SCALES, *([] if self.form.symmetric else [Part.ZEROS])]

    def stored(self, part: Part, *, by_rows: bool, ones: int = 0) -> ir.Value:
        """A part as an initializer, which is added once."""
        key = part, by_rows, ones
        if key not in self._stored:
            self._stored[key] = self._new(*key)
        return self._stored[key]

    def part(self, part: Part, use: Use) -> ir.Value:
        """A part as a product reads it: an initializer of its own, or a shared one, transposed in a way of its own."""
        ones, writer = self._ones, self._writer
        is_vector = self.form.block_size is None and part is not Part.CODES
        if is_vector and use.node.graph is not writer.model.graph:
            vector = self.stored(part, by_rows=True, ones=1)
            return writer.node("Squeeze", [vector, writer.vector([1])], [self.product_shape[1]], vector.dtype, use.node)
        if is_vector or not self._is_shared:
            return self._new(part, False)
        shared = self.stored(part, by_rows=True, ones=ones)
        places = list(itertools.combinations(range(ones + 2), 2))[self._products.index(use)]
        order = [*range(1, ones + 1)]
        for place, axis in zip(places, (ones + 1, 0)):
            order.insert(place, axis)
        dims = [(shared.shape or ())[axis] for axis in order]
        turned = writer.node("Transpose", [shared], dims, shared.dtype, use.node, [ir.AttrInt64s("perm", order)])
        turned.producer().metadata_props[QUANTIZED] = self.mark  # type: ignore[union-attr]
        if not ones:
            return turned
        axes = writer.vector([axis for axis in range(ones + 2) if axis not in places])
        return writer.node("Squeeze", [turned, axes], [dims[axis] for axis in places], shared.dtype, use.node)

    def _new(self, part: Part, by_rows: bool, ones: int = 0) -> ir.Value:
        label = f"{self.name}.{self.form.dtype.name.lower() if part is Part.CODES else part.value}"
        arguments = self.form, part, self._axis, by_rows, self._dtype, label, ones
        return self._writer.stored(RoundedTensor(self._tensor, *arguments))


def _remove(node: ir.Node) -> None:
    """Remove a node that nothing reads, and the nodes and initializers that it alone read."""
    graph, values = node.graph, [value for value in node.inputs if value is not None]
    if not remove_if_unused(node):
        return
    for value in values:
        source = value.producer()
        if source is not None:
            _remove(source)
        elif isinstance(graph, ir.Graph) and not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            graph.initializers.pop(str(value.name), None)


def size_of(shape: Sequence[int], axis: int, form: WeightFormat, dtype: torch.dtype) -> int:
    """Bytes that a rounded matrix takes."""
    width, columns = shape[axis], shape[1 - axis]
    count = -(-width // form.block(width)) * columns
    zeros = 0 if form.symmetric else -(-count * form.bits // 8)
    return -(-width * columns * form.bits // 8) + count * dtype.itemsize + zeros


def lookup_problem(uses: Uses, form: WeightFormat, width: int) -> str:
    """Why rows can't be looked up in a format; empty if they can."""
    if uses.lookups and form.block_size is None:
        return "its rows are looked up, which needs blocks: give a block_size"
    if uses.lookups and form.bits == 4 and width % 2:
        return "its rows are looked up and have an odd number of elements: give it 8 bits"
    return ""
