"""Models in half precision against the float32 models that they are: outputs within the tolerances of the dtype."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import onnx
import onnxport
import onnxport_onnxruntime
import pytest
import torch
from onnxport import DataType
from onnxport_workbench.comparing import TOLERANCES
from support import flat_tensors

from models.zoo import ZOO, Example

OPTIONS: dict[str, dict[str, Any]] = {
    "float16": {},
    "bfloat16": {"runtime": "onnxruntime-cpu", "plugins": [onnxport_onnxruntime]},
}


def _image(name: str, size: int = 64, **options: Any) -> Callable[[], Example]:
    def build() -> Example:
        import timm

        model = timm.create_model(name, num_classes=7, **options).eval()
        other = torch.randn(3, 3, size, size)
        return Example(model, (torch.randn(2, 3, size, size),), dynamic_shapes=({0: "batch"},), other_args=(other,))

    return build


def unet() -> Example:
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32, attention_head_dim=8,
    )  # fmt: skip

    def inputs(batch: int) -> tuple[torch.Tensor, ...]:
        return torch.randn(batch, 4, 16, 16), torch.tensor([977] * batch), torch.randn(batch, 7, 32)

    return Example(model.eval(), inputs(2), {"return_dict": False}, ({0: "batch"}, {0: "batch"}, {0: "batch"}, None),
                   inputs(3), {"return_dict": False})  # fmt: skip


def t5_encoder() -> Example:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    ids = torch.randint(0, 100, (2, 7))
    return Example(T5EncoderModel(config).eval(), kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
                   dynamic_shapes={"input_ids": {0: "b", 1: "s"}, "attention_mask": {0: "b", 1: "s"}},
                   other_kwargs={"input_ids": ids.repeat(2, 2), "attention_mask": torch.ones(4, 14, dtype=torch.int64)},
                   )  # fmt: skip


MODELS: dict[str, Callable[[], Example]] = {
    "resnet50": _image("resnet50", 32),
    "mobilenet": _image("mobilenetv3_small_100", 32),
    "efficientnet": _image("efficientnet_b0", 32),
    "convnext": _image("convnext_atto", 32),
    "vit": _image("vit_tiny_patch16_224", 32, img_size=32, patch_size=8, depth=2, embed_dim=48),
    "swin": _image("swin_tiny_patch4_window7_224", 56, img_size=56, depths=(2, 2), num_heads=(2, 4), embed_dim=24),
    "t5 encoder": t5_encoder,
    "unet": unet,
    **{name: ZOO[name] for name in ("bert", "gpt2", "whisper", "llama", "llama_with_cache", "lstm", "gru", "cond")},
    **{name: ZOO[name] for name in ("mixtral", "t5", "mlp")},
}
OFTEN = ("bert", "llama_with_cache", "convnext", "lstm")
"""Those that run with the default tests; the others are in the grid."""


def _call(model: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    args, kwargs = copy.deepcopy((args, kwargs))  # caches grow in place
    with torch.no_grad():
        return flat_tensors(model(*args, **kwargs))


def _named(names: Any) -> list[Any]:
    return [name if name in OFTEN else pytest.param(name, marks=pytest.mark.grid) for name in names]


@pytest.mark.parametrize("dtype", OPTIONS)
@pytest.mark.parametrize("name", _named(MODELS))
def test_model(name: str, dtype: str) -> None:
    torch.manual_seed(0)
    example = MODELS[name]()
    program = onnxport.export(
        example.model, example.args, kwargs=copy.deepcopy(example.kwargs), dynamic_shapes=example.dynamic_shapes,
        dtype=dtype, verbose=False, **OPTIONS[dtype],
    )  # fmt: skip
    onnx.checker.check_model(program.model_proto, full_check=True)
    half = getattr(torch, dtype)
    large = [v for v in program.model.graph.initializers.values() if v.dtype is DataType.FLOAT and len(v.shape) > 1]
    assert not [v for v in large if v.const_value.size > 64], "weights of products are in half precision"
    rtol, atol = TOLERANCES[half]
    sets = [(example.args, example.kwargs), (example.other_args or example.args, example.other_kwargs)]
    for args, kwargs in sets:
        expected = _call(example.model, args, kwargs)
        for found, want in zip(_call(program, args, kwargs), expected, strict=True):
            assert found.dtype is (half if want.is_floating_point() else want.dtype)
            scale = max(1.0, want.double().abs().mean().item())
            torch.testing.assert_close(found.double(), want.double(), rtol=rtol, atol=atol * scale)
