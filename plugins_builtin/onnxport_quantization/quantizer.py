"""``quantize=``: from what is asked to a model with rounded weights, and what that costs in accuracy."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

import onnx_ir as ir
import torch
from onnxport import DataType, InputError, ONNXProgram, WeightError
from onnxport.kit import ONNX_TO_TORCH, JsonResult, TorchTensor, keys, markdown, optional, wrong
from onnxport.optimize.rewriting import QUANTIZED, all_nodes
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils import _pytree as pytree

from onnxport_quantization import experts, packed, rounding
from onnxport_quantization.formats import OPSET_OF_BLOCKS, Request, Rule, request_of
from onnxport_quantization.marks import LOOKUP, LOOKUP_DOMAIN, Mark, marks_in
from onnxport_quantization.products import FLOATS, uses_of
from onnxport_quantization.restoring import restore
from onnxport_quantization.tensors import Part, RoundedTensor, StoredWeight, layout_of
from onnxport_quantization.writing import Writer, lookup_problem, size_of

_Place = tuple[str, int | None]
"""The name of a weight, and the place of a matrix in it where it is a stack."""
_TURNED = ".T"  # what a transposed weight's name ends with


class Quantizer:
    """The formats of 4 and 8 bits, as ``onnxport_quantizers`` gives them."""

    def plan(self, request: Any, opset: int | None, names: Collection[str] | None) -> Plan:
        """What is asked, checked before anything else is done.

        Args:
            request: what ``quantize=`` says.
            opset: the target opset; None where the caller leaves it open.
            names: of the model's weights; None where they aren't known yet.

        Raises:
            InputError: it isn't understood, or a name matches no weight.
            OpsetError: the opset lacks a format.
        """
        asked = request_of(request)
        if opset is not None:
            asked.check_opset(opset)
        if names is not None:
            asked.check_names(names)
        return Plan(asked)

    def restore(self, model: ir.Model) -> None:
        """Let `apply_weights` give other floats to the rounded weights of a model that was read from a file."""
        restore(model)

    def roundings(self, model: ir.Model, weights: Mapping[str, torch.Tensor]) -> Roundings | None:
        """What a model has in place of some weights, given by name; None where it has none rounded."""
        found = Roundings(weights)
        for mark, node in marks_in(model):
            name = next((name for name in mark.names if name in weights and _has_matrix(weights[name], mark)), None)
            if name is not None:
                found.marks[name, mark.index] = mark
                found.nodes.setdefault((name, mark.index), []).append(node)
            elif mark.weight not in found.missing:
                found.missing.append(mark.weight)
        kept = any(node.metadata_props.get(QUANTIZED) == packed.KEPT for node in all_nodes(model))
        return found if kept or found.marks or found.missing else None


def _has_matrix(weight: torch.Tensor, mark: Mark) -> bool:
    """A weight may be what a mark means: a matrix, or a stack of enough matrices."""
    return weight.dim() == 2 if mark.index is None else weight.dim() == 3 and mark.index < weight.shape[0]


@dataclass(frozen=True)
class Plan:
    """A request that can be carried out.

    Attributes:
        request: what is asked.
    """

    request: Request

    @property
    def opset(self) -> int:
        """The lowest opset that has all formats."""
        return self.request.opset

    def apply(self, program: ONNXProgram) -> Quantization:
        """Round the weights of a program, in place.

        Raises:
            InputError: a format was asked for a weight, by its name, that can't have it; or no weight can be rounded.
            OpsetError: the model's opset lacks a format.
        """
        model = program.model
        self.request.check_opset(model.graph.opset_imports.get("", 0))
        result = Quantization(program)
        writer = Writer(model, has_lookup=f"{LOOKUP_DOMAIN}::{LOOKUP}" in program.operators)
        served: dict[Rule, list[str]] = {rule: [] for rule in self.request.rules}
        refused: dict[Rule, dict[str, str]] = {rule: {} for rule in self.request.rules}
        self._keep(writer, result, refused)
        self._separate(writer)
        for value in tuple(model.graph.initializers.values()):
            weight = _weight_of(value)
            if weight is None:
                continue
            rule = self.request.rule_of(weight.names)
            if rule is None or rule.format is None:
                continue
            problem = self._round(writer, weight, rule)
            if problem is None:
                served[rule].append(weight.names[0])
                result.rounded[weight.names[0]] = str(rule.format)
            elif problem:
                refused[rule].setdefault(weight.names[0], problem)
                result.left.setdefault(weight.names[0], problem)
        for rule in self.request.rules:
            if rule.format is not None and not served[rule] and not _has_kept(rule, result):
                _refuse(rule, refused[rule])
        program.release()
        return result

    def _separate(self, writer: Writer) -> None:
        """Make weights of the matrices of stacks that are to be rounded."""
        for value in tuple(writer.model.graph.initializers.values()):
            tensor = value.const_value
            if not isinstance(tensor, TorchTensor) or isinstance(tensor, (RoundedTensor, packed.KeptTensor)):
                continue
            if len(tensor.shape) != 3 or tensor.dtype not in FLOATS or 0 in tensor.shape.numpy():
                continue
            rule = self.request.rule_of(_names_of(tensor))
            is_wanted = rule is not None and rule.format is not None and bool(_names_of(tensor))
            if is_wanted and experts.layout_in_stack(tensor.derive(partial(experts.one_of, index=0))) is not None:
                experts.separate(writer, value, tensor)

    def _keep(self, writer: Writer, result: Quantization, refused: dict[Rule, dict[str, str]]) -> None:
        """Let products read the integers that the model brought, where they have a form of its own."""
        opset = writer.model.graph.opset_imports.get("", 0)
        for node, cone in packed.products_in(writer.model) if opset >= OPSET_OF_BLOCKS else ():
            rule = self.request.rule_of([cone.name])
            if rule is None or rule.format is None:
                continue
            found = packed.parts_of(node, cone)
            if found is None:
                problem = "its integers have no scales in blocks of rows, or aren't of 8 bits"
                result.left[cone.name] = refused[rule][cone.name] = problem
                continue
            writer.keep(node, found[0], list(found[1].values()))
            result.kept[cone.name] = str(found[0])

    def _round(self, writer: Writer, weight: _Weight, rule: Rule) -> str | None:
        """Round one weight; the reason if it can't be, which is empty where nobody would expect that it is."""
        form, is_named = rule.format, rule.pattern != "*"
        if form is None:
            return ""
        if weight.problem or weight.tensor is None:
            return weight.problem if is_named or weight.is_expected else ""
        uses = uses_of(writer.model, weight.value)
        if not is_named and not uses.products:
            return ""
        if weight.value.metadata_props.get(keys.INPUT_KIND) == "BUFFER" and rule.pattern not in weight.names:
            return ""
        if not uses.places:
            return uses.problem or "nothing reads it"
        axis, shape = uses.places[0].axis, weight.tensor.shape.numpy()
        problem = uses.problem or lookup_problem(uses, form, shape[axis])
        if not problem and any(use.dtype not in FLOATS for use in uses.places):
            problem = f"DequantizeLinear gives no {uses.places[0].dtype.name.lower()}"
        opset = writer.model.graph.opset_imports.get("", 0)
        if not problem and opset < 19 and any(use.dtype is not DataType.FLOAT for use in uses.places):
            problem = f"DequantizeLinear gives float32 only at opset {opset}: export with 19 or a newer one"
        if problem:
            return problem
        if size_of(shape, axis, form, uses.dtype) >= weight.tensor.nbytes:
            return "it would take as much memory as before"
        name = str(uses.dtype).removeprefix("torch.")
        mark = Mark(weight.names[0], weight.names[1:], weight.order[axis], name, form, weight.index)
        writer.write(weight.value, weight.tensor, uses, mark)
        return None


def _has_kept(rule: Rule, result: Quantization) -> bool:
    """Whether a rule that rounds nothing has served for something nevertheless."""
    if rule.pattern == "*":
        return bool(result.rounded or result.kept)
    return any(map(rule.matches, result.kept))


def _refuse(rule: Rule, reasons: Mapping[str, str]) -> None:
    listed = "".join(f"\n  {name}: {reason}" for name, reason in list(reasons.items())[:10])
    what = "no weight of the model" if rule.pattern == "*" else f"nothing that {rule.pattern!r} matches"
    raise InputError(
        f"quantize: {what} can be rounded. Matrices that MatMul or Gemm multiply by can, and tables of embeddings that "
        f"are named.{' These are other:' if listed else ''}{listed}\nLeave it out, or give None for it.",
        parameter="quantize",
    )


@dataclass
class _Weight:
    """A weight of a model, as a matrix.

    Attributes:
        value: the initializer.
        names: its names in the state dict.
        tensor: its data; None if it can't be rounded.
        order: which axis of the state dict's tensor each axis of the matrix is.
        problem: why it can't be rounded.
        is_expected: somebody who asks for all products may expect it.
        index: which matrix of a stack it is; None for a weight that is a matrix.
    """

    value: ir.Value
    names: tuple[str, ...]
    tensor: TorchTensor | None = None
    order: tuple[int, ...] = (0, 1)
    problem: str = ""
    is_expected: bool = False
    index: int | None = None


def _weight_of(value: ir.Value) -> _Weight | None:
    """The weight that an initializer is; None for constants."""
    tensor, name = value.const_value, str(value.name)
    kind = value.metadata_props.get(keys.INPUT_KIND)
    if tensor is None or kind == "CONSTANT_TENSOR" or isinstance(tensor, (RoundedTensor, packed.KeptTensor)):
        return None
    is_matrix = len(tensor.shape) == 2 and tensor.dtype in FLOATS
    if isinstance(tensor, TorchTensor):
        names = _names_of(tensor)
        if not names:
            return None
        if not is_matrix:
            return _Weight(value, names, problem=_unfit(tensor), is_expected=_is_double(tensor))
        layout = layout_of(tensor)
        if layout is None and (place := experts.layout_in_stack(tensor)) is not None:
            return _Weight(value, names, tensor, tuple(place[1]), index=place[2])
        if layout is None:
            return _Weight(value, names, problem="it is computed of other weights", is_expected=True)
        return _Weight(value, names, tensor, tuple(layout[1]))
    if not is_matrix:
        return _Weight(value, (name,), problem=_unfit(tensor), is_expected=_is_double(tensor))
    turned = name.endswith(_TURNED) and kind is not None
    names = (name.removesuffix(_TURNED) if turned else name,)
    return _Weight(value, names, StoredWeight(tensor, name), (1, 0) if turned else (0, 1))


def _names_of(tensor: TorchTensor) -> tuple[str, ...]:
    """The names of the weights that a tensor is, or is made of."""
    leaves = [leaf for leaf in tensor.leaves() if leaf.source is not None]
    return tuple(dict.fromkeys(each for leaf in leaves for each in (str(leaf.source), *leaf.aliases)))


def _is_double(tensor: ir.TensorProtocol) -> bool:
    return len(tensor.shape) == 2 and tensor.dtype == DataType.DOUBLE


def _unfit(tensor: ir.TensorProtocol) -> str:
    if len(tensor.shape) != 2:
        return f"it has {len(tensor.shape)} axes, and only matrices and the experts of mixtures are rounded"
    return f"it is {ir.DataType(tensor.dtype).name.lower()}, which DequantizeLinear doesn't give"


# What it costs ----------------------------------------------------------------------------------------------------


@dataclass
class RoundingError:
    """How far a rounded weight is from the original.

    Attributes:
        weight: its name.
        format: how it was rounded.
        max_abs: the largest difference.
        relative: the root mean square of the differences, relative to that of the weight.
    """

    weight: str
    format: str
    max_abs: float
    relative: float


@dataclass
class Roundings:
    """What a model has in place of a torch model's weights.

    Attributes:
        weights: the torch model's, by name.
        marks: of those that are rounded, by name and place in a stack.
        nodes: which dequantize them.
        missing: rounded weights that the torch model doesn't have.
    """

    weights: Mapping[str, torch.Tensor]
    marks: dict[_Place, Mark] = field(default_factory=dict)
    nodes: dict[_Place, list[ir.Node]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Each rounded weight by its name, computed when it is asked for; of a tied one, by all its names."""
        for name in dict.fromkeys(name for name, _ in self.marks):
            weight, names = self.weights[name], {name}
            numbers = weight.detach().clone() if weight.dim() == 3 else weight
            for place, mark in self.marks.items():
                if place[0] == name:
                    names.update(mark.names)
                    rounded = _as_rounded(self._matrix(place), mark)
                    if mark.index is None:
                        numbers = rounded
                    else:
                        numbers[mark.index] = rounded
            for each, other in self.weights.items():
                if each in names or _is_one(weight, other):
                    yield each, numbers

    def _matrix(self, place: _Place) -> torch.Tensor:
        weight = self.weights[place[0]]
        return weight if place[1] is None else weight[place[1]]

    @property
    def compared(self) -> int:
        """How many weights `differing` compares: those that a file has, and that products read."""
        return len({name for (name, _), _ in self._stored()})

    def differing(self) -> list[str]:
        """Names of weights whose integers in the file aren't those that the torch model's are rounded to."""
        found = {}
        for place, codes in self._stored():
            mark, weight, name = self.marks[place], self._matrix(place), place[0]
            tensor = TorchTensor(weight.detach().to(mark.torch_dtype), name)
            expected = RoundedTensor(tensor, mark.format, Part.CODES, mark.axis, False, mark.torch_dtype, name).numpy()
            if codes.shape != expected.shape or not (codes == expected).all():
                found[name] = True
        return list(found)

    def _stored(self) -> Iterator[tuple[_Place, Any]]:
        """The integers (K, N) of weights that were read from a file."""
        for place, nodes in self.nodes.items():
            for node in nodes:
                value, turned = node.inputs[0], node.op_type == LOOKUP
                producer = None if value is None else value.producer()
                if producer is not None and producer.op_type == "Transpose":
                    value, turned = producer.inputs[0], True
                tensor = None if value is None else value.const_value
                if tensor is not None and not isinstance(tensor, TorchTensor):
                    array = tensor.numpy()
                    yield place, array.T if turned else array

    @cached_property
    def errors(self) -> list[RoundingError]:
        """The error of each weight."""
        return [_error(self._matrix(place), mark) for place, mark in self.marks.items()]

    def as_dict(self) -> list[dict[str, Any]]:
        """The errors as JSON types."""
        return [asdict(error) for error in self.errors]

    def table(self) -> str:
        """The errors as a markdown table."""
        return _table(self.errors)


def _is_one(weight: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are one tied weight."""
    if weight is other or weight.is_meta or weight.layout is not torch.strided or other.layout is not torch.strided:
        return weight is other
    first, second = ((t.data_ptr(), t.shape, t.stride(), t.dtype) for t in (weight, other))
    return first == second and weight.numel() > 0


def _as_rounded(weight: torch.Tensor, mark: Mark) -> torch.Tensor:
    return rounding.as_rounded(weight.to(mark.torch_dtype), mark.format, mark.axis).to(weight.dtype)


def _error(weight: torch.Tensor, mark: Mark) -> RoundingError:
    """The error of a weight, in pieces that take little memory."""
    largest = squares = reference = 0.0
    block = mark.format.block(weight.shape[mark.axis])
    matrix = weight.detach() if mark.axis == 0 else weight.detach().t()
    for band, pieces in rounding.tiles(matrix.shape[0], matrix.shape[1], block):
        for piece in pieces:
            exact = matrix[band, piece].to(mark.torch_dtype)
            blocks = rounding.rounded(exact, mark.format, block)
            exact = exact.float()
            difference = rounding.dequantized(blocks, block, torch.float32) - exact
            largest = max(largest, float(difference.abs().max())) if difference.numel() else largest
            squares += float(difference.square().sum(dtype=torch.float64))
            reference += float(exact.square().sum(dtype=torch.float64))
    relative = (squares / reference) ** 0.5 if reference else 0.0
    return RoundingError(mark.key, str(mark.format), largest, relative)


def _table(errors: Iterable[RoundingError]) -> str:
    rows = [f"| {markdown(e.weight)} | {e.format} | {e.max_abs:.2e} | {e.relative:.2e} |" for e in errors]
    return "\n".join(["| weight | format | max abs | relative |", "| --- | --- | --- | --- |", *rows])


@dataclass
class Quantization(JsonResult):
    """What was rounded in a program.

    Attributes:
        program: the program.
        rounded: the format by weight.
        kept: the format by weight, of those that the model brought as integers.
        left: why a weight stays as it is that could have been meant.
    """

    program: ONNXProgram
    rounded: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    @cached_property
    def errors(self) -> list[RoundingError]:
        """The error of each weight; none of weights that have no data."""
        weights: dict[str, torch.Tensor] = {}
        for _, node in marks_in(self.program.model):
            for value in node.inputs[:1]:
                tensor = _source(value)
                if isinstance(tensor, RoundedTensor) and tensor.has_data:
                    for leaf in tensor.leaves():
                        weights[str(leaf.source)] = leaf.raw
        found = Quantizer().roundings(self.program.model, weights)
        return [] if found is None else found.errors

    @cached_property
    def outputs(self) -> list[dict[str, Any]]:
        """How far the outputs are from the exported program's, on its example inputs and as onnxruntime runs the file.

        Empty where there are no example inputs, or weights have no data.
        """
        exported = self.program.exported_program
        if exported is None or exported.example_inputs is None or not self.errors:
            return []
        args, kwargs = exported.example_inputs
        with torch.no_grad(), unset_fake_temporarily():
            run = exported.module(check_guards=False)
            buffers = {name: buffer.clone() for name, buffer in run.named_buffers()}
            expected = pytree.tree_leaves(run(*copy.deepcopy(args), **copy.deepcopy(kwargs)))
            for name, buffer in run.named_buffers():  # forward may change them
                buffer.copy_(buffers[name])
            with copy.copy(self.program) as opened:
                found = opened(*args, **kwargs)
        names = [str(value.name) for value in self.program.model.graph.outputs]
        pairs = zip(names, (leaf for leaf in expected if isinstance(leaf, torch.Tensor)), found)
        return [_difference(name, want, got) for name, want, got in pairs]

    def table(self) -> str:
        """Everything as markdown."""
        lines = [_table(self.errors)] if self.errors else [f"Rounded: {', '.join(self.rounded) or 'none'}."]
        lines += [
            f"Output {markdown(one['name'])}: max abs {one['max_abs']:.2e}, relative {one['relative']:.2e}."
            for one in self.outputs
        ]
        lines += [f"Integers kept: {markdown(name)}: {form}." for name, form in self.kept.items()]
        lines += [f"Not rounded: {markdown(name)}: {markdown(reason)}." for name, reason in self.left.items()]
        return "\n\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        errors = [asdict(error) for error in self.errors]
        return {
            "rounded": self.rounded,
            "kept": self.kept,
            "left": self.left,
            "errors": errors,
            "outputs": self.outputs,
        }


def _source(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The data that a value is, or is a Transpose or lookup of."""
    while value is not None and value.const_value is None:
        node = value.producer()
        value = None if node is None else node.inputs[0]
    return None if value is None else value.const_value


def _difference(name: str, expected: torch.Tensor, found: torch.Tensor) -> dict[str, Any]:
    wide = torch.complex128 if expected.is_complex() else torch.float64
    want = expected.detach().cpu().to(wide)
    difference = (want - found.to(wide)).abs()
    size = float(want.abs().square().sum()) ** 0.5
    norm = float(difference.square().sum()) ** 0.5
    return {
        "name": name,
        "max_abs": float(difference.max()) if difference.numel() else 0.0,
        "relative": norm / size if size else 0.0,
    }


@unset_fake_temporarily()
def quantize(program: ONNXProgram, request: Any = "int4") -> ONNXProgram:
    """Round the weights of a program to 4 or 8 bits.

    Args:
        program: an exported program, or one that was loaded from a file; it stays as it is.
        request: what ``export(quantize=...)`` takes.

    Returns:
        A program with rounded weights, which shares the float weights that they are made of with the given one.

    Raises:
        InputError: the request isn't understood, a name matches no weight, or no weight can be rounded.
        OpsetError: the program's opset lacks a format.
    """
    optional("program", program, ONNXProgram, "an ONNXProgram; ONNXProgram.load(path) opens a file")
    if program is None:
        raise wrong("program", program, "an ONNXProgram")
    made = copy.copy(program)
    made.model = program.model.clone()
    made.model.meta.update(program.model.meta)
    names = [name for value in made.model.graph.initializers.values() if (w := _weight_of(value)) for name in w.names]
    plan = Quantizer().plan(request, made.model.graph.opset_imports.get(""), names)
    plan.apply(made)
    return made


__all__ = ["ONNX_TO_TORCH", "Plan", "Quantization", "Quantizer", "Roundings", "WeightError", "quantize"]
