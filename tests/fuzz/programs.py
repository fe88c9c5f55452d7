"""Random programs: generated, run by eager torch, exported with others in one module, compared and shrunk."""

from __future__ import annotations

import dataclasses
import linecache
import math
import random
import re
import signal
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnxport
import onnxruntime
import torch
from onnxport_workbench.kernels import missing_kernels
from torch import nn

from .grammar import INPUTS, KINDS, SHAPES, NothingFitsError, Scope

Tensor = torch.Tensor
SIZE = 6  # of the example; each batch runs at another one too
TARGET = "pkg.torch.export.graph_signature.OutputSpec.target"
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-6, torch.float16: 2e-2}


def column(values: list[int]) -> Tensor:
    return torch.tensor(values)[:, None]


GLOBALS: dict[str, Any] = {"torch": torch, "F": nn.functional, "column": column}


@dataclasses.dataclass(frozen=True)
class Input:
    name: str
    dtype: str
    shape: tuple[int | str, ...]
    seed: int

    def value(self, n: int) -> Tensor:
        sizes = [n if size == "n" else int(size) for size in self.shape]
        generator = torch.Generator().manual_seed(self.seed)
        dtype = getattr(torch, self.dtype)
        low = 0 if self.dtype in ("uint8", "bool") else -4
        values = torch.randint(low, 2 if dtype == torch.bool else 5, sizes, generator=generator)
        return (values / 2 if dtype.is_floating_point else values).to(dtype)


@dataclasses.dataclass(frozen=True)
class Program:
    index: int
    inputs: tuple[Input, ...]
    lines: tuple[str, ...]
    returned: tuple[str, ...]

    def source(self, name: str) -> str:
        body = [*self.lines, f"return [{', '.join(map(wide, self.returned))}]"]
        return f"def {name}({', '.join(i.name for i in self.inputs)}):\n" + "".join(f"    {line}\n" for line in body)

    def values(self, n: int) -> list[Tensor]:
        return [given.value(n) for given in self.inputs]


def wide(name: str) -> str:
    """numpy has no bfloat16."""
    return f"({name}.float() if {name}.dtype == torch.bfloat16 else {name})"


def acceptable(values: list[dict[str, Any]]) -> bool:
    """Small, finite, and of one rank and dtype at all sizes."""
    for name, first in values[0].items():
        found = [v[name] for v in values]
        if isinstance(first, Tensor):
            if len({(t.dim(), t.dtype) for t in found}) > 1 or first.dim() > 5:
                return False
            for t in found:
                if t.numel() > 300 or (t.numel() and not t.abs().max() < 5000):
                    return False
                # What becomes of a negative float in uint8 is the processor's business.
                if t.dtype == torch.uint8 and t.numel() and t.max() > 127:
                    return False
        elif isinstance(first, int) and not all(0 <= number < 60 for number in found):
            return False
    return True


def generated(seed: int, index: int, sizes: tuple[int, ...]) -> Program:
    rng = random.Random(f"{seed}/{index}")
    inputs = tuple(
        Input(name, rng.choice(INPUTS), rng.choice(SHAPES), rng.randrange(1000))
        for name in "abc"[: rng.choice((1, 1, 2, 3))]
    )
    scope = Scope(rng, [{i.name: i.value(n) for i in inputs} for n in sizes])
    lines: list[str] = []
    if rng.random() < 0.7:
        lines = [f"{i.name} = {i.name}.clone()" for i in inputs]
    wanted = len(lines) + rng.choice((1, 2, 2, 3, 3, 4, 5, 7))
    weights = [k.weight for k in KINDS]
    for _ in range(60):
        if len(lines) >= wanted:
            break
        chosen = rng.choices(KINDS, weights)[0]
        try:
            line = chosen.make(scope)
        except NothingFitsError:
            continue
        if not extended(scope, inputs, lines, line, sizes):
            scope.ends.intersection_update(scope.values[0])
            continue
        lines.append(line)
    names = [name for name, value in scope.values[0].items() if isinstance(value, Tensor)]
    chosen_names = {names[-1], *(name for name in scope.ends if name in names), *rng.sample(names, min(3, len(names)))}
    chosen_names |= {target for line in lines if (target := written_to(line)) in names}
    return Program(index, inputs, tuple(lines), tuple(name for name in names if name in chosen_names))


def written_to(line: str) -> str:
    return re.split(r"\W", line)[0]


def extended(scope: Scope, inputs: tuple[Input, ...], lines: list[str], line: str, sizes: tuple[int, ...]) -> bool:
    """Whether eager takes one line more at every size; the scope then has its values, and the old ones otherwise."""
    try:
        code = compile(line, "<line>", "exec")
        for values in scope.values:
            exec(code, GLOBALS, values)
        accepted = acceptable(scope.values)
    except Exception:
        accepted = False
    if not accepted:
        scope.values = [{i.name: i.value(n) for i in inputs} for n in sizes]
        whole = compile("\n".join(lines), "<lines>", "exec")
        for values in scope.values:
            exec(whole, GLOBALS, values)
    return accepted


def functions_of(programs: list[Program]) -> tuple[list[Any], Any]:
    """The programs as functions, and the forward of a module that calls each with inputs of its own."""
    namespace = dict(GLOBALS)
    parameters = [f"p{k}_{given.name}" for k, p in enumerate(programs) for given in p.inputs]
    calls = [f"p{k}({', '.join(f'p{k}_{given.name}' for given in p.inputs)})" for k, p in enumerate(programs)]
    forward = f"def forward(self, {', '.join(parameters)}):\n    return [{', '.join(calls)}]\n"
    source = "".join(p.source(f"p{k}") for k, p in enumerate(programs)) + forward
    name = f"programs_{programs[0].index}_{len(programs)}.py"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    exec(compile(source, name, "exec"), namespace)
    return [namespace[f"p{k}"] for k in range(len(programs))], namespace["forward"]


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a batch is exported, and where it runs."""

    other: int
    dynamic: str  # "named", "free" or "" for static
    opset: int | None

    @classmethod
    def of(cls, seed: int, batch: int) -> Setting:
        rng = random.Random(f"{seed}/batch {batch}")
        dynamic = rng.choice(["named", "named", "free", "free", ""])
        other = rng.choice((9, 5, 11) if dynamic == "named" else (9, 4, 5, 11, 3))
        return cls(other, dynamic, rng.choice([None, None, None, 18, 21]))

    @property
    def sizes(self) -> tuple[int, ...]:
        return (SIZE, self.other) if self.dynamic else (SIZE,)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a program: `run`, `refused`, `wrong`, or `outside`.

    Outside: the captured program excludes the size, or onnxruntime has no kernel and `check` says so.
    """

    program: Program
    setting: Setting
    result: str
    cause: str = ""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """A program that takes longer is told as such."""

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"took more than {seconds:.0f} s of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def exported(programs: list[Program], setting: Setting) -> onnxport.ONNXProgram:
    _, forward = functions_of(programs)
    module = type("Programs", (nn.Module,), {"forward": forward})()
    named = [torch.export.Dim(f"n{k}", min=5, max=64) for k in range(len(programs))]  # what one asks for is its own
    shapes = {
        f"p{k}_{given.name}": {
            axis: named[k] if setting.dynamic == "named" else torch.export.Dim.DYNAMIC
            for axis, size in enumerate(given.shape)
            if size == "n"
        }
        for k, p in enumerate(programs)
        for given in p.inputs
    }
    values = tuple(value for p in programs for value in p.values(SIZE))
    options: dict[str, Any] = {} if setting.opset is None else {"opset_version": setting.opset}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return onnxport.export(module, values, dynamic_shapes=shapes if setting.dynamic else None, **options)


def expected(function: Any, program: Program, n: int) -> tuple[list[Tensor], dict[str, Tensor]]:
    """What eager returns, and the inputs afterwards."""
    values = program.values(n)
    with torch.no_grad():
        results = [value.clone() for value in function(*values)]
    return results, {given.name: value for given, value in zip(program.inputs, values)}


def difference(got: np.ndarray, want: Tensor) -> str:
    value = torch.from_numpy(np.array(got))
    if value.dtype != want.dtype:
        return f"dtype {value.dtype}, eager has {want.dtype}"
    if value.shape != want.shape:
        return f"shape {list(value.shape)}, eager has {list(want.shape)}"
    tolerance = TOLERANCES.get(want.dtype, 0.0)
    if not torch.allclose(value, want, rtol=tolerance, atol=tolerance, equal_nan=True):
        return f"values {value.flatten()[:12].tolist()}, eager has {want.flatten()[:12].tolist()}"
    return ""


def differences(programs: list[Program], setting: Setting) -> list[str]:
    """Per program what differs from eager at any size, empty where nothing does; raises what the export raises."""
    functions, _ = functions_of(programs)
    with limited(60 + 10 * len(programs)):
        program = exported(programs, setting)
        file = program.model_proto
        onnx.checker.check_model(file, full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(file.SerializeToString(), options, providers=["CPUExecutionProvider"])
    targets = [output.metadata_props.get(TARGET) for output in program.model.graph.outputs]
    found = [""] * len(programs)
    for n in setting.sizes:
        values = [value.numpy() for p in programs for value in p.values(n)]
        results = session.run(None, dict(zip((i.name for i in session.get_inputs()), values, strict=True)))
        user = iter([value for value, target in zip(results, targets) if target is None])
        changed = {target: value for value, target in zip(results, targets) if target is not None}
        for k, p in enumerate(programs):
            outputs, inputs = expected(functions[k], p, n)
            pairs = [(next(user), want, name) for want, name in zip(outputs, p.returned)]
            for given, before in zip(p.inputs, p.values(n)):
                pairs.append(
                    (changed.get(f"p{k}_{given.name}", before.numpy()), inputs[given.name], f"input {given.name}")
                )
            for got, want, name in pairs:
                if not found[k] and (text := difference(got, want)):
                    found[k] = f"{name} at n = {n}: {text}"
    return found


def blamed(programs: list[Program], error: BaseException) -> int | None:
    """The program whose line or input an error names, so that the others needn't be taken apart."""
    lines: list[int] = []  # of the source: the program's number for each line
    for k, p in enumerate(programs):
        lines += [k] * p.source("p").count("\n")
    chain: BaseException | None = error
    numbers: list[int] = []
    texts: list[str] = []
    while chain is not None:
        frames = traceback.extract_tb(chain.__traceback__)
        numbers += [f.lineno for f in frames if f.filename.startswith("programs_") and f.lineno]
        texts.append(str(chain))
        chain = chain.__cause__ or chain.__context__
    numbers += [int(n) for text in texts for n in re.findall(r'programs_\d+_\d+\.py(?:", line |:)(\d+)', text)]
    found = next((lines[n - 1] for n in numbers if n - 1 < len(lines)), None)
    if found is None:
        inputs = [int(k) for text in texts for k in re.findall(r"\bp(\d+)_[abc]\b", text)]
        found = next((k for k in inputs if k < len(programs)), None)
    return found


def verdicts(programs: list[Program], setting: Setting) -> list[Verdict]:
    """Of a batch; one that fails is halved until the program that fails is found."""
    try:
        texts = differences(programs, setting)
    except Exception as error:
        if len(programs) > 1:
            at = blamed(programs, error)
            half = len(programs) // 2 if at is None else at
            parts = (
                [programs[:half], programs[half:]]
                if at is None
                else [[programs[at]], programs[:at] + programs[at + 1 :]]
            )
            found = {v.program.index: v for part in parts for v in verdicts(part, setting)}
            return [found[p.index] for p in programs]
        return [judged(programs[0], setting, error)]
    if not any(texts):
        return [Verdict(p, setting, "run") for p in programs]
    if len(programs) == 1:
        return [Verdict(programs[0], setting, *compared(programs[0], setting, texts[0]))]
    alone = {p.index: verdicts([p], setting)[0] for p, text in zip(programs, texts) if text}
    return [
        (alone[p.index] if alone[p.index].result != "run" else Verdict(p, setting, "wrong", f"beside others: {text}"))
        if text
        else Verdict(p, setting, "run")
        for p, text in zip(programs, texts)
    ]


def compared(program: Program, setting: Setting, text: str) -> tuple[str, str]:
    """A difference counts where what torch captured takes the size."""
    if f"n = {setting.other}:" in text and not accepts(program, setting, setting.other):
        return "outside", text
    return "wrong", text


def accepts(program: Program, setting: Setting, n: int) -> bool:
    try:
        exported([program], setting).exported_program.module()(*program.values(n))
    except (RuntimeError, AssertionError, IndexError):
        return False
    return True


def judged(program: Program, setting: Setting, error: Exception) -> Verdict:
    name = type(error).__name__
    text = f"{name}: {' '.join(str(error).split())[:400]}"
    refused = isinstance(error, onnxport.OnnxExporterError) and not isinstance(error, onnxport.TranslationError)
    # At the other size the session may stop where torch.export's own checks would have.
    stopped = type(error).__module__.startswith("onnxruntime") and setting.dynamic
    if stopped and runs_at_example(program, setting) and not accepts(program, setting, setting.other):
        return Verdict(program, setting, "outside", text)
    if name == "NotImplemented" and lacks_kernels(program, setting):
        return Verdict(program, setting, "outside", text)
    return Verdict(program, setting, "refused" if refused else "wrong", text)


def lacks_kernels(program: Program, setting: Setting) -> bool:
    """The file is right, and `check` tells that onnxruntime's CPU provider has no kernel for it: most of bfloat16."""
    return any(found.provider.startswith("CPU") for found in missing_kernels(exported([program], setting).model))


def runs_at_example(program: Program, setting: Setting) -> bool:
    try:
        return not any(differences([program], dataclasses.replace(setting, other=SIZE)))
    except Exception:
        return False


def kind_of(cause: str) -> str:
    """What two wrong results have in common: the class of error, or which aspect differs."""
    if match := re.match(r"(\w+): ", cause):
        return match[1]
    return next((word for word in ("dtype", "shape", "values") if f": {word} " in cause), cause)


def shrunk(verdict: Verdict) -> Verdict:
    """The shortest program that is wrong in the same way: lines and returned names are left out one by one."""
    best = verdict
    progress = True
    while progress:
        progress = False
        for smaller in smaller_programs(best.program):
            try:
                for n in best.setting.sizes:
                    expected(functions_of([smaller])[0][0], smaller, n)
            except Exception:
                continue
            tried = verdicts([smaller], best.setting)[0]
            if tried.result == "wrong" and kind_of(tried.cause) == kind_of(best.cause):
                best, progress = tried, True
                break
    return best


def smaller_programs(program: Program) -> Iterator[Program]:
    for i in reversed(range(len(program.lines))):
        yield dataclasses.replace(program, lines=(*program.lines[:i], *program.lines[i + 1 :]))
    if len(program.returned) > 1:
        for i in range(len(program.returned)):
            yield dataclasses.replace(program, returned=(*program.returned[:i], *program.returned[i + 1 :]))


def reproducer(verdict: Verdict) -> str:
    """A script's worth of text: the function, its inputs and what is wrong."""
    inputs = ", ".join(f"{i.name}: {i.dtype}{list(i.shape)}" for i in verdict.program.inputs)
    return (
        f"# program {verdict.program.index}, {verdict.setting}\n# {inputs}\n"
        f"{verdict.program.source('forward')}# {verdict.cause}\n"
    )


def batches(seed: int, start: int, count: int, size: int) -> Iterator[tuple[list[Program], Setting]]:
    """Batches are aligned to their numbers, so that a program is the same whatever range is asked for."""
    for batch in range(start // size, math.ceil((start + count) / size)):
        setting = Setting.of(seed, batch)
        wanted = range(max(start, batch * size), min(start + count, (batch + 1) * size))
        yield [generated(seed, index, (SIZE, setting.other)) for index in wanted], setting
