"""Random tensors: dtype, shape (dynamic too) and distribution, by statistics on onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
import torch.nn.functional as F
from support import FunctionModule, run_model
from torch._higher_order_ops.scan import scan

DYNAMIC = torch.export.Dim.DYNAMIC


def export(function: Callable[..., Any], x: torch.Tensor, *, dynamic: bool, **options: Any) -> onnxport.ONNXProgram:
    module = FunctionModule(function).eval()
    return onnxport.export(module, (x,), dynamic_shapes=(({0: DYNAMIC, 1: DYNAMIC},),) if dynamic else None, **options)


CASES: dict[str, Callable[[torch.Tensor], Any]] = {
    "rand": lambda x: torch.rand(x.shape),
    "rand_like_half": lambda x: torch.rand_like(x, dtype=torch.float16),
    "randn": lambda x: torch.randn(x.shape, dtype=torch.float64),
    "randn_like": torch.randn_like,
    "randint": lambda x: torch.randint(3, 17, x.shape),
    "randint_like": lambda x: torch.randint_like(x, 5),
    "randint_large": lambda x: torch.randint(0, 2**40, x.shape),
    "random_": lambda x: torch.zeros_like(x).random_(9),
    "bernoulli": torch.bernoulli,
    "bernoulli_p": lambda x: torch.bernoulli(x, 0.2),
    "bernoulli_": lambda x: x.clone().bernoulli_(0.3),
    "normal": lambda x: torch.normal(x, 2.0),
    "normal_of_tensors": lambda x: torch.normal(x, x),
    "normal_": lambda x: x.clone().normal_(2, 3),
    "exponential_": lambda x: x.clone().exponential_(2.0),
    "uniform_": lambda x: x.clone().uniform_(2.0, 4.0),
    "geometric_": lambda x: x.clone().geometric_(0.3),
    "cauchy_": lambda x: x.clone().cauchy_(1.0, 2.0).atan(),
    "log_normal_": lambda x: x.clone().log_normal_(0.1, 0.3),
    "poisson": lambda x: torch.poisson(x * 5),
    "randperm": lambda x: torch.randperm(x.shape[0] * x.shape[1]),
    "multinomial": lambda x: torch.multinomial(x, 5),
    "multinomial_replacement": lambda x: torch.multinomial(x, 7, replacement=True),
    "dropout": lambda x: F.dropout(x, 0.3, True),
    "dropout_of_a_result": lambda x: F.dropout(x + 1, 0.3, True) * 2,
    "native_dropout_of_a_result": lambda x: torch.native_dropout(x + 1, 0.3, True)[0] * 2,
    "dropout_of_all": lambda x: F.dropout(x, 1.0, True),
    "native_dropout": lambda x: torch.native_dropout(x, 0.3, True),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.3, True),
    "feature_dropout": lambda x: F.dropout1d(x[:, :, None], 0.3, True),
    "rrelu": lambda x: F.rrelu(x - 0.5, training=True),
    "gumbel_softmax": lambda x: F.gumbel_softmax(x, hard=True),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_distribution(name: str, dynamic: bool) -> None:
    torch.manual_seed(0)
    program = export(CASES[name], torch.rand(150, 200), dynamic=dynamic, seed=1)  # the same draws each time
    x = torch.rand(230, 110) if dynamic else torch.rand(150, 200)
    expected = CASES[name](x)
    for actual, wanted in zip(run_model(program, (x,)), expected if isinstance(expected, tuple) else (expected,)):
        assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape)
        got, want = actual.double(), wanted.double()
        spread = want.std().item()
        five_sigma = 5 * (2 / want.numel()) ** 0.5  # of the difference of two sample means, in units of the spread
        assert abs(got.mean() - want.mean()) <= five_sigma * spread + 1e-9
        assert abs(got.std() - spread) <= max(five_sigma, 0.1) * spread + 1e-9


def _attend(x: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)


@pytest.mark.parametrize(
    "module",
    [FunctionModule(_attend), torch.nn.LSTM(6, 8, num_layers=2, dropout=0.5), torch.nn.GRU(6, 8, 2, dropout=0.5)],
    ids=["attention", "lstm", "gru"],
)
def test_dropout_inside_of_a_layer(module: torch.nn.Module) -> None:
    """Two runs differ: onnxruntime mustn't find a Dropout that it would remove."""
    x = torch.rand(3, 4, 6)
    program = onnxport.export(torch.export.export(module.train(), (x,)))
    first, second = (run_model(program, (x,))[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_permutations_and_draws_without_replacement_have_no_repeats() -> None:
    program = export(lambda x: (torch.randperm(50), torch.multinomial(x, 9)), torch.rand(4, 12), dynamic=False)
    order, drawn = run_model(program, (torch.rand(4, 12),))
    assert order.sort().values.tolist() == list(range(50))
    assert all(len(set(row)) == 9 for row in drawn.tolist())


def test_bounds() -> None:
    x = torch.rand(100, 100)
    program = export(lambda x: (torch.randint(3, 6, x.shape), x.clone().uniform_(2, 4)), x, dynamic=False)
    whole, real = run_model(program, (x,))
    assert set(whole.unique().tolist()) == {3, 4, 5}
    assert real.min() >= 2 and real.max() <= 4


def test_small_shapes() -> None:
    x = torch.rand(1, 1)
    program = export(lambda x: (torch.rand(()), torch.rand(0, 3), torch.randint(0, 1, ())), x, dynamic=False)
    assert [tuple(t.shape) for t in run_model(program, (x,))] == [(), (0, 3), ()]


def test_seed_makes_a_file_reproducible() -> None:
    def function(x: torch.Tensor) -> Any:
        return torch.rand_like(x), torch.rand_like(x), torch.randn(3), F.dropout(x, 0.5, True)

    x = torch.rand(3, 4)
    first, again, other = (run_model(export(function, x, dynamic=False, seed=s), (x,)) for s in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[1]), "every node has a seed of its own"


@pytest.mark.parametrize("seed", [None, 5])
def test_each_turn_of_a_loop_draws_anew(seed: int | None) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return scan(lambda carry, row: (carry + 1, torch.rand_like(row)), x[0], x)[1]

    x = torch.rand(6, 4)
    sessions = [onnxport.export(FunctionModule(function), (x,), seed=seed) for _ in range(2)]
    (first,), (second,) = (run_model(program, (x,)) for program in sessions)
    assert first.unique().numel() == first.numel()
    assert seed is None or torch.equal(first, second)


def test_half_precision_and_autocast() -> None:
    """Numbers of narrow types are drawn in float32."""

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            noise = torch.rand_like(x @ x.t())
        return noise, torch.randn(x.shape, dtype=torch.float16), torch.rand(x.shape, dtype=torch.bfloat16)

    x = torch.rand(120, 120)
    for drawn, wanted in zip(run_model(export(function, x, dynamic=False, seed=3), (x,)), function(x)):
        assert drawn.dtype is wanted.dtype
        assert abs(drawn.float().mean() - wanted.float().mean()) < 0.05
        assert abs(drawn.float().std() - wanted.float().std()) < 0.05
