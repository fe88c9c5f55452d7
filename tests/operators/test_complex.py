"""Complex tensors: inputs, outputs, weights, promotion, views, indexing, functions, reductions and products."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from support import as_module, export_and_compare, op_types

torch.set_num_threads(1)


def _complex(*shape: int, dtype: torch.dtype = torch.complex64, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def _real(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_rotary_embedding() -> None:
    """As Llama's reference code writes it: the rotation is a product of complex numbers."""
    turn = torch.polar(torch.ones(6, 4), torch.arange(24.0).reshape(6, 4))

    def model(x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turn).flatten(-2)

    program = export_and_compare(model, (_real(2, 6, 8),))
    assert len(op_types(program)) < 20


def test_views_are_one_node_each() -> None:
    program = export_and_compare(lambda x: x.permute(2, 0, 1)[1:].unsqueeze(-1), (_complex(2, 3, 4),))
    assert len(op_types(program)) <= 3


UNARY = (
    "abs angle conj exp log log2 log10 log1p sqrt rsqrt reciprocal neg sgn square isnan isfinite isreal "
    "sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh sigmoid expm1 sinc"
)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("name", UNARY.split())
def test_functions(name: str, dtype: torch.dtype) -> None:
    export_and_compare(getattr(torch, name), (_complex(3, 5, dtype=dtype) * 2,))


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: torch.add(a, b, alpha=2),
    "sub": lambda a, b: b - a,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "div from": lambda a, b: b / a,
    "pow": lambda a, b: a**b,
    "eq": lambda a, b: (a == b, a != b),
    "where": lambda a, b: torch.where(a.abs() > 1, a, b),
}


@pytest.mark.parametrize("other", ["complex", "broadcast", "real", "number", "complex number", "float64"])
@pytest.mark.parametrize("name", BINARY)
def test_promotion(name: str, other: str) -> None:
    a, function = _complex(3, 4), BINARY[name]
    if other in ("number", "complex number"):
        number = 2.5 if other == "number" else 1.5 - 0.5j
        export_and_compare(lambda a: function(a, number), (a,))
        return
    operands = {
        "complex": _complex(3, 4, seed=2),
        "broadcast": _complex(2, 1, 4, seed=2),
        "real": _real(3, 4),
        "float64": _real(3, 4).double(),
    }
    export_and_compare(lambda a, b: function(a, b), (a, operands[other]))


SHAPES: dict[str, Callable[[torch.Tensor], Any]] = {
    "reshape": lambda x: x.reshape(-1),
    "transpose": lambda x: x.transpose(-1, 0).contiguous(),
    "adjoint": lambda x: x.mH,
    "cat": lambda x: torch.cat([x, x.real, x], dim=-1),
    "stack": lambda x: torch.stack([x, x], dim=-1),
    "split": lambda x: x.split(1, dim=-2),
    "expand": lambda x: x[:1].expand(4, -1, -1),
    "repeat": lambda x: x.repeat(2, 1, 3),
    "flip": lambda x: x.flip(-1),
    "roll": lambda x: x.roll(1, -1),
    "pad": lambda x: torch.nn.functional.pad(x, (1, 2)),
    "tril": torch.tril,
    "diagonal": lambda x: x.diagonal(dim1=-2, dim2=-1),
    "index": lambda x: x[:, [2, 0]],
    "mask": lambda x: x.masked_fill(x.real > 0, 1 - 2j),
    "cast": lambda x: (x.to(torch.complex128), x.real.to(torch.complex64), x.bool()),
    "create": lambda x: (torch.zeros_like(x), torch.full_like(x, 1 + 2j), torch.ones(2, dtype=x.dtype)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    export_and_compare(SHAPES[name], (_complex(2, 3, 4),))


def test_symbolic_sizes() -> None:
    def model(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (x.reshape(x.shape[0], -1) @ w).transpose(0, 1).abs()

    export_and_compare(
        model,
        (_complex(2, 3, 4), _complex(12, 5)),
        dynamic_shapes=({0: torch.export.Dim.AUTO}, None),
        other_args=(_complex(7, 3, 4), _complex(12, 5)),
    )


REDUCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "sum": lambda x: (x.sum(), x.sum(-1, keepdim=True)),
    "mean": lambda x: x.mean((0, 1)),
    "prod": lambda x: (x.prod(), x.prod(1)),
    "cumsum": lambda x: x.cumsum(-1),
    "cumprod": lambda x: x.cumprod(0),
    "var": lambda x: (x.var(), x.std(-1)),
    "norm": lambda x: (torch.linalg.vector_norm(x), x.norm(1, dim=-1)),
    "any": lambda x: (x.any(), x.all(-1)),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    export_and_compare(REDUCTIONS[name], (_complex(2, 3, 4),))


PRODUCTS: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "matmul": (torch.matmul, (_complex(2, 3, 4), _complex(4, 5))),
    "with real": (lambda a, b: a @ b.to(a.dtype), (_complex(2, 3, 4), _real(4, 5))),
    "addmm": (
        lambda a, b, c: torch.addmm(a, b, c, beta=0.5, alpha=1 + 1j),
        (_complex(5), _complex(3, 4), _complex(4, 5)),
    ),
    "vdot": (torch.vdot, (_complex(4), _complex(4, seed=2))),
    "linear": (torch.nn.functional.linear, (_complex(2, 3), _complex(4, 3), _complex(4))),
    "einsum": (lambda a, b: torch.einsum("bij,jk->bik", a, b), (_complex(2, 3, 4), _complex(4, 5))),
    "conv": (torch.nn.functional.conv1d, (_complex(2, 3, 8), _complex(4, 3, 3), _complex(4))),
    "solve": (torch.linalg.solve, (_complex(3, 3), _complex(3, 2))),
    "inv": (torch.linalg.inv, (_complex(2, 3, 3),)),
    "pinv": (torch.linalg.pinv, (_complex(4, 3),)),
    "svdvals": (torch.linalg.svdvals, (_complex(4, 3),)),
    "qr": (torch.linalg.qr, (_complex(4, 3),)),
    "cholesky": (lambda a: torch.linalg.cholesky(a @ a.mH + torch.eye(3)), (_complex(3, 3),)),
    "matrix_exp": (torch.matrix_exp, (_complex(3, 3),)),
    "eigvalsh": (lambda a: torch.linalg.eigvalsh(a + a.mH), (_complex(3, 3),)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    function, args = PRODUCTS[name]
    export_and_compare(function, args, rtol=1e-3, atol=1e-4)


def test_factors_multiply_back() -> None:
    def model(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        u, s, vh = torch.linalg.svd(a)
        values, vectors = torch.linalg.eigh(a.mH @ a)
        return (u[:, :3] * s) @ vh, (vectors * values) @ vectors.mH

    export_and_compare(model, (_complex(5, 3, dtype=torch.complex128),))


def test_complex_weights_are_parameters() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(_complex(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    program = export_and_compare(Model(), (_complex(3, 4),))
    assert "weight" in program.model.graph.initializers


def test_sums_of_exponentials_in_turn() -> None:
    inf = float("inf")
    x = torch.tensor([complex(-inf, 1), complex(-inf, 2), complex(1, 2), complex(-inf, 0.5), complex(3, -2)])
    for function in (lambda a: torch.logcumsumexp(a, 0), lambda a: torch.logaddexp(a, a.flip(0))):
        export_and_compare(function, (x,))
    export_and_compare(
        lambda a: (torch.logcumsumexp(a, 0), torch.logcumsumexp(a, 1)),
        (_complex(7, 3, dtype=torch.complex128) * 30,),
        dynamic_shapes=(({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},),),
        other_args=(_complex(40, 5, dtype=torch.complex128) * 30,),
    )


def test_random_parts_are_independent() -> None:
    def model(x: torch.Tensor) -> list[torch.Tensor]:
        return [x.clone().normal_(1.0, 2.0), x.clone().uniform_(-1.0, 3.0), torch.randn_like(x)]

    x = torch.zeros(20000, dtype=torch.complex64)
    normal, uniform, standard = onnxport.export(as_module(model), (x,), seed=1)(x)
    for values, mean, variance in ((normal, 1 + 1j, 4.0), (uniform, 1 + 1j, 8 / 3), (standard, 0j, 1.0)):
        assert abs(complex(values.mean()) - mean) < 0.05
        assert abs(float(values.var()) - variance) < 0.1
        assert abs(float(((values.real - mean.real) * (values.imag - mean.imag)).mean())) < 0.1


def test_resize() -> None:
    export_and_compare(lambda x: x.clone().resize_(2, 3), (_complex(3, 4),))


def test_nan_to_num() -> None:
    inf, nan = float("inf"), float("nan")
    x = torch.tensor([complex(nan, 1), complex(inf, -inf), 1j])
    export_and_compare(lambda x: (torch.nan_to_num(x), torch.nan_to_num(x, 1.0, 2.0, 3.0)), (x,))


def test_several_tensors_keep_their_types() -> None:
    def model(x: torch.Tensor, y: torch.Tensor) -> tuple[Any, ...]:
        return torch.broadcast_tensors(x, y, y.double()), torch.atleast_2d(x[0, 0], y), torch.atleast_3d(x, y)

    export_and_compare(model, (_complex(3, 4), _real(4)))
    export_and_compare(lambda x, y: torch.nn.functional.l1_loss(x, y.double()), (_complex(3, 4), _real(3, 4)))


EDGES = (0.0, -0.0, 1e-30, -1e-12, 0.5, -1.0, 1.0, 3.7, -50.0, 88.0, 700.0, 1e6, 1e18, 1e30)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_functions_over_their_domain(dtype: torch.dtype) -> None:
    """Zeros of both signs, branch cuts, poles, large arguments: where eager is finite, to its own accuracy.

    In complex64 eager's sinc is off at large arguments, and its logaddexp NaN from real parts of 88 on.
    """
    x = torch.tensor([complex(a, b) for a in EDGES for b in EDGES], dtype=dtype)
    y = x.flip(0).roll(17)
    skipped = ("isnan", "isfinite", "isreal", "sinc" if dtype is torch.complex64 else "")
    functions = {name: getattr(torch, name) for name in UNARY.split() if name not in skipped}
    functions["silu"] = torch.nn.functional.silu
    functions["mul"], functions["div"], functions["divided"] = (lambda x: x * y), (lambda x: x / y), (lambda x: 2 / x)
    for exponent in (2, 3, -1, 0.5, 0.3 + 1j):
        functions[f"pow {exponent}"] = lambda x, exponent=exponent: x**exponent
    if dtype is torch.complex128:
        functions["logaddexp"] = lambda x: torch.logaddexp(x, y)
    program = onnxport.export(as_module(lambda x: [function(x) for function in functions.values()]), (x,))
    precision = {torch.complex64: 1e-4, torch.complex128: 1e-7}[dtype]
    for name, function, found in zip(functions, functions.values(), program(x)):
        expected = function(x).to(torch.complex128).resolve_conj()
        finite = torch.view_as_real(expected).isfinite().all(-1)
        error = (found.to(torch.complex128) - expected).abs()[finite]
        allowed = precision * expected.abs()[finite] + precision / 10
        assert (error <= allowed).all(), f"{name}: {x[finite][~(error <= allowed)][:4].tolist()}"
        assert not torch.view_as_real(found.to(torch.complex128)).isfinite().all(-1)[~finite].any(), name


def test_real_operands_have_no_imaginary_parts() -> None:
    """Infinite and negative ones neither: not NaN, not -0, which would turn the angle around."""
    inf = float("inf")
    x, z = torch.tensor([-2.0, inf, -inf, 0.0]), torch.tensor([1 + 1j, inf, -inf, 0j])
    export_and_compare(lambda x, z: (x == z, z != x, x[:1] ** z[:1], x[:1] ** (0.5 + 0j), z[:1] - x[:1]), (x, z))


def test_division_by_zero_is_infinite_part_by_part() -> None:
    z = torch.tensor([1j, 2 + 0j, -3 - 1j, 0j, 1 + 1j])
    w = torch.tensor([0j, 0j, 0j, 0j, 2j])
    export_and_compare(lambda z, w: (z / w, 1 / w, w.reciprocal(), w**-1), (z, w))


def test_hyperbolic_tangent_at_its_poles() -> None:
    """``cosh 2x + cos 2y``, of which the quotient is often made, has two digits left there."""
    halves = [complex(0, math.pi / 2), complex(1e-9, 3 * math.pi / 2), complex(300, 1), complex(-1e5, 1e5)]
    z = torch.tensor(halves, dtype=torch.complex64)
    export_and_compare(lambda z: (z.tanh(), (z * 1j).tan()), (z,), rtol=1e-6)


def test_arctangent_of_infinity() -> None:
    inf = math.inf
    z = torch.tensor([complex(inf, 0), complex(-inf, 1), complex(1, inf), complex(-2, -inf)], dtype=torch.complex128)
    export_and_compare(lambda z: (z.atan(), z.atanh()), (z,))


def test_bilinear_layer() -> None:
    layer = torch.nn.Bilinear(3, 2, 4, dtype=torch.complex64)
    shapes = ({0: torch.export.Dim.AUTO},) * 2
    other = (_complex(5, 3), _complex(5, 2))
    export_and_compare(layer, (_complex(4, 3), _complex(4, 2)), dynamic_shapes=shapes, other_args=other)


def test_results_may_be_another_models_inputs_and_constants() -> None:
    (value,) = onnxport.export(as_module(lambda x: x * 2), (_complex(3, 4),))(_complex(3, 4))
    export_and_compare(lambda x: x * value, (value,))
