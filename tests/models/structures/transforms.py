"""vmap, and gradients taken in forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.structures.structure import BUFFER, floats, ints, structure

ROWS = ({0: "rows"},)
X, OTHER = floats(4, 6), floats(7, 6)


@structure(X, dynamic=ROWS, other=(OTHER,))
def vmapped_rows_written_in_place(x: torch.Tensor) -> torch.Tensor:
    def one(row: torch.Tensor) -> torch.Tensor:
        y = row.clone()
        y[1:4].mul_(2)
        y.add_(row.mean())
        return y

    return torch.vmap(one)(x)


@structure(X, floats(6))
def vmapped_over_two_axes_with_captured_weights(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    def inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(a * b).add_(a * b).relu_()

    return torch.vmap(torch.vmap(inner, in_dims=(0, None)), in_dims=(1, None), out_dims=2)(x, w).relu_()


@structure(floats(5, 3), floats(7, 3), dynamic=({0: "n"}, {0: "m"}), other=(floats(4, 3), floats(2, 3)))
def pairwise_distances_by_nested_vmap(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).square().sum().sqrt()

    return torch.vmap(lambda a: torch.vmap(lambda b: distance(a, b))(y))(x)


@structure(X, dynamic=ROWS, other=(OTHER,), buffers={"seen": torch.zeros(6)}, mutates={"seen": BUFFER})
def buffer_written_beside_a_vmap(self: Any, x: torch.Tensor) -> torch.Tensor:
    y = torch.vmap(lambda row: row.softmax(0))(x)
    self.seen += y.sum(0)
    y[0].zero_()
    return y


@structure(floats(4), dynamic=({0: "n"},), other=(floats(6),))
def gradient_by_torch_func(x: torch.Tensor) -> torch.Tensor:
    return torch.func.grad(lambda v: (v**3).sum())(x)


@structure(floats(4), dynamic=({0: "n"},), other=(floats(6),))
def gradient_and_value_with_captured_input(x: torch.Tensor) -> Any:
    y = x * 2
    gradient, value = torch.func.grad_and_value(lambda v: (v.sin() * y).mean())(x + 1)
    return gradient * y, value


@structure(X, dynamic=ROWS, other=(OTHER,))
def gradient_of_each_row_by_vmap(x: torch.Tensor) -> torch.Tensor:
    return torch.vmap(torch.func.grad(lambda row: row.tanh().square().sum()))(x)


@structure(floats(4), floats(4))
def vector_jacobian_product(x: torch.Tensor, t: torch.Tensor) -> Any:
    value, pull = torch.func.vjp(lambda v: v.tanh() * v.sum(), x)
    return value, pull(t)[0]


@structure(floats(4), dynamic=({0: "n"},), other=(floats(6),))
def jacobian_by_reverse_mode(x: torch.Tensor) -> torch.Tensor:
    return torch.func.jacrev(lambda v: v.sin() * v.sum())(x)


@structure(floats(4), dynamic=({0: "n"},), other=(floats(6),))
def gradient_by_autograd(x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        v = x.detach().requires_grad_(True)
        return torch.autograd.grad((v**3).sum(), v)[0]


@structure(X, dynamic=ROWS, other=(OTHER,))
class GradientThroughALayersWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -torch.func.grad(lambda positions: self.energy(positions).sum())(x)


@structure(X, dynamic=ROWS, other=(OTHER,))
class ForcesOfAnEnergyModelByAutograd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            positions = x.detach().requires_grad_(True)
            return -torch.autograd.grad(self.energy(positions).sum(), positions)[0]


@structure(X, dynamic=ROWS, other=(OTHER,))
class EnsembleByVmapOverStackedWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(floats(3, 2, 6)), nn.Parameter(floats(3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.vmap(lambda w, b: torch.nn.functional.linear(x, w, b).relu_())(self.weight, self.bias)


@structure(X, ints(2, 0, 5, 1), dynamic=({0: "rows"}, {0: "rows"}), other=(OTHER, ints(1, 1, 0, 4, 5, 2, 3)))
def gather_by_vmapped_index(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return torch.vmap(lambda row, i: row[i.unsqueeze(0)] - row.max())(x, index)


@structure(X, ints(2, 0, 5, 1))
def vmapped_setitem_at_an_index(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    def one(row: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        y = row.clone()
        return y.index_fill_(0, i.unsqueeze(0), -1.0)

    return torch.vmap(one)(x, index)


@structure(floats(3, 5), dynamic=({0: "batch", 1: "time"},), other=(floats(2, 7),))
def causal_mask_by_vmapped_predicate(x: torch.Tensor) -> torch.Tensor:
    def allowed(b: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (x[b, k] > -1)

    over_keys = torch.vmap(allowed, in_dims=(None, None, 0))
    over_queries = torch.vmap(over_keys, in_dims=(None, 0, None))
    positions = torch.arange(x.shape[1])
    return torch.vmap(over_queries, in_dims=(0, None, None))(torch.arange(x.shape[0]), positions, positions)


@structure(X, holds=lambda y: bool(((y - X) >= 0).all() and ((y - X) <= 1).all() and (y - X).std() > 0.1))
def random_numbers_under_vmap(x: torch.Tensor) -> torch.Tensor:
    return torch.vmap(lambda row: row + torch.rand_like(row), randomness="different")(x)


@structure(floats(4), dynamic=({0: "n"},), other=(floats(6),))
def jacobian_by_forward_mode(x: torch.Tensor) -> torch.Tensor:
    return torch.func.jacfwd(lambda v: v.sin() * v.sum())(x)


@structure(floats(4), floats(4))
def jvp_in_forward(x: torch.Tensor, t: torch.Tensor) -> Any:
    return torch.func.jvp(lambda v: v.tanh() * v, (x,), (t,))


@structure(floats(4))
def hessian_in_forward(x: torch.Tensor) -> torch.Tensor:
    return torch.func.hessian(lambda v: (v**3).sum())(x)
