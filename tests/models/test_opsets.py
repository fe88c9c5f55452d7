"""Every opset from 13 to the newest that onnxruntime loads is written natively, and computes what eager does.

Each case is captured once and translated for each opset. The operators are those that ONNX changed or added since
opset 13, and that torch has. Larger models are in the grid: ``make grid``.
"""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Callable
from typing import Any

import onnx
import onnxport
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnxport.vocabulary.opsets import DEFAULT_OPSET, MAX_OPSET, MIN_OPSET
from support import as_module, expect_equal, flat_tensors
from torch import nn

from models.zoo import ZOO, Example

OPSETS = list(range(MIN_OPSET, MAX_OPSET + 1))
MILESTONES = (MIN_OPSET, 18, DEFAULT_OPSET, 23, MAX_OPSET)
SMALL = ["bert", "gpt2", "llama_with_cache", "lstm", "gru", "cond"]
LARGER = [name for name in ZOO if name not in SMALL]


# What onnxruntime 1.32 has no kernel for, and what ONNX has no other operator for. When it gets one, the tests say so.
NO_KERNEL = {28: {"QuantizeLinear", "DequantizeLinear"}}
# What older opsets can't express is refused with the opset that can.
NEEDS = {"interpolate antialias": 18}


def vit() -> Example:
    import timm

    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=48, num_classes=5)
    return Example(model.eval(), (torch.randn(2, 3, 32, 32),), dynamic_shapes=({0: "batch"},),
                   other_args=(torch.randn(3, 3, 32, 32),))  # fmt: skip


def resnet() -> Example:
    from torchvision.models.resnet import BasicBlock, ResNet

    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5)
    return Example(model.eval(), (torch.randn(2, 3, 32, 32),), dynamic_shapes=({0: "batch"},),
                   other_args=(torch.randn(3, 3, 32, 32),))  # fmt: skip


MODELS: dict[str, Callable[[], Example]] = {
    **{name: ZOO[name] for name in SMALL}, "vit": vit, "resnet": resnet,
}  # fmt: skip

X = torch.randn(2, 4, 6)
POSITIVE = X.abs() + 1.5
UNIT = X.tanh()
INTS = torch.randint(1, 9, (3, 4))
IMAGE = torch.randn(2, 4, 8, 8)
VOLUME = torch.randn(1, 2, 4, 5, 6)
GRID = torch.rand(2, 5, 5, 2) * 2 - 1
THETA = torch.randn(2, 2, 3)
HEADS = torch.randn(2, 4, 6, 8)


def _deform_conv(x: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    import torchvision

    return torchvision.ops.deform_conv2d(x, offset, weight)


def _while_loop(x: torch.Tensor) -> Any:
    def more(i: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return i < 3

    def step(i: torch.Tensor, x: torch.Tensor) -> Any:
        return i + 1, x * 2

    return torch._higher_order_ops.while_loop(more, step, (torch.tensor(0), x))


def _scan(x: torch.Tensor) -> Any:
    from torch._higher_order_ops.scan import scan

    return scan(lambda carry, row: (carry + row, carry * row), torch.zeros(4, 6), x)


def _quantized(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    ops = torch.ops.quantized_decomposed
    info = torch.iinfo(dtype)
    bounds = (0.1, 3, info.min, info.max, dtype)
    return ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *bounds), *bounds)


def _of(name: str, *args: Any, **kwargs: Any) -> Any:
    """Another use of a torch function: ``torch.name(x, *args)``."""
    function = getattr(torch, name)
    return lambda x: function(x, *args, **kwargs)


UNARY = ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "atanh", "round", "isinf", "isnan")
ACTIVATIONS = ("gelu", "silu", "mish", "hardswish", "hardsigmoid", "softplus", "softsign", "elu", "selu", "celu")
RESIZES = {"nearest": None, "nearest-exact": None, "bilinear": False, "bicubic": False, "area": None}

# A function, its inputs; every case runs at every opset.
CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    **{name: (getattr(torch, name), (UNIT,)) for name in UNARY},
    "acosh": (torch.acosh, (POSITIVE,)),
    **{name: (getattr(F, name), (X,)) for name in ACTIVATIONS},
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), (X,)),
    "threshold": (lambda x: F.threshold(x, 0.3, 0.0), (X,)),
    "glu": (F.glu, (X,)),
    "remainder": (lambda x: torch.remainder(x, 0.7), (X,)),
    "remainder of ints": (lambda x: torch.remainder(x - 5, 3), (INTS,)),
    "fmod": (lambda x: torch.fmod(x, 0.7), (X,)),
    "shift": (lambda x: (x << 2) >> 1, (INTS,)),
    "equal": (torch.eq, (INTS, INTS.flip(0))),
    "any": (_of("any", dim=1), (X > 0.5,)),
    "all": (_of("all", dim=1), (X > -0.5,)),
    "amax": (_of("amax", dim=(0, 2)), (X,)),
    "amin of ints": (_of("amin", dim=0), (INTS,)),
    "amax of bytes": (_of("amax", dim=0), (INTS.to(torch.uint8),)),
    "logsumexp": (_of("logsumexp", dim=1), (X,)),
    "log of sum": (lambda x: x.sum(1).log(), (POSITIVE,)),
    "norm": (lambda x: torch.linalg.vector_norm(x, 3, dim=-1), (X,)),
    "normalize": (F.normalize, (X,)),
    "cumsum": (_of("cumsum", dim=1), (X,)),
    "cumprod": (_of("cumprod", dim=1), (X,)),
    "det": (torch.linalg.det, (torch.randn(3, 4, 4),)),
    "einsum": (lambda x, y: torch.einsum("bij,bkj->bik", x, y), (X, X + 1)),
    "reshape": (lambda x: x.reshape(x.shape[0], -1, 3), (X,)),
    "flatten": (lambda x: x.flatten(1), (X,)),
    "squeeze": (lambda x: x[:, :1].squeeze(1).unsqueeze(-1), (X,)),
    "permute": (lambda x: x.permute(2, 0, 1), (X,)),
    "split": (lambda x: x.split(4, dim=-1), (X,)),
    "chunk": (lambda x: x.chunk(3, dim=-1), (X,)),
    "tile": (lambda x: x.repeat(1, 2, 3), (X,)),
    "roll": (lambda x: x.roll(2, -1), (X,)),
    "pixel shuffle": (lambda x: F.pixel_shuffle(x, 2), (IMAGE,)),
    "pixel unshuffle": (lambda x: F.pixel_unshuffle(x, 2), (IMAGE,)),
    "arange": (lambda x: torch.arange(x.shape[0] * 3) + x.shape[0], (X,)),
    "full": (lambda x: torch.full((x.shape[0], 3), 7), (X,)),
    "eye": (lambda x: torch.eye(6)[:4] + x, (X,)),
    **{f"pad {mode}": (functools.partial(F.pad, pad=(1, 2, 2, 1), mode=mode), (IMAGE,))
       for mode in ("constant", "reflect", "replicate", "circular")},
    "to bytes": (lambda x: (x.abs() * 10).to(torch.uint8), (X,)),
    "to half and back": (lambda x: x.half().float(), (X,)),
    "to bool": (lambda x: x.bool(), (INTS - 3,)),
    **{f"grid_sample {mode} {padding}": (
        functools.partial(F.grid_sample, mode=mode, padding_mode=padding, align_corners=False), (IMAGE, GRID))
       for mode in ("bilinear", "nearest", "bicubic") for padding in ("zeros", "border", "reflection")},
    "grid_sample of volumes": (lambda x, g: F.grid_sample(x, g, align_corners=True),
                               (VOLUME, torch.rand(1, 2, 3, 4, 3) * 2 - 1)),
    "affine_grid": (lambda t: F.affine_grid(t, [2, 3, 5, 7], align_corners=False), (THETA,)),
    "affine_grid of corners": (lambda t: F.affine_grid(t, [2, 3, 5, 7], align_corners=True), (THETA,)),
    **{f"interpolate {mode}": (
        functools.partial(F.interpolate, size=(5, 11), mode=mode, align_corners=corners), (IMAGE,))
       for mode, corners in RESIZES.items()},
    "interpolate antialias": (
        lambda x: F.interpolate(x, size=(5, 5), mode="bilinear", antialias=True, align_corners=False), (IMAGE,)),
    "avg_pool": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), (IMAGE,)),
    "max_pool": (lambda x: F.max_pool2d(x, 3, 2, 1, dilation=2), (IMAGE,)),
    "max_pool with indices": (lambda x: F.max_pool2d(x, 2, return_indices=True), (IMAGE,)),
    "max_unpool": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), (IMAGE,)),
    "lp_pool": (lambda x: F.lp_pool2d(x, 2, 3), (IMAGE,)),
    "global pools": (lambda x: F.adaptive_avg_pool2d(x, 1) + F.adaptive_max_pool2d(x, 1), (IMAGE,)),
    "conv": (F.conv2d, (IMAGE, torch.randn(6, 4, 3, 3))),
    "conv_transpose": (lambda x, w: F.conv_transpose2d(x, w, stride=2), (IMAGE, torch.randn(4, 6, 3, 3))),
    "deform_conv": (_deform_conv, (IMAGE, torch.randn(2, 18, 6, 6), torch.randn(6, 4, 3, 3))),
    "instance_norm": (F.instance_norm, (IMAGE,)),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), (IMAGE, torch.randn(4), torch.randn(4))),
    "layer_norm": (lambda x: F.layer_norm(x, (6,)), (X,)),
    "rms_norm": (lambda x, w: F.rms_norm(x, (6,), w), (X, torch.randn(6))),
    "attention": (F.scaled_dot_product_attention, (HEADS, HEADS + 1, HEADS - 1)),
    "causal attention": (lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True), (HEADS,)),
    "grouped attention": (lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True), (HEADS, HEADS[:, :2])),
    "masked attention": (lambda q, m: F.scaled_dot_product_attention(q, q, q, m), (HEADS, torch.randn(6, 6) > -1)),
    "topk": (lambda x: x.topk(3, dim=-1), (X,)),
    "topk of ints": (lambda x: (x * 10 + torch.arange(12).reshape(3, 4)).topk(2), (INTS,)),
    "sort": (lambda x: x.sort(-1), (X,)),
    "unique": (lambda x: torch.unique(x, return_inverse=True, return_counts=True), (INTS,)),
    "one_hot": (lambda x: F.one_hot(x, 10), (INTS,)),
    "masked_select": (lambda x: x.masked_select(x > 0), (X,)),
    "scatter": (lambda x, i: x.scatter(1, i % 4, 9.0), (torch.randn(3, 4), INTS)),
    "scatter_reduce": (lambda x, i: x.scatter_reduce(1, i % 4, x, "amax"), (torch.randn(3, 4), INTS)),
    "index_put": (lambda x, i: x.index_put((i[0] % 3,), torch.zeros(4)), (torch.randn(3, 4), INTS)),
    "nll_loss": (lambda x, i: F.nll_loss(x.log_softmax(1), i), (torch.randn(3, 9), torch.tensor([1, 0, 8]))),
    "cross_entropy": (F.cross_entropy, (torch.randn(3, 9), torch.tensor([1, 0, 8]))),
    "fft": (lambda x: torch.view_as_real(torch.fft.fft(x)), (X,)),
    "rfft and irfft": (lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2), (X,)),
    "stft": (lambda x: torch.view_as_real(torch.stft(x, 8, window=torch.hann_window(8), return_complex=True)),
             (torch.randn(2, 32),)),
    "rnn": (nn.RNN(6, 5, batch_first=True), (X,)),
    "batch_norm": (nn.BatchNorm2d(4), (IMAGE,)),
    "dropout": (nn.Dropout(), (X,)),
    **{f"quantize to {name}": (functools.partial(_quantized, dtype=getattr(torch, name)), (X,))
       for name in ("uint8", "int8", "int16")},
    "cond": (lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)), (X,)),
    "while_loop": (_while_loop, (X,)),
    "scan": (_scan, (X,)),
}  # fmt: skip


def expected_of(module: nn.Module, args: Any, kwargs: Any) -> list[torch.Tensor]:
    args, kwargs = copy.deepcopy((args, kwargs))  # caches grow in place
    with torch.no_grad():
        return flat_tensors(module(*args, **kwargs))


@functools.cache
def captured_case(name: str) -> tuple[Any, Any, list[torch.Tensor]]:
    importlib.import_module("torch.ao.quantization.fx._decomposed")  # the operators of the quantized cases
    torch.manual_seed(0)
    function, args = CASES[name]
    module = as_module(function).eval()
    with torch.no_grad():
        program = torch.export.export(module, args)
    return program, args, expected_of(module, args, {})


def check_operator(name: str, opset: int, everywhere: bool) -> None:
    program, args, expected = captured_case(name)
    if opset < NEEDS.get(name, MIN_OPSET):
        with pytest.raises(onnxport.UnsupportedOperatorsError, match=f"needs opset {NEEDS[name]}: "):
            onnxport.export(program, opset_version=opset)
        return
    onnx_program = onnxport.export(program, opset_version=opset, metadata="none")
    assert onnx_program.model.opset_imports[""] == opset
    nodes = onnx_program.model.graph.all_nodes()
    changed = any(onnx.defs.get_schema(node.op_type, opset).since_version == opset for node in nodes if not node.domain)
    if not (everywhere or changed or opset in (MIN_OPSET, 18, MAX_OPSET)):
        return
    onnx.checker.check_model(onnx_program.model_proto, full_check=True)
    if lacking := NO_KERNEL.get(opset, set()) & {node.op_type for node in onnx_program.model.graph.all_nodes()}:
        with pytest.raises(Exception, match=rf"Could not find an implementation for ({'|'.join(lacking)})"):
            onnx_program(*args)
        return
    for got, want in zip(onnx_program(*args), expected, strict=True):
        expect_equal(got, want, 1e-3, 1e-4)


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str) -> None:
    """Translated for every opset; run at the lowest, at the newest, and where ONNX changed one of its operators."""
    for opset in OPSETS:
        check_operator(name, opset, everywhere=False)


@pytest.mark.grid
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", CASES)
def test_operator_everywhere(name: str, opset: int) -> None:
    check_operator(name, opset, everywhere=True)


@functools.cache
def captured_model(name: str) -> tuple[Any, list[tuple[Any, Any, list[torch.Tensor]]]]:
    torch.manual_seed(0)
    example = MODELS[name]() if name in MODELS else ZOO[name]()
    sets = [(example.args, example.kwargs), (example.other_args or example.args, example.other_kwargs)]
    program = onnxport.export(example.model, example.args, kwargs=example.kwargs, dynamic_shapes=example.dynamic_shapes)
    known = [(args, kwargs, expected_of(example.model, args, kwargs)) for args, kwargs in sets]
    return program.exported_program, known


def check_model(name: str, opset: int) -> None:
    exported, known = captured_model(name)
    program = onnxport.export(exported, opset_version=opset)
    assert program.model.opset_imports[""] == opset
    onnx.checker.check_model(program.model_proto, full_check=True)
    for args, kwargs, expected in known:
        args, kwargs = copy.deepcopy((args, kwargs))
        for got, want in zip(program(*args, **kwargs), expected, strict=True):
            expect_equal(got, want, 2e-3, 2e-4)


@pytest.mark.parametrize(
    "opset", [opset if opset in MILESTONES else pytest.param(opset, marks=pytest.mark.grid) for opset in OPSETS]
)
@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, opset: int) -> None:
    """Translated for each opset from one capture, at the traced and at another shape."""
    check_model(name, opset)


@pytest.mark.grid
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", LARGER)
def test_larger_model(name: str, opset: int) -> None:
    check_model(name, opset)


def test_onnxruntime_loads_every_opset_that_onnx_has() -> None:
    """If a newer onnx is installed than onnxruntime knows, the grid has to end earlier."""
    for opset in OPSETS:
        proto = onnxport.export(nn.ReLU(), (X,), opset_version=opset).model_proto
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        (result,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
        assert (result == X.relu().numpy()).all()


def test_the_default_is_twenty() -> None:
    assert DEFAULT_OPSET == 20
    assert onnxport.export(nn.ReLU(), (X,)).model.opset_imports[""] == DEFAULT_OPSET


def test_a_translation_that_needs_more_says_so() -> None:
    @torch.library.custom_op("onnxport_opsets::swish", mutates_args=())
    def swish(x: torch.Tensor) -> torch.Tensor:
        return F.silu(x)

    swish.register_fake(torch.empty_like)

    def translated(op: Any, x: Any) -> Any:
        return op.Swish(x)

    table = {torch.ops.onnxport_opsets.swish.default: translated}
    with pytest.raises(onnxport.UnsupportedOperatorsError, match="needs opset 24: Swish"):
        onnxport.export(as_module(swish), (X,), opset_version=20, custom_translation_table=table)
    program = onnxport.export(as_module(swish), (X,), opset_version=24, custom_translation_table=table)
    assert [node.op_type for node in program.model.graph] == ["Swish"]
