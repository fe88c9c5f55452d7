"""Run times in onnxruntime: files of onnxport and of torch's exporter at opsets 20 and 23, from one captured program.

``python tests/benchmarks/runtimes.py [--only llama,bert] [--opsets 20,23] [--runs 20]``

The Llama has 4 layers, 1024 wide, 16 query and 4 key heads, 32k words; the others have 6 layers of their default
width. Weights are random. The sessions of a model take turns in one process with one thread each; a number is the
lower quartile of the thread's CPU time in milliseconds, so that other work on the machine counts little. Behind each
number of onnxport ("cpu": with the profile onnxruntime-cpu) is its ratio to the fastest file of the others: torch's
exporter, what onnxscript's fusions and onnxruntime's optimizer make of that, and onnxruntime-genai's builder where it
is installed. Parameters that begin as zeros or ones (biases, norms) are random too: no file may leave them out.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxport
import onnxport_onnxruntime
import onnxruntime
import torch
from torch.utils import _pytree as pytree

_DYNAMIC = torch.export.Dim.DYNAMIC
_LAYERS = 6
_LONG = 60  # seconds: a case of a slow model ends earlier


@dataclass
class Subject:
    """A model, the keyword arguments that it is exported with, and those of each measurement."""

    model: torch.nn.Module
    example: dict[str, Any]
    shapes: dict[str, Any]
    cases: dict[str, dict[str, Any]]


def _llama() -> Subject:
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=4, num_attention_heads=16,
        num_key_value_heads=4,
    )  # fmt: skip

    def call(batch: int, past: int, length: int) -> dict[str, Any]:
        cache = DynamicCache(config=config)
        for layer in range(config.num_hidden_layers):
            cache.update(torch.randn(batch, 4, past, 64), torch.randn(batch, 4, past, 64), layer)
        mask = torch.ones(batch, past + length, dtype=torch.int64)
        ids = torch.randint(0, 32000, (batch, length))
        return {"input_ids": ids, "attention_mask": mask, "past_key_values": cache}

    axes = {0: _DYNAMIC, 1: _DYNAMIC}
    caches = [{0: _DYNAMIC, 2: _DYNAMIC}] * (2 * config.num_hidden_layers)
    cases = {"past 512": call(1, 512, 1), "past 1536": call(1, 1536, 1), "prefill 256": call(1, 1, 256)}
    shapes = {"input_ids": axes, "attention_mask": axes, "past_key_values": caches}
    return Subject(LlamaForCausalLM(config), call(2, 7, 5), shapes, cases)


def _tokens(batch: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 1000, (batch, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _text(model: torch.nn.Module, length: int = 128) -> Subject:
    axes = {0: _DYNAMIC, 1: _DYNAMIC}
    shapes = {"input_ids": axes, "attention_mask": axes}
    return Subject(model, _tokens(2, 16), shapes, {f"1x{length}": _tokens(1, length)})


def _bert() -> Subject:
    from transformers import BertConfig, BertModel

    return _text(BertModel(BertConfig(num_hidden_layers=_LAYERS)))


def _gpt2() -> Subject:
    from transformers import GPT2Config, GPT2LMHeadModel

    return _text(GPT2LMHeadModel(GPT2Config(n_layer=_LAYERS, use_cache=False)))


def _t5() -> Subject:
    from transformers import T5Config, T5EncoderModel

    return _text(T5EncoderModel(T5Config(num_layers=_LAYERS)))


def _clip_text() -> Subject:
    from transformers import CLIPTextConfig, CLIPTextModel

    return _text(CLIPTextModel(CLIPTextConfig(num_hidden_layers=_LAYERS)), 77)


def _image(model: torch.nn.Module, size: int = 224) -> Subject:
    example = {"pixel_values": torch.randn(2, 3, size, size)}
    case = {"pixel_values": torch.randn(1, 3, size, size)}
    return Subject(model, example, {"pixel_values": {0: _DYNAMIC}}, {f"1x{size}": case})


def _vit() -> Subject:
    from transformers import ViTConfig, ViTModel

    return _image(ViTModel(ViTConfig(num_hidden_layers=_LAYERS)))


def _swin() -> Subject:
    from transformers import SwinConfig, SwinModel

    return _image(SwinModel(SwinConfig(depths=[1, 1, 3, 1])))


def _whisper() -> Subject:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    model = WhisperEncoder(WhisperConfig(encoder_layers=_LAYERS))
    example, case = ({"input_features": torch.randn(n, 80, 3000)} for n in (2, 1))
    return Subject(model, example, {"input_features": {0: _DYNAMIC}}, {"1x3000": case})


SUBJECTS: Mapping[str, Callable[[], Subject]] = {
    "llama": _llama,
    "bert": _bert,
    "gpt2": _gpt2,
    "vit": _vit,
    "t5 encoder": _t5,
    "whisper encoder": _whisper,
    "clip text": _clip_text,
    "swin": _swin,
}


def _randomize(model: torch.nn.Module) -> None:
    """Let no parameter be of zeros or ones alone."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.02 * torch.randn_like(parameter)


def _programs(subject: Subject, opsets: list[int]) -> dict[str, Any]:
    """The files to compare; one that can't be made is left out, with a line that says so."""
    first = onnxport.export(
        subject.model.eval(), (), kwargs=subject.example, dynamic_shapes=subject.shapes, opset_version=opsets[0]
    )
    found: dict[str, Any] = {f"onnxport {opsets[0]}": first}
    captured = first.exported_program
    for opset in opsets[1:]:
        found[f"onnxport {opset}"] = onnxport.export(captured, opset_version=opset)
    for opset in opsets:
        options: Any = {"runtime": "onnxruntime-cpu", "plugins": [onnxport_onnxruntime]}
        found[f"onnxport cpu {opset}"] = onnxport.export(captured, opset_version=opset, **options)
    for opset in opsets:
        made = _of_torch(subject, captured, opset)
        if made is not None:
            found[f"torch {opset}"] = made
    return found


def _of_torch(subject: Subject, captured: Any, opset: int) -> Any:
    """torch's file, from the captured program, or where it can't take that one, from the model.

    Where it can't take the attention of torch either, as that of t5 and swin with dynamic sizes, the model computes it
    by products and a softmax.
    """
    asked = {"kwargs": subject.example, "dynamic_shapes": subject.shapes}
    calls: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((captured,), {}, ""),
        ((subject.model, ()), asked, ""),
        ((subject.model, ()), asked, "eager"),
    ]
    failure, usual = "", subject.model.config._attn_implementation
    for args, kwargs, attention in calls:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                subject.model.set_attn_implementation(attention or usual)
                return torch.onnx.export(*args, **kwargs, dynamo=True, opset_version=opset, verbose=False)
            except Exception as error:
                failure = f"{type(error).__name__}: {error}".splitlines()[0]
            finally:
                subject.model.set_attn_implementation(usual)
    print(f"left out: torch {opset}: {failure[:120]}")
    return None


def cpu_times(sessions: Mapping[str, Any], feeds: Mapping[str, dict[str, Any]], runs: int) -> dict[str, float]:
    """The lower quartile of the thread's CPU time of each session in milliseconds; the sessions take turns."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    gc.collect()
    begin = time.thread_time()
    for run in range(runs + 2):
        if run > 6 and time.thread_time() - begin > _LONG:
            break
        for name, session in sessions.items():
            start = time.thread_time()
            session.run(None, feeds[name])
            if run >= 2:
                times[name].append((time.thread_time() - start) * 1e3)
    return {name: statistics.quantiles(values, n=4)[0] for name, values in times.items()}


def _sessions(subject: Subject, programs: Mapping[str, Any], folder: Path, kind: str) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    paths = {name: folder / f"{name.replace(' ', '_')}.onnx" for name in programs}
    for name, program in programs.items():
        program.save(paths[name], external_data=True)
    others: list[tuple[str, Callable[[], Path | None]]] = [("genai builder", lambda: _built(subject, folder, kind))]
    for path in folder.glob("torch_*.onnx"):
        opset = path.stem.partition("_")[2]
        others.append((f"fusions {opset}", partial(_fused, path)))
        others.append((f"optimizer {opset}", partial(_optimized, path, kind)))
    for name, make in others:
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                path = make()
        except Exception as error:
            print(f"left out: {name}: {type(error).__name__}: {str(error)[:120]}")
        else:
            paths |= {} if path is None else {name: path}
    sessions = {}
    for name, path in paths.items():
        try:
            sessions[name] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            print(f"left out: {name}: no session: {str(error)[:120]}")
    return sessions


_KINDS = {"t5 encoder": "t5", "whisper encoder": "bart", "clip text": "clip"}
"""What onnxruntime's optimizer calls them, where that isn't the subject's name."""


def _optimized(source: Path, kind: str) -> Path | None:
    """What onnxruntime's optimizer makes of torch's file."""
    from onnxruntime.transformers import optimizer

    logging.disable(logging.WARNING)
    kind = _KINDS.get(kind, kind)
    path = source.with_name(f"optimized_{source.name}")
    if kind not in optimizer.MODEL_TYPES:
        return None
    model = optimizer.optimize_model(str(source), model_type=kind, num_heads=0, hidden_size=0, opt_level=1)
    model.save_model_to_file(str(path), use_external_data_format=True)
    return path


def _fused(source: Path) -> Path:
    """What onnxscript's fusions for onnxruntime make of torch's file."""
    from onnxscript.rewriter import ort_fusions

    path = source.with_name(f"fused_{source.name}")
    model, _ = ort_fusions.optimize_for_ort(ir.load(source))
    ir.save(model, path, external_data=f"{path.name}.data")
    return path


def _built(subject: Subject, folder: Path, kind: str) -> Path | None:
    """The file of onnxruntime-genai's builder, which writes decoders by hand."""
    if kind != "llama":
        return None
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    source, path = folder / "model", folder / "built"
    subject.model.save_pretrained(source)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))  # which the builder asks for
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>").save_pretrained(source)
    arguments = ["-i", source, "-o", path, "-c", folder / "cache", "-p", "fp32", "-e", "cpu"]
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)
    return path / "model.onnx"


def _feed(session: Any, case: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a call by the session's inputs: in their order, or by the names of the builder."""
    names = [value.name for value in session.get_inputs()]
    if "past_key_values.0.key" in names:
        caches = enumerate(case["past_key_values"].layers)
        past = {f"past_key_values.{i}.{k}": getattr(layer, f"{k}s") for i, layer in caches for k in ("key", "value")}
        return {name: {**case, **past}[name].numpy() for name in names}
    values = [leaf.numpy() for leaf in pytree.tree_leaves(_listed(case)) if isinstance(leaf, torch.Tensor)]
    return dict(zip(names, values, strict=True))


def _listed(case: dict[str, Any]) -> dict[str, Any]:
    """The case with the tensors of its cache as a list, keys and values in turn."""
    cache = case.get("past_key_values")
    if cache is None:
        return case
    return {**case, "past_key_values": [x for layer in cache.layers for x in (layer.keys, layer.values)]}


def measure(name: str, opsets: list[int], runs: int) -> None:
    """Print one line for each case of a subject."""
    torch.manual_seed(0)
    subject = SUBJECTS[name]()
    _randomize(subject.model)
    programs = _programs(subject, opsets)
    counts = ", ".join(f"{key}: {len(program.model.graph)}" for key, program in programs.items())
    print(f"{name} (nodes of the main graph: {counts})", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        sessions = _sessions(subject, programs, Path(folder), name)
        for label, case in subject.cases.items():
            feeds = {key: _feed(session, case) for key, session in sessions.items()}
            results = {key: session.run(None, feeds[key])[0] for key, session in sessions.items()}
            first = next(iter(results.values()))
            difference = max(abs(result - first).max() for result in results.values())
            times = cpu_times(sessions, feeds, runs)
            best = min((ms for key, ms in times.items() if not key.startswith("onnxport")), default=float("nan"))
            cells = [
                f"{key} {ms:7.2f}" + (f" ({ms / best:.2f})" if key.startswith("onnxport") else "")
                for key, ms in times.items()
            ]
            print(f"  {label:12} " + "   ".join(cells) + f"   largest difference {difference:.0e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SUBJECTS))
    parser.add_argument("--opsets", default="20,23")
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name in options.only.split(","):
        measure(name, [int(opset) for opset in options.opsets.split(",")], options.runs)


if __name__ == "__main__":
    main()
