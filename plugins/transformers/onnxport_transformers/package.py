"""A model of transformers as a folder that can be run: ONNX files, their data, configurations and the tokenizer."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxport
import torch
from onnxport import InputError

from onnxport_transformers import adapters as lora
from onnxport_transformers import decoding, inputs, models, seq2seq, tasks
from onnxport_transformers.adapters import Adapter
from onnxport_transformers.decoding import Graph
from onnxport_transformers.genai import write_config
from onnxport_transformers.generation import Generation
from onnxport_transformers.models import Source

_COPIED = (
    *("config.json", "generation_config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json"),
    *("added_tokens.json", "*.model", "*.tiktoken", "chat_template*", "preprocessor_config.json"),
    *("processor_config.json", "video_preprocessor_config.json", "sentencepiece*"),
)
"""Files of a model's folder that whoever runs the package needs too."""


def _untold(line: str) -> None:
    """Say nothing."""


@dataclass
class Package:
    """What was written.

    Attributes:
        folder: where.
        task: what the model is for.
        files: the ONNX files, by part.
        adapters: the ``.onnx_adapter`` files, by the adapter's name.
        others: configurations and files of the tokenizer.
        seconds: by step.
    """

    folder: Path
    task: str
    files: dict[str, Path] = field(default_factory=dict)
    adapters: dict[str, Path] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of all that is in the folder."""
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        return {
            "folder": str(self.folder),
            "task": self.task,
            "files": {part: path.name for part, path in self.files.items()},
            "adapters": {name: path.name for name, path in self.adapters.items()},
            "others": [path.name for path in self.others],
            "seconds": {step: round(seconds, 2) for step, seconds in self.seconds.items()},
            "bytes": self.bytes,
        }


def export_folder(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    task: str | None = None,
    dtype: str = "float32",
    from_config: bool = False,
    trust_remote_code: bool = False,
    verify: bool = False,
    adapters: Mapping[str, str | os.PathLike[str]] | None = None,
    **options: Any,
) -> Package:
    """Export the model of a folder.

    Args:
        folder: has ``config.json``, weights and the tokenizer, as ``save_pretrained`` writes them.
        output: a folder for the package; it is made.
        task: such as ``"text-generation"``; by default that of the class that the weights belong to.
        dtype: ``"float32"``, or ``"float16"`` or ``"bfloat16"``, as ``onnxport.export`` takes it: weights, inputs and
            outputs have it, and norms, exponentials and sums are computed in float32.
        from_config: build the model with random weights, without those of the folder.
        trust_remote_code: run the code that the folder has for its model.
        verify: compare what was written with the model, which is loaded into memory for that.
        adapters: folders of LoRA adapters, as peft saves them, by the names of their files.
        options: those of :func:`export_model`.

    Raises:
        InputError: the folder has no model that this transformers can read, or an option can't be used.
        VerificationError: with `verify`, a file computes something else. The package is written.
        OnnxExporterError: the model can't be exported.
    """
    if dtype not in models.DTYPES:
        raise InputError(f"dtype={dtype!r}: give one of {', '.join(models.DTYPES)}.", parameter="dtype")
    folder = Path(folder)
    started = time.perf_counter()
    factory: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    options["dtype"] = None if dtype == "float32" else dtype
    config = models.read_config(folder, trust_remote_code=trust_remote_code)
    chosen = tasks.task_of(config, task)
    source = models.build(tasks.factory_of(chosen), config, None if from_config else folder, **factory)
    source.folder = folder
    if adapters:
        options["adapters"] = [lora.read(name, path) for name, path in adapters.items()]
    package = Package(Path(output), chosen.name, seconds={"read": time.perf_counter() - started})
    try:
        _written(source, chosen, package, **options)
    except decoding.NeedsWeightsError:
        source = Source(models.loaded(tasks.factory_of(chosen), folder, **factory), folder=folder)
        _written(source, chosen, package, **options)
    if verify:
        model = source.model if not source.weights else models.loaded(tasks.factory_of(chosen), folder, **factory)
        verify_package(package, model, tell=options.get("tell", _untold))
    return package


def verify_package(package: Package, model: Any, tell: Callable[[str], None] = _untold) -> None:
    """Compare the files of a package with their model: a decoder's tokens, the outputs of all others.

    Raises:
        VerificationError: what differs, and where.
    """
    task = tasks.TASKS[package.task]
    started = time.perf_counter()
    if task.form is tasks.DECODER:
        checks = {"model": onnxport.verify(package.files["model"], model, kind=Generation())}
    else:
        graphs = graphs_of(model, task, False)
        checks = {part: onnxport.verify(package.files[part], g.model, (), g.kwargs) for part, g in graphs.items()}
    package.seconds["verify"] = time.perf_counter() - started
    for part, result in checks.items():
        result.raise_on_failure()
        tell(f"{part}: equal in {len(result.comparisons)} cases")


def export_model(model: Any, output: str | os.PathLike[str], *, task: str | None = None, **options: Any) -> Package:
    """Export a model of transformers, or of a class derived from its ``PreTrainedModel``.

    Args:
        model: in eval mode. Of one of peft, the base model is exported, with its LoRA adapters as inputs and files.
        output: a folder for the package; it is made.
        task: by default that of the model's class; text generation for a class of your own that takes tokens and a
            cache.
        options: as follows.
            runtime: the profile of the runtime that the files are for.
            quantize: as ``onnxport.export`` takes it.
            dtype: likewise.
            opset_version: likewise.
            plugins: likewise.
            genai: also write ``genai_config.json``.
            last_logits: for text generation, logits of the last token alone.
            verify: compare what was written with the model.
            tell: is called with a line for each step.
    """
    verify = options.pop("verify", False)
    with lora.taken_off(model) as (base, found):
        chosen = tasks.task_of(base.config, task or _task_of_class(base))
        package = Package(Path(output), chosen.name)
        _written(Source(base.eval()), chosen, package, adapters=found, **options)
        if verify:
            verify_package(package, base, tell=options.get("tell", _untold))
    return package


def _task_of_class(model: Any) -> str | None:
    from transformers.models.auto import modeling_auto

    name = type(model).__name__
    for task in tasks.TASKS.values():
        listed = getattr(modeling_auto, task.mapping, {}).values()
        if any(name in ((each,) if isinstance(each, str) else each) for each in listed):
            return task.name
    takes = decoding.parameters_of(model)
    if decoding.cache_parameter(model) is not None and "input_ids" in takes:
        return "text-generation"
    return None


def _written(
    source: Source,
    task: tasks.Task,
    package: Package,
    *,
    runtime: str = "onnx",
    quantize: Any = None,
    dtype: Any = None,
    opset_version: int | None = None,
    plugins: Sequence[Any] | None = None,
    genai: bool = False,
    last_logits: bool = False,
    adapters: Sequence[Adapter] = (),
    tell: Callable[[str], None] = _untold,
) -> Package:
    if adapters and task.form is not tasks.DECODER:
        raise InputError(
            f"Adapters are for text generation; this is {task.name}. Merge them into the model before.",
            parameter="adapters",
        )
    if genai and task.form is not tasks.DECODER:
        raise InputError(f"--genai is for text generation; this is {task.name}. Leave it out.", parameter="genai")
    _make(package.folder)
    tell(f"{type(source.model).__name__} for {task.name}: {_size_of(source.model)}")
    graphs = graphs_of(source.model, task, last_logits)
    layers = lora.layers_of(adapters)
    if layers:
        graphs["model"] = lora.adapted(source.model, graphs["model"], layers)
    options = {"runtime": runtime, "opset_version": opset_version, "plugins": plugins}
    options |= {"quantize": quantize, "dtype": dtype}
    programs = {part: _exported(source, graph, part, package, tell, options) for part, graph in graphs.items()}
    started = time.perf_counter()
    if layers:
        lora.without_adapter(programs["model"], layers)
        package.adapters = {adapter.name: adapter.write(package.folder, programs["model"]) for adapter in adapters}
    if len(programs) == 1:
        for part, program in programs.items():
            package.files[part] = package.folder / f"{part}.onnx"
            program.save(package.files[part], external_data=True)
    else:
        package.files = onnxport.save_together(programs, package.folder).files
    package.seconds["save"] = time.perf_counter() - started
    if genai:
        package.others.append(_genai_config(source.model, graphs["model"], package))
    package.others += _copied(source, package.folder)
    tell(f"{package.folder}: {_bytes(package.bytes)}, written in {package.seconds['save']:.1f} s")
    return package


def graphs_of(model: Any, task: tasks.Task, last_logits: bool) -> dict[str, Graph]:
    """What the files are exported from, by their names."""
    if last_logits and task.form is not tasks.DECODER:
        raise InputError(f"last_logits is for text generation; this is {task.name}. Leave it out.")
    if task.form is tasks.DECODER:
        return {"model": decoding.decoder(model, last_logits=last_logits)}
    if task.form is tasks.ENCODER_DECODER:
        return seq2seq.parts(model)
    return {"model": inputs.single(model, task.name)}


def _exported(
    source: Source, graph: Graph, part: str, package: Package, tell: Callable[[str], None], options: dict[str, Any]
) -> onnxport.ONNXProgram:
    started = time.perf_counter()
    with torch.no_grad():
        program = onnxport.export(graph.model, **graph.options(), **options, verbose=False)
    package.seconds[f"export {part}"] = seconds = time.perf_counter() - started
    tell(f"{part}: {len(program.model.graph)} nodes, {seconds:.1f} s")
    source.fill(program)
    return program


def _genai_config(model: Any, graph: Graph, package: Package) -> Path:
    shapes = [tensor.shape for tensor in graph.kwargs["past_key_values"]]
    own = graph.input_names[: len(graph.input_names) - len(graph.kwargs.get("adapters", ()))]
    return write_config(package.folder, model, own, graph.output_names, shapes, package.files["model"].name)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise onnxport.SaveError(f"Cannot make the folder {str(folder)!r}: {error.strerror}. Give another.") from error


def _copied(source: Source, folder: Path) -> list[Path]:
    """Configurations and the tokenizer, as they are in the model's folder, or written again without one."""
    if source.folder is None:
        source.model.config.save_pretrained(folder)
        return [folder / "config.json"]
    names = sorted({path for pattern in _COPIED for path in source.folder.glob(pattern) if path.is_file()})
    if source.folder.resolve() != folder.resolve():
        for path in names:
            shutil.copyfile(path, folder / path.name)
    return [folder / path.name for path in names]


def _size_of(model: Any) -> str:
    tensors = {id(parameter): parameter for parameter in model.parameters()}.values()
    count = sum(tensor.numel() for tensor in tensors)
    return f"{count / 1e6:,.1f} million weights, {_bytes(sum(t.numel() * t.element_size() for t in tensors))}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
