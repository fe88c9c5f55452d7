"""Whether a model's outputs are the operator's: by value, by invariants, by statistics, or by dtype and shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from cases import UNINITIALIZED
from support import TOLERANCES, expect_equal

Tensors = Sequence[torch.Tensor]


class MismatchError(AssertionError):
    """The outputs are not the operator's."""


def same(name: str, inputs: Tensors, actual: Tensors, expected: Tensors) -> None:
    """Compare outputs with eager's.

    Decompositions that are unique only up to signs, phases or order are compared by what they promise.

    Raises:
        AssertionError: they differ.
    """
    like(actual, expected)
    if name in UNINITIALIZED:
        return
    invariant = INVARIANTS.get(name)
    if invariant is not None and all(t.numel() for t in expected):
        invariant(inputs, actual, expected)
        return
    for got, want in zip(actual, expected):
        rtol, atol = _tolerances(name, want)
        expect_equal(got, want, rtol=rtol, atol=atol)


#: (rtol, atol), narrower than in the other tests. Measured over a quarter of the database: all but a few results are
#: within 2 units in the last place of eager's. The rest is for algorithms that are not torch's, such as those of the
#: special functions.
_NARROW = {
    torch.float32: (2e-5, 2e-6),
    torch.float64: (1e-9, 1e-11),
    torch.complex64: (2e-5, 2e-6),
    torch.complex128: (1e-9, 1e-11),
    torch.float16: (4 * torch.finfo(torch.float16).eps, 1e-4),
    torch.bfloat16: (4 * torch.finfo(torch.bfloat16).eps, 1e-3),
}
#: units in the last place of a sum's largest result. Eager torch, onnxruntime and ONNX's reference implementation each
#: round partial sums in places of their own; no sum was seen to be off by more than 1.3, half of it one rounding.
_UNITS = 3
#: of sums whose weights are computed: an attention's samples have scores beyond 100, whose last places the softmax
#: makes that many of a weight; a resampled image's weights come of rounded coordinates. Over 40 draws of an attention,
#: eager's results are up to 13 units off those of float64, ours up to 25, and they differ by up to 31
_WEIGHTED = ("attention", "grid_sample", "interpolate", "upsample")
_UNITS_OF_WEIGHTS = 48
#: operators that sum products: floats differ by the order of the sums
_SUMS = ("addbmm", "baddbmm", "conv", "matmul", "matrix_power", "multi_dot", *_WEIGHTED)


def _tolerances(name: str, expected: torch.Tensor) -> tuple[float | None, float | None]:
    """Sums are accurate in proportion to their largest terms: a few units in the last place of those.

    In half precision that holds for all operators: what torch computes in one step, a graph may round on the way.
    """
    if expected.dtype not in _NARROW or not expected.numel():
        return None, None
    rtol, atol = _NARROW[expected.dtype]
    if "polygamma" in name and expected.dtype == torch.float32:
        rtol = TOLERANCES[torch.float32][0]  # torch's own loses digits near a pole; ours is float64's, rounded
    if "special.bessel_j" in name and expected.dtype == torch.float64:
        atol = 1e-6  # torch 2.14's own is off by up to 5e-7 between 5 and 13 (J0(5.01), by arbitrary precision)
    halves = expected.dtype in (torch.float16, torch.bfloat16)
    if halves or any(word in name for word in _SUMS):
        largest = float(expected.abs().double().nan_to_num(0.0, 0.0, 0.0).max())
        units = _UNITS_OF_WEIGHTS if not halves and any(word in name for word in _WEIGHTED) else _UNITS
        atol = max(atol, units * torch.finfo(expected.dtype).eps * largest)
    return rtol, atol


def like(actual: Tensors, expected: Tensors) -> None:
    """Number of outputs, dtypes and shapes."""
    if len(actual) != len(expected):
        raise MismatchError(f"{len(actual)} outputs, expected {len(expected)}")
    for got, want in zip(actual, expected):
        if got.dtype != want.dtype:
            raise MismatchError(f"dtype {got.dtype}, expected {want.dtype}")
        if got.shape != want.shape:
            raise MismatchError(f"shape {tuple(got.shape)}, expected {tuple(want.shape)}")


def same_statistics(draws: Sequence[Tensors], expected: Sequence[Tensors]) -> None:
    """Draws of a random operator: dtypes, shapes, where NaN stands, and mean and spread over all draws.

    Values are clipped to the middle nine tenths (some distributions have no mean), and the mean and spread of each draw
    compared over all draws: six standard errors and a hundredth of the range. It tells one distribution from another.
    """
    for each in draws:
        like(each, expected[0])
    for place, want in enumerate(expected[0]):
        if not want.numel():
            continue
        ours, theirs = (torch.stack([s[place].double().flatten() for s in sets]) for sets in (draws, expected))
        if ours.isnan().any() != theirs.isnan().any():
            raise MismatchError("NaN among the draws of one side only")
        low, high = theirs.nanquantile(torch.tensor([0.05, 0.95], dtype=torch.float64))
        ours, theirs = (values.nan_to_num(0.0).clamp(low, high) for values in (ours, theirs))
        for name, statistic in (("mean", torch.Tensor.mean), ("spread", _spread)):
            a, b = statistic(ours, -1), statistic(theirs, -1)
            error = ((a.var() + b.var()) / len(a)) ** 0.5
            if float((a.mean() - b.mean()).abs()) > float(6 * error + 0.01 * (high - low) + 1e-6):
                raise MismatchError(
                    f"{name} {float(a.mean()):.4g}, expected about {float(b.mean()):.4g} (output {place})"
                )


def _spread(values: torch.Tensor, axis: int) -> torch.Tensor:
    return values.std(axis, correction=0)


# Decompositions ------------------------------------------------------------------------------------------------------


def _close(what: str, actual: torch.Tensor, expected: torch.Tensor, scale: float = 10.0) -> None:
    rtol, atol = TOLERANCES[expected.dtype]
    finite = expected.isfinite()
    if not torch.equal(actual[~finite].nan_to_num(0.5), expected[~finite].nan_to_num(0.5)):
        raise MismatchError(f"{what}: infinities and NaN in other places")
    if not finite.any():
        return
    size, error = float(expected[finite].abs().max()), float((actual - expected)[finite].abs().max())
    if not error <= scale * (atol + rtol * max(size, 1.0)):
        raise MismatchError(f"{what}: off by {error:.3g}")


def _orthonormal(what: str, q: torch.Tensor) -> None:
    eye = torch.eye(q.shape[-1], dtype=q.dtype).expand(*q.shape[:-2], -1, -1)
    _close(f"{what} is not orthonormal", q.mH @ q, eye)


def _svd(transposed: bool) -> Callable[[Tensors, Tensors, Tensors], None]:
    def check(inputs: Tensors, actual: Tensors, expected: Tensors) -> None:
        (u, s, v), a = actual, inputs[0]
        _close("singular values", s, expected[1])
        if not expected[0].any():  # compute_uv=False: torch returns zeros
            _close("u", u, expected[0])
            return
        rank = s.shape[-1]
        vh = v if transposed else v.mH
        _orthonormal("u", u)
        _orthonormal("v", vh.mH)
        rebuilt = (u[..., :rank] * s.unsqueeze(-2).to(u.dtype)) @ vh[..., :rank, :]
        if rebuilt.shape == a.shape:
            _close("u s v", rebuilt, a)
        else:  # the low-rank form: the same matrix as torch's
            eu, es, ev = expected
            _close("u s v", rebuilt, (eu * es.unsqueeze(-2)) @ ev.mH, 100.0)

    return check


def _qr(inputs: Tensors, actual: Tensors, expected: Tensors) -> None:
    (q, r), a = actual, inputs[0]
    if not expected[0].numel():
        _close("|r|", r.abs(), expected[1].abs())
        return
    _orthonormal("q", q)
    _close("q r", q @ r, a)
    _close("r below the diagonal", r.tril(-1), torch.zeros_like(r))


def _eigh(inputs: Tensors, actual: Tensors, expected: Tensors) -> None:
    (values, vectors) = actual
    _close("eigenvalues", values, expected[0])
    _orthonormal("eigenvectors", vectors)
    rebuilt = (vectors * values.unsqueeze(-2).to(vectors.dtype)) @ vectors.mH
    _close("v l v^H", rebuilt, (expected[1] * expected[0].unsqueeze(-2).to(vectors.dtype)) @ expected[1].mH)


def _eig(inputs: Tensors, actual: Tensors, expected: Tensors) -> None:
    values = actual[0]
    _unordered(values, expected[0])
    if len(actual) > 1:
        a = inputs[0].to(values.dtype)
        _close("A v = l v", a @ actual[1], actual[1] * values.unsqueeze(-2))
        _close("norms of eigenvectors", actual[1].norm(dim=-2), torch.ones(values.shape, dtype=actual[1].real.dtype))


def _eigvals(inputs: Tensors, actual: Tensors, expected: Tensors) -> None:
    _unordered(actual[0], expected[0])


def _unordered(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Each expected value has an actual one near it, and the other way round."""
    distance = (actual.unsqueeze(-1) - expected.unsqueeze(-2)).abs()
    nearest = torch.maximum(distance.min(-1).values.max(), distance.min(-2).values.max())
    rtol, atol = TOLERANCES[expected.dtype]
    if not float(nearest) <= 10 * (atol + rtol * max(float(expected.abs().max()), 1.0)):
        raise MismatchError(f"eigenvalues: off by {float(nearest):.3g}")


def _geqrf(inputs: Tensors, actual: Tensors, expected: Tensors) -> None:
    def unpacked(pair: Tensors) -> torch.Tensor:
        k = min(pair[0].shape[-2:])
        return torch.linalg.householder_product(pair[0][..., :k], pair[1]) @ pair[0].triu()[..., :k, :]

    _close("q r", unpacked(actual), unpacked(expected))


def _chosen_among_equals(inputs: Tensors, actual: Tensors, expected: Tensors) -> None:
    """Values, and indices that may be those of other equal elements: torch doesn't say which."""
    for got, want in zip(actual[:-1], expected[:-1]):
        expect_equal(got, want)
    x, got, want = inputs[0], actual[-1], expected[-1]
    if torch.equal(got, want):
        return
    for axis in range(x.dim()):
        ours, theirs = (i if i.dim() == x.dim() else i.unsqueeze(axis) for i in (got, want))
        if any(a > b for d, (a, b) in enumerate(zip(ours.shape, x.shape)) if d != axis) or ours.max() >= x.shape[axis]:
            continue
        if torch.equal(*(x.gather(axis, i).nan_to_num(0.5) for i in (ours, theirs))):
            return
    expect_equal(got, want)


def _normwise(inputs: Tensors, actual: Tensors, expected: Tensors) -> None:
    """Functions of a matrix are accurate in proportion to its largest element, in torch as elsewhere."""
    for got, want in zip(actual, expected):
        _close("result", got, want, 1.0)


INVARIANTS: dict[str, Callable[[Tensors, Tensors, Tensors], Any]] = {
    "svd": _svd(False),
    "linalg.svd": _svd(True),
    "svd_lowrank": _svd(False),
    "pca_lowrank": _svd(False),
    "qr": _qr,
    "linalg.qr": _qr,
    "geqrf": _geqrf,
    "linalg.eigh": _eigh,
    "linalg.eig": _eig,
    "linalg.eigvals": _eigvals,
    "matrix_exp": _normwise,
    **dict.fromkeys(("topk", "kthvalue", "mode", "median", "nanmedian", "sort", "argsort"), _chosen_among_equals),
}

__all__ = ["INVARIANTS", "MismatchError", "like", "same", "same_statistics"]
