"""Run torch's operator database through the exporter: operator x dtype x samples x {static, dynamic}, against eager.

``python tests/conformance/grid.py --ops add,mul --dtypes float32,int64 --samples 4 [--dynamic] [--verbose]``

With no operators named, the whole database is run, static and dynamic, its failures are held against ``known.csv``
and ``docs/coverage.md`` is written. ``operator_zoo.py`` runs it, as a zoo of models.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import compare
import onnxport
from cases import UNINITIALIZED, Case, cases, copied, has_dtype, name_of, operators, other_inputs, reseed
from onnxport import DataType
from onnxport_builtin.program import runtime
from support import TOLERANCES, flat_tensors
from widened import widened

SAMPLES = 2
SECONDS_A_CASE = 120
_DRAWS = 24
#: their singular values are compared, by statistics where they depend on the seed
_RANDOM_STARTS = ("svd_lowrank", "pca_lowrank")
TORCH_DTYPES = {DataType.FLOAT16: torch.float16, DataType.BFLOAT16: torch.bfloat16}
#: dtypes that other runtimes compute natively, where onnxruntime's CPU provider may lack the kernel
_WITHOUT_KERNELS = ("float16", "bfloat16")


@dataclass
class Outcome:
    """What became of a case.

    Attributes:
        kind: ``pass``; ``capture`` (eager or torch.export fails) and ``frozen`` (no dimension stayed dynamic), which
            are not counted; ``refused``, ``error``, ``mismatch``.
        detail: why it didn't pass; for a pass, with what it was run when that isn't onnxruntime.
        second: the other size a dynamic case was checked at: ``sample``, ``grown`` or nothing.
        random: compared by statistics.
        translations: functions that emitted the model's nodes, as ``plugin:module.function``.
        nodes: number of nodes.
        milliseconds: of the export, capture not counted.
    """

    kind: str
    detail: str = ""
    second: str = ""
    random: bool = False
    translations: list[str] = field(default_factory=list)
    nodes: int = 0
    milliseconds: float = 0.0

    @property
    def counts(self) -> bool:
        """Whether the case could be captured, and so is the exporter's to pass."""
        return self.kind not in ("capture", "frozen")


class _OutOfTimeError(BaseException):
    """A case took too long."""


# One case ------------------------------------------------------------------------------------------------------------


def run(case: Case, dynamic: bool = False, opset: int | None = None) -> Outcome:
    """Capture, export, check, run and compare one case."""
    inputs = copied(case.tensors)
    try:
        expected = _eager(case, inputs, 1)
        random = case.name not in UNINITIALIZED and not all(
            _equal(expected, _eager(case, inputs, seed)) for seed in range(2, 4)
        )
    except Exception as error:
        return Outcome("capture", f"eager: {_line(error)}")
    if not expected:
        return Outcome("capture", "no tensor result")
    shapes = (tuple(tuple(torch.export.Dim.AUTO for _ in t.shape) for t in inputs),) if dynamic else None
    if dynamic and not any(t.dim() for t in inputs):
        return Outcome("frozen", "no input has a dimension")
    try:
        program = torch.export.export(case.module, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        return Outcome("capture", _line(error))
    if dynamic and not program.range_constraints:
        return Outcome("frozen", "the capture fixed every dimension")
    if (ranks := _captured_ranks(program)) != [value.dim() for value in expected]:
        return Outcome("capture", f"torch.export captured results of ranks {ranks}")
    draw = _random_draw(case, program, inputs, random)
    outcome = Outcome("pass", random=draw is not None)
    try:
        start = time.perf_counter()
        exported = onnxport.export(program, opset_version=opset, seed=1)  # the same draws each time
        outcome.milliseconds = round((time.perf_counter() - start) * 1000, 2)
        proto = exported.model_proto
        outcome.nodes, outcome.translations = len(proto.graph.node), _translations(proto)
        onnx.checker.check_model(proto, full_check=True)
        compute = _runner(case, exported, inputs, outcome)
        if draw is not None:
            pick = slice(1, 2) if case.name in _RANDOM_STARTS else slice(None)
            ours = [compute(*inputs)[pick] for _ in range(_DRAWS)]
            compare.same_statistics(ours, [draw(seed) for seed in range(_DRAWS)])
        else:
            _check(case, program, inputs, expected, compute)
        if dynamic and draw is None:
            outcome.second = _check_other_size(case, program, compute)
    except onnxport.UnsupportedOperatorsError as error:
        outcome.kind, outcome.detail = "refused", str(error)
    except _UncapturableError as error:
        outcome.kind, outcome.detail = "capture", str(error)
    except AssertionError as error:
        outcome.kind, outcome.detail = "mismatch", str(error)
    except Exception as error:
        outcome.kind = "error"
        outcome.detail = f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-6)}"
    return outcome


def _captured_ranks(program: torch.export.ExportedProgram) -> list[int]:
    """Ranks of the user's outputs as they were captured; numbers are 0-d tensors."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    specs = [spec.arg for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT"]
    found = [values.get(arg.name, getattr(arg, "value", None)) for arg in specs]
    return [value.dim() if isinstance(value, torch.Tensor) else 0 for value in found if value is not None]


class _UncapturableError(Exception):
    """What torch captured isn't what the operator does."""


def _eager(case: Case, inputs: Iterable[torch.Tensor], seed: int) -> list[torch.Tensor]:
    reseed(seed)
    with torch.no_grad():
        return flat_tensors(case.module(*copied(list(inputs))))


def _captured(program: torch.export.ExportedProgram, inputs: Iterable[torch.Tensor], seed: int) -> list[torch.Tensor]:
    reseed(seed)
    with torch.no_grad():
        return flat_tensors(program.module()(*copied(list(inputs))))


Draw = Callable[[int], list[torch.Tensor]]


def _random_draw(
    case: Case, program: torch.export.ExportedProgram, inputs: tuple[torch.Tensor, ...], random: bool
) -> Draw | None:
    """How to draw from the operator by a seed, or ``None`` when its results don't depend on one.

    Some entries of the database seed the generator themselves: the captured program doesn't.
    """
    if case.name in compare.INVARIANTS and case.name not in _RANDOM_STARTS:
        return None
    if case.name in _RANDOM_STARTS:  # random where the matrix has a higher rank than was asked for
        values = [_captured(program, inputs, seed)[1] for seed in range(1, 4)]
        rtol, atol = TOLERANCES[values[0].dtype]
        if all(torch.allclose(values[0], other, rtol=rtol, atol=atol) for other in values):
            return None
        return lambda seed: _captured(program, inputs, seed)[1:2]
    if random:
        return lambda seed: _eager(case, inputs, seed)
    tagged = [
        node for node in program.graph.nodes if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    ]
    if not tagged or all(_equal(_captured(program, inputs, 1), _captured(program, inputs, s)) for s in range(2, 7)):
        return None
    return lambda seed: _captured(program, inputs, seed)


def _equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
        for a, b in zip(first, second)
        if a.layout == b.layout == torch.strided and a.dtype == b.dtype and not a.is_quantized
    )


def _translations(proto: onnx.ModelProto) -> list[str]:
    found = {}
    for node in proto.graph.node:
        properties = {entry.key: entry.value for entry in node.metadata_props}
        if "onnxport.translation" in properties:
            found[f"{properties.get('onnxport.plugin', '')}:{properties['onnxport.translation']}"] = None
    return list(found)


@dataclass(frozen=True)
class Compute:
    """How the model of a case is run: inputs -> outputs."""

    run: Callable[..., list[torch.Tensor]]
    #: the same with float32 inside of each operator, where `run` rounds even the partial sums within one, as ONNX's
    #: reference implementation does in bfloat16 (343 terms lose 6 %)
    in_float32: Callable[..., list[torch.Tensor]] | None = None

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        return self.run(*inputs)


def _runner(case: Case, exported: Any, inputs: tuple[torch.Tensor, ...], outcome: Outcome) -> Compute:
    """The model on onnxruntime, or for the half types, where that has no kernel, on ONNX's reference implementation.

    Where that fails too (``reproductions.py`` says of what), bfloat16 runs on onnxruntime, one operator at a time in
    float32.
    """
    try:
        exported(*inputs)
    except Exception as error:
        if case.dtype not in _WITHOUT_KERNELS or not _is_missing_kernel(error):
            raise
        outcome.detail = f"reference: {_line(error)}"
    else:
        return Compute(lambda *values: list(exported(*values)))

    def wide(*values: torch.Tensor) -> list[torch.Tensor]:
        opened = runtime.session(widened(exported.model_proto).SerializeToString())
        outputs = [str(value.name) for value in exported.model.graph.outputs if runtime.is_user_output(value)]
        bound = runtime.bind(exported.model.graph.inputs, exported.exported_program, values, {})
        return runtime.run(opened, bound, outputs)

    def reference(*values: torch.Tensor) -> list[torch.Tensor]:
        return _as_declared(exported, exported.call_reference(*values))

    try:
        reference(*inputs)
    except Exception as error:
        if case.dtype != "bfloat16":
            raise
        outcome.detail = f"widened: {_line(error)}"
        return Compute(wide)
    return Compute(reference, wide if case.dtype == "bfloat16" else None)


def _as_declared(exported: Any, values: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The reference implementation computes some half-precision operators in float32 and leaves the result in it."""
    dtypes = [TORCH_DTYPES.get(value.dtype) for value in exported.model.graph.outputs]
    return [
        value.to(dtype) if dtype in (torch.float16, torch.bfloat16) and value.dtype == torch.float32 else value
        for value, dtype in zip(values, dtypes)
    ]


def _is_missing_kernel(error: Exception) -> bool:
    text = str(error)
    return "NOT_IMPLEMENTED" in text or "Type Error" in text or "is invalid" in text or "INVALID_GRAPH" in text


def _check(
    case: Case,
    program: torch.export.ExportedProgram,
    inputs: tuple[torch.Tensor, ...],
    expected: list[torch.Tensor],
    compute: Compute,
) -> None:
    actual = compute(*inputs)
    try:
        compare.same(case.name, inputs, actual, expected)
    except AssertionError:
        # Is it the exporter's doing? Only asked now, since the captured program is slow to run.
        if _is_as_in_wider(case, inputs, actual, expected):
            return
        if case.name in _ROUNDED_BETWEEN and _is_within_last_places(case, inputs, actual):
            return
        if _is_right_in_float32(case, compute, inputs, expected):
            return
        captured = _captured(program, inputs, 1)
        try:
            compare.same(case.name, inputs, captured, expected)
        except AssertionError as error:
            raise _UncapturableError(f"torch.export captured something else: {_line(error)}") from error
        raise


#: eager's own roundings in between are not asked for; of complex64 not its overflows, which leave infinities and NaN by
#: the order of the factors where the product of all is finite, or has another sign
_WIDER = {"float16": torch.float32, "bfloat16": torch.float32, "complex64": torch.complex128}


def _is_as_in_wider(
    case: Case, inputs: tuple[torch.Tensor, ...], actual: list[torch.Tensor], expected: list[torch.Tensor]
) -> bool:
    """Whether the results are those of a wider dtype, rounded; for complex64 only where eager's aren't finite."""
    wider = _WIDER.get(case.dtype)
    if wider is None or (wider.is_complex and all(value.isfinite().all() for value in expected)):
        return False
    narrow = torch.Tensor.is_complex if wider.is_complex else torch.Tensor.is_floating_point
    try:
        exact = [
            truth.to(value.dtype) if narrow(truth) else truth
            for truth, value in zip(
                _eager(case, tuple(t.to(wider) if narrow(t) else t for t in inputs), 1), actual, strict=True
            )
        ]
        compare.same(case.name, inputs, _parts(actual), _parts(exact))
    except Exception:  # not equal, or no operator of that dtype (a dtype among the baked arguments)
        return False
    return True


def _parts(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """Complex numbers by parts, one of which may be infinite and the other not."""
    return [torch.view_as_real(value.resolve_conj()) if value.is_complex() else value for value in values]


def _is_right_in_float32(
    case: Case, compute: Compute, inputs: tuple[torch.Tensor, ...], expected: list[torch.Tensor]
) -> bool:
    """Whether the results are eager's when each operator computes in float32, as torch's kernels do."""
    if compute.in_float32 is None:
        return False
    try:
        compare.same(case.name, inputs, compute.in_float32(*inputs), expected)
    except AssertionError:
        return False
    return True


#: torch's kernel of these keeps everything between the inputs and the result in float32; a graph of bfloat16 operators
#: rounds three times on the way (the scaled query, the scores, the weights after the softmax), on any runtime
_ROUNDED_BETWEEN = {"nn.functional.scaled_dot_product_attention": 3}


def _is_within_last_places(case: Case, inputs: tuple[torch.Tensor, ...], actual: list[torch.Tensor]) -> bool:
    """Whether the results are no farther from float32's than roundings on the way explain.

    A rounding does what a change of the inputs by half a unit in the last place does: the largest effect of sixteen
    such random changes on each element, times the roundings, is what it may be off. (The samples' scores are around
    100, so half a unit in the last place of a score is 0.25, and of its weight a quarter.)
    """
    dtype = getattr(torch, case.dtype)
    if case.dtype not in _WITHOUT_KERNELS:
        return False
    wide = tuple(tensor.float() if tensor.is_floating_point() else tensor for tensor in inputs)
    exact = _eager(case, wide, 1)
    spread = [torch.zeros_like(value) for value in exact]
    generator = torch.Generator().manual_seed(1)
    for _ in range(16):
        moved = tuple(
            t * (1 + torch.finfo(dtype).eps * (torch.rand(t.shape, generator=generator) - 0.5))
            if t.is_floating_point()
            else t
            for t in wide
        )
        spread = [torch.maximum(s, (a - b).abs()) for s, a, b in zip(spread, _eager(case, moved, 1), exact)]
    rtol, atol = TOLERANCES[dtype]
    return all(
        got.dtype == dtype
        and bool(((got.float() - want).abs() <= _ROUNDED_BETWEEN[case.name] * s + atol + rtol * want.abs()).all())
        for got, want, s in zip(actual, exact, spread, strict=True)
    )


def _check_other_size(case: Case, program: torch.export.ExportedProgram, compute: Compute) -> str:
    """Check at the first other size that eager and the captured program take; which kind of size it was."""
    for kind, inputs in other_inputs(case, program):
        try:
            expected = _eager(case, inputs, 1)
        except Exception:  # the sample's other arguments have no meaning at this size
            continue
        try:
            compare.same(case.name, inputs, compute(*inputs), expected)
        except Exception as error:
            wrong = isinstance(error, AssertionError)
            if wrong and _is_as_in_wider(case, inputs, compute(*inputs), expected):
                return kind
            if wrong and case.name in _ROUNDED_BETWEEN and _is_within_last_places(case, inputs, compute(*inputs)):
                return kind
            if wrong and _is_right_in_float32(case, compute, inputs, expected):
                return kind
            try:
                compare.same(case.name, inputs, _captured(program, inputs, 1), expected)
            except Exception:  # beyond the guards of the capture
                continue
            sizes = [tuple(t.shape) for t in inputs]
            message = f"at the other size {sizes} ({kind}): {error}"
            raise (compare.MismatchError if wrong else RuntimeError)(message) from error
        return kind
    return ""


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:200]}".replace("\n", " ")


# The grid ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Which part of the grid to run."""

    dtypes: tuple[str, ...]
    modes: tuple[str, ...] = ("static",)
    samples: int = SAMPLES
    opset: int | None = None
    seconds: int = SECONDS_A_CASE


Key = tuple[str, str, str, int]  # op, dtype, mode, sample


def run_operator(entry: Any, plan: Plan) -> Iterator[tuple[Key, Outcome]]:
    """Outcomes of one operator's cases."""
    for dtype in plan.dtypes:
        if not has_dtype(entry, dtype):
            continue
        try:
            found = list(cases(entry, dtype, plan.samples))
        except Exception as error:  # a generator that can't make samples of this dtype: said, and no case
            yield (name_of(entry), dtype, "static", -1), Outcome("capture", f"no samples: {_line(error)}")
            continue
        for case in found:
            for mode in plan.modes:
                key = (case.name, dtype, mode, case.index)
                yield key, in_time(lambda: run(case, mode == "dynamic", plan.opset), plan.seconds)  # noqa: B023


def in_time(compute: Callable[[], Outcome], seconds: int) -> Outcome:
    """The outcome, or an error after that many seconds."""

    def stop(*_: Any) -> None:
        raise _OutOfTimeError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        return compute()
    except _OutOfTimeError:
        return Outcome("error", f"took more than {seconds} s")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def prepare() -> None:
    """Set what is global: one thread, no gradients, no warnings."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    logging.getLogger("torch").setLevel(logging.ERROR)


if __name__ == "__main__":
    import operator_zoo

    raise SystemExit(operator_zoo.main())


__all__ = ["Case", "Outcome", "Plan", "cases", "operators", "run", "run_operator"]
