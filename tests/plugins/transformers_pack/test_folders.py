"""A folder of transformers becomes a package: weights are read from the checkpoint while the file is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxport
import onnxruntime
import pytest
import torch

transformers = pytest.importorskip("transformers")

import onnxport_transformers  # noqa: E402
from onnxport_transformers import decoding, models  # noqa: E402
from transformers_subjects import decoder  # noqa: E402


def _feeds(session: Any, ids: torch.Tensor, past: dict[str, Any]) -> dict[str, Any]:
    """A call without padding; without a past where none is given."""
    length = next((value.shape[2] for value in past.values()), 0)
    batch, new = ids.shape
    positions = torch.arange(length, length + new).expand(batch, new).numpy()
    feeds = {"input_ids": ids.numpy(), "attention_mask": torch.ones(batch, length + new, dtype=torch.int64).numpy()}
    feeds["position_ids"] = positions
    for value in session.get_inputs():
        if value.name.startswith("past"):
            empty = torch.zeros(batch, value.shape[1], 0, value.shape[3]).numpy()
            feeds[value.name] = past.get(value.name, empty)
    return {value.name: feeds[value.name] for value in session.get_inputs()}


def _logits(path: Path, ids: torch.Tensor, split: int) -> torch.Tensor:
    """Of all tokens, in two calls: those before ``split``, and the others."""
    session = onnxruntime.InferenceSession(path)
    names = [value.name for value in session.get_outputs()]
    first = dict(zip(names, session.run(None, _feeds(session, ids[:, :split], {})), strict=True))
    past = {name.replace("present", "past_key_values"): v for name, v in first.items() if name != "logits"}
    second = session.run(None, _feeds(session, ids[:, split:], past))
    return torch.cat([torch.from_numpy(first["logits"]), torch.from_numpy(second[0])], 1)


def test_a_package_in_half_precision(tmp_path: Path) -> None:
    """Weights of a float32 checkpoint are converted while they are written; caches are in half precision too."""
    decoder("Gemma3").save_pretrained(tmp_path / "model")
    onnxport_transformers.export_folder(tmp_path / "model", tmp_path / "package", dtype="float16")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    session = onnxruntime.InferenceSession(tmp_path / "package" / "model.onnx")
    kinds = {value.type for value in (*session.get_inputs(), *session.get_outputs())}
    assert kinds == {"tensor(int64)", "tensor(float16)"}
    ids = torch.randint(3, 64, (2, 9))
    feeds = _feeds(session, ids, {})
    feeds = {name: value.astype("float16") if value.dtype.kind == "f" else value for name, value in feeds.items()}
    with torch.no_grad():
        expected = model(ids).logits
    found = torch.from_numpy(session.run(["logits"], feeds)[0])
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=5e-3)


@pytest.mark.parametrize(("name", "shard"), [("Mixtral", "20KB"), ("Gemma3", "5GB")])
def test_weights_of_a_checkpoint(name: str, shard: str, tmp_path: Path) -> None:
    """bfloat16 becomes float32, experts are merged, tied weights are there once, and shards are found."""
    decoder(name).to(torch.bfloat16).save_pretrained(tmp_path / "model", max_shard_size=shard)
    source = models.build(transformers.AutoModelForCausalLM, models.read_config(tmp_path / "model"), tmp_path / "model")
    assert source.weights, "nothing is loaded: tensors are read when they are written"
    package = onnxport_transformers.export_folder(tmp_path / "model", tmp_path / "package")
    assert (tmp_path / "package" / "config.json").is_file()
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    for batch, length, split in ((1, 7, 4), (3, 9, 8)):
        ids = torch.randint(3, 64, (batch, length))
        with torch.no_grad():
            expected = model(ids).logits
        torch.testing.assert_close(_logits(package.files["model"], ids, split), expected, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_that_is_no_exact_match_is_loaded_by_transformers(tmp_path: Path) -> None:
    model = decoder("Llama")
    model.save_pretrained(tmp_path)
    config = models.read_config(tmp_path)
    assert models.build(transformers.AutoModelForCausalLM, config, tmp_path).weights
    config.hidden_size, config.num_hidden_layers = 32, 3  # a layer more than the checkpoint has
    source = models.build(transformers.AutoModelForCausalLM, config, tmp_path)
    assert not source.weights and len(source.model.model.layers) == 3


def test_last_logits(tmp_path: Path) -> None:
    model = decoder("Llama")
    graph = decoding.decoder(model, last_logits=True)
    program = onnxport.export(graph.model, **graph.options())
    assert [str(dim) for dim in program.model.graph.outputs[0].shape][1] == "1"
    program.save(tmp_path / "model.onnx")
    ids = torch.randint(3, 64, (2, 6))
    with torch.no_grad():
        expected = model(ids).logits
    found = _logits(tmp_path / "model.onnx", ids, 4)
    torch.testing.assert_close(found, expected[:, [3, 5]], rtol=1e-4, atol=1e-4)


def _command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``onnxport transformers``, as with the pack installed."""
    told = folder / "site" / "onnxport_transformers-0.1.0.dist-info"
    told.mkdir(parents=True, exist_ok=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxport-transformers\nVersion: 0.1.0\n")
    (told / "entry_points.txt").write_text("[onnxport]\ntransformers = onnxport_transformers\n")
    path = os.pathsep.join([str(folder / "site"), *sys.path])
    code = "from onnxport_workbench.cli import main; main()"
    command = [sys.executable, "-W", "ignore", "-c", code, "transformers", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


def test_command_line(tmp_path: Path) -> None:
    transformers.LlamaConfig(
        vocab_size=32, hidden_size=64, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(tmp_path / "model")  # fmt: skip
    options = ["-o", str(tmp_path / "out"), "--from-config", "--genai", "--quantize", "int4", "--json"]
    done = _command(tmp_path, str(tmp_path / "model"), *options)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["task"] == "text-generation" and told["files"] == {"model": "model.onnx"}
    assert set(told["others"]) == {"genai_config.json", "config.json"}
    assert "LlamaForCausalLM for text-generation" in done.stderr
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert session.get_inputs()[0].name == "input_ids"


def test_errors_of_the_command_are_told_as_those_of_others(tmp_path: Path) -> None:
    done = _command(tmp_path, str(tmp_path / "nowhere"), "-o", str(tmp_path / "out"))
    assert done.returncode == 2 and "has no config.json: give the folder of a model." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("config", "task", "message"),
    [
        (None, None, "has no config.json"),
        ({"model_type": "llama"}, None, "names no class, which is of no task"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "dancing", "no task 'dancing'"),
        ({"model_type": "what-nobody-has"}, None, "can't read"),
    ],
)
def test_what_is_no_model(config: Any, task: str | None, message: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(onnxport.InputError, match=message):
        onnxport_transformers.export_folder(tmp_path, tmp_path / "out", task=task)
