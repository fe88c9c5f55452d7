"""One case, stage by stage: the function that all engines run, in a process of its own."""

from __future__ import annotations

import collections
import copy
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxport
import torch
from onnxport.kit import Example, UsageError, load_example, memory_of, plain, runtime

from onnxport_zoo.cases import Case
from onnxport_zoo.content import digest_of_files, verification_key
from onnxport_zoo.processes import resident_bytes
from onnxport_zoo.results import Status, text_of
from onnxport_zoo.rounding import explained

STAGES = ("model", "capture", "translate", "save", "load", "verify", "latency")
_AFTER_CAPTURE = ("functionalize", "translate", "optimize", "quantize")  # stages of an export
MESSAGE = 4000  # characters of a message that a result keeps
_MEASURED_SECONDS, _LEAST, _MOST = 0.2, 5, 100
_COPIES = 4  # of weights, beside those of the model
_COMPARING = 16  # times the outputs, to compare them
_LARGER = 2.5  # times the example: the shapes that verify makes
_TOO_LONG = 5.0  # seconds after which two calls do


class Stages:
    """The time of each stage.

    Args:
        said: called with the name of a stage when it starts.
    """

    def __init__(self, said: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self.current = ""
        self._said = said
        self._start = 0.0

    def enter(self, name: str) -> None:
        """End the current stage, and start another; nothing happens where it is the current one."""
        if name == self.current:
            return
        self.leave()
        self.current, self._start = name, time.perf_counter()
        self._said(name)

    def leave(self) -> None:
        """End the current stage."""
        if self.current:
            seconds = self.seconds.get(self.current, 0.0) + time.perf_counter() - self._start
            self.seconds[self.current] = round(seconds, 6)

    def of_export(self, name: str) -> None:
        """What ``onnxport.export`` calls with the names of its own stages, and of its attempts to capture."""
        if name in _AFTER_CAPTURE:
            self.enter("translate")


def perform(
    case: Case,
    folder: Path,
    verified: Path | None,
    said: Callable[[str], None],
    expected: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Export one case to a file in a folder, load it, verify it, and measure it.

    Args:
        case: what to export.
        folder: an empty folder for the file.
        verified: the folder of verifications that are known; None to know none.
        said: called with the name of each stage.
        expected: called with the bytes that the process will take, when the program tells.

    Returns:
        A result without what the engine knows: status, stage, message, seconds by stage, and what was found. It is a
        result, too, that something failed.
    """
    stages = Stages(said)
    result: dict[str, Any] = {"status": Status.PASSED, "message": "", "stages": stages.seconds}
    try:
        _perform(case, folder, verified, stages, result, expected)
    except Exception as error:
        result.update(_failure(error, stages.current))
    stages.leave()
    result["stage"] = stages.current
    return result


def _perform(
    case: Case,
    folder: Path,
    verified: Path | None,
    stages: Stages,
    result: dict[str, Any],
    expected: Callable[[int], None],
) -> None:
    if case.resolver is not None and case.resolver.perform is not None:
        stages.enter("perform")
        torch.manual_seed(0)
        with _inside(case.folder):
            found = case.resolver.perform(case.model.partition(":")[2], case.settings())
        result |= {**found, "status": Status(found["status"])}
        return
    stages.enter("model")
    example = example_of(case)
    stages.enter("capture")
    options = {**example.options, **case.options, "verbose": stages.of_export}
    options |= {"opset_version": case.opset} if case.opset else {}
    options |= {"runtime": case.runtime} if case.runtime != "onnx" else {}
    program = onnxport.export(example.model, example.args, kwargs=example.kwargs, **options)
    result["estimate"] = estimated_bytes(program)
    expected(result["estimate"])
    stages.enter("save")
    path = folder / "model.onnx"
    program.save(path)
    files = sorted(each for each in folder.iterdir() if each.is_file())
    written = digest_of_files(files)
    result |= _facts(program) | {"bytes": sum(each.stat().st_size for each in files), "digest": written}
    stages.enter("load")
    session = runtime.session(str(path), ["CPUExecutionProvider"], _session_options())
    stages.enter("verify")
    if not _verify(case, example, (program, path), result, verified, written):
        return
    if case.latency:
        stages.enter("latency")
        result["latency"] = _latency(program, session, example)


def estimated_bytes(program: onnxport.ONNXProgram) -> int:
    """What this process will take to save, load and verify a program, by what it takes now and the program's values.

    onnxruntime has the weights once more, and in other layouts; a file below 2 GB is in memory while it is written.
    Both models have their values, and outputs are compared in float64, which takes several tensors. Where dimensions
    are dynamic, that is done at larger shapes.
    """
    if program.exported_program is None:
        return 0
    memory = memory_of(program.exported_program)
    larger = _LARGER if program.exported_program.range_constraints else 1.0
    values = larger * (2 * memory.values + _COMPARING * memory.outputs)
    return resident_bytes(os.getpid()) + _COPIES * memory.weights + int(values)


def example_of(case: Case) -> Example:
    """The model of a case with its example inputs, in its dtype. Weights are drawn by the same seed each time.

    Raises:
        UsageError: there is none, or its factory fails.
    """
    torch.manual_seed(0)
    resolver = case.resolver
    with _inside(case.folder):
        if resolver is None or resolver.example is None:
            example = load_example(case.model)
        else:
            parts = dict(resolver.example(case.model.partition(":")[2]))
            model, args, kwargs = parts.pop("model"), tuple(parts.pop("args", ())), parts.pop("kwargs", None)
            example = Example(model, args, kwargs, parts)
    if not case.dtype:
        return example
    if not isinstance(example.model, torch.nn.Module):
        raise UsageError(f"{case.model} is a captured program, whose dtype is what it is: leave out dtypes.")
    dtype = getattr(torch, case.dtype)
    kwargs = None if example.kwargs is None else _cast(example.kwargs, dtype)
    return Example(example.model.to(dtype), _cast(example.args, dtype), kwargs, example.options)


@contextmanager
def _inside(folder: str) -> Iterator[None]:
    """Names of files and modules are those of a folder."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return type(value)((key, _cast(item, dtype)) for key, item in value.items())  # type: ignore[call-arg]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_cast(item, dtype) for item in value))
    return type(value)(_cast(item, dtype) for item in value) if type(value) in (list, tuple) else value


def _facts(program: onnxport.ONNXProgram) -> dict[str, Any]:
    graph = program.model.graph
    graphs = [graph, *(function.graph for function in program.model.functions.values())]
    operators = collections.Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for each in graphs
        for node in each.all_nodes()
    )
    return {
        "opset": graph.opset_imports[""],
        "nodes": sum(operators.values()),
        "operators": dict(operators.most_common()),
        "inputs": {str(value.name): f"{value.dtype}{value.shape}" for value in graph.inputs},
    }


def _session_options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return options


def _verify(
    case: Case,
    example: Example,
    file: tuple[onnxport.ONNXProgram, Path],
    result: dict[str, Any],
    verified: Path | None,
    written: str,
) -> bool:
    """Whether the file computes what the model does; what was found goes to the result."""
    program, path = file
    known = None if verified is None else verified / verification_key(case, written)
    if known is not None and known.exists():
        result.update(text_of(known), verified="before")
        return True
    found = onnxport.verify(path, example.model, example.args, example.kwargs, **case.verify)
    ran = [comparison for comparison in found.comparisons if not comparison.skipped]
    errors = [output.max_abs for comparison in ran for output in comparison.outputs]
    told = {
        "shapes": [comparison.label for comparison in ran],
        "skipped": {each.label: plain(each.skipped)[:200] for each in found.comparisons if each.skipped},
        "max_abs": max((error for error in errors if error == error), default=0.0),
        "relative": max((output.relative for each in ran for output in each.outputs), default=0.0),
    }
    result.update(told, verified="now")
    if found.passed:
        if known is not None:
            _write(known, told)
        return True
    runs = ran and not found.checker and not any(comparison.error for comparison in ran)
    result["status"] = Status.WRONG if runs else Status.FAILED
    if runs and isinstance(example.model, torch.nn.Module) and (told := explained(program, example.model, found)):
        result |= {"status": Status.ROUNDING, "rounding": told}
    result["message"] = "\n".join(found.failures())[:MESSAGE]
    result["table"] = found.table()[:MESSAGE]
    return False


def _write(path: Path, data: Mapping[str, Any]) -> None:
    from onnxport_zoo.results import write_whole

    write_whole(path, data)


def _latency(program: onnxport.ONNXProgram, session: Any, example: Example) -> dict[str, Any]:
    """Seconds of a call on the example inputs, of the file and of eager torch: medians, and how far calls differ."""
    feeds = runtime.bind(program.model.graph.inputs, program.call_spec, example.args, example.kwargs or {})
    names = [str(value.name) for value in program.model.graph.outputs]
    found = {"onnxruntime": _measured(lambda: runtime.run(session, feeds, names)), "threads": torch.get_num_threads()}
    if isinstance(example.model, torch.nn.Module):
        model, kwargs = example.model, example.kwargs or {}

        def prepared() -> Callable[[], Any]:
            args, keywords = copy.deepcopy((example.args, kwargs))  # a cache grows
            return lambda: model(*args, **keywords)

        with torch.no_grad():
            found["torch"] = _measured(prepared, made=True)
    return found


def _measured(call: Callable[[], Any], *, made: bool = False) -> dict[str, float]:
    """Median and median deviation of the seconds of a call; with ``made``, of the call that ``call`` makes."""
    samples: list[float] = []
    begin = time.perf_counter()
    for number in range(_MOST + 1):
        run = call() if made else call
        start = time.perf_counter()
        run()
        if number:  # the first one allocates
            samples.append(time.perf_counter() - start)
        elapsed = time.perf_counter() - begin
        if elapsed > _MEASURED_SECONDS and len(samples) >= (_LEAST if elapsed < _TOO_LONG else 2):
            break
    median = statistics.median(samples)
    return {"median": median, "spread": statistics.median(abs(sample - median) for sample in samples)}


def _failure(error: Exception, stage: str) -> dict[str, Any]:
    """What an exception means for a case."""
    message = f"{type(error).__name__}: {plain(str(error))}"[:MESSAGE]
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        return {"status": Status.MEMORY, "message": message}
    told: dict[str, Any] = {"status": Status.FAILED, "message": message}
    if isinstance(error, onnxport.OnnxExporterError) and not isinstance(error, onnxport.TranslationError):
        if stage in ("capture", "translate", "save") and not isinstance(error, onnxport.InputError):
            told["status"] = Status.REFUSED
        if isinstance(error, onnxport.UnsupportedOperatorsError):
            told["operators_refused"] = [refusal.target for refusal in error.refusals]
    else:
        told["trace"] = plain("".join(traceback.format_exception(error)))[-MESSAGE:]
    return told
