"""Programs that are run: as a whole, on the reference evaluator, or up to values inside the graph."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from onnxport import InputError, OnnxExporterError, ONNXProgram
from onnxport.kit import TorchTensor, blaming_the_file, listed, takes, weight_bytes, wrong

from onnxport_builtin.program import runtime, saving

if TYPE_CHECKING:
    import onnxruntime as ort

IN_MEMORY_BYTES = 64 * 1024 * 1024
"""Models with more weights than this reach onnxruntime through a temporary file instead of memory."""

_INITIALIZER = "a function that makes an onnxruntime.InferenceSession of a model's path or bytes"


class ComputedValues(dict[str, torch.Tensor]):
    """Tensors by name. As those that torch's exporter gives, they can be unpacked, iterated over and indexed by number.

    ``keys()``, ``values()`` and ``items()`` are a dict's.
    """

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else tuple(self.values())[key]


def run(
    program: ONNXProgram, args: Sequence[Any], kwargs: Mapping[str, Any] | None, all_outputs: bool
) -> tuple[torch.Tensor, ...]:
    """See `ONNXProgram.run`."""
    feeds = _bound(program, args, kwargs)
    if program.inference_session is None:
        program.initialize_inference_session()
    values = [value for value in program.model.graph.outputs if all_outputs or runtime.is_user_output(value)]
    with blaming_the_file(program.path):
        results = runtime.run(program.inference_session, feeds, [str(value.name) for value in values])
        return runtime.restore(values, results)


def call_reference(
    program: ONNXProgram, args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> tuple[torch.Tensor, ...]:
    """See `ONNXProgram.call_reference`."""
    import onnx.reference

    feeds = _bound(program, args, kwargs)
    arrays = {name: TorchTensor(tensor).numpy() for name, tensor in feeds.items()}
    values = [value for value in program.model.graph.outputs if runtime.is_user_output(value)]
    with blaming_the_file(program.path):
        evaluator = onnx.reference.ReferenceEvaluator(program.model_proto)
        results: Any = evaluator.run([str(value.name) for value in values], arrays)
    return runtime.restore(values, [runtime.from_numpy(result) for result in results])


def compute_values(
    program: ONNXProgram, value_names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> ComputedValues:
    """See `ONNXProgram.compute_values`."""
    names = listed(value_names)
    if names is None or not all(isinstance(name, str) for name in names):
        raise wrong("value_names", value_names, "a list of names of values of the graph")
    graph = program.model.graph
    known = {value.name: value for value in graph.inputs} | dict(graph.initializers)
    known |= {value.name: value for node in graph for value in node.outputs}
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"The graph has no values of these names: {unknown}. Name inputs, initializers or outputs of nodes.",
            parameter="value_names",
        )
    feeds = _bound(program, args, kwargs)
    computed = {name: feeds[name] for name in names if name in feeds}
    wanted = [known[name] for name in dict.fromkeys(names) if name not in feeds]
    if wanted:
        with tempfile.TemporaryDirectory(prefix="onnxport-") as folder, blaming_the_file(program.path):
            opened = runtime.session(program.stage(folder, wanted), options=program.session_options)
            results = runtime.run(opened, feeds, [str(value.name) for value in wanted])
            del opened
        computed |= zip((str(value.name) for value in wanted), results)
    values = [known[name] for name in names]
    return ComputedValues(zip(names, runtime.restore(values, [computed[name] for name in names])))


def _bound(program: ONNXProgram, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> dict[str, torch.Tensor]:
    """The tensor for each graph input."""
    return runtime.bind(program.model.graph.inputs, program.call_spec, args, {} if kwargs is None else kwargs)


# Sessions ------------------------------------------------------------------------------------------------------------


def open_session(
    program: ONNXProgram,
    initializer: Callable[[str | bytes], Any] | None,
    providers: Sequence[Any] | None,
    session_options: ort.SessionOptions | None,
) -> tuple[ort.InferenceSession, Callable[[], object]]:
    """A session, and what removes its files: see `ONNXProgram.initialize_inference_session`."""
    if initializer is not None and not takes(initializer, b""):
        raise wrong("initializer", initializer, _INITIALIZER)
    program.release()
    folder = tempfile.mkdtemp(prefix="onnxport-")
    # onnxruntime maps the weights: the files must live as long as the session, at the latest as the program
    remove = weakref.finalize(program, shutil.rmtree, folder, ignore_errors=True)
    try:
        staged = program.stage(folder)
        if initializer is not None:
            return _made_by(initializer, staged), remove
        with blaming_the_file(program.path):
            options = program.session_options if session_options is None else session_options
            return runtime.session(staged, providers, options), remove
    except BaseException:
        remove()
        raise


def _made_by(initializer: Callable[[str | bytes], Any], staged: str | bytes) -> ort.InferenceSession:
    try:
        session = initializer(staged)
    except OnnxExporterError:  # it says what to do
        raise
    except (TypeError, ValueError) as error:  # a function that takes something else
        raise wrong("initializer", initializer, _INITIALIZER) from error
    if not hasattr(session, "run_with_ort_values"):
        raise wrong("initializer", initializer, _INITIALIZER)
    return session  # type: ignore[no-any-return]


def stage(program: ONNXProgram, folder: str, outputs: Sequence[ir.Value] | None) -> str | bytes:
    """See `ONNXProgram.stage`."""
    if weight_bytes(program.model) < IN_MEMORY_BYTES:
        return saving.to_bytes(program.model, outputs)
    path = os.path.join(folder, "model.onnx")
    saving.save_model(program.model, path, external_data=True, outputs=outputs)
    return path
