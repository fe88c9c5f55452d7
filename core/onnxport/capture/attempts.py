"""Model and example inputs -> ``ExportedProgram``.

torch.export is tried non-strict, then strict. Around that, three things that it leaves to the caller: example sizes
of 0 and 1, and equal sizes, must not freeze or tie dimensions that were asked to be free; a dimension that the model
freezes all the same is an error with the line of the model that did it; and so is a capture that fails.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import sympy
import torch
import torch.fx.experimental._config as shape_config
from torch.export import Dim, ExportedProgram

from onnxport.capture import pytrees
from onnxport.capture.assumptions import check_assumptions
from onnxport.capture.below_autograd import (
    DerivativesError,
    capture_below_autograd,
    check_followed,
    may_help,
    needs_gradients,
)
from onnxport.capture.call import signed
from onnxport.capture.conditions import limits, pinned
from onnxport.capture.diagnosis import (
    advice,
    brief,
    captured,
    constraint_message,
    expression_of,
    frozen,
    guard_text,
    is_constraint,
    is_data_dependent,
    is_final,
    reason,
    user_line,
    watched,
)
from onnxport.capture.dynamic_shapes import torch_shapes
from onnxport.capture.examples import Sizes, example_of
from onnxport.capture.exporting import TRACING, contained, exporting, is_in_onnx_export
from onnxport.capture.loops import cure, is_repeated
from onnxport.capture.quiet import quiet
from onnxport.errors import Attempt, CaptureError, DynamicAxis, DynamicShapesError
from onnxport.vocabulary.callers import warn
from onnxport.vocabulary.dtypes import dense
from onnxport.vocabulary.notes import note

if TYPE_CHECKING:
    from onnxport.capture.request import Asked, Request

logger = logging.getLogger("onnxport")


def capture(
    model: torch.nn.Module | ExportedProgram,
    request: Request,
    *,
    verbose: bool = False,
    tell: Callable[[str], None] | None = None,
    patches: Iterable[AbstractContextManager[Any]] = (),
) -> ExportedProgram:
    """Capture a model; an ``ExportedProgram`` is taken as it is.

    Args:
        model: the module, in the mode in which it is to be captured.
        request: from :func:`onnxport.capture.arguments.prepare`.
        verbose: print what is tried, and how long what failed took.
        tell: called with the same where a first attempt wasn't enough.
        patches: context managers that are active during the capture.

    Returns:
        The program. Its example inputs are the caller's, with 0-d tensors for floats that became inputs.

    Raises:
        CaptureError: torch.export failed both ways; the first error is the cause.
        DynamicShapesError: a dimension that was asked to be dynamic came out static.
    """
    if isinstance(model, ExportedProgram):
        check_dynamic(model, request)
        check_assumptions(model)
        return model
    modes = [(module, module.training) for module in model.modules()]
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(TRACING)
            stack.enter_context(torch.random.fork_rng(devices=[]))  # the first strict capture draws numbers
            # Gradients would wrap every no_grad region of the model in a subgraph of its own.
            stack.enter_context(torch.no_grad())
            stack.enter_context(exporting())
            stack.enter_context(quiet(model))
            stack.enter_context(signed(model, request.signature))
            for patch in patches:
                stack.enter_context(patch)
            program = _Capture(model, request, verbose, tell).run()
    finally:
        for module, mode in modes:
            module.training = mode
    program.example_inputs = example_of(request, {})
    check_assumptions(program)
    for leaf in request.leaves:
        if isinstance(leaf.value, torch.Tensor) and dense(leaf.value) is not leaf.value:
            note(f"the input {leaf.path}, a sparse tensor, is a dense one in the file; calls take both")
    if request.additional is not None:
        try:
            request.additional.verify(program)
        except Exception as error:
            raise DynamicShapesError(
                f"The captured program doesn't accept the additional inputs: {error}", parameter="dynamic_shapes"
            ) from error
    return program


def check_dynamic(program: ExportedProgram, request: Request, lines: Callable[[Any], str] | None = None) -> None:
    """Hold the program to the dimensions that were asked for.

    Args:
        program: the captured program.
        request: what was asked for.
        lines: gives the place in the model that froze a symbol, where it is known.

    Raises:
        DynamicShapesError: some of them are static; the message has each one's input, axis, name and place.
    """
    found, axes = [], []
    for leaf, axis, asked, size, value in frozen(program, request):
        where = leaf.path if axis is None else f"axis {axis} of {leaf.path}"
        name = f" ({asked.name!r})" if asked.name else ""
        guard, line = reason(program, size, lines)
        place = f", because of {line}" if line else " (place unknown)"
        found.append(f"    {where}{name} is always {value}{guard}{place}")
        axes.append(DynamicAxis(leaf.path, axis, asked.label, line, value))
    if found:
        usual = "Change that line so that it works with any size (sizes from tensor.shape, -1 in reshape)"
        raise DynamicShapesError(
            "The model makes static what was asked to be dynamic:\n" + "\n".join(found) + "\n"
            f"{cure([axis.line for axis in axes], usual)}, or leave the axis out of dynamic_shapes. "
            'Run with TORCH_LOGS="+dynamic" to see every decision of torch.export.',
            parameter="dynamic_shapes",
            axes=axes,
        )


def _is_of_outputs(error: Exception) -> bool:
    """torch.export doesn't know what forward returns; torch 2.11 asks a dataclass for its hash first."""
    return "not a known type" in str(error) or str(error).startswith("unhashable type")


class _Capture:
    """The attempts at one capture, and their errors in order."""

    def __init__(
        self, model: torch.nn.Module, request: Request, verbose: bool, tell: Callable[[str], None] | None
    ) -> None:
        self._model, self._request, self._verbose, self._tell = model, request, verbose, tell
        self._started: list[tuple[str, float]] = []
        self._errors: list[tuple[str, Exception]] = []
        self._watched: list[tuple[Any, str]] = []

    def run(self) -> ExportedProgram:
        if self._request.passthrough:
            return self._one("non-strict", {}) or self._one("strict", {}, strict=True) or self._fail()
        sizes = Sizes.of(self._request)
        plan = sizes.enlarged()
        program = self._one("non-strict", plan)
        for _ in range(2):  # the second, where the first has found what it can't follow
            if program is None and isinstance(self._last, DerivativesError):
                self._errors.pop()
                program = self._one("below autograd", plan, below=True)
        if program is None and is_final(self._last):
            return self._fail(plan)
        if program is None and plan and not is_constraint(self._last) and not is_data_dependent(self._last):
            # The model may tie the sizes that were changed to others, or depend on the example's own.
            coupled = sizes.coupled()
            program = self._one("non-strict, sizes tied", coupled) if coupled != plan else None
            if program is not None:
                plan = coupled
            else:
                program = self._one("non-strict, sizes as given", {}, oblivious=True)
                if program is not None:
                    check_dynamic(program, self._request, lambda _: user_line(self._errors[0][1]))
                    self._warn_limits(program)
                    return program
        if program is None and is_constraint(self._last):
            as_given = len(self._errors) > 1
            return self._relaxed(sizes, {} if as_given else plan, oblivious=as_given)
        gradients = program is None and needs_gradients(self._last)
        if gradients:  # which a strict capture doesn't take
            program = self._one("below autograd", plan, below=True)
        elif program is None:
            program = self._one("strict", plan, strict=True)
        if program is None and not gradients and may_help(e for _, e in self._errors if not is_data_dependent(e)):
            program = self._one("below autograd", plan, below=True)
        if program is None:
            return self._relaxed(sizes, plan, strict=True) if is_constraint(self._last) else self._fail(plan)
        program = self._unpinned(program, plan)
        program = self._untied(program, sizes, plan)
        self._check_arithmetic(program)
        self._warn_limits(program)
        return program

    @property
    def _last(self) -> Exception:
        return self._errors[-1][1]

    def _one(
        self,
        name: str,
        plan: Mapping[Any, int],
        *,
        strict: bool = False,
        relaxed: bool = False,
        oblivious: bool = False,
        below: bool = False,
    ) -> ExportedProgram | None:
        """One attempt; None when it failed."""
        request = self._request
        shapes = torch_shapes(request, relaxed=True) if relaxed else request.dynamic_shapes
        try:
            own = [*self._model.parameters(), *self._model.buffers()]
            args, kwargs = example_of(request, plan, own)
        except (RuntimeError, NotImplementedError) as error:  # a layout that has no empty tensor
            self._errors.append((name, error))
            return None
        changed = ", ".join(f"{key if isinstance(key, str) else key[1]} -> {size}" for key, size in plan.items())
        message = f"capture: torch.export, {name}{f' (example sizes {changed})' if changed else ''}"
        self._started.append((name, time.monotonic()))
        if len(self._started) > 1:
            before, start = self._started[-2]
            message += f" ({before} took {self._started[-1][1] - start:.1f} s)"
        logger.info("%s", message)
        if self._verbose:
            print(f"[onnxport] {message}")
        elif self._tell is not None and len(self._started) > 1:
            self._tell(message)
        for _ in range(2):
            try:
                patch = shape_config.patch(backed_size_oblivious=True) if oblivious else contextlib.nullcontext()  # type: ignore[attr-defined]
                with contained(), patch, watched(self._watched):
                    if below:
                        return capture_below_autograd(self._model, args, kwargs, shapes)
                    return check_followed(
                        torch.export.export(self._model, args, kwargs, dynamic_shapes=shapes, strict=strict)
                    )
            except Exception as error:  # kept, and raised when no attempt succeeds
                if _is_of_outputs(error) and self._register_outputs(args, kwargs):
                    continue
                self._errors.append((name, error))
                return None
        return None

    def _register_outputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Register the dataclasses that the forward returns; True when there were any."""
        before = len(torch.utils._pytree.SUPPORTED_NODES)

        def look(_module: Any, _args: Any, output: Any) -> None:
            pytrees.register_dataclasses_in(output)

        handle = self._model.register_forward_hook(look)
        try:
            torch.export.export(self._model, args, kwargs, strict=False)
        except Exception as error:  # only the hook matters here; the next attempt tells
            logger.debug("capture while looking for the outputs' classes: %s", error)
        finally:
            handle.remove()
        return len(torch.utils._pytree.SUPPORTED_NODES) > before

    def _relaxed(
        self, sizes: Sizes, plan: Mapping[Any, int], *, strict: bool = False, oblivious: bool = False
    ) -> ExportedProgram:
        """After Dims contradicted the model: capture with hints, and see whether what the caller asked holds."""
        error = self._last
        program = self._one("relaxed", plan, strict=strict, relaxed=True, oblivious=oblivious)
        if program is None:
            line = user_line(self._errors[0][1])
            raise DynamicShapesError(
                constraint_message(error) + (f"\nSee {line}" if line else ""),
                parameter="dynamic_shapes",
                axes=self._axes(lambda asked: isinstance(asked.dim, Dim), line),
            ) from error
        check_dynamic(program, self._request, lambda symbol: self._line(symbol) or user_line(self._errors[0][1]))
        if pins := pinned(program, self._request):
            raise self._followed(pins) from error
        for names in self._ties(program):
            other = self._separated(sizes, names, plan, relaxed=True)
            if other is not None:
                return other
            raise DynamicShapesError(
                f"The model makes the dimensions {' and '.join(map(repr, names))} equal.{self._tie_line()}\n"
                f"Use one Dim for all of them.\n{constraint_message(error)}",
                parameter="dynamic_shapes",
                axes=self._axes(lambda asked: asked.name in names, self._tie_place()),  # noqa: B023 - called at once
            ) from error
        self._check_arithmetic(program, error)
        for leaf, axis, asked, size in captured(program, self._request):
            expression = expression_of(size)
            bounds = program.range_constraints.get(expression)
            if bounds is None or not isinstance(asked.dim, Dim) or asked.expression is not None:
                continue
            low, high = asked.bounds
            if (high is not None and bounds.upper < high) or bounds.lower > max(low, 2):
                raise DynamicShapesError(
                    f"Axis {axis} of {leaf.path} was asked to be {asked.name} in "
                    f"{low}..{'' if high is None else high}, "
                    f"but the model takes {bounds.lower}..{bounds.upper}{guard_text(program, expression)}.\n"
                    "Narrow the Dim's min and max.",
                    parameter="dynamic_shapes",
                    axes=[DynamicAxis(leaf.path, axis, asked.label)],
                ) from error
        self._warn_limits(program)
        return program

    def _check_arithmetic(self, program: ExportedProgram, error: Exception | None = None) -> None:
        """Make sure that a derived dimension is what was asked for."""
        asked_for = list(captured(program, self._request))
        roots = {asked.name: expression_of(size) for *_, asked, size in asked_for if asked.expression is None}
        for leaf, axis, asked, size in asked_for:
            if asked.expression is None:
                continue
            wanted = asked.expression.subs({s: roots[s.name] for s in asked.expression.free_symbols if s.name in roots})
            made = expression_of(size)
            related = made is None or made.free_symbols <= set(roots.values())  # a size of its own may be the sum
            if related and wanted.free_symbols <= set(roots.values()) and sympy.simplify(wanted - (made or size)) != 0:
                known = {expression: sympy.Symbol(name) for name, expression in roots.items() if name}
                raise DynamicShapesError(
                    f"Axis {axis} of {leaf.path} was asked to be {asked.name}, but the model makes it "
                    f"{size if made is None else made.xreplace(known)}."
                    + (f"\n{constraint_message(error)}" if error is not None else ""),
                    parameter="dynamic_shapes",
                    axes=[DynamicAxis(leaf.path, axis, asked.label, size=size if made is None else None)],
                ) from error

    def _warn_limits(self, program: ExportedProgram) -> None:
        self._request.limits = limits(program, self._request)
        own = {text: line for text, line in self._request.limits.items() if line}
        lines = list(own.values())
        if loops := [(text, line) for text, line in own.items() if lines.count(line) > 1 and is_repeated(line)]:
            raise self._followed(loops)  # each step of the example's asked again
        if own:
            listed = "\n    ".join(f"{text}, because of {line}" for text, line in own.items())
            warn(
                "The model does something else for some sizes that were asked to be dynamic. The file is right where "
                f"these hold only:\n    {listed}"
            )

    # What came out -------------------------------------------------------------------------------------------------

    def _unpinned(self, program: ExportedProgram, plan: Mapping[Any, int]) -> ExportedProgram:
        """Make sure that no size, and nothing made of sizes, is a number only because the example has it.

        Python's ``int()`` and ``len()`` ask for a number in a non-strict capture; a strict one follows them.
        """
        request = self._request
        if not (pins := pinned(program, request)) and not any(frozen(program, request)):
            return program
        strict = self._one("strict, since sizes became numbers", plan, strict=True)
        if strict is not None and not pinned(strict, request) and not any(frozen(strict, request)):
            return strict
        if any(frozen(program, request)):
            check_dynamic(program, request, self._line)
        raise self._followed(pins)

    def _followed(self, conditions: Iterable[tuple[str, str]]) -> DynamicShapesError:
        """What is made of sizes and a number all the same: conditions on sizes, with the lines of the model."""
        listed = [f"{text}, because of {line}" if line else text for text, line in conditions]
        usual = (
            "Python's int(), and arguments of torch's functions that are plain numbers (a window, a stride, an eps), "
            "make a size a number: use // or torch.sym_int(...), math.ceil or math.floor in place of int(), and "
            "operations on tensors in place of such an argument"
        )
        return DynamicShapesError(
            "The model makes static what follows from sizes that were asked to be dynamic:\n    "
            + "\n    ".join(listed)
            + f"\n{cure([line for _, line in conditions], usual)}; or leave the axes out of dynamic_shapes.",
            parameter="dynamic_shapes",
            axes=self._axes(lambda asked: asked.contract),
        )

    def _untied(self, program: ExportedProgram, sizes: Sizes, plan: Mapping[Any, int]) -> ExportedProgram:
        """Make sure that dimensions of different names are not one only because the example has them of one size."""
        dims = {asked.name for _, _, asked, _ in captured(program, self._request) if isinstance(asked.dim, Dim)}
        for names in self._ties(program):
            other = self._separated(sizes, names, plan)
            if other is not None:
                return other
            message = f"The model makes the dimensions {' and '.join(map(repr, names))} equal.{self._tie_line()}"
            if dims.issuperset(names):
                raise DynamicShapesError(
                    f"{message}\nUse one Dim for all of them.",
                    parameter="dynamic_shapes",
                    axes=self._axes(lambda asked: asked.name in names, self._tie_place()),  # noqa: B023 - called at once
                )
            warn(f"{message} The file has one name for them; ask for one if that is meant.")
        return program

    def _separated(
        self, sizes: Sizes, names: list[str], plan: Mapping[Any, int], relaxed: bool = False
    ) -> ExportedProgram | None:
        """The program of an example in which these dimensions are of different sizes, if there is one."""
        given = {sizes.sizes.get(name) for name in names}
        if len(given) > 1 or given == {None}:
            return None
        for change in sizes.separated(names):
            changed = {**plan, **change}
            program = self._one("non-strict, equal sizes made different", changed, relaxed=relaxed)
            if program is None or any(set(names) & set(tie) for tie in self._ties(program)):
                continue
            try:
                check_dynamic(program, self._request)
            except DynamicShapesError:
                continue
            return self._untied(program, sizes, changed)
        return None

    def _ties(self, program: ExportedProgram) -> list[list[str]]:
        """Groups of names that came out as one symbol."""
        found: dict[Any, list[str]] = {}
        for _, axis, asked, size in captured(program, self._request):
            expression = expression_of(size)
            if (
                expression is None
                or asked.name is None
                or asked.automatic
                or asked.expression is not None
                or axis is None
            ):
                continue
            names = found.setdefault(expression, [])
            if asked.name not in names:
                names.append(asked.name)
        return [names for names in found.values() if len(names) > 1]

    def _tie_place(self) -> str:
        lines = [user_line(error) for name, error in self._errors if "different" in name]
        return next((line for line in reversed([*lines, *(line for _, line in self._watched)]) if line), "")

    def _tie_line(self) -> str:
        line = self._tie_place()
        return f" It does so at {line}." if line else ""

    def _axes(self, concerned: Callable[[Asked], bool], line: str = "") -> list[DynamicAxis]:
        """The axes of which something was asked that an error is about."""
        asked = [(leaf, axis, asked) for leaf in self._request.leaves for axis, asked in leaf.asked.items()]
        return [DynamicAxis(leaf.path, axis, each.label, line) for leaf, axis, each in asked if concerned(each)]

    def _line(self, symbol: Any) -> str:
        return next((line for known, line in self._watched if known == symbol and line), "")

    def _fail(self, plan: Mapping[Any, int] | None = None) -> Any:
        first = self._errors[0][1]
        place = user_line(first)
        text = "\n".join(f"  {attempt}: {brief(error)}" for attempt, error in self._errors)
        if plan and "must match the size" in str(first):
            grown = ", ".join(repr(key) if isinstance(key, str) else f"axes of size {key[1]}" for key in plan)
            text += (
                f"\nTo stay dynamic, {grown} got another size than the example's. Where the model broadcasts a size of "
                "1, leave that axis out of dynamic_shapes."
            )
        failure = CaptureError(
            "torch.export can't capture "
            f"{type(self._model).__name__}{f' because of {place}' if place else ''}\n{text}\n{advice(first, place)}",
            line=place,
            attempts=[Attempt(attempt, brief(error), user_line(error)) for attempt, error in self._errors],
        )
        raise failure from first


__all__ = ["capture", "check_dynamic", "is_in_onnx_export"]
