"""Random operators where models have them; what must hold of the results is tested, not the numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from models.structures.structure import BUFFER, INPUT, floats, structure

X = floats(40, 50)
ROWS = ({0: "rows"},)
MANY = {"dynamic": ROWS, "other": (floats(60, 50),)}


def near(value: torch.Tensor, expected: float, within: float) -> bool:
    return abs(float(value) - expected) < within


@structure(X, training=True, holds=lambda y: near((y == 0).float().mean(), 0.3, 0.08), **MANY)
def dropout_in_training(x: torch.Tensor) -> torch.Tensor:
    return F.dropout(x, 0.3, True)


@structure(torch.zeros(1, 4, 4), training=True, holds=lambda y: y.shape == (1, 4, 4))
class DropPathAndChannelDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.channels = nn.Dropout1d(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keep = x.new_empty(x.shape[0], 1, 1).bernoulli_(0.9).div_(0.9)
        return self.channels(x) * keep + x


@structure(X, **MANY)
def dropout_in_evaluation_is_nothing(x: torch.Tensor) -> torch.Tensor:
    return F.dropout(F.alpha_dropout(x, 0.2, False), 0.5, False)


@structure(X, holds=lambda z: near(z.mean(), 0, 0.15) and near(z.std(), 1, 0.15), **MANY)
def noise_of_the_inputs_shape(x: torch.Tensor) -> torch.Tensor:
    return torch.randn_like(x)


@structure(X, holds=lambda mean, z: near((z - mean).std(), 0.5, 0.1), **MANY)
class LatentOfAnAutoencoder(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean, log_scale = x, torch.full_like(x, 0.5).log()
        return mean, mean + log_scale.exp() * torch.randn_like(mean)


@structure(X, holds=lambda ids, p: bool((ids < 50).all()) and bool((p > 0).all()), **MANY)
def token_sampled_with_temperature_and_top_k(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    scores, places = (x / 0.7).topk(5)
    probabilities = scores.softmax(-1)
    drawn = torch.multinomial(probabilities, 1)
    return places.gather(1, drawn), probabilities.gather(1, drawn)


@structure(X, holds=lambda y: bool((y.sum(1) - 1).abs().max() < 1e-4), **MANY)
def gumbel_softmax_choice(x: torch.Tensor) -> torch.Tensor:
    return F.gumbel_softmax(x, tau=0.5, hard=True)


@structure(X, holds=lambda y, order: bool((y == X[order]).all()) and order.unique().numel() == 40)
def rows_shuffled(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    order = torch.randperm(x.shape[0])
    return x[order], order


@structure(X, holds=lambda y, mask: near(mask.float().mean(), 0.15, 0.05) and bool((y[mask] == -1).all()), **MANY)
def tokens_masked_at_random(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    mask = torch.bernoulli(torch.full_like(x, 0.15)).bool()
    return x.masked_fill(mask, -1.0), mask


@structure(X, buffers={"noise": torch.zeros(50)}, mutates={"noise": BUFFER}, holds=lambda y: bool(y.std() > 0.5))
def buffer_filled_with_noise(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.noise.normal_(0, 2)
    return x * 0 + self.noise


@structure(X, mutates={"x": INPUT}, holds=lambda total: near(total / 2000, 0.5, 0.1))
def input_filled_in_place(x: torch.Tensor) -> torch.Tensor:
    x.uniform_(0, 1)
    return x.sum()


@structure(X, holds=lambda a, b: not torch.equal(a, b))
def equal_calls_draw_different_numbers(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.rand_like(x), torch.rand_like(x)


@structure(X, holds=lambda y: bool((y >= 0).all()) and near(y.mean(), 0.5, 0.1), **MANY)
def waiting_times(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x).exponential_(2.0)


@structure(X, holds=lambda y: bool(((y >= 3) & (y < 9)).all()), options={"seed": 5}, **MANY)
def integers_with_a_seed(x: torch.Tensor) -> torch.Tensor:
    return torch.randint(3, 9, (x.shape[0], 4)) + torch.randint_like(x[:, :1], 0, 1).long()


@structure(X, training=True, holds=lambda y: bool((y[X > 0] == X[X > 0]).all()))
def randomized_leaky_relu(x: torch.Tensor) -> torch.Tensor:
    return F.rrelu(x, training=True)


@structure(floats(2, 3, 8, 8), training=True, holds=lambda y: y.shape == (2, 3, 2, 2))
def fractional_pooling(x: torch.Tensor) -> torch.Tensor:
    return F.fractional_max_pool2d(x, 3, output_size=2)


@structure(X, holds=lambda y: bool(y.isfinite().all()))
def random_numbers_in_a_branch(x: torch.Tensor) -> torch.Tensor:
    return torch.cond(x.sum() > 0, lambda x: x + torch.rand_like(x), lambda x: x - torch.rand_like(x), (x,))
