"""Numeric verification: the ONNX model on onnxruntime against the torch model, at the traced and at other shapes."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx
import torch
from onnxport import InputError, ONNXProgram, VerificationError
from onnxport.kit import (
    Request,
    call_of,
    dense,
    flatten_arguments,
    keys,
    leaves_of,
    load,
    markdown,
    needs_gradients,
    optional,
    path_argument,
    plain,
    recognize,
    require_flags,
    runtime,
    wrong,
)
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from onnxport_workbench.arguments import call_arguments, callable_argument
from onnxport_workbench.comparing import TOLERANCES, OutputCheck, compare, tolerance
from onnxport_workbench.half_precision import half_of, in_type_of
from onnxport_workbench.json_results import JsonResult
from onnxport_workbench.reference import precisions
from onnxport_workbench.resize import resized_inputs, with_small_integers
from onnxport_workbench.rounded_weights import replaced, roundings_of
from onnxport_workbench.sessions import SessionChoice, session_choice
from onnxport_workbench.tolerances import tolerance_argument
from onnxport_workbench.weight_check import WeightCheck, check_weights

if TYPE_CHECKING:
    import onnxruntime as ort

Kind: TypeAlias = Callable[
    [ONNXProgram, Any], Iterable[tuple[str, Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]]
]
"""Takes the program and the torch model; yields a label, and by name what torch gives and what the file gives."""

_LAYOUT = re.compile(r"Guard failed: .*(stride|storage_offset|is_contiguous)")


@dataclass
class Comparison:
    """All outputs at one shape.

    Attributes:
        label: which inputs: "example", or the dimensions' sizes such as "batch=5, seq=9".
        outputs: one entry an output.
        skipped: why the torch model could not be run at this shape, empty if it could.
        error: what kept the ONNX model from running, empty if nothing did.
    """

    label: str
    outputs: list[OutputCheck] = field(default_factory=list)
    skipped: str = ""
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; true for a skipped shape."""
        return not self.error and not any(output.problem for output in self.outputs)


@dataclass
class VerificationResult(JsonResult):
    """What `verify` found.

    Attributes:
        checker: what `onnx.checker` (full check) objects to, empty if nothing.
        comparisons: one entry a shape; the first is the example inputs'.
        weights: which weights of the two models differ; by itself, no failure.
        rounding: the errors of rounded weights; None where there are none. Comparisons are then with the torch model
            whose weights are rounded likewise, as onnxruntime computes what the file says.
        dtype: the half precision that a model of float32 was written in; else empty. Comparisons are then with the
            float32 model, within the tolerances of this dtype.
        departing: the ``(args, kwargs)`` of each comparison with outputs that differ, by its label: `find_mismatch`
            takes them.
        original: with rounded weights: the outputs at the example inputs, as a plain session gives them, against the
            torch model with its own weights. Nothing there is a failure.
    """

    checker: str = ""
    comparisons: list[Comparison] = field(default_factory=list)
    weights: WeightCheck = field(default_factory=WeightCheck)
    rounding: Any = None
    dtype: str = ""
    departing: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = field(
        default_factory=dict, repr=False, compare=False
    )
    original: Comparison | None = None

    @property
    def passed(self) -> bool:
        """Whether the model is valid and every output agrees at every shape where torch itself runs."""
        return not self.checker and self.numbers_passed

    @property
    def numbers_passed(self) -> bool:
        """Whether every output agrees at every shape where torch itself runs, and it runs at one at least."""
        ran = any(not comparison.skipped for comparison in self.comparisons)
        return ran and all(comparison.passed for comparison in self.comparisons)

    @property
    def reference(self) -> str:
        """What a model in half precision was compared with; empty for others."""
        how = f"compared with the float32 model, within the tolerances of {self.dtype}"
        return f"{self.dtype}: {how}" if self.dtype else ""

    def failures(self) -> list[str]:
        """Say in a line each what is wrong; empty when the verification passed."""
        lines = [f"onnx.checker: {self.checker}"] if self.checker else []
        if self.weights.problem and not self.numbers_passed:
            lines.append(self.weights.problem)
        if not any(not comparison.skipped for comparison in self.comparisons):
            reasons = "; ".join(f"{one.label}: {one.skipped}" for one in self.comparisons)
            lines.append(f"nothing was compared, since the torch model did not run ({reasons})")
        for one in self.comparisons:
            if one.error:
                lines.append(f"[{one.label}] the ONNX model does not run: {one.error}")
            lines += [f"[{one.label}] output {out.name!r}: {out.problem}" for out in one.outputs if out.problem]
        return [plain(line) for line in lines]

    def raise_on_failure(self, program: ONNXProgram | None = None) -> None:
        """Raise `VerificationError`, listing all that is wrong, unless the verification passed.

        Args:
            program: what was verified, for the error's attribute of this name.
        """
        optional("program", program, ONNXProgram, "the ONNXProgram that was verified")
        if not self.passed:
            listing = "\n".join(f"  {line}" for line in self.failures())
            advice = "onnxport.find_mismatch(program) tells where it starts. Widen rtol and atol if this is rounding."
            if self.weights.problem:
                advice = "Compare it with the model that was exported, or with its weights."
            raise VerificationError(
                f"The ONNX model differs from the torch model:\n{listing}\n{self.table()}\n{advice}",
                program=program,
                result=self,
            )

    def table(self) -> str:
        """Format everything as a markdown table."""
        head = ("inputs", "output", "dtype", "shape", "max abs", "max rel", "mismatched", "NaN", "Inf", "result")
        rows = [head, tuple("---" for _ in head)]
        for one in self.comparisons:
            label = markdown(one.label)
            if one.skipped or one.error:
                result = f"not run: {one.skipped}" if one.skipped else f"FAILED: {one.error}"
                rows.append((label, *("" for _ in head[2:]), markdown(result.splitlines()[0])))
            for out in one.outputs:
                numbers = (f"{out.max_abs:.2e}", f"{out.max_rel:.2e}", f"{out.mismatched:.2%}")
                counts = tuple(str(a) if a == b else f"{b} for {a}" for a, b in (out.nans, out.infs))
                result = f"FAILED: {markdown(out.problem)}" if out.problem else "ok"
                rows.append((label, markdown(out.name), out.dtype, str(out.shape), *numbers, *counts, result))
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
        lines.append(f"\nonnx.checker: {self.checker or 'ok'}")
        lines += [self.reference] if self.reference else []
        lines += [f"weights: {self.weights.problem}"] if self.weights.problem else []
        if self.rounding is not None:
            lines.append(f"\nRounded weights, against the original:\n\n{self.rounding.table()}\n")
        if self.original is not None:
            reason = self.original.error or self.original.skipped
            lines += [f"outputs, against the original: not run: {markdown(reason)}"] if reason else []
            lines += [
                f"output {markdown(out.name)}, against the original: max abs {out.max_abs:.2e}, relative "
                f"{out.relative:.2e}"
                for out in self.original.outputs
            ]
        return plain("\n".join(lines))

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        comparisons = [{**asdict(comparison), "passed": comparison.passed} for comparison in self.comparisons]
        return {
            "passed": self.passed,
            "checker": self.checker,
            "dtype": self.dtype,
            "comparisons": comparisons,
            "weights": self.weights.as_dict(),
            "rounding": None if self.rounding is None else self.rounding.as_dict(),
            "original": None if self.original is None else asdict(self.original),
        }

    def _repr_html_(self) -> str | None:
        from onnxport_workbench.view.summary import summary  # what only notebooks need

        return summary(self)

    def __str__(self) -> str:
        return self.table()


def verify(
    program: ONNXProgram | str | os.PathLike[str],
    model: torch.nn.Module | ExportedProgram | Callable[..., Any] | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    other_inputs: Sequence[tuple[Sequence[Any], Mapping[str, Any] | None]] = (),
    generate: bool = True,
    kind: Kind | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    plugins: Sequence[Any] | None = None,
    session_options: ort.SessionOptions | None = None,
    providers: Sequence[Any] | None = None,
    custom_ops: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] = (),
) -> VerificationResult:
    """Check an ONNX model, and compare what it computes with what the torch model computes.

    Where dimensions are dynamic, the comparison is repeated at generated shapes: larger ones, different for each
    name, and the smallest allowed (1, as a rule). Shapes at which torch itself raises are noted and skipped. The
    weights of the two are compared too, so that a model with other weights is told as what it is.

    Where the ONNX model has weights that `quantize=` rounded, the torch model runs with its weights rounded likewise,
    and onnxruntime computes what the file says. So a wrong file is told from a rounded one. How far the rounded one is
    from the original is in the result, and no failure.

    A model that `dtype=` wrote in half precision is compared with the float32 model, within the tolerances of that.

    Args:
        program: an exported program, or the path of an .onnx file.
        model: the torch model; by default the module of `program.exported_program`.
        args: positional inputs of the model; by default the example inputs of the export.
        kwargs: keyword inputs.
        other_inputs: further `(args, kwargs)` to compare at.
        generate: whether to compare at generated shapes.
        kind: what is compared instead of the outputs at some inputs, such as ``onnxport_transformers.Generation()``,
            the tokens of a language model.
        rtol: relative tolerance for all floating-point outputs; by default that of the dtype in `TOLERANCES`.
        atol: absolute tolerance, likewise; if given, it is taken as it is.
        plugins: op packs that know the containers among inputs and outputs, as `export` takes them.
        session_options: options of the onnxruntime session; by default those of the program, or onnxruntime's.
        providers: execution providers of the session, such as `["CPUExecutionProvider"]`; by default CUDA where this
            onnxruntime has it, and the CPU.
        custom_ops: paths of the libraries that have the operators which onnxruntime itself lacks. They are registered
            with `session_options`, where these are given.

    Returns:
        The result, good or bad: see `VerificationResult.passed` and `raise_on_failure`.

    Raises:
        InputError: an argument is of a wrong type, or a tolerance is no finite number of at least 0; there is nothing
            to compare with, or no inputs are known; onnxruntime has no such provider, or can't load a library.
    """
    tolerances = tolerance_argument("rtol", rtol), tolerance_argument("atol", atol)
    require_flags(generate=generate)
    _check_reference(model)
    if kind is not None:
        callable_argument("kind", kind, "a function of the program and the model that yields cases, or left out")
    positional, keywords = call_arguments(args, kwargs)
    others = _other_inputs(other_inputs)
    if plugins is not None:
        load(plugins)  # an error even where no container asks for them
    opened, path = opened_program(program)
    choice = session_choice(session_options, providers, custom_ops, opened.session_options)
    exported = opened.exported_program
    if exported is None and isinstance(model, ExportedProgram):
        exported = model
    reference = model if model is not None else exported
    if reference is None:
        raise InputError(
            "An .onnx file can only be verified against a model: pass the torch model as `model`.", parameter="model"
        )
    if not positional and not keywords and kind is None:
        if exported is not None and exported.example_inputs is not None:
            positional, keywords = exported.example_inputs
        elif opened.model.graph.inputs:
            raise InputError("The example inputs are not known: pass them as `args` and `kwargs`.", parameter="args")
    recognize((positional, keywords, others), plugins)
    positional, keywords = _as_called(reference, positional, keywords)
    others = [_as_called(reference, *other) for other in others]
    rounding = roundings_of(opened.model, reference, plugins)
    own = rounding is not None or not (session_options is None and providers is None and not custom_ops)
    if own:  # a session of its own
        opened = copy.copy(opened)
    comparing = _Verification(opened, exported, reference, tolerances, plugins, rounding)
    result = comparing.result
    with choice.exact() if rounding is not None else contextlib.nullcontext(choice) as chosen:
        result.checker, comparing.unusable = _check_and_open(opened, path, chosen)
    try:
        if not comparing.unusable:
            result.weights = check_weights(opened.model, opened.exported_program, reference)
            if rounding is not None:
                result.weights.add(rounding.compared, rounding.differing())
        if kind is not None:
            comparing.compare_kind(kind)
            return result
        comparing.compare("example", positional, keywords)
        for i, other in enumerate(others, 1):
            comparing.compare(f"inputs {i}", *other)
        if generate:
            comparing.compare_generated(positional, keywords)
    finally:
        if path is not None or own:
            opened.release()
    if rounding is not None and not comparing.unusable:
        with opened:
            opened.initialize_inference_session(choice.open)
            original = _Verification(opened, exported, reference, tolerances, plugins)
            result.original = original.compare("original", positional, keywords)
    return result


def opened_program(program: object) -> tuple[ONNXProgram, str | None]:
    """The program that a caller gives, or the file's; and the path of the file.

    Raises:
        InputError: it is neither a program nor the path of an ONNX model.
    """
    if isinstance(program, ONNXProgram):
        return program, None
    path = path_argument("program", program, "an ONNXProgram, or the path of an .onnx file")
    return ONNXProgram.load(path), path


def _check_reference(model: Any) -> None:
    if isinstance(model, type) and issubclass(model, torch.nn.Module):
        raise wrong("model", model, f"an instance of it, {model.__name__}(...).eval()")
    if model is not None and not isinstance(model, ExportedProgram):
        callable_argument("model", model, "an nn.Module, an ExportedProgram, or a function")


def _other_inputs(given: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    wanted = "a list of (args, kwargs), such as [((x,), None)]"
    if not isinstance(given, (list, tuple)):
        raise wrong("other_inputs", given, wanted)
    for i, pair in enumerate(given):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise wrong(f"other_inputs[{i}]", pair, wanted)
    return [call_arguments(args, kwargs, f"other_inputs[{i}]") for i, (args, kwargs) in enumerate(given)]


def _as_called(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call as an export takes it: a trailing dict may be its keyword arguments."""
    if isinstance(model, torch.nn.Module):
        with contextlib.suppress(InputError, TypeError, ValueError):  # the run of the model tells what it doesn't take
            call = call_of(model, args, kwargs)
            return call.args, call.kwargs
    return args, kwargs


class _Verification:
    """One verification: both models, and what was found so far."""

    def __init__(
        self,
        program: ONNXProgram,
        exported: ExportedProgram | None,
        reference: Any,
        tolerances: tuple[float | None, float | None],
        plugins: Sequence[Any] | None,
        rounding: Any = None,
    ) -> None:
        self.result = VerificationResult(rounding=rounding, dtype=program.model.metadata_props.get(keys.DTYPE, ""))
        self._half = half_of(program.model)
        self._weights: dict[str, torch.Tensor] = {} if rounding is None else dict(rounding.items())
        self.unusable = ""
        self._program, self._exported, self._reference = program, exported, reference
        self._tolerances, self._plugins = tolerances, plugins
        self._function = reference.module() if isinstance(reference, ExportedProgram) else reference
        translated = program.model.meta.get(keys.TRANSLATED)
        self._precisions = {} if translated is None else {n.name: dtype for n, dtype in precisions(translated).items()}

    def compare(self, label: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Comparison:
        """Compare at one set of inputs."""
        comparison = Comparison(label, error=self.unusable)
        if not self.unusable:
            self._run(comparison, args, kwargs)
        self.result.comparisons.append(comparison)
        return comparison

    def compare_kind(self, kind: Kind) -> None:
        """Compare what a kind of verification yields. The torch model has rounded weights where the file has."""
        if self.unusable:
            self.result.comparisons.append(Comparison("example", error=self.unusable))
            return
        with torch.no_grad(), replaced(self._function, self._weights):
            for label, expected, found in kind(self._program, self._function):
                comparison = Comparison(label)
                for name, tensor in expected.items():
                    comparison.outputs.append(compare(name, tensor, found[name], *self._tolerances))
                self.result.comparisons.append(comparison)

    def compare_generated(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Compare at the example's inputs in other sizes."""
        generated = resized_inputs(self._program, self._exported, args, kwargs, given=self._given)
        for case in generated:
            self._compare_generated(*case)
        if generated and self.result.comparisons[-1].skipped:  # 1 may be less than a Dim allows
            for case in resized_inputs(self._program, self._exported, args, kwargs, 2, self._given)[-1:]:
                if case[0] not in (label for label, *_ in generated):
                    self._compare_generated(*case)

    def _compare_generated(self, label: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.compare(label, args, kwargs).skipped:  # indices may be too large for generated sizes
            again = Comparison(f"{label}, small integers")
            self._run(again, *with_small_integers(args, kwargs))
            if not again.skipped:
                self.result.comparisons[-1] = again

    def _run(self, comparison: Comparison, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            expected, mutated = self._expected(args, kwargs)
        except Exception as error:  # a model may raise anything at a shape that it can't take
            comparison.skipped = f"{type(error).__name__}: {error}".strip()
            return
        try:
            found = self._program.run(*self._given(args, kwargs))
        except Exception as error:  # onnxruntime has a class for each of its status codes
            comparison.error = f"{type(error).__name__}: {error}".strip()
            return
        wanted = iter(expected)
        for value, actual in zip(self._program.model.graph.outputs, found):
            if runtime.is_user_output(value):
                want = next(wanted, None)
            else:
                want = mutated.get(value.metadata_props.get(keys.OUTPUT_TARGET, ""))
                if want is None:
                    continue  # a gradient or token output: there is nothing to compare it with
            if want is None:
                comparison.error = f"The graph has more outputs than the {len(expected)} that the torch model returns."
                return
            precision = self._half or self._precisions.get(value.metadata_props.get(keys.ORIGIN, ""))
            want = in_type_of(actual, want) if keys.DTYPE in value.metadata_props else want
            comparison.outputs.append(compare(str(value.name), want, actual, *self._tolerances, precision))
        if any(output.problem for output in comparison.outputs):
            self.result.departing[comparison.label] = args, kwargs
        if next(wanted, None) is not None:
            comparison.error = f"The graph has fewer outputs than the {len(expected)} that the torch model returns."

    def _expected(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, torch.Tensor]]:
        """Run torch on copies: the flat outputs, and the new values of buffers and inputs by their names."""
        try:
            return self._outputs(args, kwargs)
        except AssertionError as error:
            if not isinstance(self._reference, ExportedProgram) or not _LAYOUT.search(str(error)):
                raise
        # torch's guards ask for the strides of the example too, which are no matter of an ONNX model's.
        self._function = self._reference.module(check_guards=False)
        return self._outputs(args, kwargs)

    def _outputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, torch.Tensor]]:
        try:
            return self._called(*pytree.tree_map(_copied, (args, kwargs)), gradients=False)
        except RuntimeError as error:
            if not needs_gradients(error):
                raise
        return self._called(*pytree.tree_map(_copied_with_gradient, (args, kwargs)), gradients=True)

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the ONNX model is called with: by name where a file tells which leaf each of its inputs is."""
        inputs = {str(v.name): v.metadata_props.get(keys.ORIGIN, "") for v in self._program.model.graph.inputs}
        if self._exported is None and isinstance(self._reference, torch.nn.Module):
            with contextlib.suppress(InputError, TypeError, ValueError):  # a scripted forward has no signature
                named = leaves_of(Request(**vars(call_of(self._reference, args, kwargs))))
                placeholders = {runtime.placeholder_name(path): leaf for path, leaf in named}
                if all(origin in placeholders for origin in inputs.values()):
                    return (), {name: placeholders[origin] for name, origin in inputs.items()}
        return args, kwargs

    def _called(self, args: Any, kwargs: Any, *, gradients: bool) -> tuple[list[Any], dict[str, torch.Tensor]]:
        plain = not gradients and torch.is_inference_mode_enabled()
        with torch.inference_mode(plain), torch.set_grad_enabled(gradients), _state_kept(self._function) as run:
            with replaced(run, self._weights):
                returned = run(*args, **kwargs)
            recognize(returned, self._plugins)
            outputs = [leaf for leaf in pytree.tree_leaves(returned) if leaf is not None]
            outputs = [_copied(dense(leaf)) if isinstance(leaf, torch.Tensor) else leaf for leaf in outputs]
            buffers = run.named_buffers() if isinstance(run, torch.nn.Module) else ()
            mutated = {name: _copied(dense(buffer)) for name, buffer in buffers}
        if self._exported is not None:
            with contextlib.suppress(InputError):
                leaves = flatten_arguments(self._exported, args, kwargs)
                names = [spec.arg.name for spec in self._exported.graph_signature.input_specs if _is_user_input(spec)]
                mutated |= {name: leaf for name, leaf in zip(names, leaves) if isinstance(leaf, torch.Tensor)}
        return outputs, mutated


def _check_and_open(program: ONNXProgram, path: str | None, choice: SessionChoice) -> tuple[str, str]:
    """Run onnx's full check and open a session if none is open; what either objects to."""
    problems = ["", ""]

    def check(staged: str | bytes) -> None:
        try:
            onnx.checker.check_model(staged, full_check=True)  # type: ignore[arg-type]
        except Exception as error:  # the checker's errors have no common class of their own
            problems[0] = str(error).strip() or type(error).__name__

    def check_and_open(staged: str | bytes) -> Any:
        check(staged)
        return choice.open(staged)

    try:
        if path is not None:
            program.inference_session = check_and_open(path)
        elif program.inference_session is None:
            program.initialize_inference_session(check_and_open)
        else:
            with tempfile.TemporaryDirectory(prefix="onnxport-") as folder:
                check(program.stage(folder))
    except Exception as error:  # onnxruntime has a class for each of its status codes
        if choice.providers is not None and isinstance(error, InputError):
            raise
        problems[1] = str(error).strip() or type(error).__name__
    return problems[0], problems[1]


@contextlib.contextmanager
def _state_kept(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """What computes the same, and leaves the model as it is: a copy of its state, without one of its parameters.

    Where a module can't be copied, and for a graph, which has no other state, the buffers are put back instead: the
    ONNX model's weights may be the same memory.
    """
    if not isinstance(function, torch.nn.Module):
        yield function
        return
    if not isinstance(function, torch.fx.GraphModule):
        shared: dict[int, Any] = {id(parameter): parameter for parameter in function.parameters()}
        copied = None
        with contextlib.suppress(Exception):  # whatever the attributes of a model raise at a copy
            copied = copy.deepcopy(function, shared)
        if copied is not None:
            yield copied
            return
    named = [(module, name, buffer) for module in function.modules() for name, buffer in module._buffers.items()]
    places = [(module, name, buffer) for module, name, buffer in named if buffer is not None]
    data = [buffer.detach().clone() for *_, buffer in places]
    try:
        yield function
    finally:
        for (module, name, buffer), kept in zip(places, data):
            module._buffers[name] = buffer
            buffer.detach().copy_(kept)


def _copied(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else copy.deepcopy(leaf)


def _copied_with_gradient(leaf: Any) -> Any:
    return _copied(leaf).requires_grad_(leaf.requires_grad) if isinstance(leaf, torch.Tensor) else copy.deepcopy(leaf)


def _is_user_input(spec: Any) -> bool:
    return bool(spec.kind is InputKind.USER_INPUT)


__all__ = [
    "TOLERANCES",
    "Comparison",
    "OutputCheck",
    "VerificationResult",
    "compare",
    "opened_program",
    "tolerance",
    "verify",
]
