"""Forward derivatives that forward takes (torch.func.jvp, jacfwd, hessian, linearize) leave the batch dynamic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
from torch import nn
from torch.func import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
conv = nn.Sequential(nn.Conv1d(1, 3, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(24, 2)).eval()
norm = nn.Sequential(nn.Linear(8, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 1)).eval()


class Model(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.net, self.conv, self.norm, self.function = net, conv, norm, function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def ones(x: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(x)


def attention(v: torch.Tensor) -> torch.Tensor:
    with sdpa_kernel(SDPBackend.MATH):  # eager has no forward derivative of the others
        return F.scaled_dot_product_attention(v[None], v[None], v[None])


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor) -> torch.Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * given

    @staticmethod
    def jvp(ctx: Any, given: torch.Tensor) -> torch.Tensor:
        return 30 * given  # not the derivative, so that one taken otherwise would show


def without_gradients(v: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        scale = torch.tanh(v)
    return torch.tanh(v) + scale


def product(parts: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {"y": parts["a"] * parts["b"][0]}


def piecewise(v: torch.Tensor) -> torch.Tensor:
    return torch.where(v > 0, v.relu(), v.abs().clamp(0, 1))


def args() -> tuple[Any, ...]:
    return torch.ones(8), 2.0, torch.full((8,), 3.0)


FUNCTIONS: dict[str, Callable[[torch.Tensor], Any]] = {
    "jvp": lambda x: jvp(net, (x,), (ones(x),)),
    "jvp of a convolution": lambda x: jvp(conv, (x[:, None],), (ones(x[:, None]),))[1],
    "jvp of a normalization": lambda x: jvp(norm, (x,), (x,))[1],
    "jvp of attention": lambda x: jvp(attention, (x,), (ones(x),))[1],
    "jvp of one operator": lambda x: jvp(lambda v: v * 2, (x,), (ones(x),))[1],
    "jvp along an expanded tangent": lambda x: jvp(net, (x,), (x[:1].expand(x.shape[0], 8),))[1],
    "jvp of integers beside": lambda x: jvp(lambda v: (v.argmax(1), v.sin()), (x,), (x,)),
    "jvp with aux": lambda x: jvp(lambda v: (net(v), {"v": v * 2}), (x,), (x,), has_aux=True),
    "jvp of a tree": lambda x: jvp(product, ({"a": x, "b": [x.cos()]},), ({"a": x, "b": [x]},)),
    "jvp of what depends on nothing": lambda x: jvp(lambda v: (v.sin(), x * 1), (x,), (x,)),
    "jvp of a piecewise function": lambda x: jvp(piecewise, (x,), (x,))[1],
    "jvp of jvp": lambda x: jvp(lambda v: jvp(torch.sin, (v,), (v,))[1], (x,), (ones(x),))[1],
    "jvp of grad": lambda x: jvp(grad(lambda v: net(v).square().sum()), (x,), (ones(x),))[1],
    "jvp of a detached part": lambda x: jvp(lambda v: v * v.detach(), (x,), (ones(x),))[1],
    "grad of jvp": lambda x: grad(lambda v: jvp(net, (v,), (v,))[1].sum())(x),
    "jvp of vmap": lambda x: jvp(vmap(lambda v: net(v) * v.sum()), (x,), (x,))[1],
    "vmap of jvp": lambda x: vmap(lambda v: jvp(net, (v,), (v,))[1])(x),
    "vmap of jacfwd": lambda x: vmap(jacfwd(net))(x),
    "jacfwd of weights": lambda x: jacfwd(lambda s: net(x * s).sum(0))(torch.ones(8)),
    "jacfwd of all": lambda x: jacfwd(lambda v: net(v).sum(0))(x),
    "jacfwd by two": lambda x: jacfwd(lambda a, s, b: (x * s * a).sum(0) * b, (0, -1))(*args()),
    "jacfwd by the last": lambda x: jacfwd(lambda a, s, b: (x * s * a).sum(0) * b, (2, 0))(*args()),
    "jacfwd with aux": lambda x: jacfwd(lambda s: (net(x * s).sum(0), s * 2), has_aux=True)(torch.ones(8)),
    "jacfwd of jacrev": lambda x: jacfwd(jacrev(lambda s: net(x * s).sum()))(torch.ones(8)),
    "jacrev of jacfwd": lambda x: jacrev(jacfwd(lambda s: net(x * s).sum()))(torch.ones(8)),
    "hessian": lambda x: hessian(lambda s: net(x * s).square().sum())(torch.ones(8)),
    "linearize": lambda x: linearize(net, x)[1](x),
    "vjp": lambda x: vjp(net, x)[1](ones(net(x)))[0],
}  # fmt: skip


def expect_equal(function: Callable[[torch.Tensor], Any], *sizes: int) -> None:
    model = Model(function).eval()
    originals = torch.func.jvp, torch.func.linearize, torch.func.linearize.__code__
    before = pytree.tree_leaves(model(torch.ones(2, 8)))
    shapes = ({0: "n"},) if sizes != (3,) else None
    program = onnxport.export(model, (torch.randn(3, 8),), dynamic_shapes=shapes)
    for size in sizes:
        x = torch.randn(size, 8)
        for got, wanted in zip(program(x), pytree.tree_leaves(model(x)), strict=True):
            torch.testing.assert_close(got, wanted.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pytree.tree_leaves(model(torch.ones(2, 8))), before)
    assert originals == (torch.func.jvp, torch.func.linearize, torch.func.linearize.__code__)


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_equals_eager_at_two_sizes(name: str) -> None:
    expect_equal(FUNCTIONS[name], 5, 1)


@pytest.mark.parametrize("function", [Cube.apply, without_gradients])
def test_what_only_forward_mode_computes(function: Callable[..., torch.Tensor]) -> None:
    expect_equal(lambda x: jvp(function, (x,), (x,))[1], 3)
