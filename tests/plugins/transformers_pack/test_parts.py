"""Models that become several files, and those whose forward is called once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

transformers = pytest.importorskip("transformers")

import onnxport_transformers  # noqa: E402
from onnxport_transformers import inputs  # noqa: E402
from transformers_subjects import enlarged  # noqa: E402

_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
_BART: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 16,
    "max_position_embeddings": 64,
    **_TOKENS,
    **{f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")},
    **{f"{part}_ffn_dim": 16 for part in ("encoder", "decoder")},
}
PAIRS: dict[str, Callable[[], Any]] = {
    "T5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, **_TOKENS)
    ),
    "Bart": lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(**_BART)),
    "Whisper": lambda: transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(**_BART, max_source_positions=20, max_target_positions=40, num_mel_bins=8)
    ),
}


Tokens = tuple[torch.Tensor, torch.Tensor]


def _session(path: Path) -> Any:
    session = onnxruntime.InferenceSession(path)
    names = [value.name for value in session.get_outputs()]
    takes = {value.name: value.shape for value in session.get_inputs()}

    def run(**given: Any) -> dict[str, torch.Tensor]:
        feeds = {name: tensor.numpy() for name, tensor in given.items() if name in takes}
        return dict(zip(names, map(torch.from_numpy, session.run(None, feeds)), strict=True))

    return run, takes


def greedy(files: dict[str, Path], kwargs: dict[str, torch.Tensor], start: int, steps: int) -> Tokens:
    """Tokens and logits of the two files: the encoder is run once, the decoder for each token."""
    encode, _ = _session(files["encoder"])
    decode, takes = _session(files["decoder"])
    encoded = encode(**kwargs)
    batch = next(iter(kwargs.values())).shape[0]
    states = {f"past_key_values.{name[8:]}": tensor for name, tensor in encoded.items() if name.startswith("present.")}
    for name, shape in takes.items():
        if ".decoder." in name:
            states[name] = torch.zeros(batch, shape[1], 0, shape[3])
    token = torch.full((batch, 1), start)
    tokens, scores = [token], []
    mask = {"encoder_attention_mask": kwargs["attention_mask"]} if "attention_mask" in kwargs else {}
    for _ in range(steps):
        given = decode(decoder_input_ids=token, **states, **mask)
        states |= {f"past_key_values.{name[8:]}": tensor for name, tensor in given.items() if name.startswith("pres")}
        token = given["logits"][:, -1:].argmax(-1)
        tokens.append(token)
        scores.append(given["logits"])
    return torch.cat(tokens, 1), torch.cat(scores, 1)


def expected_tokens(model: Any, kwargs: dict[str, torch.Tensor], start: int, steps: int) -> Tokens:
    """Those of eager torch, without a cache."""
    tokens = torch.full((next(iter(kwargs.values())).shape[0], 1), start)
    for _ in range(steps):
        with torch.no_grad():
            logits = model(**kwargs, decoder_input_ids=tokens, use_cache=False).logits
        tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], 1)
    return tokens, logits


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "T5" else pytest.mark.grid) for n in PAIRS])
def test_tokens_of_encoder_and_decoder(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = enlarged(PAIRS[name]().eval())
    model.save_pretrained(tmp_path / "model")
    package = onnxport_transformers.export_folder(tmp_path / "model", tmp_path / "package")
    assert set(package.files) == {"encoder", "decoder"}
    example, _ = inputs.example(model)
    example.pop("decoder_input_ids", None)
    for batch, longer in ((1, 0), (3, 4)):
        kwargs = {}
        for key, tensor in example.items():
            sizes = [batch, *tensor.shape[1:]]
            if key in ("input_ids", "attention_mask"):
                sizes[1] += longer
            is_index = tensor.dtype is torch.int64
            kwargs[key] = torch.randint(4, 64, sizes) if is_index else torch.randn(sizes)
        if "attention_mask" in kwargs:
            kwargs["attention_mask"] = torch.ones_like(kwargs["attention_mask"])
            kwargs["attention_mask"][0, -2:] = 0  # padding of the encoder is read by no token
        expected, logits = expected_tokens(model, kwargs, 3, 12)
        tokens, found = greedy(package.files, kwargs, 3, 12)
        assert torch.equal(tokens, expected)
        torch.testing.assert_close(found, logits, rtol=1e-3, atol=1e-3)
    unique = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    data = package.folder / "weights.data"
    written = sum(size for size in unique.values() if size >= 1024)
    assert data.stat().st_size <= 1.01 * written + 64 * len(unique)


SINGLES: dict[str, Callable[[], Any]] = {
    "BertForMaskedLM": lambda: transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
    ),
    "ViTForImageClassification": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
            patch_size=8,
        )
    ),
    "Wav2Vec2ForCTC": lambda: transformers.Wav2Vec2ForCTC(
        transformers.Wav2Vec2Config(
            vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8), num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2, num_feat_extract_layers=2,
        )
    ),
}  # fmt: skip
_TASKS = {"BertForMaskedLM": "fill-mask", "ViTForImageClassification": "image-classification"}


@pytest.mark.parametrize("name", SINGLES)
def test_a_model_that_is_called_once(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SINGLES[name]().eval()
    package = onnxport_transformers.export_model(model, tmp_path)
    assert package.task == _TASKS.get(name, "speech-to-characters") and list(package.files) == ["model"]
    run, _ = _session(package.files["model"])
    kwargs, shapes = inputs.example(model)
    for batch, longer in ((2, 0), (1, 5)):
        given = {}
        for key, tensor in kwargs.items():
            sizes = [batch, *tensor.shape[1:]]
            if 1 in shapes[key]:
                sizes[1] += longer
            given[key] = torch.randint(0, 2, sizes) if tensor.dtype is torch.int64 else torch.randn(sizes)
            if key == "attention_mask":
                given[key] = torch.ones_like(given[key])
        with torch.no_grad():
            expected = model(**given).logits
        torch.testing.assert_close(run(**given)["logits"], expected, rtol=1e-4, atol=1e-4)
