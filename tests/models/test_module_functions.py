"""``export(functions=)`` on transformers: one body for all layers, the same numbers with and without functions."""

from __future__ import annotations

import copy
import io
from typing import Any

import onnx
import onnx.inliner
import onnxport
import onnxruntime
import pytest
import torch
import torch.utils._pytree as pytree
from torch import nn

LAYERS = 48


class Attention(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, size = x.shape
        parts = self.qkv(x).view(batch, length, 3, self.heads, size // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(*parts.unbind(0), attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(batch, length, size))


class Layer(nn.Module):
    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.attention, self.norm = Attention(size, heads), nn.LayerNorm(size)
        self.up, self.down = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm(x), mask)
        return x + self.down(nn.functional.gelu(self.up(x)))


class Transformer(nn.Module):
    def __init__(self, layers: int, size: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, size)
        self.layers = nn.ModuleList(Layer(size, 2) for _ in range(layers))
        self.layers[-1].up.weight = self.layers[0].up.weight  # tied
        self.head = nn.Linear(size, 50)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(ids.shape[1])
        mask = positions[:, None] >= positions
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(self.layers[0](x, mask))  # a layer that is called twice


def _size(program: onnxport.ONNXProgram) -> int:
    buffer = io.BytesIO()
    program.save(buffer, include_initializers=False)
    return len(buffer.getvalue())


@pytest.fixture(scope="module")
def deep() -> tuple[nn.Module, torch.export.ExportedProgram]:
    model = Transformer(LAYERS).eval()
    ids = torch.randint(0, 50, (2, 6))
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with torch.no_grad():
        return model, torch.export.export(model, (ids,), dynamic_shapes=(dims,), strict=False)


@pytest.mark.parametrize("functions", [[Layer], [Layer, Attention, nn.LayerNorm]])
def test_48_layers_are_one_body(deep: Any, functions: list[type]) -> None:
    model, captured = deep
    program = onnxport.export(captured, functions=functions)
    assert sorted(f.name for f in program.model.functions.values()) == sorted(f.__name__ for f in functions)
    calls = [node for node in program.model.graph if node.domain]
    assert len(calls) == LAYERS + 1
    assert calls[0].inputs[1:] == calls[-1].inputs[1:]
    assert len(program.model.graph) < LAYERS + 20
    plain = onnxport.export(captured)
    inlined = onnx.inliner.inline_local_functions(program.model_proto)
    session = onnxruntime.InferenceSession(inlined.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in ((2, 6), (3, 9)):
        ids = torch.randint(0, 50, shape)
        expected = model(ids)
        torch.testing.assert_close(program(ids)[0], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(program(ids)[0], plain(ids)[0], rtol=1e-5, atol=1e-5)
        (result,) = session.run(None, {session.get_inputs()[0].name: ids.numpy()})
        torch.testing.assert_close(torch.from_numpy(result), expected, rtol=1e-4, atol=1e-4)


def test_the_file_grows_by_the_call() -> None:
    """A further layer costs its call and the types of its weights, not its nodes."""
    sizes: dict[Any, int] = {}
    for layers in (2, 4):
        captured = torch.export.export(Transformer(layers).eval(), (torch.randint(0, 50, (2, 6)),))
        for functions in ((), (Layer,)):
            sizes[layers, functions] = _size(onnxport.export(captured, functions=functions))
    inline = sizes[4, ()] - sizes[2, ()]
    calls = sizes[4, (Layer,)] - sizes[2, (Layer,)]
    assert calls < inline / 6


def _config(name: str, **options: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = getattr(transformers, name.replace("Model", "").replace("ForCausalLM", "") + "Config")(**options)
    return getattr(transformers, name)(config).eval()


_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}


def _tokens(batch: int, length: int) -> dict[str, Any]:
    return {"input_ids": torch.randint(0, 100, (batch, length))}


@pytest.mark.parametrize(
    ("name", "options", "functions", "bodies"),
    [
        ("LlamaModel", {"intermediate_size": 64, "num_key_value_heads": 2}, ["LlamaDecoderLayer", "LlamaRMSNorm"], 2),
        ("BertModel", {"intermediate_size": 64}, ["BertLayer", "BertSelfAttention"], 2),
    ],
)
def test_transformers(name: str, options: dict[str, Any], functions: list[str], bodies: int) -> None:
    model = _config(name, **_SMALL, **options)
    model.config.use_cache = False
    axes = {"input_ids": {0: "batch", 1: "length"}}
    program = onnxport.export(model, kwargs=_tokens(2, 5), dynamic_shapes=axes, functions=functions)
    assert len(program.model.functions) == bodies
    onnx.checker.check_model(program.model_proto, full_check=True)
    for given in (_tokens(2, 5), _tokens(3, 7)):
        torch.testing.assert_close(program(**given)[0], model(**given)[0], rtol=1e-4, atol=1e-5)


def test_a_cache_goes_through_the_layers() -> None:
    transformers = pytest.importorskip("transformers")
    model = _config("LlamaForCausalLM", **_SMALL, intermediate_size=64, num_key_value_heads=2)

    def given(batch: int, length: int, past: int) -> dict[str, Any]:
        cache = transformers.DynamicCache(config=model.config)
        for layer in range(2):
            cache.update(torch.randn(batch, 2, past, 8), torch.randn(batch, 2, past, 8), layer)
        return {**_tokens(batch, length), "past_key_values": cache}

    past = {0: "batch", 2: "past"}
    axes = {"input_ids": {0: "batch", 1: "length"}, "past_key_values": [past] * 4}
    arguments = given(2, 3, 5)
    program = onnxport.export(model, kwargs=copy.deepcopy(arguments), dynamic_shapes=axes,
                              functions=["LlamaDecoderLayer"])  # fmt: skip
    assert [f.name for f in program.model.functions.values()] == ["LlamaDecoderLayer"]
    for sizes in ((2, 3, 5), (3, 2, 7)):
        arguments = given(*sizes)
        expected = pytree.tree_leaves(model(**copy.deepcopy(arguments)))
        results = program(**copy.deepcopy(arguments))
        for want, got in zip([e for e in expected if isinstance(e, torch.Tensor)], results, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_convolutions_with_batch_norm() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18(weights=None).eval()
    image = torch.randn(1, 3, 64, 64)
    program = onnxport.export(model, (image,), functions=[torchvision.models.resnet.BasicBlock],
                              dynamic_shapes=({0: "batch", 2: "h", 3: "w"},))  # fmt: skip
    counts = {f.name: sum(n.op_type == f.name for n in program.model.graph) for f in program.model.functions.values()}
    assert counts == {"BasicBlock": 5, "BasicBlock_2": 3}  # without and with a downsampling branch
    other = torch.randn(2, 3, 96, 64)
    torch.testing.assert_close(program(other)[0], model(other), rtol=1e-4, atol=1e-4)
