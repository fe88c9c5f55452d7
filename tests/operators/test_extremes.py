"""Elementwise operators over their whole domain: zeros of both signs, denormals, the edge of overflow, infinities, NaN.

The operators are those of torch's database. NaN and infinities must stand where eager has them, and values agree to a
number of units in the last place; what is smaller than the least normal number may be flushed to zero.
"""

from __future__ import annotations

import math
from typing import Any

import onnxport
import pytest
import torch
from support import FunctionModule
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import BinaryUfuncInfo, UnaryUfuncInfo

#: not compared here, and why
LEFT_OUT = {
    **dict.fromkeys(("jiterator_unary", "jiterator_binary", "jiterator_binary_return_by_ref"), "needs a GPU"),
    **dict.fromkeys(("complex", "polar", "cdouble", "cfloat", "chalf"), "complex results"),
    **dict.fromkeys(("fmod", "remainder", "__rmod__"), "torch overflows in the quotient where the remainder is finite"),
    "ldexp": "torch overflows in the power where the product is finite",
    "nn.functional.rrelu": "random",
    **dict.fromkeys(("igamma", "igammac"), "torch's own limits at denormals; arguments above 1e19 give NaN here"),
    **dict.fromkeys(("polygamma", "special.polygamma"), "torch is finite at poles"),
    "special.zeta": "torch looks at the first argument before a NaN in the second",
    "special.airy_ai": "the phase of arguments above 1e17 is noise in torch too",
    **dict.fromkeys((f"special.bessel_{kind}" for kind in ("j0", "j1", "y0", "y1")), "torch's own error is larger"),
}
#: recurrences that torch runs into infinity minus infinity, or replaces by cosines that miss exact zeros
_RECURRENCES = ("chebyshev", "hermite", "laguerre", "legendre")
#: not in float64: torch's own error is larger (digamma near poles), or accuracy ends at huge and denormal arguments
_FLOAT32_ALONE = ("digamma", "lgamma", "mvlgamma", "special.i1e", "special.ndtr")
#: absolute tolerances: onnxruntime's Sigmoid is accurate to 6e-8, not in proportion (1.32); cancellation of equal
#: formulas; zeros that no double hits
_ABSOLUTE: dict[str, dict[torch.dtype, float]] = {
    "sigmoid": {torch.float32: 6e-8},
    "nn.functional.silu": {torch.float32: 2e-6},
    "nn.functional.mish": {torch.float32: 1e-7},
    "nn.functional.tanhshrink": {torch.float32: 2e-10},
    "special.ndtr": {torch.float32: 1e-16},
    "lgamma": {torch.float32: 1e-14},
    "mvlgamma": {torch.float32: 1e-14},
    **{name: {torch.float64: 2e-16} for name in ("sin", "sinc", "tan", "special.spherical_bessel_j0")},
}
ULPS = {torch.float32: 128, torch.float64: 1e5, torch.float16: 4, torch.bfloat16: 4}

ENTRIES = {
    (f"{entry.name}.{entry.variant_test_name}" if entry.variant_test_name else entry.name): entry
    for entry in op_db
    if isinstance(entry, (UnaryUfuncInfo, BinaryUfuncInfo))
    and entry.name not in LEFT_OUT
    and not any(word in entry.name for word in _RECURRENCES)
}


def extremes(dtype: torch.dtype) -> torch.Tensor:
    limits = torch.finfo(dtype)
    sizes = [
        0.0,
        limits.smallest_normal / 8,
        limits.smallest_normal,
        1e-3,
        0.5,
        1 - limits.eps / 2,
        1.0,
        1 + limits.eps,
    ]
    sizes += [1.5, 2.0, math.pi, 10.0, 25.3, 88.0, 1e3, limits.max**0.5, limits.max / 4, limits.max, math.inf]
    return torch.tensor([v for size in sizes for v in (size, -size)] + [math.nan], dtype=torch.float64).to(dtype)


def differences(inputs: tuple[torch.Tensor, ...], actual: torch.Tensor, expected: torch.Tensor, atol: float) -> str:
    """The first element that differs, or nothing."""
    wide, found = expected.double(), actual.double()
    wrong = (wide.isnan() != found.isnan()) | ((wide.isinf() | found.isinf()) & (wide != found) & ~wide.isnan())
    finite = wide.isfinite() & found.isfinite()
    if expected.is_floating_point():
        limits = torch.finfo(expected.dtype)
        allowed = ULPS[expected.dtype] * limits.eps * wide.abs() + 2 * limits.smallest_normal + atol
        wrong |= finite & ((found - wide).abs() > allowed)
    else:
        wrong |= actual != expected
    if not wrong.any():
        return ""
    place = int(wrong.nonzero()[0])
    given = ", ".join(str(float(value[place])) for value in inputs)
    return f"at ({given}): {float(found[place])}, expected {float(wide[place])}; {int(wrong.sum())} differ"


def compare(name: str, dtype: torch.dtype) -> None:
    entry = ENTRIES[name]
    values = extremes(dtype)
    sample = next(iter(entry.sample_inputs("cpu", dtype, requires_grad=False)))
    inputs: tuple[torch.Tensor, ...] = (values,)
    others = sample.args
    if isinstance(entry, BinaryUfuncInfo):
        inputs, others = (values.repeat_interleave(len(values)), values.repeat(len(values))), sample.args[1:]

    def function(*tensors: torch.Tensor) -> Any:
        return entry.op(*tensors, *others, **sample.kwargs)

    module = FunctionModule(function).eval()
    expected = module(*inputs)
    program = onnxport.export(torch.export.export(module, inputs, strict=False))
    for got, want in zip(program(*inputs), expected if isinstance(expected, tuple) else (expected,)):
        assert got.dtype == want.dtype
        assert not differences(inputs, got, want, _ABSOLUTE.get(entry.name, {}).get(dtype, 0.0))


@pytest.mark.parametrize("name", sorted(n for n, e in ENTRIES.items() if torch.float32 in e.supported_dtypes("cpu")))
def test_float32(name: str) -> None:
    compare(name, torch.float32)


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, entry in ENTRIES.items()
        if torch.float64 in entry.supported_dtypes("cpu")
        and isinstance(entry, UnaryUfuncInfo)
        and not name.startswith(_FLOAT32_ALONE)
    ),
)
def test_float64(name: str) -> None:
    compare(name, torch.float64)
