"""Weights stored as integers by hand: a plain onnxruntime session computes what eager torch does.

onnxruntime turns a DequantizeLinear beside a product into a kernel that rounds the activations, which is off by 1 %.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxport
import onnxruntime
import pytest
import torch
from support import unfused_session
from torch.nn import functional

K, N, GROUP = 64, 48, 32


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _scale(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=_generator()) * 0.02 + 0.01


def _int8(*shape: int) -> torch.Tensor:
    return torch.randint(-127, 128, shape, dtype=torch.int8, generator=_generator())


def _uint8(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=_generator())


class Compressed(torch.nn.Module):
    """A function of buffers and an input."""

    def __init__(self, function: Callable[..., torch.Tensor], /, **buffers: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def _unpacked(m: Any) -> torch.Tensor:
    return torch.stack([m.p & 15, m.p >> 4], -1).reshape(N, K)


W, BYTES, ROWS, ONE = _int8(N, K), _uint8(N, K), _scale(N, 1), torch.tensor(0.02)
GROUPS = _scale(N, K // GROUP, 1)
NIBBLES = _uint8(N, K // 2)
X2, X3 = torch.randn(16, K, generator=_generator()), torch.randn(2, 16, K, generator=_generator())
IDS = torch.randint(0, N, (2, 7), generator=_generator())
linear, einsum = functional.linear, torch.einsum

CASES: dict[str, tuple[Compressed, torch.Tensor]] = {
    "a scale a row": (Compressed(lambda m, x: x @ (m.w.to(x.dtype) * m.s).t(), w=W, s=ROWS), X2),
    "one scale": (Compressed(lambda m, x: x @ (m.w.to(x.dtype) * m.s).t(), w=W, s=ONE), X2),
    "one scale, three axes": (Compressed(lambda m, x: x @ (m.w.to(x.dtype) * m.s).t(), w=W, s=ONE), X3),
    "a Python scale": (Compressed(lambda m, x: x @ (m.w.to(x.dtype) * 0.02).t(), w=W), X3),
    "a scale of 1": (Compressed(lambda m, x: x @ (m.w.to(x.dtype) * m.s).t(), w=W, s=torch.tensor(1.0)), X3),
    "no scale": (Compressed(lambda m, x: x @ m.w.to(x.dtype).t(), w=W), X3),
    "linear": (Compressed(lambda m, x: linear(x, m.w.float() * m.s), w=W, s=ROWS), X2),
    "linear with a bias": (Compressed(lambda m, x: linear(x, m.w.float() * m.s, m.b), w=W, s=ROWS, b=_scale(N)), X3),
    "columns": (Compressed(lambda m, x: linear(x, m.w.float() * m.s), w=W, s=_scale(K)), X3),
    "not transposed": (Compressed(lambda m, x: x @ (m.w.float() * m.s), w=W.t().contiguous(), s=_scale(1, N)), X3),
    "scaled after": (Compressed(lambda m, x: linear(x, m.w.float()) * m.s.t(), w=W, s=ROWS), X3),
    "divided": (Compressed(lambda m, x: linear(x, m.w.float() / m.s), w=W, s=1 / ROWS), X3),
    "zero points": (
        Compressed(lambda m, x: linear(x, (m.w.float() - m.z.float()) * m.s), w=BYTES, z=_uint8(N, 1), s=ROWS),
        X3,
    ),
    "one zero point": (Compressed(lambda m, x: linear(x, (m.w.float() - 128) * m.s), w=BYTES, s=ROWS), X3),
    "zero points of one scale": (
        Compressed(lambda m, x: linear(x, (m.w.float() - m.z.float()) * m.s), w=BYTES, z=_uint8(N, 1), s=ONE),
        X2,
    ),
    "fractional zero points": (
        Compressed(lambda m, x: linear(x, (m.w.float() - m.z) * m.s), w=W, z=_scale(N, 1) * 100, s=ROWS),
        X2,
    ),
    "integer zero points": (
        Compressed(lambda m, x: linear(x, (m.w.int() - m.z.int()).float() * m.s), w=BYTES, z=_uint8(N, 1), s=ROWS),
        X2,
    ),
    "groups": (
        Compressed(lambda m, x: linear(x, (m.w.view(N, -1, GROUP).float() * m.s).view(N, K)), w=W, s=GROUPS),
        X3,
    ),
    "groups, scales repeated": (
        Compressed(lambda m, x: linear(x, m.w.float() * m.s.repeat_interleave(GROUP, 1)), w=W, s=GROUPS[..., 0]),
        X3,
    ),
    "nibbles": (Compressed(lambda m, x: linear(x, (_unpacked(m).float() - 8) * m.s), p=NIBBLES, s=ROWS), X3),
    "nibbles in groups": (
        Compressed(
            lambda m, x: linear(x, ((_unpacked(m).float() - 8).view(N, -1, GROUP) * m.s).view(N, K)),
            p=NIBBLES,
            s=GROUPS,
        ),
        X3,
    ),
    "embedding": (Compressed(lambda m, i: functional.embedding(i, m.w.float() * m.s), w=W, s=ROWS), IDS),
    "tied embedding": (
        Compressed(
            lambda m, i: linear(functional.embedding(i, m.w.float() * m.s), m.w.float() * m.s),
            w=W,
            s=ROWS,
        ),
        IDS,
    ),
    "convolution": (
        Compressed(lambda m, x: functional.conv1d(x.mT, (m.w.float() * m.s)[..., None]), w=W, s=ROWS),
        X3,
    ),
    "einsum": (Compressed(lambda m, x: einsum("btk,nk->btn", x, m.w.float() * m.s), w=W, s=ROWS), X3),
    "products in batches": (
        Compressed(
            lambda m, x: torch.bmm(x.unflatten(0, (-1, 1)).flatten(0, 1)[:2], (m.w.float() * m.s).mT),
            w=torch.stack([W, W.flip(0)]),
            s=ROWS,
        ),
        X3,
    ),
    "on the left": (Compressed(lambda m, x: (m.w.float() * m.s) @ x.mT, w=W, s=ROWS), X3),
    "addmm": (
        Compressed(lambda m, x: torch.addmm(m.b, x, (m.w.float() * m.s).t()), w=W, s=ROWS, b=_scale(N)),
        X2,
    ),
    "a vector": (Compressed(lambda m, x: x[0] @ (m.w.float() * m.s).t(), w=W, s=ROWS), X2),
    "in chunks": (
        Compressed(lambda m, x: torch.cat([linear(x, c) for c in (m.w.float() * m.s).chunk(2)], -1), w=W, s=ROWS),
        X3,
    ),
    "there and back": (
        Compressed(lambda m, x: linear(x, m.w.float() * m.s).relu() @ (m.w.float() * m.s), w=W, s=ROWS),
        X3,
    ),
}


def plain(program: onnxport.ONNXProgram, x: torch.Tensor, optimized: Path | None = None) -> torch.Tensor:
    """What a session with onnxruntime's default options computes from the file."""
    file, options = io.BytesIO(), onnxruntime.SessionOptions()
    program.save(file)
    if optimized is not None:
        options.optimized_model_filepath, options.log_severity_level = str(optimized), 3
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.mark.parametrize("name", CASES)
def test_a_plain_session_computes_what_eager_does(name: str, tmp_path: Path) -> None:
    model, x = CASES[name]
    expected = model(x)
    static = name in ("products in batches", "nibbles in groups")
    program = onnxport.export(model, (x,), dynamic_shapes=None if static else ({0: "n"},))
    onnx.checker.check_model(program.model_proto, full_check=True)
    found = plain(program, x, tmp_path / "optimized.onnx")
    scale = float(expected.abs().max())
    assert found.shape == expected.shape and float((found - expected).abs().max()) <= 1e-5 * scale
    torch.testing.assert_close(program(x)[0], found, rtol=0, atol=0)  # the program's own session is a plain one
    stored = [value.const_value for value in program.model.graph.initializers.values()]
    assert [data for data in stored if data.dtype.is_integer() and data.nbytes >= N * K // 2]
    assert not [data for data in stored if data.dtype.is_floating_point() and data.nbytes >= 4 * N * K]
    if name not in ("integer zero points", "groups, scales repeated"):  # integers of arithmetic, scales of each element
        kept = onnx.load(tmp_path / "optimized.onnx").graph.initializer
        assert not [t.name for t in kept if t.data_type == onnx.TensorProto.FLOAT and len(t.raw_data) >= 4 * N * K]


@pytest.mark.parametrize("opset", [18, 21, 23, 25])
@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("name", ["a scale a row", "one scale, three axes", "zero points", "linear"])
def test_at_other_opsets(name: str, optimize: bool, opset: int) -> None:
    model, x = CASES[name]
    program = onnxport.export(model, (x,), opset_version=opset, optimize=optimize)
    torch.testing.assert_close(plain(program, x), model(x), rtol=1e-5, atol=1e-4)


class Layer(torch.nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("w", torch.randint(-127, 128, (K, K), dtype=torch.int8, generator=generator))
        self.register_buffer("s", torch.rand(K, 1, generator=generator) * 0.002)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.w.float() * self.s).tanh()


@pytest.mark.parametrize("optimize", [True, False])
def test_layers_as_functions(optimize: bool) -> None:
    model = torch.nn.Sequential(*map(Layer, range(3)))
    program = onnxport.export(model, (X3,), functions=[Layer], optimize=optimize)
    assert program.model.functions
    torch.testing.assert_close(plain(program, X3), model(X3), rtol=1e-5, atol=1e-5)


def test_other_weights() -> None:
    """The weights keep their names in the file, and others take their place."""
    model, other = (
        CASES["a scale a row"][0],
        Compressed(CASES["a scale a row"][0].function, w=W.flip(0), s=ROWS.flip(0)),
    )
    program = onnxport.export(model, (X2,))
    assert {"w", "s"} <= {name.split(".")[0] for name in program.model.graph.initializers}
    program.apply_weights(other.state_dict())
    torch.testing.assert_close(plain(program, X2), other(X2), rtol=1e-5, atol=1e-4)


def test_half_precision() -> None:
    model = Compressed(lambda m, x: linear(x, m.w.half() * m.s), w=W, s=ROWS.half())
    x = X3.half()
    torch.testing.assert_close(plain(onnxport.export(model, (x,)), x), model(x), rtol=2e-3, atol=2e-2)


class Quantized(torch.nn.Module):
    """Activations that are quantized too: integer kernels are meant."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", _int8(N, K))
        self.register_buffer("s", torch.full((N,), 0.02))
        self.register_buffer("z", torch.zeros(N, dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ops = torch.ops.quantized_decomposed
        w = ops.dequantize_per_channel(self.w, self.s, self.z, 0, -128, 127, torch.int8)
        q = ops.quantize_per_tensor(x, 0.03, 128, 0, 255, torch.uint8)
        return linear(ops.dequantize_per_tensor(q, 0.03, 128, 0, 255, torch.uint8), w)


def test_quantized_activations_keep_their_pairs() -> None:
    import torch.ao.quantization.fx._decomposed  # it registers the operators

    model = Quantized()
    program = onnxport.export(model, (X3,))
    operators = [node.op_type for node in program.model.graph]
    assert sorted(operators) == ["DequantizeLinear", "DequantizeLinear", "MatMul", "QuantizeLinear"]
    program.initialize_inference_session(session_options=unfused_session())
    torch.testing.assert_close(program(X3)[0], model(X3), rtol=1e-4, atol=1e-4)
