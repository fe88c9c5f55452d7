"""Run torch's operator database through the exporter: operator x dtype x samples x {static, dynamic}, against eager.

``python tests/conformance/grid.py --ops add,mul --dtypes float32,int64 --samples 4 [--dynamic] [--verbose]``

With no operators named, the whole database is run, static and dynamic, its failures are held against ``known.csv``
and ``docs/coverage.md`` is written. What was measured is kept in ``build/conformance``: ``--resume`` runs the rest,
``--failed`` again what failed.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import json
import logging
import multiprocessing
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import compare
import known
import onnxport
from cases import DTYPES, UNINITIALIZED, Case, cases, copied, has_dtype, name_of, operators, other_inputs, reseed
from onnxport import DataType
from onnxport_builtin.program import runtime
from support import TOLERANCES, flat_tensors
from widened import widened

CACHE = Path(__file__).resolve().parents[2] / "build" / "conformance" / "grid.jsonl"
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


def run_operator(entry: Any, plan: Plan, skip: Iterable[Key] = ()) -> Iterator[tuple[Key, Outcome | None]]:
    """Outcomes of one operator's cases; ``None`` comes before each, so that a crash of the process leaves a trace."""
    skipped = set(skip)
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
                if key in skipped:
                    continue
                yield key, None
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


def _run_named(position: int, plan: Plan, skip: list[Key]) -> list[tuple[Key, Outcome | None]]:
    """In a worker process: one operator, by its place in the database."""
    _prepare()
    return [pair for pair in run_operator(operators()[position], plan, skip) if pair[1] is not None]


def _prepare() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    logging.getLogger("torch").setLevel(logging.ERROR)


def run_grid(
    chosen: list[int], plan: Plan, jobs: int, skip: set[Key], cache: Path | None
) -> Iterator[tuple[Key, Outcome]]:
    """Run those places of the database, writing each outcome to the cache as it comes."""
    entries = operators()
    with _Log(cache) as log:
        if jobs <= 1:
            for place in chosen:
                for key, outcome in run_operator(entries[place], plan, skip):
                    log.write(key, outcome)
                    if outcome is not None:
                        yield key, outcome
            return
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
            names = {place: name_of(entries[place]) for place in chosen}
            waiting = [pool.submit(_run_named, p, plan, [k for k in skip if k[0] == names[p]]) for p in chosen]
            for future in concurrent.futures.as_completed(waiting):
                for key, outcome in future.result():
                    log.write(key, outcome)
                    if outcome is not None:
                        yield key, outcome


class _Log:
    """The cache, one JSON object a line; the last line of a case counts."""

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a") if path is not None else None

    def write(self, key: Key, outcome: Outcome | None) -> None:
        if self._file is not None:
            self._file.write(json.dumps([*key, asdict(outcome) if outcome is not None else None]) + "\n")
            self._file.flush()

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def read_cache(path: Path = CACHE) -> dict[Key, Outcome]:
    """What was measured; a case that was begun and never ended crashed its process."""
    found: dict[Key, Outcome] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                op, dtype, mode, sample, outcome = json.loads(line)
            except ValueError:
                continue  # a line cut off when the process was stopped
            crash = Outcome("error", "the process died")
            found[(op, dtype, mode, sample)] = Outcome(**outcome) if outcome is not None else crash
    return found


# Command line --------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run the grid as asked; 1 when what failed isn't what ``known.csv`` lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", default="", help="comma-separated names; a trailing * is a prefix; all when left out")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of each operator and dtype; 0 for all")
    parser.add_argument("--dynamic", action="store_true", help="dynamic dimensions only")
    parser.add_argument("--static", action="store_true", help="fixed dimensions only")
    parser.add_argument("--opset", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="keep what the cache has")
    parser.add_argument("--failed", action="store_true", help="run again what failed in the cache, and what it lacks")
    parser.add_argument(
        "--update-known", action="store_true", help="rewrite known.csv: drop what passes, add what fails"
    )
    parser.add_argument("--verbose", action="store_true", help="print the whole detail of failures")
    options = parser.parse_args(arguments)
    _prepare()
    wanted = [name for name in options.ops.split(",") if name]
    modes = ("static",) if options.static or (wanted and not options.dynamic) else ("static", "dynamic")
    modes = ("dynamic",) if options.dynamic else modes
    plan = Plan(tuple(options.dtypes.split(",")), modes, options.samples, options.opset)
    chosen = [place for place, entry in enumerate(operators()) if _is_wanted(entry, wanted)]
    standard = options.samples == SAMPLES and options.opset is None
    cache = CACHE if standard else None
    cached = read_cache() if standard else {}
    skip = {k for k, v in cached.items() if not options.failed or v.kind in ("pass", "capture", "frozen")}
    if not (options.resume or options.failed):
        skip = set()
        if not wanted and standard and set(DTYPES) == set(plan.dtypes) and len(modes) == 2:
            CACHE.unlink(missing_ok=True)
    names = {name_of(operators()[place]) for place in chosen}
    results = {k: v for k, v in cached.items() if k in skip and k[0] in names and k[1] in plan.dtypes and k[2] in modes}
    for key, outcome in run_grid(chosen, plan, options.jobs, skip, cache):
        results[key] = outcome
        if outcome.counts and outcome.kind != "pass":
            detail = outcome.detail if options.verbose else " ".join(outcome.detail.split())[:260]
            print(f"{outcome.kind:9} {key[0]} {key[1]} {key[2]} #{key[3]}: {detail}", flush=True)
    _summarize(results)
    if not standard:
        return 0
    if options.update_known:
        known.update(results)
    problems = known.differences(results)
    print("\n".join(problems))
    if not wanted and not options.dynamic and not options.static:
        import coverage_page

        coverage_page.write(read_cache())
    return 1 if problems else 0


def _is_wanted(entry: Any, wanted: list[str]) -> bool:
    full = name_of(entry)
    return not wanted or any(n in (full, entry.name) or (n.endswith("*") and full.startswith(n[:-1])) for n in wanted)


def _summarize(results: dict[Key, Outcome]) -> None:
    totals: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for (_, dtype, mode, _), outcome in results.items():
        totals[dtype, mode][outcome.kind] += 1
        totals[dtype, mode]["counted"] += outcome.counts
    for (dtype, mode), counts in totals.items():
        kinds = {kind: n for kind, n in counts.items() if kind != "counted"}
        print(f"{dtype:9} {mode:8} {counts['pass']}/{counts['counted']} pass  {kinds}")


if __name__ == "__main__":
    raise SystemExit(main())


__all__ = ["Case", "Outcome", "Plan", "cases", "operators", "read_cache", "run", "run_grid", "run_operator"]
