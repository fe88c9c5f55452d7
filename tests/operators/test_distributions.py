"""``torch.distributions``, whose parameters aren't checked in a file, and gamma distributed numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
import torch.distributions as D
from support import FunctionModule, export_and_compare

DYNAMIC = torch.export.Dim.DYNAMIC


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Kolmogorov's and Smirnov's statistic of two samples; above 2.2 in 1 of 8,000 pairs of samples of one law."""
    a, b = (t.double().flatten().sort().values for t in (a, b))
    every = torch.cat([a, b])
    below = [torch.searchsorted(t, every, right=True) / len(t) for t in (a, b)]
    return float((below[0] - below[1]).abs().max()) * math.sqrt(len(a) * len(b) / (len(a) + len(b)))


def compare(function: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype = torch.float32) -> None:
    """Export with dynamic sizes and compare the distribution of results at other ones."""
    torch.manual_seed(0)
    x, other = torch.rand(20, 30, dtype=dtype) * 0.8 + 0.1, torch.rand(60, 80, dtype=dtype) * 0.8 + 0.1
    shapes = (({0: DYNAMIC, 1: DYNAMIC},),)
    program = onnxport.export(FunctionModule(function).eval(), (x,), dynamic_shapes=shapes, seed=1)
    (drawn,), wanted = program(other), function(other)
    assert (drawn.dtype, drawn.shape) == (wanted.dtype, wanted.shape)
    assert bool(drawn.isfinite().all())
    assert distance(drawn, wanted) < 2.2


SAMPLES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "normal": lambda x: D.Normal(x, x).rsample(),
    "several": lambda x: D.Normal(x, x).sample((3,)),
    "uniform": lambda x: D.Uniform(x, x + 1).rsample(),
    "laplace": lambda x: D.Laplace(x, x).rsample(),
    "exponential": lambda x: D.Exponential(x).rsample(),
    "gumbel": lambda x: D.Gumbel(x, x).rsample(),
    "bernoulli": lambda x: D.Bernoulli(logits=x).sample(),
    "categorical": lambda x: D.Categorical(x).sample(),
    "binomial": lambda x: D.Binomial(10, x).sample(),
    "poisson": lambda x: D.Poisson(x * 4).sample(),
    "negative binomial": lambda x: D.NegativeBinomial(5, x * 0.8).sample(),
    "gamma": lambda x: D.Gamma(x * 3, x).rsample(),
    "beta": lambda x: D.Beta(x * 3, x).rsample().clamp(1e-3),
    "chi2": lambda x: D.Chi2(x * 5).rsample(),
    "student": lambda x: D.StudentT(x * 5 + 3).rsample(),
    "dirichlet": lambda x: D.Dirichlet(x * 3).rsample(),
    "many normal": lambda x: D.MultivariateNormal(x, torch.diag_embed(x + 0.1)).rsample(),
    "transformed": lambda x: D.TransformedDistribution(D.Normal(x, x), [D.SigmoidTransform()]).rsample(),
    "mixture": lambda x: D.MixtureSameFamily(D.Categorical(x), D.Normal(x, x)).sample(),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str) -> None:
    compare(SAMPLES[name])


def test_densities() -> None:
    """They draw nothing, so that the numbers are torch's."""

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        normal = D.Normal(x, x + 1)
        return normal.log_prob(x * 2), D.Gamma(x, x).log_prob(x), D.kl_divergence(normal, D.Normal(x * 2, x * 3))

    args, other = (torch.rand(3, 4) + 0.1,), (torch.rand(5, 2) + 0.1,)
    export_and_compare(function, args, dynamic_shapes=(({0: DYNAMIC, 1: DYNAMIC},),), other_args=other)


def test_values_are_still_checked_outside_of_an_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(D.Distribution, "_validate_args", True)  # dynamo turns it off for good when it first runs
    onnxport.export(FunctionModule(lambda x: D.Normal(x, x).rsample()), (torch.rand(2),))
    with pytest.raises(ValueError, match="scale"):
        D.Normal(torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gamma_distributed_numbers(dtype: torch.dtype, scale: float) -> None:
    compare(lambda x: torch._standard_gamma(x * scale), dtype)


def test_concentrations_that_are_none() -> None:
    """The loop ends all the same; what is no concentration gives no number, or the least."""
    x = torch.tensor([2.0, 0.0, math.nan, math.inf])
    (drawn,) = onnxport.export(FunctionModule(torch._standard_gamma), (x,))(x)
    assert drawn[0] > 0 and 0 <= drawn[1] < 1e-30 and not drawn[2] > 0


GENERATED: dict[str, Callable[..., torch.Tensor]] = {
    "rand": lambda x, g: torch.rand(x.shape, generator=g),
    "randn": lambda x, g: torch.randn(x.shape[0], x.shape[1], generator=g),
    "randint": lambda x, g: torch.randint(3, 9, x.shape, generator=g),
    "randperm": lambda x, g: torch.randperm(x.shape[0] * x.shape[1], generator=g),
    "normal": lambda x, g: torch.normal(1.0, 2.0, x.shape, generator=g),
    "normal of a tensor": lambda x, g: torch.normal(x, 2.0, generator=g),
    "uniform_": lambda x, g: torch.empty_like(x).uniform_(1, 2, generator=g),
    "normal_": lambda x, g: torch.empty_like(x).normal_(1, 2, generator=g),
    "exponential_": lambda x, g: torch.empty_like(x).exponential_(2, generator=g),
    "bernoulli_": lambda x, g: torch.empty_like(x).bernoulli_(0.3, generator=g),
    "random_": lambda x, g: torch.empty_like(x).random_(3, 9, generator=g),
    "bernoulli": lambda x, g: torch.bernoulli(x, generator=g),
    "bernoulli, the method": lambda x, g: x.bernoulli(generator=g),
    "poisson, by position": lambda x, g: torch.poisson(x, g),
    "binomial": lambda x, g: torch.binomial(x.round() + 4, x, generator=g),
    "multinomial": lambda x, g: torch.multinomial(x, 5, generator=g),
    "multinomial, the method": lambda x, g: x.multinomial(5, generator=g),
}


@pytest.mark.parametrize("name", GENERATED)
def test_generators_say_nothing_about_a_file(name: str) -> None:
    generator: Any = torch.Generator().manual_seed(0)
    compare(lambda x: GENERATED[name](x, generator))


BETWEEN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "two": lambda x: torch.zeros_like(x).random_(-4, 9),
    "to is named": lambda x: torch.zeros_like(x).random_(-4, to=9),
    "one": lambda x: torch.zeros_like(x).random_(9),
    "from alone": lambda x: torch.zeros(x.shape, dtype=torch.int8).random_(-4, None),
    "from alone, float16": lambda x: torch.zeros(x.shape, dtype=torch.float16).random_(-4, None),
    "none": lambda x: torch.zeros(x.shape, dtype=torch.int32).random_(),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_whole_numbers_between(name: str) -> None:
    compare(BETWEEN[name])


def test_a_dynamic_number_of_draws() -> None:
    compare(lambda x: torch.multinomial(x, x.shape[0] * 2, replacement=True))
    compare(lambda x: torch.multinomial(x[0], x.shape[0] * 200, replacement=True))


def test_what_has_no_weight_is_never_drawn() -> None:
    weights = torch.zeros(5000, 50).index_fill(1, torch.tensor([3, 7]), 1.0)

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.multinomial(x, 1), torch.multinomial(x, 2), torch.multinomial(x, x.shape[0] // 500, True)

    program = onnxport.export(FunctionModule(function), (weights,), dynamic_shapes=(({0: DYNAMIC},),), seed=2)
    for drawn in program(weights):
        assert set(drawn.unique().tolist()) == {3, 7}


def test_exponential_numbers_have_finite_logarithms() -> None:
    """Gumbel noise is their logarithm."""
    program = onnxport.export(
        FunctionModule(lambda x: x.new_empty(x.shape).exponential_().log()), (torch.zeros(1000, 2000),), seed=4
    )
    assert bool(program(torch.zeros(1000, 2000))[0].isfinite().all())
