"""Norms of sums, activations, sums that are kept apart, portable files; and what the pack's measurements decide."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxport
import onnxport_onnxruntime
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnxport_onnxruntime import fusion, measure, profiles
from torch import nn
from torch.nn.functional import gelu, layer_norm, rms_norm, scaled_dot_product_attention, silu

CPU: dict[str, Any] = {"runtime": "onnxruntime-cpu"}
EVERY: dict[str, Any] = {**CPU, "plugins": [measure.Chosen("onnxruntime-cpu", *fusion.FORMS)]}
OWN: dict[str, Any] = {**CPU, "plugins": [onnxport_onnxruntime]}


class Function(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        torch.manual_seed(0)
        self.weight, self.bias = (nn.Parameter(torch.randn(16)) for _ in range(2))

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args, self.weight, self.bias)


def rms(x: torch.Tensor, weight: torch.Tensor, power: Any = None, eps: float = 1e-6) -> torch.Tensor:
    square = x.pow(2) if power is None else power(x)
    return weight * (x * torch.rsqrt(square.mean(-1, keepdim=True) + eps))


def by_hand(x: torch.Tensor, half: float = 0.5, cube: float = 3.0) -> torch.Tensor:
    return half * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, cube))))


def counts(program: onnxport.ONNXProgram) -> Counter[str]:
    return Counter(node.op_type for node in program.model.graph)


def run(program: onnxport.ONNXProgram, args: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    return session.run(None, {each.name: arg.numpy() for each, arg in zip(session.get_inputs(), args, strict=True)})


def compare(program: onnxport.ONNXProgram, model: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(model(*args))
    for found, reference in zip(run(program, args), expected, strict=True):
        np.testing.assert_allclose(found, reference.numpy(), rtol=1e-4, atol=1e-5)


SKIP, SKIP_RMS = "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"
FOUND: dict[str, tuple[Any, str]] = {
    "layer norm, and the sum": (lambda x, y, w, b: (layer_norm(x + y, [16], w, b), x + y), SKIP),
    "layer norm of a sum that goes on": (
        lambda x, y, w, b: (lambda s: (layer_norm(s, [16], w, b), s * 2))(x + y),
        SKIP,
    ),
    "without a bias": (lambda x, y, w, b: layer_norm(x + y, [16], w), SKIP),
    "epsilon": (lambda x, y, w, b: layer_norm(x + y, [16], w, b, 0.5), SKIP),
    "rms by hand": (lambda x, y, w, b: (lambda s: (rms(s, w), s))(x + y), SKIP_RMS),
    "rms by products": (lambda x, y, w, b: (lambda s: (rms(s, w, lambda x: x * x), s))(x + y), SKIP_RMS),
    "rms, the weight behind": (
        lambda x, y, w, b: (lambda s: (s * torch.rsqrt(s.pow(2).mean(-1, keepdim=True) + 0.1)) * w)(x + y),
        SKIP_RMS,
    ),
    "rms_norm": (lambda x, y, w, b: rms_norm(x + y, [16], w, 1e-3), SKIP_RMS),
    "gelu by tanh": (lambda x, y, w, b: gelu(x, approximate="tanh"), "FastGelu"),
    "gelu by hand": (lambda x, y, w, b: by_hand(x), "FastGelu"),
    "silu": (lambda x, y, w, b: silu(x), "QuickGelu"),
    "quick gelu": (lambda x, y, w, b: x * torch.sigmoid(1.702 * x), "QuickGelu"),
    "a sum in a norm alone": (lambda x, y, w, b: gelu(x + b), "Sum"),
}


@pytest.mark.parametrize("name", FOUND)
def test_forms_at_two_sizes(name: str) -> None:
    function, operator = FOUND[name]
    model = Function(function).eval()
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    args = tuple(torch.randn(2, 5, 16) for _ in range(2))
    program = onnxport.export(model, args, dynamic_shapes=((axes, axes),), verbose=False, **EVERY)
    assert counts(program)[operator] == 1, counts(program)
    for sizes in ((2, 5), (1, 1), (3, 8)):
        compare(program, model, tuple(torch.randn(*sizes, 16) for _ in range(2)))
    assert onnxport.find_mismatch(program, args).passed


NOT_FOUND: dict[str, Any] = {
    "broadcast skip": lambda x, y, w, b: layer_norm(x + y[:1], [16], w, b),
    "twice the skip": lambda x, y, w, b: layer_norm(torch.add(x, y, alpha=2), [16], w, b),
    "two axes": lambda x, y, w, b: layer_norm(x + y, [5, 16]),
    "a weight that is computed": lambda x, y, w, b: layer_norm(x + y, [16], w * 2 + x[0, 0], b),
    "four axes": lambda x, y, w, b: layer_norm((x + y)[None], [16], w, b),
    "norm over another axis": lambda x, y, w, b: (lambda s: w * (s * torch.rsqrt(s.pow(2).mean(1, True) + 1e-6)))(
        x + y
    ),
    "another power": lambda x, y, w, b: rms(x + y, w, lambda s: s.pow(4)),
    "another tensor's norm": lambda x, y, w, b: w * ((x + y) * torch.rsqrt(x.pow(2).mean(-1, True) + 1e-6)),
    "gelu of another half": lambda x, y, w, b: by_hand(x, half=0.4),
    "gelu of a square": lambda x, y, w, b: by_hand(x, cube=2.0),
    "gelu of two": lambda x, y, w, b: 0.5 * y * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "erf": lambda x, y, w, b: gelu(x),
    "a gate of another": lambda x, y, w, b: x * torch.sigmoid(1.702 * y),
    "a sum that goes on": lambda x, y, w, b: (lambda s: (gelu(s), s))(x + y),
}


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_only_looks_like_it(name: str) -> None:
    model = Function(NOT_FOUND[name]).eval()
    args = tuple(torch.randn(2, 5, 16) for _ in range(2))
    program = onnxport.export(model, args, verbose=False, **EVERY)
    assert not any(node.domain for node in program.model.graph), counts(program)
    assert counts(program)["Sum"] <= counts(program)["LayerNormalization"]  # which keeps onnxruntime from fusing them
    compare(program, model, args)


def test_other_types_stay_standard() -> None:
    for name, (function, _) in FOUND.items():
        model = Function(function).double().eval()
        args = tuple(torch.randn(2, 5, 16, dtype=torch.float64) for _ in range(2))
        program = onnxport.export(model, args, verbose=False, **EVERY)
        assert not any(node.domain or node.op_type == "Sum" for node in program.model.graph), name


PORTABLE = {
    "MultiHeadAttention": measure.Attention(4, 4, 8),
    "FastGelu": measure.Activation("gelu by hand"),
    "QuickGelu": measure.Activation("quick"),
}


@pytest.mark.parametrize("name", PORTABLE)
def test_portable_files_run_elsewhere(name: str) -> None:
    model = PORTABLE[name].eval()
    args = (torch.randn(2, 5, 96),)
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = onnxport.export(model, args, dynamic_shapes=(axes,), verbose=False, portable=True, **EVERY)
    proto = program.model_proto
    assert [(each.domain, each.name) for each in proto.functions] == [("com.microsoft", name)]
    onnx.checker.check_model(proto, full_check=True)
    for sizes in ((2, 5), (1, 7)):
        args = (torch.randn(*sizes, 96),)
        compare(program, model, args)  # by onnxruntime's kernel
        (found,) = ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: args[0].numpy()})
        np.testing.assert_allclose(found, model(*args).numpy(), rtol=1e-4, atol=1e-5)


class Window(measure.Attention):
    """Queries that read three keys."""

    def forward(self, x: torch.Tensor, cache: Any) -> Any:
        parts = x.split([count * self.width for count in (self.heads, self.kv_heads, self.kv_heads)], 2)
        q, k, v = (part.unflatten(2, [-1, self.width]).transpose(1, 2) for part in parts)
        k, v = (torch.cat([past, new], 2) for past, new in zip(cache, (k, v), strict=True))
        queries = torch.arange(q.shape[2])[:, None] + cache[0].shape[2]
        keys = torch.arange(k.shape[2])[None]
        mask = ((keys <= queries) & (keys > queries - 3))[None, None]
        y = scaled_dot_product_attention(q, k, v, mask, enable_gqa=True, scale=0.3)
        return y.transpose(1, 2).flatten(2), k, v


GROUPED: dict[str, tuple[int, int, int | None]] = {
    "a window": (4, 2, 5),
    "prompt": (4, 2, None),
    "prompt, one key head": (4, 1, None),
    "tokens behind a cache": (4, 2, 5),
    "heads of their own behind a cache": (2, 2, 5),
}
"""By name, query heads, key heads, and the length of the cache."""


@pytest.mark.parametrize("name", GROUPED)
def test_portable_grouped_attention_runs_elsewhere(name: str) -> None:
    heads, kv_heads, past = GROUPED[name]
    model = (Window if name == "a window" else measure.Attention)(heads, kv_heads, 8, "causal").eval()
    dynamic = torch.export.Dim.DYNAMIC

    def arguments(batch: int, new: int, length: int | None) -> tuple[Any, ...]:
        torch.manual_seed(0)
        cache = None if length is None else tuple(torch.randn(batch, kv_heads, length, 8) for _ in range(2))
        return torch.randn(batch, new, (heads + 2 * kv_heads) * 8), cache

    shapes = {0: dynamic, 1: dynamic}, None if past is None else ({0: dynamic, 2: dynamic},) * 2
    args = arguments(2, 3, past)
    program = onnxport.export(model, args, dynamic_shapes=shapes, verbose=False, portable=True, **EVERY)
    proto = program.model_proto
    assert [each.name for each in proto.functions if each.domain == "com.microsoft"] == ["GroupQueryAttention"]
    onnx.checker.check_model(proto, full_check=True)
    plain = onnxport.export(model, args, dynamic_shapes=shapes, verbose=False, **EVERY)
    calls, own = ([n for n in p.model.graph if n.op_type == "GroupQueryAttention"] for p in (program, plain))
    places = [[value is not None for value in node.inputs] for node in (*calls, *own)]
    assert places[0] == places[1] and calls[0].attributes.keys() == own[0].attributes.keys()
    for batch, new, length in ((2, 3, past), (1, 1, past and 2), (1, 4, past and 7)):
        args = arguments(batch, new, length)
        leaves = tuple(each for each in torch.utils._pytree.tree_leaves(args) if each is not None)
        expected = torch.utils._pytree.tree_leaves(model(*args))
        feeds = {value.name: leaf.numpy() for value, leaf in zip(proto.graph.input, leaves, strict=True)}
        by_body = ReferenceEvaluator(proto).run(None, feeds)
        for results in (run(program, leaves), by_body):
            for found, reference in zip(results, expected, strict=True):
                np.testing.assert_allclose(found, reference.numpy(), rtol=1e-4, atol=1e-5)


def test_a_portable_file_has_no_operator_without_a_body() -> None:
    for model, given in (
        (measure.Attention(4, 4, 8, "padding"), (torch.randn(2, 3, 96), torch.ones(2, 3, dtype=torch.bool))),
        (measure.Norm(16, is_rms=True), tuple(torch.randn(2, 3, 16) for _ in range(2))),
    ):
        program = onnxport.export(model.eval(), given, verbose=False, portable=True, **EVERY)
        assert not any(node.domain for node in program.model.graph)
        assert any(node.domain for node in onnxport.export(model, given, verbose=False, **EVERY).model.graph)


# ---- the pack as it is


def test_profiles_and_their_measurements() -> None:
    from onnxport.kit import load

    found = load([onnxport_onnxruntime]).profiles()
    assert {"onnx", "onnxruntime-cpu", "onnxruntime-cuda", "onnxruntime-webgpu"} == set(found)
    choices = found["onnxruntime-cpu"].choices
    assert set(choices) == fusion.FORMS, "python -m onnxport_onnxruntime.measure --write"
    for name, text in choices.items():
        _, measured = profiles.measurements("onnxruntime-cpu")
        assert text.startswith("used") == (name in profiles.used("onnxruntime-cpu")) == measured[name].is_faster
        assert "onnxruntime 1." in text and measured[name].date in text and measured[name].conditions in text
        assert len(measured[name].ratios) >= 3, "one pass decides nothing"
    assert not found["onnxruntime-cuda"].choices


MEASURED = {
    "faster in each pass": ([[0.9, 0.8], [0.95, 0.9]], True),
    "one case decides nothing": ([[0.9, 1.2], [0.9, 1.2]], False),
    "within the noise": ([[0.98, 0.99], [0.99, 0.98], [0.98, 0.98]], False),
    "slower in one pass": ([[0.8, 0.8], [1.1, 1.0], [0.8, 0.7]], False),
    "the median": ([[0.8, 0.8], [0.98, 0.98], [0.96, 0.96]], True),
}
"""By name, for each pass the ratios of two cases, and whether files have the form."""


@pytest.mark.parametrize("name", MEASURED)
def test_files_have_what_was_measured_to_be_faster(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ratios, expected = MEASURED[name]
    cases = {case: [[2.0, 2 * each[i]] for each in ratios] for i, case in enumerate("ab")}
    versions = {"1.0": {"MultiHeadAttention": {"date": "", "conditions": "", "cases": cases}}}
    monkeypatch.setattr(profiles.json, "loads", lambda text: {"onnxruntime-cpu": versions})
    profiles.measurements.cache_clear()
    assert profiles.used("onnxruntime-cpu") == ({"MultiHeadAttention"} if expected else set())
    monkeypatch.undo()
    profiles.measurements.cache_clear()


def test_tables_of_several_passes_are_one_measurement(tmp_path: Path) -> None:
    path = tmp_path / "choices.json"
    path.write_text(json.dumps({"onnxruntime-cpu": {profiles.installed_version(): {"Other": 1}}}))
    tables = []
    for i, own in enumerate(("0.500", "0.700", "0.600")):
        tables.append(tmp_path / f"{i}.log")
        tables[-1].write_text(f"MultiHeadAttention with a mask     8 heads, 384    1.000     {own}  0.5\n\nreal 1s\n")
    found = measure.read_tables(tables)
    measure.keep(found, "onnxruntime-cpu", "2026-01-02", "3 passes", path)
    version = json.loads(path.read_text())["onnxruntime-cpu"][profiles.installed_version()]
    assert version["Other"] == 1
    kept = profiles.Measurement(**version["MultiHeadAttention with a mask"])
    assert kept.cases == {"8 heads, 384": [[1.0, 0.5], [1.0, 0.7], [1.0, 0.6]]}
    assert (kept.ratio, kept.date, kept.conditions) == (0.6, "2026-01-02", "3 passes")
    assert profiles.median_times(kept.cases["8 heads, 384"]) == [1.0, 0.6]
    tables[0].write_text(tables[0].read_text().replace("384", "385"))
    with pytest.raises(ValueError, match="no case is called"):
        measure.read_tables(tables)
    tables[0].write_text(tables[1].read_text() * 2)
    tables[1].write_text(tables[1].read_text().replace("8 heads, 384", "12 heads, 128"))
    with pytest.raises(ValueError, match="more often"):
        measure.read_tables(tables)


def test_a_version_that_was_not_measured_is_taken_for_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.dumps({"onnxruntime-cpu": {"1.9.0": {}, "1.31.2": {}, "1.4.0": {}}})
    monkeypatch.setattr(type(profiles.resources.files(profiles.__package__)), "read_text", lambda *_: data)
    for installed, expected in (("1.33.0", "1.31.2"), ("1.4.0", "1.4.0"), ("", "1.31.2")):
        monkeypatch.setattr(profiles, "installed_version", lambda installed=installed: installed)
        profiles.measurements.cache_clear()
        assert profiles.measurements("onnxruntime-cpu")[0] == expected
    monkeypatch.undo()
    profiles.measurements.cache_clear()


def test_check_by_profile() -> None:
    class Model(nn.Module):
        def forward(self, x):
            return torch.linalg.det(x)

    args = (torch.randn(2, 2),)
    missing = onnxport.check(
        Model(), args, plugins=[onnxport_onnxruntime], runtime="onnxruntime-webgpu"
    ).missing_kernels
    assert all(each.provider == "onnxruntime-webgpu" for each in missing) and missing
    assert not onnxport.check(Model(), args, plugins=[onnxport_onnxruntime], runtime="onnxruntime-cpu").missing_kernels
    cuda = onnxport.check(Model(), args, plugins=[onnxport_onnxruntime], runtime="onnxruntime-cuda").missing_kernels
    assert {each.provider for each in cuda} == {"CUDAExecutionProvider"}


def test_an_encoder_as_measured() -> None:
    model = measure.Attention(4, 4, 8).eval()
    args = (torch.randn(2, 5, 96),)
    is_used = "MultiHeadAttention" in profiles.used("onnxruntime-cpu")
    program = onnxport.export(model, args, verbose=False, **OWN)
    assert counts(program)["MultiHeadAttention"] == int(is_used)
    compare(program, model, args)
    assert not any(node.domain for node in onnxport.export(model, args, plugins=OWN["plugins"]).model.graph)
