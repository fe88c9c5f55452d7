"""Weights that a model brings as integers keep their numbers, in the form that products of integers have.

GPTQ, AWQ and torchao store a weight as packed integers with scales, and models compute it by shifts, masks and products
of constants. What a product reads then is ``I * S`` with whole numbers ``I``. Whatever the arithmetic, both factors are
computed by it, here: a weight is kept where every number of ``I`` is whole and ``S`` is the same along blocks of rows.
Its codes and zero points are chosen by the numbers of each block, so that ``(code - zero point) * scale`` is the same
product. The numbers are computed again while a file is written, and with other weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnxport import DataType, WeightError
from onnxport.kit import ONNX_TO_TORCH, TorchTensor, ort
from onnxport.optimize.rewriting import QUANTIZED, attribute, is_standard

from onnxport_quantization.formats import WeightFormat
from onnxport_quantization.products import FLOATS, is_product
from onnxport_quantization.tensors import CODES, Part

_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity")
_INTEGERS = (DataType.INT8, DataType.UINT8, DataType.INT4, DataType.UINT4, DataType.INT32)
_BLOCKS = (256, 128, 64, 32, 16)
_LARGE = 256
"""Numbers from which on an integer weight is worth it."""
_RESULTS = tuple(f"onnxport.{factor}" for factor in ("numbers", "scales"))
"""What the factors are called where they are computed, which no weight is."""
KEPT = "kept"
"""What the metadata of nodes says that dequantize such a weight."""


class Factors(NamedTuple):
    """A matrix (K, N) as a product of whole numbers and scales of the same shape."""

    numbers: np.ndarray[Any, Any]
    scales: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cone:
    """How a matrix is computed of constants.

    Attributes:
        nodes: the nodes, those of both factors included.
        tensors: the constants by name.
        opset: of the nodes.
        name: of the largest integer weight.
    """

    nodes: tuple[onnx.NodeProto, ...]
    tensors: Mapping[str, ir.TensorProtocol]
    opset: int
    name: str

    @property
    def leaves(self) -> list[TorchTensor]:
        """The weights among the constants."""
        return [tensor for tensor in self.tensors.values() if isinstance(tensor, TorchTensor)]

    def factors(self) -> Factors:
        """Compute both."""
        graph = onnx.helper.make_graph(
            list(self.nodes),
            "factors",
            [],
            [onnx.ValueInfoProto(name=name) for name in _RESULTS],
            [_proto(name, tensor) for name, tensor in self.tensors.items()],
        )
        opsets = [onnx.helper.make_opsetid("", self.opset)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Factors(*session.run(list(_RESULTS), {}))

    def rebuilt(self, weights: Mapping[str, torch.Tensor | TorchTensor]) -> Cone:
        """The same with other weights; itself where none is given."""
        made = {n: t.rebuilt(weights) if isinstance(t, TorchTensor) else t for n, t in self.tensors.items()}
        same = all(made[name] is tensor for name, tensor in self.tensors.items())
        return self if same else Cone(self.nodes, made, self.opset, self.name)


class KeptTensor(TorchTensor):
    """One part of a weight that keeps its integers.

    Args:
        cone: how the weight is computed.
        form: how its integers are stored.
        part: which part this is.
        shape: (K, N) of the weight.
        dtype: the float type of the scales.
        name: its name.
    """

    __slots__ = ("_arguments", "_cone", "_form", "_part")

    def __init__(
        self, cone: Cone, form: WeightFormat, part: Part, shape: Sequence[int], dtype: torch.dtype, name: str | None
    ) -> None:
        self._cone, self._form, self._part, self._arguments = cone, form, part, (tuple(shape), dtype)
        rows = shape[0] if part is Part.CODES else -(-shape[0] // form.block(shape[0]))
        kind = dtype if part is Part.SCALES else CODES[form.dtype]
        base = dtype if part is Part.SCALES else torch.uint8
        self._layout = torch.empty((rows, shape[1]), dtype=base, device="meta").view(kind)
        super().__init__(self._layout, name)
        self.source, self.parents, self._raw = None, tuple(cone.leaves), None

    @property
    def has_data(self) -> bool:
        """Whether values can be read."""
        return all(leaf.has_data for leaf in self._cone.leaves)

    @property
    def raw(self) -> torch.Tensor:
        """The whole part.

        Raises:
            WeightError: the weights have numbers that this form doesn't hold.
        """
        found = split(self._cone.factors(), self._form)
        if found is None:
            raise WeightError(
                f"The weights of {self._cone.name!r} don't fit {self._form}, which the model was written for: export "
                "it again with these weights.",
                names=[self._cone.name],
            )
        array = np.ascontiguousarray(found[self._part])
        if self._part is Part.SCALES:
            return torch.from_numpy(array.view({2: np.int16, 4: np.int32}[array.itemsize])).view(self._layout.dtype)
        return torch.from_numpy(array.astype(np.int8 if self._form.symmetric else np.uint8)).view(self._layout.dtype)

    def chunks(self, limit: int = 0) -> Iterator[memoryview]:
        """Yield the row-major bytes."""
        yield from TorchTensor(self.raw, self.name).chunks()

    def rebuilt(self, weights: Mapping[str, torch.Tensor | TorchTensor]) -> TorchTensor:
        """Return this part with other weights; itself, where none is given."""
        cone = self._cone.rebuilt(weights)
        return self if cone is self._cone else KeptTensor(cone, self._form, self._part, *self._arguments, self.name)


def split(factors: Factors, form: WeightFormat) -> dict[Part, np.ndarray[Any, Any]] | None:
    """The parts of a weight in a form; None where it doesn't have these numbers."""
    rows = len(factors.numbers)
    block = form.block(rows)
    count = -(-rows // block)
    starts = np.arange(count) * block
    scales = factors.scales[starts]
    if not np.array_equal(scales.repeat(block, 0)[:rows], factors.scales):
        return None
    numbers = factors.numbers.astype(np.float32)
    if not (np.abs(numbers) < 256).all() or not (numbers == numbers.round()).all():
        return None
    whole = numbers.astype(np.int16)
    low, high = np.minimum.reduceat(whole, starts), np.maximum.reduceat(whole, starts)
    if form.symmetric:
        limit = 2 ** (form.bits - 1)
        fits = bool((low >= -limit).all() and (high < limit).all())
        return {Part.CODES: whole, Part.SCALES: scales} if fits else None
    top = 2**form.bits - 1
    zeros = np.clip(-low, 0, top)
    codes = whole + zeros.repeat(block, 0)[:rows]
    if codes.min(initial=0) < 0 or codes.max(initial=0) > top:
        return None
    return {Part.CODES: codes, Part.SCALES: scales, Part.ZEROS: zeros}


def form_of(factors: Factors) -> WeightFormat | None:
    """The smallest form that holds a weight's numbers, with the largest blocks; None where there is none."""
    for bits in (4, 8):
        for symmetric in (True, False):
            for block in (size for size in _BLOCKS if size < 2 * len(factors.numbers) or size == _BLOCKS[-1]):
                form = WeightFormat(bits, block, symmetric)
                if split(factors, form) is not None:
                    return form
    return None


# In the graph -----------------------------------------------------------------------------------------------------


def products_in(model: ir.Model) -> Iterator[tuple[ir.Node, Cone]]:
    """Each product of the main graph that reads a weight which is computed of integer constants."""
    for node in tuple(model.graph):
        value = node.inputs[1] if is_product(node, 1) else None
        if value is None or value.dtype not in FLOATS or value.producer() is None:
            continue
        if value.shape is None or len(value.shape) != 2 or not value.shape.is_static():
            continue
        cone = _cone(model, value, is_turned=bool(attribute(node, "transB", 0)))
        if cone is not None and all(leaf.has_data for leaf in cone.leaves):
            yield node, cone


def _cone(model: ir.Model, value: ir.Value, *, is_turned: bool) -> Cone | None:
    """How a value (N, K), if it is turned, or (K, N) is computed of constants, as the product of two; or None."""
    moves: list[ir.Node] = []
    root = value.producer()
    while root is not None and is_standard(root, *_MOVES):
        moves.append(root)
        root = None if root.inputs[0] is None else root.inputs[0].producer()
    if root is None or not is_standard(root, "Mul", "DequantizeLinear") or QUANTIZED in root.metadata_props:
        return None
    reached = _constants_of(model, [root, *moves])
    if reached is None:
        return None
    nodes, tensors = reached
    integers = {n: t for n, t in tensors.items() if t.dtype in _INTEGERS and math.prod(t.shape.numpy()) >= _LARGE}
    if not integers:
        return None
    name = max(integers, key=lambda name: integers[name].nbytes)
    inner = [node for node in nodes if node is not root and node not in moves]
    protos = [ir.serde.serialize_node(node) for node in inner]
    pair = _factors_of_product(root) if root.op_type == "Mul" else _factors_of_dequantized(root, tensors)
    if pair is None:
        return None
    added, results = pair
    protos += added
    for result, factor in zip(results, _RESULTS):
        last = result
        for move in reversed(moves):
            proto = ir.serde.serialize_node(move)
            proto.input[0], proto.output[0] = last, f"{move.outputs[0].name}_{factor}"
            last = proto.output[0]
            protos.append(proto)
        if is_turned:
            protos.append(onnx.helper.make_node("Transpose", [last], [factor], perm=[1, 0]))
        else:
            protos.append(onnx.helper.make_node("Identity", [last], [factor]))
    for proto in protos:
        proto.name = ""  # some are there twice
    return Cone(tuple(protos), tensors, model.graph.opset_imports[""], name)


def _constants_of(model: ir.Model, ends: Sequence[ir.Node]) -> tuple[list[ir.Node], dict[str, Any]] | None:
    """The nodes that some are computed by, in their order, and the constants; None where an input is among them."""
    wanted: set[ir.Node] = set()
    tensors: dict[str, Any] = {}
    pending = list(ends)
    while pending:
        node = pending.pop()
        if node in wanted:
            continue
        if node.domain or node.graph is not model.graph or len(wanted) > 200:
            return None
        wanted.add(node)
        for value in node.inputs:
            if value is None:
                continue
            producer = value.producer()
            if producer is not None:
                pending.append(producer)
            elif value.const_value is None or value.is_graph_input():
                return None
            else:
                tensors[str(value.name)] = value.const_value
    return [node for node in model.graph if node in wanted], tensors


def _factors_of_product(root: ir.Node) -> tuple[list[onnx.NodeProto], list[str]] | None:
    """The two operands of a Mul, that with the integers first, in the shape of the result."""
    by_kind = sorted((value for value in root.inputs if value is not None), key=lambda v: not _is_whole(v))
    shape = root.outputs[0].shape
    if len(by_kind) != 2 or _is_whole(by_kind[1]) or not _is_whole(by_kind[0]) or shape is None:
        return None
    size = f"{root.outputs[0].name}_size"
    nodes = [onnx.helper.make_node("Constant", [], [size], value_ints=list(shape.numpy()))]
    results = [f"{root.outputs[0].name}_{factor}_expanded" for factor in _RESULTS]
    nodes += [onnx.helper.make_node("Expand", [str(v.name), size], [r]) for v, r in zip(by_kind, results)]
    return nodes, results


def _is_whole(value: ir.Value) -> bool:
    """Whether a float is a cast integer, or a difference of such."""
    node = value.producer()
    if node is None:
        return False
    if is_standard(node, "Cast"):
        return node.inputs[0] is not None and node.inputs[0].dtype in (*_INTEGERS, DataType.INT16, DataType.INT64)
    if is_standard(node, "DequantizeLinear"):
        scale = None if node.inputs[1] is None else node.inputs[1].const_value
        return scale is not None and scale.nbytes <= 8 and float(scale.numpy().reshape(-1)[0]) == 1.0
    if is_standard(node, "Sub", *_MOVES):
        operands = node.inputs[:2] if node.op_type == "Sub" else node.inputs[:1]
        return all(operand is not None and _is_whole(operand) for operand in operands)
    return False


def _factors_of_dequantized(root: ir.Node, tensors: dict[str, Any]) -> tuple[list[onnx.NodeProto], list[str]] | None:
    """A DequantizeLinear with scales of 1, and one whose integers are 1."""
    codes, scale = root.inputs[0], root.inputs[1]
    if codes is None or scale is None or codes.shape is None or scale.shape is None:
        return None
    if codes.dtype is None or scale.dtype not in FLOATS or codes.dtype not in CODES:
        return None
    name = str(root.outputs[0].name)
    tensors[f"{name}_ones"] = ir.tensor(
        np.ones(codes.shape.numpy(), codes.dtype.numpy()), dtype=codes.dtype, name=f"{name}_ones"
    )
    tensors[f"{name}_unit"] = ir.tensor(
        np.ones(scale.shape.numpy(), scale.dtype.numpy()), dtype=scale.dtype, name=f"{name}_unit"
    )
    numbers, scales = ir.serde.serialize_node(root), ir.serde.serialize_node(root)
    numbers.input[1], numbers.output[0] = f"{name}_unit", f"{name}_whole"
    del scales.input[2:]
    scales.input[0], scales.output[0] = f"{name}_ones", f"{name}_scales"
    return [numbers, scales], [f"{name}_whole", f"{name}_scales"]


def _proto(name: str, tensor: ir.TensorProtocol) -> onnx.TensorProto:
    dims = tensor.shape.numpy()
    return onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=dims, raw_data=tensor.tobytes())


def parts_of(node: ir.Node, cone: Cone) -> tuple[WeightFormat, dict[Part, KeptTensor]] | None:
    """The parts of a weight that keeps its integers; None where it has none of the forms."""
    value = node.inputs[1]
    if value is None or value.shape is None or value.dtype is None:
        return None
    try:
        factors = cone.factors()
    except Exception:  # onnxruntime has a class for each of its status codes, and may lack a kernel
        return None
    form = form_of(factors)
    if form is None:
        return None
    shape, dtype = factors.numbers.shape, ONNX_TO_TORCH[value.dtype]
    kinds = [Part.CODES, Part.SCALES, *([] if form.symmetric else [Part.ZEROS])]
    labels = {Part.CODES: form.dtype.name.lower()}
    return form, {
        part: KeptTensor(cone, form, part, shape, dtype, f"{cone.name}.{labels.get(part, part.value)}")
        for part in kinds
    }
