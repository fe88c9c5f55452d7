"""Random tensors: every distribution by RandomUniform, RandomNormal, Dropout, or a loop over them.

The numbers are onnxruntime's, so they equal torch's in distribution only. ``export(seed=)`` gives each node a seed of
its own. onnxruntime 1.32 draws float32 and float64; other types are cast.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from onnxport import DataType, Size, Tensor, Unsupported, translation
from onnxport.authoring import seed_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DRAWN = (DataType.FLOAT, DataType.DOUBLE)
_TORCH = {DataType.FLOAT: torch.float32, DataType.DOUBLE: torch.float64}
_FLOATS = (*_DRAWN, DataType.FLOAT16, DataType.BFLOAT16)
#: Integers up to here are exact in float32, which node attributes are.
_EXACT = 2**24
_LEAST = 2.0**-32  # below all other uniform numbers that onnxruntime draws
_SELU_ALPHA = 1.7580993408473766  # the value that SELU saturates at, negated


def draw(op: Any, kind: str, shape: Sequence[int | Size], dtype: DataType, **attributes: float) -> Tensor:
    """A node RandomUniform or RandomNormal for any shape; float16 and bfloat16 are drawn in float32.

    Args:
        kind: ``"Uniform"`` (attributes low, high) or ``"Normal"`` (mean, scale).
        shape: static or symbolic.
    """
    drawn = dtype if dtype in _DRAWN else DataType.FLOAT
    dims = list(shape)
    attributes = {**attributes, "seed": seed_of(op)}  # type: ignore[dict-item]
    if dims and all(isinstance(d, int) and d > 0 for d in dims):
        x = getattr(op, f"Random{kind}")(shape=dims, dtype=drawn, **attributes)
    else:
        template = op.Expand(op.const(0.0, DataType.FLOAT), dims) if dims else op.const(0.0, DataType.FLOAT)
        x = getattr(op, f"Random{kind}Like")(template, dtype=drawn, **attributes)
    x.shape = op.result.shape if list(op.result.shape) == dims else x.shape
    return op.cast(x, dtype) if dtype in _FLOATS else x


def uniform01(op: Any, shape: Sequence[int | Size], dtype: DataType = DataType.FLOAT) -> Tensor:
    return draw(op, "Uniform", shape, dtype)


def expected(op: Any) -> tuple[list[int | Size], DataType]:
    """Shape and element type of the node's result."""
    result = op.result
    if result.is_complex:
        raise Unsupported("complex random numbers")
    return list(result.shape), result.dtype


# --- by size ---------------------------------------------------------------------------------------------------


@translation("aten::rand", "aten::rand.generator", "aten::rand_like", "aten::rand_like.generator")
def rand(op: Any, **_: Any) -> Tensor:
    return draw(op, "Uniform", *expected(op))


@translation("aten::randn", "aten::randn.generator", "aten::randn_like", "aten::randn_like.generator")
def randn(op: Any, **_: Any) -> Tensor:
    return draw(op, "Normal", *expected(op))


def integers(op: Any, low: int | Size, high: int | Size | Tensor) -> Tensor:
    """Whole numbers of [low, high), of the node's shape and type."""
    shape, dtype = expected(op)
    if isinstance(low, int) and isinstance(high, int) and abs(low) <= _EXACT and abs(high) <= _EXACT:
        x = draw(op, "Uniform", shape, DataType.DOUBLE, low=float(low), high=float(high))
    else:
        start = op.cast(low, DataType.DOUBLE)
        width = op.Sub(op.cast(high, DataType.DOUBLE), start)
        x = op.Add(op.Mul(draw(op, "Uniform", shape, DataType.DOUBLE), width), start)
    whole = op.Floor(x)
    return op.cast(whole, dtype) if dtype in _FLOATS else op.cast(op.cast(whole, DataType.INT64), dtype)


@translation("aten::randint", "aten::randint.generator", "aten::randint_like", "aten::randint_like.generator")
def randint(op: Any, high: int | Size, **_: Any) -> Tensor:
    return integers(op, 0, high)


@translation("aten::randint_like.Tensor", "aten::randint_like.Tensor_generator")
def randint_like_tensor(op: Any, high: Tensor, **_: Any) -> Tensor:
    return integers(op, 0, high)


@translation(
    "aten::randint.low",
    "aten::randint.low_generator",
    "aten::randint_like.low_dtype",
    "aten::randint_like.low_generator_dtype",
)
def randint_low(op: Any, low: int | Size, high: int | Size, **_: Any) -> Tensor:
    return integers(op, low, high)


def greatest(dtype: DataType) -> int:
    """One more than the greatest number that ``random_()`` fills a tensor of this type with."""
    if dtype in _FLOATS:
        return {DataType.DOUBLE: 2**53, DataType.FLOAT: 2**24, DataType.FLOAT16: 2**11}.get(dtype, 2**8) + 1
    if dtype is DataType.BOOL:
        return 2
    unsigned = dtype.name.startswith("U")
    # float64, in which they are drawn, has no integer between 2**63 - 1024 and 2**63.
    return min(2 ** (dtype.bitwidth - (0 if unsigned else 1)), 2**63 - 1024)


@translation("aten::random", "aten::random.to")
def random(op: Any, self: Tensor, to: int | None = None, *, generator: Any = None) -> Tensor:
    return integers(op, 0, greatest(self.dtype) if to is None else to)


@translation("aten::random.from")
def random_from(op: Any, self: Tensor, to: int | None = None, *, generator: Any = None, **bounds: int) -> Tensor:
    """``from`` is no name for a Python parameter, hence ``bounds``."""
    return integers(op, bounds["from"], greatest(self.dtype) if to is None else to)


@translation("aten::randperm", "aten::randperm.generator")
def randperm(op: Any, n: int | Size, **_: Any) -> Tensor:
    """The order that sorts random keys."""
    dtype = op.result.dtype
    if n == 0:
        return op.Expand(op.const(0, dtype), [0])
    return op.cast(op.TopK(draw(op, "Uniform", [n], DataType.DOUBLE), [n], axis=0)[1], dtype)


# --- by tensor -------------------------------------------------------------------------------------------------


def spread(op: Any, mean: Tensor | float, std: Tensor | float) -> Tensor:
    """Normal numbers of the node's shape around ``mean``."""
    shape, dtype = expected(op)
    if not isinstance(mean, Tensor) and not isinstance(std, Tensor):
        return draw(op, "Normal", shape, dtype, mean=float(mean), scale=float(std))
    drawn = dtype if dtype in _DRAWN else DataType.FLOAT
    x = op.Mul(draw(op, "Normal", shape, drawn), op.cast(std, drawn))
    return op.cast(op.Add(x, op.cast(mean, drawn)), dtype)


@translation("aten::normal.Tensor_float", "aten::normal.float_Tensor", "aten::normal.Tensor_Tensor")
def normal(op: Any, mean: Any, std: Any = 1.0, *, generator: Any = None) -> Tensor:
    return spread(op, mean, std)


@translation("aten::normal.float_float")
def normal_sized(op: Any, mean: float, std: float, **_: Any) -> Tensor:
    return spread(op, mean, std)


@translation("aten::normal_functional")
def normal_functional(op: Any, self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    return spread(op, mean, std)


@translation("aten::log_normal")
def log_normal(op: Any, self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Any = None) -> Tensor:
    shape, dtype = expected(op)
    return op.Exp(draw(op, "Normal", shape, dtype, mean=float(mean), scale=float(std)))


@translation("aten::uniform")
def uniform(op: Any, self: Tensor, to: float = 1.0, *, generator: Any = None, **bounds: float) -> Tensor:
    shape, dtype = expected(op)
    return draw(op, "Uniform", shape, dtype, low=float(bounds.get("from", 0.0)), high=float(to))


def from_uniform(op: Any, formula: Callable[[Tensor], Tensor]) -> Tensor:
    """Inverse transform sampling: ``formula`` of uniform numbers of [0, 1), computed in float32 or float64."""
    shape, dtype = expected(op)
    drawn = DataType.FLOAT if dtype in (DataType.FLOAT16, DataType.BFLOAT16) else dtype
    drawn = drawn if drawn in _DRAWN else DataType.DOUBLE
    return op.cast(formula(draw(op, "Uniform", shape, drawn)), dtype)


@translation("aten::exponential")
def exponential(op: Any, self: Tensor, lambd: float = 1.0, *, generator: Any = None) -> Tensor:
    # Never 0, of which Gumbel noise, the logarithm, would be infinite; and the logarithm of 0 is kept out.
    return from_uniform(op, lambda u: op.Div(op.Log(op.Max(u, _LEAST)), -float(lambd)))


@translation("aten::geometric")
def geometric(op: Any, self: Tensor, p: float, *, generator: Any = None) -> Tensor:
    scale = math.log1p(-p) if p < 1 else -math.inf
    return from_uniform(op, lambda u: op.Max(op.Ceil(op.Div(op.Log(op.Sub(1.0, u)), scale)), 1.0))


@translation("aten::cauchy")
def cauchy(op: Any, self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Any = None) -> Tensor:
    def formula(u: Tensor) -> Tensor:
        angle = op.Mul(op.Sub(u, 0.5), math.pi)
        tangent = op.Div(op.Sin(angle), op.Cos(angle))  # onnxruntime has no float64 Tan
        return op.Add(op.Mul(tangent, float(sigma)), float(median))

    return from_uniform(op, formula)


@translation("aten::bernoulli")
def bernoulli(op: Any, self: Tensor, *, generator: Any = None) -> Tensor:
    # Not ONNX Bernoulli: onnxruntime 1.32 draws 1 with the probability 1 - p.
    u = uniform01(op, list(self.shape), self.dtype if self.dtype in _DRAWN else DataType.FLOAT)
    return op.cast(op.Less(u, op.cast(self, u.dtype)), op.result.dtype)


@translation("aten::bernoulli.p", "aten::bernoulli.Tensor")
def bernoulli_p(op: Any, self: Tensor, p: float | Tensor, *, generator: Any = None) -> Tensor:
    shape, dtype = expected(op)
    u = uniform01(op, shape)
    return op.cast(op.Less(u, op.cast(p, DataType.FLOAT)), dtype)


@translation("aten::multinomial")
def multinomial(
    op: Any, self: Tensor, num_samples: int | Size, replacement: bool = False, *, generator: Any = None
) -> Tensor:
    """With replacement by ONNX Multinomial; without by the order of ``p / Exponential(1)``.

    ONNX's number of samples is fixed; any other is drawn by the inverse of the cumulative distribution.
    """
    weights = op.cast(self, DataType.FLOAT)
    rank = len(self.shape)
    if replacement and not isinstance(num_samples, int):
        ends = op.CumSum(weights, op.const(-1))
        total = op.Slice(ends, [-1], [_EXACT], [-1])
        drawn = op.Mul(uniform01(op, expected(op)[0]), total)
        passed = op.GreaterOrEqual(op.Unsqueeze(drawn, [-1]), op.Unsqueeze(ends, [-2]))
        return op.ReduceSum(op.cast(passed, DataType.INT64), [-1], keepdims=0)
    if replacement and num_samples != 1:
        logits = op.Log(weights if rank == 2 else op.Unsqueeze(weights, [0]))
        drawn = op.cast(op.Multinomial(logits, sample_size=num_samples, seed=seed_of(op)), DataType.INT64)
        return drawn if rank == 2 else op.Squeeze(drawn, [0])
    race = op.Neg(op.Log(uniform01(op, list(self.shape))))  # never 0: 0 / 0 would win
    return op.TopK(op.Div(weights, race), [num_samples], axis=-1)[1]


def count_until(op: Any, step: Callable[..., Any], states: Sequence[Tensor]) -> list[Tensor]:
    """A Loop of ``step(turn, *states) -> (again, *states)``; the final states."""
    inputs = [(DataType.INT64, []), (DataType.BOOL, []), *((state.dtype, state.shape) for state in states)]
    body = op.subgraph(lambda turn, _again, *values: step(turn, *values), inputs)
    results = op.Loop(None, op.const(True), *states, body=body, outputs=len(states))
    return list(results) if isinstance(results, tuple) else [results]


@translation("aten::poisson")
def poisson(op: Any, self: Tensor, generator: Any = None) -> Tensor:
    """How many exponential waiting times fit into the rate: one turn of a loop for each, for all elements at once."""
    shape, dtype = expected(op)
    rate = op.cast(self, DataType.FLOAT)
    zeros = op.Mul(rate, 0.0)
    zeros.shape = self.shape

    def step(_turn: Tensor, time: Tensor, events: Tensor) -> tuple[Tensor, ...]:
        wait = op.Neg(op.Log(op.Sub(1.0, uniform01(op, shape))))
        time = op.Add(time, wait)
        inside = op.cast(op.LessOrEqual(time, rate), DataType.FLOAT)
        return op.cast(op.ReduceMax(inside, keepdims=0), DataType.BOOL), time, op.Add(events, inside)

    if any(dim == 0 for dim in shape):
        return self
    return op.cast(count_until(op, step, [zeros, zeros])[1], dtype)


@translation("aten::binomial")
def binomial(op: Any, count: Tensor, prob: Tensor, generator: Any = None) -> Tensor:
    """The sum of Bernoulli trials: a turn of a loop for each."""
    shape, dtype = expected(op)
    if any(dim == 0 for dim in shape):
        return count
    trials, chance = op.cast(count, DataType.FLOAT), op.cast(prob, DataType.FLOAT)
    zeros = op.Expand(op.const(0.0, DataType.FLOAT), shape) if shape else op.const(0.0, DataType.FLOAT)
    zeros.shape = count.shape

    def step(turn: Tensor, successes: Tensor) -> tuple[Tensor, ...]:
        running = op.Less(op.cast(turn, DataType.FLOAT), trials)
        hit = op.cast(op.And(op.Less(uniform01(op, shape), chance), running), DataType.FLOAT)
        again = op.ReduceMax(op.cast(running, DataType.UINT8), keepdims=0)
        return op.cast(again, DataType.BOOL), op.Add(successes, hit)

    return op.cast(count_until(op, step, [zeros])[0], dtype)


def gamma_numbers(op: Any, concentration: Tensor, dtype: DataType) -> Tensor:
    """Gamma distributed numbers of scale 1, float32 or float64, by rejection: about six turns of a loop over them all.

    Source: Marsaglia and Tsang, "A simple method for generating gamma variables", 2000. Below 1 the concentration is
    raised by 1, and the number multiplied by ``u ** (1 / concentration)``.
    """
    shape = list(concentration.shape)
    alpha = op.cast(concentration, dtype)
    below = op.Less(alpha, 1.0)
    d = op.Sub(op.Add(alpha, op.cast(below, dtype)), 1 / 3)
    c = op.Reciprocal(op.Sqrt(op.Mul(d, 9.0)))
    # Of what isn't a positive number none would ever be accepted.
    waiting = op.And(op.Greater(alpha, 0.0), op.Less(alpha, math.inf))
    value = op.Mul(alpha, 0.0)
    waiting.shape = value.shape = concentration.shape

    def step(_turn: Tensor, waiting: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        x = draw(op, "Normal", shape, dtype)
        root = op.Add(op.Mul(c, x), 1.0)
        v = op.Mul(op.Mul(root, root), root)
        scaled = op.Mul(d, v)
        bound = op.Add(op.Mul(op.Mul(x, x), 0.5), op.Add(op.Sub(d, scaled), op.Mul(d, op.Log(v))))
        # Where v is negative, its logarithm is NaN, and nothing is less.
        accepted = op.And(waiting, op.Less(op.Log(uniform01(op, shape, dtype)), bound))
        waiting = op.And(waiting, op.Not(accepted))
        again = op.cast(op.ReduceMax(op.cast(waiting, DataType.UINT8), keepdims=0), DataType.BOOL)
        return again, waiting, op.Where(accepted, scaled, value)

    value = count_until(op, step, [waiting, value])[1]
    factor = op.Pow(uniform01(op, shape, dtype), op.Reciprocal(alpha))
    return op.Max(op.Where(below, op.Mul(value, factor), value), torch.finfo(_TORCH[dtype]).tiny)


@translation("aten::_standard_gamma")
def standard_gamma(op: Any, self: Tensor, generator: Any = None) -> Tensor:
    shape, dtype = expected(op)
    if any(dim == 0 for dim in shape):
        return self
    return op.cast(gamma_numbers(op, self, dtype if dtype in _DRAWN else DataType.FLOAT), dtype)


@translation("aten::_sample_dirichlet")
def sample_dirichlet(op: Any, self: Tensor, generator: Any = None) -> Tensor:
    """Gamma distributed numbers over their sum, along the last axis."""
    shape, dtype = expected(op)
    if any(dim == 0 for dim in shape):
        return self
    parts = gamma_numbers(op, self, DataType.DOUBLE)
    return op.cast(op.Div(parts, op.ReduceSum(parts, [-1], keepdims=1)), dtype)


# --- dropout in training mode; other families know what these do in eval mode ------------------------------------


def mask_of(op: Any, x: Tensor, p: float, *, features: bool) -> Tensor:
    """1.0 where an element (or a whole channel) is kept, with probability 1 - p."""
    shape = [*list(x.shape)[:2], *(1 for _ in list(x.shape)[2:])] if features else list(x.shape)
    return op.cast(op.GreaterOrEqual(uniform01(op, shape), p), x.dtype)


@translation("aten::dropout", priority=-1)
def dropout(op: Any, input: Tensor, p: float, train: bool) -> Tensor:
    if p >= 1:
        return op.Mul(input, 0)
    dropped, kept = op.Dropout(input, op.const(p, DataType.FLOAT), op.const(True), seed=whole_seed(op), outputs=2)
    # It is chosen once more by its mask: onnxruntime 1.32 removes a Dropout whose mask nobody reads, training mode or
    # not, from all but the inputs of a graph.
    return op.Where(kept, dropped, 0)


@translation("aten::native_dropout", priority=-1)
def native_dropout(op: Any, input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    if p >= 1:
        return op.Mul(input, 0), op.Expand(op.const(False), list(input.shape))
    dropped, kept = op.Dropout(input, op.const(p, DataType.FLOAT), op.const(True), seed=whole_seed(op), outputs=2)
    return op.Where(kept, dropped, 0), kept  # as in `dropout`


def whole_seed(op: Any) -> int | None:
    seed = seed_of(op)
    return None if seed is None else int(seed)


@translation("aten::feature_dropout", priority=-1)
def feature_dropout(op: Any, input: Tensor, p: float, train: bool) -> Tensor:
    if p >= 1:
        return op.Mul(input, 0)
    return op.Mul(input, op.Div(mask_of(op, input, p, features=True), 1 - p))


def self_normalizing(op: Any, x: Tensor, p: float, *, features: bool) -> Tensor:
    """Dropped elements become SELU's saturation value; then mean and variance are restored by an affine map."""
    if p >= 1:
        return op.Mul(x, 0)
    scale = 1 / math.sqrt((_SELU_ALPHA**2 * p + 1) * (1 - p))
    kept = mask_of(op, x, p, features=features)
    shift = op.Add(op.Mul(op.Sub(kept, 1.0), _SELU_ALPHA * scale), _SELU_ALPHA * scale * p)
    return op.Add(op.Mul(x, op.Mul(kept, scale)), shift)


@translation("aten::alpha_dropout", priority=-1)
def alpha_dropout(op: Any, input: Tensor, p: float, train: bool) -> Tensor:
    return self_normalizing(op, input, p, features=False)


@translation("aten::feature_alpha_dropout", priority=-1)
def feature_alpha_dropout(op: Any, input: Tensor, p: float, train: bool) -> Tensor:
    return self_normalizing(op, input, p, features=True)


@translation("aten::rrelu", priority=-1)
def rrelu(
    op: Any, self: Tensor, lower: float = 0.125, upper: float = 1 / 3, training: bool = False, **_: Any
) -> Tensor:
    return random_slopes(op, self, lower, upper)[0]


@translation("aten::rrelu_with_noise_functional", priority=-1)
def rrelu_with_noise(
    op: Any, self: Tensor, noise: Tensor, lower: float = 0.125, upper: float = 1 / 3, training: bool = False, **_: Any
) -> tuple[Tensor, Tensor]:
    return random_slopes(op, self, lower, upper)


def random_slopes(op: Any, x: Tensor, lower: float, upper: float) -> tuple[Tensor, Tensor]:
    """rrelu in training mode, and the slopes: 1 where x is positive."""
    slopes = op.cast(draw(op, "Uniform", list(x.shape), x.dtype, low=float(lower), high=float(upper)), x.dtype)
    noise = op.Where(op.Greater(x, 0), 1, slopes)
    return op.Mul(x, noise), noise
