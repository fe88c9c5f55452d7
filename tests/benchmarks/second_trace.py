"""What in-place writes cost: the fast path against torch's own retracing, and how many programs still need that.

``python tests/benchmarks/second_trace.py [name …] [--sets]``; with ``--sets``, one small model of each family of
torchvision, timm and transformers is captured and counted instead (half an hour on one core).
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from onnxport_functional.functionalize import functionalize

Model = tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]
_SEGMENTATION = ("lraspp_mobilenet_v3_large", "fcn_resnet50", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50")
_DETECTION = (
    "ssdlite320_mobilenet_v3_large", "ssd300_vgg16", "retinanet_resnet50_fpn", "fcos_resnet50_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
)  # fmt: skip
_SMALL_NAMES = ("atto", "pico", "nano", "xxs", "xx_small", "femto", "tiny", "_t_", "small", "_s", "18", "26", "b0")
_VIDEO, _SIZES = ("mvit_v1_b", "swin3d_t", "r3d_18", "s3d"), {"inception_v3": 299}


def detection(name: str) -> Model:
    """A detector of torchvision, on one image."""
    from torchvision.models import detection as models

    model = getattr(models, name)(weights=None, weights_backbone=None).eval()
    return model, ([torch.rand(3, 320, 320)],), {}


def segmentation(name: str) -> Model:
    """A segmentation model of torchvision, on one image."""
    from torchvision.models import segmentation as models

    return getattr(models, name)(weights=None, weights_backbone=None).eval(), (torch.rand(1, 3, 128, 128),), {}


def torchvision_set() -> Iterator[tuple[str, Callable[[], Model]]]:
    """The smallest classifier of each family, video models, detection and segmentation."""
    import torchvision

    families: dict[str, str] = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        families.setdefault(torchvision.models.get_model_builder(name).__module__, name)
    for name in families.values():
        size = _SIZES.get(name, 224)
        yield name, lambda n=name, s=size: (torchvision.models.get_model(n).eval(), (torch.rand(1, 3, s, s),), {})
    for name in _VIDEO:
        frames = torch.rand(1, 3, 16, 224, 224)
        yield name, lambda n=name, x=frames: (torchvision.models.get_model(n).eval(), (x,), {})
    yield from ((name, lambda n=name: segmentation(n)) for name in _SEGMENTATION)
    yield from ((name, lambda n=name: detection(n)) for name in _DETECTION)


def timm_set() -> Iterator[tuple[str, Callable[[], Model]]]:
    """A small model of each module of timm."""
    import timm

    for module in timm.list_modules():
        names = timm.list_models(module=module)
        if names:
            name = next((n for part in _SMALL_NAMES for n in names if part in f"{n}_"), names[0])

            def build(name: str = name) -> Model:
                model = timm.create_model(name).eval()
                return model, (torch.rand(1, *model.default_cfg["input_size"]),), {}

            yield name, build


_WIDTHS = {
    "vocab_size": 99, "hidden_size": 32, "d_model": 32, "n_embd": 32, "embed_dim": 32, "intermediate_size": 64,
    "ffn_dim": 64, "word_embed_proj_dim": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "num_hidden_layers": 2,
    "n_layer": 2, "encoder_layers": 2, "decoder_layers": 2, "num_layers": 2, "num_decoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_key_value_heads": 2, "num_heads": 4, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "d_kv": 8,
    "d_ff": 64, "head_dim": 8, "embedding_size": 32, "pad_token_id": 0, "state_size": 4, "num_local_experts": 4,
}  # fmt: skip
_TEXT = (
    "albert", "bert", "big_bird", "bloom", "camembert", "codegen", "deberta", "deberta-v2", "distilbert", "electra",
    "ernie", "falcon", "fnet", "gemma", "gemma2", "gemma3_text", "glm", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox",
    "gptj", "granite", "llama", "mamba", "mistral", "mixtral", "mobilebert", "modernbert", "mpnet", "mpt",
    "nystromformer", "olmo", "olmo2", "openai-gpt", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "roberta", "roformer", "rwkv", "squeezebert", "stablelm", "starcoder2", "xglm", "xlm-roberta",
)  # fmt: skip
_SEQUENCES = ("bart", "blenderbot", "fsmt", "longt5", "m2m_100", "marian", "mbart", "mt5", "pegasus", "t5", "umt5")
_IMAGES = ("beit", "convnext", "deit", "dinov2", "dpt", "levit", "mobilevit", "poolformer", "resnet", "segformer",
           "swin", "swinv2", "vit", "yolos")  # fmt: skip


def transformers_set() -> Iterator[tuple[str, Callable[[], Model]]]:
    """Small configurations of the model types of transformers."""
    from transformers import AutoConfig, AutoModel

    def build(kind: str, inputs: dict[str, torch.Tensor], narrow: bool = True) -> Model:
        config = AutoConfig.for_model(kind)
        if narrow:
            for name, value in _WIDTHS.items():
                computed = isinstance(getattr(type(config), name, None), property)
                if isinstance(getattr(config, name, None), int) and not computed:
                    setattr(config, name, value)
            computed = isinstance(getattr(type(config), "layer_types", None), property)
            if isinstance(getattr(config, "layer_types", None), list) and not computed:
                config.layer_types = config.layer_types[:2]
            if hasattr(config, "rotary_dim"):
                config.rotary_dim = 8
        config.use_cache = False
        return AutoModel.from_config(config).eval(), (), inputs

    ids = torch.randint(3, 90, (2, 16))
    mask = torch.ones_like(ids)
    for kind in _TEXT:
        given = {"input_ids": ids} if kind in ("fnet", "mamba", "rwkv") else {"input_ids": ids, "attention_mask": mask}
        yield kind, lambda k=kind, g=given: build(k, g)
    for kind in _SEQUENCES:
        yield kind, lambda k=kind: build(k, {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": ids[:, :5]})
    for kind in _IMAGES:
        yield kind, lambda k=kind: build(k, {"pixel_values": torch.rand(1, 3, 224, 224)}, narrow=False)


def capture(model: Model) -> torch.export.ExportedProgram:
    """The program as an export captures it, of the example's own sizes."""
    from onnxport.host.discovery import load
    from onnxport_builtin.attempts.capture import capture as captured
    from onnxport_builtin.request.arguments import prepare

    module, args, kwargs = model
    host = load(None)
    request = prepare(module, args, kwargs, containers=host.containers())
    return captured(module, request, host).program


def compare(names: list[str]) -> None:
    """Seconds of the capture, of the fast path and of the fallback."""
    print(f"{'model':40} nodes  capture s  in place s  retraced s  ratio  second trace")
    for name in names or [*_SEGMENTATION, *_DETECTION]:
        subject = segmentation(name) if name in _SEGMENTATION else detection(name)
        seconds = []
        program = functional = None
        for step in ("capture", "fast", "fallback"):
            start = time.perf_counter()
            if step == "capture":
                program = capture(subject)
            elif step == "fast":
                functional = functionalize(program)
            else:
                functionalize(program.run_decompositions({}))
            seconds.append(time.perf_counter() - start)
        taken, fast, slow = seconds
        line = f"{name:40} {len(program.graph.nodes):5} {taken:10.1f} {fast:11.3f} {slow:11.2f} {slow / fast:6.0f}"
        print(line, f" {functional.fallback or 'no'}", flush=True)


def count(sets: dict[str, Callable[[], Iterator[tuple[str, Callable[[], Model]]]]]) -> None:
    """How many programs of each set need a second trace, and which can't be captured."""
    for title, models in sets.items():
        captured = again = failed = 0
        for name, build in models():
            print(f"{title} {name}", file=sys.stderr, flush=True)
            try:
                program = capture(build())
            except Exception as error:  # a model that doesn't build or isn't captured has no program to count
                failed += 1
                print(f"    {name} not captured: {type(error).__name__}: {str(error).strip().splitlines()[0][:150]}")
                logging.getLogger(__name__).debug("%s", traceback.format_exc())
                continue
            captured += 1
            if reason := functionalize(program).fallback:
                again += 1
                print(f"    {name}: {reason}", flush=True)
        print(f"{title}: {captured} captured, {again} need a second trace, {failed} not captured", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--sets", action="store_true")
    options = parser.parse_args()
    sets = {"torchvision": torchvision_set, "timm": timm_set, "transformers": transformers_set}
    warnings.simplefilter("ignore")
    if options.sets:
        count({name: sets[name] for name in options.names or sets})
    else:
        compare(options.names)


if __name__ == "__main__":
    sys.exit(main())
