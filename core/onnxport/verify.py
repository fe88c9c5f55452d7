"""Numeric verification: the ONNX model on onnxruntime against the torch model, at the traced and at other shapes."""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from onnxport.capturing.below_autograd import needs_gradients
from onnxport.errors import InputError, VerificationError
from onnxport.program import TRANSLATED, ONNXProgram
from onnxport.running import runtime
from onnxport.running.reference import precisions
from onnxport.running.resize import resized_inputs, with_small_integers

TOLERANCES: dict[torch.dtype, tuple[float, float]] = {
    torch.float64: (1e-7, 1e-7),
    torch.float32: (1e-4, 2e-5),
    torch.float16: (1e-2, 5e-3),
    torch.bfloat16: (4e-2, 4e-2),
    torch.float8_e4m3fn: (0.13, 0.13),
    torch.float8_e4m3fnuz: (0.13, 0.13),
    torch.float8_e5m2: (0.26, 0.26),
    torch.float8_e5m2fnuz: (0.26, 0.26),
}
"""Relative and absolute tolerance by dtype; complex dtypes have their components'. Other dtypes must be equal.

The absolute one is multiplied by the mean magnitude of the expected values where that exceeds 1, since rounding errors
grow with the terms that cancel out in an output, not with what is left of them.
"""


def tolerance(dtype: torch.dtype) -> tuple[float, float]:
    """Relative and absolute tolerance of a floating-point or complex dtype."""
    real = dtype.to_real() if dtype.is_complex else dtype
    known = TOLERANCES.get(real)
    return known or (2 * torch.finfo(real).eps,) * 2  # narrower than those of the table: two steps


_TARGET = "pkg.torch.export.graph_signature.OutputSpec.target"


@dataclass
class OutputCheck:
    """One output compared at one shape.

    Attributes:
        name: the graph output's name.
        dtype: the dtype expected, as torch prints it.
        shape: the shape expected.
        max_abs: largest absolute difference among finite elements.
        max_rel: largest difference relative to the expected value among finite elements that are not 0.
        mismatched: share of the elements outside the tolerance, 0 to 1.
        nans: NaNs expected and found.
        infs: infinities expected and found.
        problem: what is wrong, empty if nothing is.
    """

    name: str
    dtype: str
    shape: list[int]
    max_abs: float = 0.0
    max_rel: float = 0.0
    mismatched: float = 0.0
    nans: tuple[int, int] = (0, 0)
    infs: tuple[int, int] = (0, 0)
    problem: str = ""


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
class VerificationResult:
    """What `verify` found.

    Attributes:
        checker: what `onnx.checker` (full check) objects to, empty if nothing.
        comparisons: one entry a shape; the first is the example inputs'.
    """

    checker: str = ""
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the model is valid and every output agrees at every shape where torch itself runs."""
        return not self.checker and self.numbers_passed

    @property
    def numbers_passed(self) -> bool:
        """Whether every output agrees at every shape where torch itself runs, and it runs at one at least."""
        ran = any(not comparison.skipped for comparison in self.comparisons)
        return ran and all(comparison.passed for comparison in self.comparisons)

    def failures(self) -> list[str]:
        """Say in a line each what is wrong; empty when the verification passed."""
        lines = [f"onnx.checker: {self.checker}"] if self.checker else []
        if not any(not comparison.skipped for comparison in self.comparisons):
            reasons = "; ".join(f"{one.label}: {one.skipped}" for one in self.comparisons)
            lines.append(f"nothing was compared, since the torch model did not run ({reasons})")
        for one in self.comparisons:
            if one.error:
                lines.append(f"[{one.label}] the ONNX model does not run: {one.error}")
            lines += [f"[{one.label}] output {out.name!r}: {out.problem}" for out in one.outputs if out.problem]
        return lines

    def raise_on_failure(self, program: ONNXProgram | None = None) -> None:
        """Raise `VerificationError`, listing all that is wrong, unless the verification passed.

        Args:
            program: what was verified, for the error's attribute of this name.
        """
        if not self.passed:
            listing = "\n".join(f"  {line}" for line in self.failures())
            raise VerificationError(
                f"The ONNX model differs from the torch model:\n{listing}\n{self.table()}\n"
                "onnxport.find_mismatch(program) tells where it starts. Widen rtol and atol if this is rounding.",
                program=program,
                result=self,
            )

    def table(self) -> str:
        """Format everything as a markdown table."""
        head = ("inputs", "output", "dtype", "shape", "max abs", "max rel", "mismatched", "NaN", "Inf", "result")
        rows = [head, tuple("---" for _ in head)]
        for one in self.comparisons:
            if one.skipped or one.error:
                result = f"not run: {one.skipped}" if one.skipped else f"FAILED: {one.error}"
                rows.append((one.label, *("" for _ in head[2:]), result.splitlines()[0]))
            for out in one.outputs:
                numbers = (f"{out.max_abs:.2e}", f"{out.max_rel:.2e}", f"{out.mismatched:.2%}")
                counts = tuple(str(a) if a == b else f"{b} for {a}" for a, b in (out.nans, out.infs))
                result = f"FAILED: {out.problem}" if out.problem else "ok"
                rows.append((one.label, out.name, out.dtype, str(out.shape), *numbers, *counts, result))
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
        lines.append(f"\nonnx.checker: {self.checker or 'ok'}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        comparisons = [{**asdict(comparison), "passed": comparison.passed} for comparison in self.comparisons]
        return {"passed": self.passed, "checker": self.checker, "comparisons": comparisons}

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
    rtol: float | None = None,
    atol: float | None = None,
) -> VerificationResult:
    """Check an ONNX model, and compare what it computes with what the torch model computes.

    Where dimensions are dynamic, the comparison is repeated at generated shapes: larger ones, different for each
    dimension, and the smallest allowed (1, as a rule). Shapes at which torch itself raises are noted and skipped.

    Args:
        program: an exported program, or the path of an .onnx file.
        model: the torch model; by default the module of `program.exported_program`.
        args: positional inputs of the model; by default the example inputs of the export.
        kwargs: keyword inputs.
        other_inputs: further `(args, kwargs)` to compare at.
        generate: whether to compare at generated shapes.
        rtol: relative tolerance for all floating-point outputs; by default that of the dtype in `TOLERANCES`.
        atol: absolute tolerance, likewise; if given, it is taken as it is.

    Returns:
        The result, good or bad: see `VerificationResult.passed` and `raise_on_failure`.

    Raises:
        InputError: there is nothing to compare with, or no inputs are known.
    """
    opened = program if isinstance(program, ONNXProgram) else ONNXProgram.load(program)
    exported = opened.exported_program
    if exported is None and isinstance(model, ExportedProgram):
        exported = model
    reference = model if model is not None else exported
    if reference is None:
        raise InputError("An .onnx file can only be verified against a model: pass the torch model as `model`.")
    if not args and not kwargs:
        if exported is not None and exported.example_inputs is not None:
            args, kwargs = exported.example_inputs
        elif opened.model.graph.inputs:
            raise InputError("The example inputs are not known: pass them as `args` and `kwargs`.")
    result = VerificationResult()
    path = None if isinstance(program, ONNXProgram) else os.fspath(program)
    result.checker, unusable = _check_and_open(opened, path)
    function = reference.module() if isinstance(reference, ExportedProgram) else reference
    cases = [("example", tuple(args), dict(kwargs or {}))]
    cases += [(f"inputs {i}", tuple(a), dict(k or {})) for i, (a, k) in enumerate(other_inputs, 1)]

    def run(label: str, args: tuple[Any, ...], kwargs: dict[str, Any], generated: bool = False) -> None:
        comparison = Comparison(label, error=unusable)
        if not unusable:
            _compare(comparison, opened, exported, function, args, kwargs, rtol, atol)
        if comparison.skipped and generated:  # indices may be too large for generated sizes
            again = Comparison(f"{label}, small integers")
            _compare(again, opened, exported, function, *with_small_integers(args, kwargs), rtol, atol)
            comparison = comparison if again.skipped else again
        result.comparisons.append(comparison)

    try:
        for label, case_args, case_kwargs in cases:
            run(label, case_args, case_kwargs)
        if generate:
            generated = resized_inputs(opened, exported, cases[0][1], cases[0][2])
            for label, case_args, case_kwargs in generated:
                run(label, case_args, case_kwargs, generated=True)
            if generated and result.comparisons[-1].skipped:  # 1 may be less than a Dim allows
                for case in resized_inputs(opened, exported, cases[0][1], cases[0][2], 2)[-1:]:
                    if case[0] not in (label for label, *_ in generated):
                        run(*case, generated=True)
    finally:
        if path is not None:
            opened.release()
    return result


def _check_and_open(program: ONNXProgram, path: str | None) -> tuple[str, str]:
    """Run onnx's full check and open a session if none is open; what either objects to."""
    problems = ["", ""]

    def check(staged: str | bytes) -> None:
        try:
            onnx.checker.check_model(staged, full_check=True)  # type: ignore[arg-type]
        except Exception as error:  # the checker's errors have no common class of their own
            problems[0] = str(error).strip() or type(error).__name__

    def check_and_open(staged: str | bytes) -> Any:
        check(staged)
        return runtime.session(staged)

    try:
        if path is not None:
            program.inference_session = check_and_open(path)
        elif program.inference_session is None:
            program.initialize_inference_session(check_and_open)
        else:
            with tempfile.TemporaryDirectory(prefix="onnxport-") as folder:
                check(program.stage(folder))
    except Exception as error:  # onnxruntime has a class for each of its status codes
        problems[1] = str(error).strip() or type(error).__name__
    return problems[0], problems[1]


def _compare(
    comparison: Comparison,
    program: ONNXProgram,
    exported: ExportedProgram | None,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    rtol: float | None,
    atol: float | None,
) -> None:
    try:
        expected, mutated = _expected(exported, function, args, kwargs)
    except Exception as error:  # a model may raise anything at a shape that it can't take
        comparison.skipped = f"{type(error).__name__}: {error}".strip()
        return
    try:
        found = program.run(args, kwargs)
    except Exception as error:  # onnxruntime has a class for each of its status codes
        comparison.error = f"{type(error).__name__}: {error}".strip()
        return
    values = program.model.graph.outputs
    translated = program.model.meta.get(TRANSLATED)
    precision_of = {} if translated is None else {n.name: dtype for n, dtype in precisions(translated).items()}
    wanted = iter(expected)
    for value, actual in zip(values, found):
        if runtime.is_user_output(value):
            want = next(wanted, None)
        else:
            want = mutated.get(value.metadata_props.get(_TARGET, ""))
            if want is None:
                continue  # a gradient or token output: there is nothing to compare it with
        if want is None:
            comparison.error = f"The graph has more outputs than the {len(expected)} that the torch model returns."
            return
        precision = precision_of.get(value.metadata_props.get(runtime.ORIGIN, ""))
        comparison.outputs.append(compare(str(value.name), want, actual, rtol, atol, precision))
    if next(wanted, None) is not None:
        comparison.error = f"The graph has fewer outputs than the {len(expected)} that the torch model returns."


def compare(
    name: str,
    expected: torch.Tensor | complex,
    actual: torch.Tensor,
    rtol: float | None = None,
    atol: float | None = None,
    precision: torch.dtype | None = None,
) -> OutputCheck:
    """Compare an output with the tensor (or Python number, then of any dtype) expected.

    ``precision`` is a dtype whose tolerance holds where it is wider: that of what the values were computed from.
    """
    number = not isinstance(expected, torch.Tensor)
    want = torch.as_tensor(expected).detach().cpu()
    check = OutputCheck(name, str(want.dtype).removeprefix("torch."), list(want.shape))
    if want.shape != actual.shape:
        check.problem, check.mismatched = f"shape {list(actual.shape)}, expected {check.shape}", 1.0
        return check
    wide = torch.complex128 if want.is_complex() or actual.is_complex() else torch.float64
    exact = not (want.is_floating_point() or want.is_complex())
    left, right = want.to(wide), actual.to(wide)
    check.nans = int(left.isnan().sum()), int(right.isnan().sum())
    check.infs = int(left.isinf().sum()), int(right.isinf().sum())
    both = left.isfinite() & right.isfinite()
    difference = torch.where(both, (left - right).abs(), 0.0)
    magnitude = torch.where(both, left.abs(), 0.0)
    if want.numel():
        check.max_abs = float(difference.max())
        check.max_rel = float((difference / magnitude.where(magnitude > 0, torch.inf)).max())
        relative, absolute = (0.0, 0.0) if exact else max(tolerance(want.dtype), tolerance(precision or want.dtype))
        if not exact:
            absolute *= max(1.0, float(magnitude.mean()))
            relative = relative if rtol is None else rtol
            absolute = absolute if atol is None else atol
        bad = torch.where(both, difference > absolute + relative * magnitude, ~_same_special(left, right))
        if exact and want.dtype == actual.dtype:
            bad = want != actual  # float64 can't tell the largest integers apart
        check.mismatched = float(bad.to(torch.float64).mean())
        if check.mismatched:
            check.problem = f"{check.mismatched:.2%} of the elements differ, by {check.max_abs:.2e} at most"
            if check.nans[0] != check.nans[1]:
                check.problem += f", {check.nans[1]} NaN instead of {check.nans[0]}"
            if check.infs[0] != check.infs[1]:
                check.problem += f", {check.infs[1]} infinite instead of {check.infs[0]}"
    if want.dtype is not actual.dtype and not number:
        check.problem = f"dtype {actual.dtype}, expected {want.dtype}" + (f"; {check.problem}" if check.problem else "")
    return check


def _same_special(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Tell where two tensors hold the same infinity, or both NaN; complex ones count as NaN in any part."""
    return (left == right) | (left.isnan() & right.isnan())


def _expected(
    exported: ExportedProgram | None, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, torch.Tensor]]:
    """Run torch on copies: the flat outputs, and the new values of buffers and inputs by their names."""
    try:
        return _run(exported, function, *pytree.tree_map(_copied, (args, kwargs)), gradients=False)
    except RuntimeError as error:
        if not needs_gradients(error):
            raise
    return _run(exported, function, *pytree.tree_map(_copied_with_gradient, (args, kwargs)), gradients=True)


def _run(
    exported: ExportedProgram | None, function: Callable[..., Any], args: Any, kwargs: Any, *, gradients: bool
) -> tuple[list[Any], dict[str, torch.Tensor]]:
    plain = not gradients and torch.is_inference_mode_enabled()
    with torch.inference_mode(plain), torch.set_grad_enabled(gradients), _state_kept(function) as run:
        outputs = pytree.tree_leaves(run(*args, **kwargs))
        outputs = [_copied(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in outputs if leaf is not None]
        buffers = run.named_buffers() if isinstance(run, torch.nn.Module) else ()
        mutated = {name: _copied(buffer) for name, buffer in buffers}
    if exported is not None:
        with contextlib.suppress(InputError):
            leaves = runtime.flatten_arguments(exported, args, kwargs)
            names = [spec.arg.name for spec in exported.graph_signature.input_specs if _is_user_input(spec)]
            mutated |= {name: leaf for name, leaf in zip(names, leaves) if isinstance(leaf, torch.Tensor)}
    return outputs, mutated


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
