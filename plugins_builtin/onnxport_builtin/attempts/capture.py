"""Model and example inputs -> ``ExportedProgram``.

torch.export is tried non-strict, then strict, and by the strategies of plugins (``strategies.py``). Around that, three
things that it leaves to the caller: example sizes of 0 and 1, and equal sizes, must not freeze or tie dimensions that
were asked to be free; a dimension that the model freezes all the same is an error with the line of the model that did
it (``contract.py``); and so is a capture that fails.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from onnxport import Attempt, CaptureError, DynamicShapesError, note, warn
from onnxport.kit import TRACING, Captured, Turn, dense
from torch.export import Dim, ExportedProgram

from onnxport_builtin.attempts.conditions import limits, pinned
from onnxport_builtin.attempts.contract import (
    check_arithmetic,
    check_bounds,
    check_dynamic,
    contradicted,
    made_static,
    tie_message,
    tied,
    ties,
    unadvised,
)
from onnxport_builtin.attempts.diagnosis import brief, frozen, is_repeated, is_text, requested_sizes, user_line, watched
from onnxport_builtin.attempts.examples import Sizes, example_of
from onnxport_builtin.attempts.interface import interface_of
from onnxport_builtin.attempts.strategies import Outcome, Plan, Purpose, Verdict, next_step, told, usual
from onnxport_builtin.attempts.upstream import contained, oblivious_sizes, remember_functions
from onnxport_builtin.request import pytrees
from onnxport_builtin.request.call import signed
from onnxport_builtin.request.dimensions import torch_shapes

if TYPE_CHECKING:
    from onnxport.kit import Request, Strategy

logger = logging.getLogger("onnxport")

_USUAL_ADVICE = "Run model(*args, **kwargs) first: if that fails as well, the example inputs don't fit the model."


class Host(Protocol):
    """What a capture uses of the plugins of a call."""

    def patches(self, model: Any) -> Sequence[AbstractContextManager[Any]]: ...

    def items(self, hook: str) -> Sequence[Any]: ...

    def advice(self, subject: str | Exception, place: str = ...) -> str: ...


def capture(
    model: torch.nn.Module | ExportedProgram,
    request: Request,
    host: Host | None = None,
    *,
    tell: Callable[[str], None] | None = None,
) -> Captured:
    """Capture a model; an ``ExportedProgram`` is taken as it is.

    Args:
        model: the module, in the mode in which it is to be captured.
        request: from :func:`onnxport_builtin.request.arguments.prepare`.
        host: the plugins: their patches are active during the capture; without it, none take part.
        tell: called with what is tried next, and how long what failed took, where a first attempt wasn't enough.

    Returns:
        The program, whose example inputs are the caller's, with 0-d tensors for floats that became inputs; and its
        interface.

    Raises:
        CaptureError: no way to capture succeeded; the first error is the cause.
        DynamicShapesError: a dimension that was asked to be dynamic came out static.
        NamesError, InputError: as :func:`interface_of`.
    """
    if isinstance(model, ExportedProgram):
        check_dynamic(model, request)
        return Captured(model, interface_of(model, request))
    modes = [(module, module.training) for module in model.modules()]
    tensors = [leaf.value for leaf in request.leaves if isinstance(leaf.value, torch.Tensor)]
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(TRACING)
            stack.callback(_unmark, [(tensor, set(vars(tensor))) for tensor in tensors])
            stack.enter_context(torch.random.fork_rng(devices=[]))  # the first strict capture draws numbers
            # Gradients would wrap every no_grad region of the model in a subgraph of its own.
            stack.enter_context(torch.no_grad())
            remember_functions()  # before any is replaced
            stack.enter_context(signed(model, request.signature))
            for patch in host.patches(model) if host is not None else ():
                stack.enter_context(patch)
            attempts = _Capture(model, request, host, tell)
            program = attempts.run()
    finally:
        for module, mode in modes:
            module.training = mode
    program.example_inputs = example_of(request, {})
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
    return Captured(program, interface_of(program, request), attempts.limits)


def _unmark(tensors: Sequence[tuple[torch.Tensor, set[str]]]) -> None:
    """Take off the marks of dynamic axes, which torch leaves on the example's tensors where it fails."""
    for tensor, names in tensors:
        for name in vars(tensor).keys() - names:
            delattr(tensor, name)


class _Capture:
    """The attempts at one capture, and what came of them, in order.

    Attributes:
        limits: conditions on dynamic sizes that the program assumes, once there is one.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        request: Request,
        host: Host | None,
        tell: Callable[[str], None] | None,
    ) -> None:
        self._model, self._request, self._tell = model, request, tell
        self._strategies: Sequence[Strategy] = host.items("onnxport_strategies") if host is not None else ()
        self._advise = unadvised if host is None else host.advice
        self._started: list[tuple[str, float]] = []
        self._outcomes: list[Outcome] = []
        self._watched: list[tuple[Any, str, bool]] = []
        self.limits: Mapping[str, str] = {}

    def run(self) -> ExportedProgram:
        sizes = None if self._request.passthrough else Sizes.of(self._request)
        step: Plan | Verdict = usual({} if sizes is None else sizes.enlarged())
        while isinstance(step, Plan):
            self._attempt(step)
            step = next_step(self._outcomes, None if sizes is None else sizes.coupled(), self._strategies)
        last = self._outcomes[-1]
        if step is Verdict.FAILED or sizes is None:
            return last.program or self._fail()
        if step is Verdict.CONTRADICTED:
            return self._relaxed(sizes, last)
        program, plan = last.program, last.plan
        if program is None:
            raise RuntimeError("a capture without a program counts as captured")
        if plan.purpose is Purpose.AS_GIVEN:
            check_dynamic(program, self._request, lambda _: self._first_place(), self._advise)
        else:
            program = self._unpinned(program, plan)
            program = self._untied(program, sizes, plan.sizes)
            check_arithmetic(program, self._request)
        self._warn_limits(program)
        return program

    # Attempts ------------------------------------------------------------------------------------------------------

    def _attempt(self, plan: Plan) -> Outcome:
        """Make one attempt, and keep what came of it."""
        request = self._request
        shapes = torch_shapes(request, relaxed=True) if plan.is_relaxed else request.dynamic_shapes
        try:
            own = [*self._model.parameters(), *self._model.buffers()]
            args, kwargs = example_of(request, plan.sizes, own)
        except (RuntimeError, NotImplementedError) as error:  # a layout that has no empty tensor
            outcome = Outcome(plan, error=error)
        else:
            self._announce(plan)
            outcome = self._captured(plan, args, kwargs, shapes)
            if outcome.error is not None and not plan.is_strict:
                known, outcome = pytrees.count(), self._judged(outcome, outcome.error, own)
                if pytrees.count() > known and not outcome.is_final:
                    outcome = self._captured(plan, args, kwargs, shapes)
        self._outcomes.append(outcome)
        return outcome

    def _captured(self, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Any) -> Outcome:
        oblivious: Any = oblivious_sizes() if plan.is_oblivious else None
        try:
            with contained(), oblivious or contextlib.nullcontext(), watched(self._watched):
                if plan.strategy is not None:
                    return Outcome(plan, plan.strategy.capture(self._model, args, kwargs, shapes))
                program = torch.export.export(self._model, args, kwargs, dynamic_shapes=shapes, strict=plan.is_strict)
                for strategy in self._strategies:
                    if strategy.check is not None:
                        strategy.check(program)
                return Outcome(plan, program)
        except Exception as error:  # kept, and raised when no attempt succeeds
            return Outcome(plan, error=error)

    def _announce(self, plan: Plan) -> None:
        changed = ", ".join(f"{key if isinstance(key, str) else key[1]} -> {size}" for key, size in plan.sizes.items())
        message = f"capture: torch.export, {plan.name}{f' (example sizes {changed})' if changed else ''}"
        self._started.append((plan.name, time.monotonic()))
        if len(self._started) > 1:
            before, start = self._started[-2]
            message += f" ({before} took {self._started[-1][1] - start:.1f} s)"
        logger.info("%s", message)
        if self._tell is not None and len(self._started) > 1:
            self._tell(message)

    def _judged(self, outcome: Outcome, error: Exception, own: Sequence[torch.Tensor]) -> Outcome:
        """Ask plugins whether an error is final. They may register classes with pytree, for another try."""
        is_bound = all(asked.contract for leaf in self._request.leaves for asked in leaf.asked.values())
        call = (self._model, *example_of(self._request, {}, own), is_bound, error)
        return replace(outcome, is_final=any(each.final(*call) for each in self._strategies if each.final is not None))

    def _relaxed(self, sizes: Sizes, last: Outcome) -> ExportedProgram:
        """After Dims contradicted the model: capture with hints, and see whether what the caller asked holds."""
        request, error = self._request, last.error
        is_strict = last.plan.is_strict or last.plan.turn in (Turn.LAST, Turn.INSTEAD)
        plan = Plan(
            Purpose.RELAXED,
            {} if last.plan.is_oblivious else self._outcomes[0].plan.sizes,
            is_strict=is_strict,
            is_relaxed=True,
            is_oblivious=last.plan.is_oblivious,
        )
        program = self._attempt(plan).program
        if program is None:
            raise contradicted(_known(error), self._first_place(), request) from error
        check_dynamic(program, request, self._place, self._advise)
        if pins := pinned(program, request):
            raise made_static(pins, request, self._advise) from error
        for names in ties(program, request):
            other = self._separated(sizes, names, plan.sizes, is_relaxed=True)
            if other is not None:
                return other
            raise tied(names, self._tie_place(), request, error) from error
        check_arithmetic(program, request, error)
        check_bounds(program, request, _known(error))
        self._warn_limits(program)
        return program

    # What came out -------------------------------------------------------------------------------------------------

    def _warn_limits(self, program: ExportedProgram) -> None:
        self.limits = limits(program, self._request)
        own = {text: line for text, line in self.limits.items() if line}
        lines = list(own.values())
        if loops := [(text, line) for text, line in own.items() if lines.count(line) > 1 and is_repeated(line)]:
            raise made_static(loops, self._request, self._advise)  # each step of the example's asked again
        if own:
            listed = "\n    ".join(f"{text}, because of {line}" for text, line in own.items())
            warn(
                "The model does something else for some sizes that were asked to be dynamic. The file is right where "
                f"these hold only:\n    {listed}"
            )

    def _unpinned(self, program: ExportedProgram, plan: Plan) -> ExportedProgram:
        """Make sure that no size, and nothing made of sizes, is a number only because the example has it.

        Python's ``int()`` and ``len()`` ask for a number in a non-strict capture; a strict one follows them. It doesn't
        where an operator needs the number, or a loop.
        """
        request = self._request
        if not (pins := pinned(program, request)) and not any(frozen(program, request)):
            return program
        inherent = {
            symbol for symbol, line, by_operator in self._watched if by_operator or is_repeated(line) or is_text(line)
        }
        if any(size.node._expr in inherent for *_, size, _ in frozen(program, request) if hasattr(size, "node")):
            check_dynamic(program, request, self._place, self._advise)
        strict = None if plan.is_strict else self._attempt(Plan(Purpose.NUMBERS, plan.sizes, is_strict=True)).program
        if strict is not None and not pinned(strict, request) and not any(frozen(strict, request)):
            return strict
        if any(frozen(program, request)):
            check_dynamic(program, request, self._place, self._advise)
        raise made_static(pins, request, self._advise)

    def _untied(self, program: ExportedProgram, sizes: Sizes, changed: Mapping[Any, int]) -> ExportedProgram:
        """Make sure that dimensions of different names are not one only because the example has them of one size."""
        dims = {asked.name for _, _, asked, _ in requested_sizes(program, self._request) if isinstance(asked.dim, Dim)}
        for names in ties(program, self._request):
            other = self._separated(sizes, names, changed)
            if other is not None:
                return other
            if dims.issuperset(names):
                raise tied(names, self._tie_place(), self._request)
            message = tie_message(names, self._tie_place())
            warn(f"{message} The file has one name for them; ask for one if that is meant.")
        return program

    def _separated(
        self, sizes: Sizes, names: list[str], changed: Mapping[Any, int], *, is_relaxed: bool = False
    ) -> ExportedProgram | None:
        """The program of an example in which these dimensions are of different sizes, if there is one."""
        given = {sizes.sizes.get(name) for name in names}
        if len(given) > 1 or given == {None}:
            return None
        for change in sizes.separated(names):
            plan = Plan(Purpose.SEPARATED, {**changed, **change}, is_relaxed=is_relaxed)
            program = self._attempt(plan).program
            if program is None or any(set(names) & set(tie) for tie in ties(program, self._request)):
                continue
            try:
                check_dynamic(program, self._request)
            except DynamicShapesError:
                continue
            return self._untied(program, sizes, plan.sizes)
        return None

    def _tie_place(self) -> str:
        places = [outcome.place for outcome in self._outcomes if outcome.plan.purpose is Purpose.SEPARATED]
        return next((line for line in reversed([*places, *(line for _, line, _ in self._watched)]) if line), "")

    def _place(self, symbol: Any) -> str:
        """The model's line that froze a symbol, or else the line at which the first attempt failed."""
        return next((line for known, line, _ in self._watched if known == symbol and line), "") or self._first_place()

    def _first_place(self) -> str:
        """The model's line at which the first attempt failed."""
        return next((outcome.place for outcome in told(self._outcomes)), "")

    def _fail(self) -> Any:
        attempts = [(outcome.plan.name, _known(outcome.error)) for outcome in told(self._outcomes)]
        first = attempts[0][1]
        place = user_line(first)
        text = "\n".join(f"  {name}: {brief(error)}" for name, error in attempts)
        sizes = self._outcomes[0].plan.sizes
        if sizes and "must match the size" in str(first):
            grown = ", ".join(repr(key) if isinstance(key, str) else f"axes of size {key[1]}" for key in sizes)
            text += (
                f"\nTo stay dynamic, {grown} got another size than the example's. Where the model broadcasts a size of "
                "1, leave that axis out of dynamic_shapes."
            )
        failure = CaptureError(
            "torch.export can't capture "
            f"{type(self._model).__name__}{f' because of {place}' if place else ''}\n{text}\n"
            f"{self._advise(first, place) or _USUAL_ADVICE}",
            line=place,
            attempts=[Attempt(name, brief(error), user_line(error)) for name, error in attempts],
        )
        raise failure from first


def _known(error: Exception | None) -> Exception:
    """The error of an attempt that failed."""
    return RuntimeError("no attempt failed") if error is None else error
