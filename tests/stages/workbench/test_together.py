"""Several graphs over one data file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxport
import onnxruntime
import pytest
import torch
from torch import nn


class Halves(nn.Module):
    """One large table, read by both; a layer of each."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(200, 16)
        self.first, self.second = nn.Linear(16, 64), nn.Linear(64, 16)


class Encoder(nn.Module):
    def __init__(self, of: Halves) -> None:
        super().__init__()
        self.of, self.layer = of.table, of.first

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.layer(self.of(ids))


class Decoder(nn.Module):
    def __init__(self, of: Halves) -> None:
        super().__init__()
        self.words, self.layer = of.table, of.second

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.layer(x) @ self.words.weight.t() + self.words(ids).sum(-1, keepdim=True)


def _models() -> tuple[Encoder, Decoder, torch.Tensor, torch.Tensor]:
    halves = Halves().eval()
    return Encoder(halves).eval(), Decoder(halves).eval(), torch.randint(0, 200, (2, 5)), torch.randn(2, 5, 64)


def _run(path: Path, *inputs: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path)
    names = [value.name for value in session.get_inputs()]
    return torch.from_numpy(session.run(None, dict(zip(names, (i.numpy() for i in inputs), strict=True)))[0])


def test_each_weight_is_stored_once(tmp_path: Path) -> None:
    encoder, decoder, ids, x = _models()
    batch = {0: "batch"}
    made = onnxport.export_together(
        {
            "encoder": {"model": encoder, "args": (ids,), "dynamic_shapes": (batch,)},
            "decoder": (decoder, (x, ids)),
        },
        tmp_path / "package",
    )
    assert sorted(os.listdir(tmp_path / "package")) == ["decoder.onnx", "encoder.onnx", "weights.data"]
    assert made.data is not None and made.files["encoder"].name == "encoder.onnx"
    sizes = [200 * 16 * 4, 64 * 16 * 4, 16 * 64 * 4]
    assert made.data.stat().st_size <= 1.01 * sum(sizes) + 3 * 64
    assert made.shared_bytes >= sizes[0]
    more = torch.randint(0, 200, (7, 5))
    for path, model, inputs in (
        (made.files["encoder"], encoder, (more,)),
        (made.files["decoder"], decoder, (x, ids)),
    ):
        onnx.checker.check_model(str(path), full_check=True)
        with torch.no_grad():
            torch.testing.assert_close(_run(path, *inputs), model(*inputs), rtol=1e-4, atol=1e-4)


def test_another_package_takes_its_place(tmp_path: Path) -> None:
    """Old data go when nothing names them; those of a model that stays are kept."""
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        encoder, decoder, ids, x = _models()
        models: dict[str, Any] = {"encoder": (encoder, (ids,)), "decoder": (decoder, (x, ids))}
        if seed == 2:
            del models["decoder"]
        before = (encoder, decoder, x) if seed == 1 else (None, None, None)
        made = onnxport.export_together(models, tmp_path, verify=False)
        with torch.no_grad():
            torch.testing.assert_close(_run(made.files["encoder"], ids), encoder(ids), rtol=1e-4, atol=1e-4)
        if seed == 1:
            _, kept, given = before
    data = [name for name in os.listdir(tmp_path) if name.endswith(".data")]
    assert len(data) == 2  # of the new encoder, and of the decoder that stayed
    with torch.no_grad():
        found = _run(tmp_path / "decoder.onnx", given, torch.zeros(2, 5, dtype=torch.int64))
        torch.testing.assert_close(found, kept(given, torch.zeros(2, 5, dtype=torch.int64)), rtol=1e-4, atol=1e-4)


def test_programs_that_are_there_already(tmp_path: Path) -> None:
    """Of any quantity of weights: none, and those of other dtypes."""
    x = torch.randn(3, 4)
    plain = onnxport.export(nn.Identity(), (x,))
    bytes_ = nn.Linear(40, 40).to(torch.float16).eval()
    half = onnxport.export(bytes_, (torch.randn(2, 40).half(),))
    made = onnxport.save_together({"plain": plain, "half": half}, tmp_path)
    np.testing.assert_array_equal(_run(made.files["plain"], x), x)
    assert made.data is not None and made.data.stat().st_size == 40 * 40 * 2
    alone = onnxport.save_together({"plain": plain}, tmp_path / "alone")
    assert alone.data is None and os.listdir(tmp_path / "alone") == ["plain.onnx"]


class Random(nn.Module):
    """Never the same twice: its file can't equal it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


def test_a_part_that_differs_keeps_all_from_being_written(tmp_path: Path) -> None:
    encoder, _, ids, _ = _models()
    with pytest.raises(onnxport.VerificationError):
        onnxport.export_together({"a": (encoder, (ids,)), "b": (Random(), (torch.zeros(3),))}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({}, "give a dict of what to export"),
        ([1], "give a dict of what to export"),
        ({"a/b": (nn.Identity(), (1,))}, "can't be the name of a file"),
        ({"a": 3}, r"models\['a'\]: give \(model, args\)"),
        ({"a": {"args": ()}}, r"models\['a'\]: give \(model, args\)"),
    ],
)
def test_what_cannot_be_exported_together(models: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(onnxport.InputError, match=message):
        onnxport.export_together(models, tmp_path)
