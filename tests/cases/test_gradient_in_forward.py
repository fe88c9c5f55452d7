"""Gradients that forward takes are part of the graph: of inputs, of tensors made in forward, of weights, and twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
import torch.utils._pytree as pytree
from support import expect_equal
from torch import nn
from torch.autograd import grad  # as users import it: no replaced attribute of a module reaches it

Forward = Callable[..., Any]
FORWARDS: dict[str, Forward] = {}
ROWS = {0: torch.export.Dim.DYNAMIC}


class Model(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.function = forward

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(self, *args)


def forward(function: Forward) -> Forward:
    FORWARDS[function.__name__] = function
    return function


def leaf(x: torch.Tensor) -> torch.Tensor:
    return x.detach().requires_grad_(True)


@forward
def of_a_detached_input(model: Model, x: torch.Tensor) -> Any:
    x = leaf(x)
    return -grad(model.net(x).sum(), x)[0]


@forward
def of_an_input_itself(model: Model, x: torch.Tensor) -> Any:
    x.requires_grad_()
    energy = model.net(x).sum()
    return energy, -grad(energy, x, create_graph=True)[0]


@forward
def of_an_attribute(model: Model, x: torch.Tensor) -> Any:
    x = x.clone()
    x.requires_grad = True
    return grad(model.net(x).sum(), x)[0]


@forward
def in_a_block(model: Model, x: torch.Tensor) -> Any:
    with torch.no_grad():
        x = x * 2
        with torch.enable_grad():
            x = x.requires_grad_()
            energy = model.net(x).sum()
            return energy, grad(energy, x)[0]


@forward
@torch.enable_grad()
def under_a_decorator(model: Model, x: torch.Tensor) -> Any:
    x = leaf(x)
    return grad(model.net(x).sum(), x)[0]


@forward
def twice(model: Model, x: torch.Tensor) -> Any:
    x = leaf(x)
    first = grad(model.net(x).sum(), x, create_graph=True)[0]
    return first, grad(first.square().sum(), x)[0]


@forward
def hessian(model: Model, x: torch.Tensor) -> Any:
    x = leaf(x)
    first = grad(model.net(x).sum(), x, create_graph=True)[0]
    return torch.stack([grad(first[:, i].sum(), x, retain_graph=True)[0] for i in range(3)], 1)


@forward
def of_what_is_not_used(model: Model, x: torch.Tensor) -> Any:
    x, other = leaf(x), torch.zeros(2, requires_grad=True)
    first, second = grad(model.net(x).sum(), [x, other], allow_unused=True)
    return first if second is None else first + 1


@forward
def of_a_strain(model: Model, x: torch.Tensor) -> Any:
    strain = torch.zeros(3, 3, requires_grad=True)
    places = x @ (torch.eye(3) + strain)
    energy = model.net(places).sum() + (places[:, None] - places[None]).square().sum()
    forces, stress = grad(energy, [places, strain])
    return energy, -forces, stress


@forward
def backward(model: Model, x: torch.Tensor) -> Any:
    x = leaf(x)
    energy = model.net(x).sum()
    energy.backward(retain_graph=True)
    (2 * energy).backward()
    return energy, x.grad


@forward
def of_weights(model: Model, x: torch.Tensor) -> Any:
    weight = model.net[0].weight
    step = grad((x @ weight.T).square().mean(), weight, create_graph=True)[0]
    return x @ (weight - 0.1 * step).T


@forward
def with_given_gradients(model: Model, x: torch.Tensor) -> Any:
    x = leaf(x)
    y = model.net(x)
    return grad(y, x, grad_outputs=torch.ones_like(y), create_graph=True, retain_graph=True)[0]


@forward
def of_a_batch_of_gradients(model: Model, x: torch.Tensor) -> Any:
    x = leaf(x)
    y = model.net(x).expand(-1, 2)
    given = torch.eye(2)[:, None].expand(2, x.shape[0], 2)
    return grad(y, x, grad_outputs=given, is_grads_batched=True)[0]


@forward
def by_functional(model: Model, x: torch.Tensor) -> Any:
    return torch.autograd.functional.jacobian(lambda t: model.net(t).sum(0), x)


@forward
def by_func(model: Model, x: torch.Tensor) -> Any:
    return torch.func.grad(lambda t: model.net(t).sum())(x)


@forward
def several_steps(model: Model, x: torch.Tensor) -> Any:
    for _ in range(3):
        x = leaf(x)
        x = x - 0.1 * grad(model.net(x).sum(), x)[0]
    return x


@forward
def through_messages(model: Model, x: torch.Tensor) -> Any:
    x = leaf(x)
    first, second = torch.arange(x.shape[0]), torch.arange(x.shape[0]).flip(0)
    messages = model.net(x[first] - x[second])
    energy = torch.zeros(x.shape[0], 1).index_add(0, first, messages).square().sum() + torch.cdist(x, x).sum()
    return energy, -grad(energy, x)[0]


@forward
def with_hooks(model: Model, x: torch.Tensor) -> Any:
    x = leaf(x)
    y = x * 2
    y.register_hook(lambda g: g * 5)
    return grad(y.sum(), x)[0]


@forward
def of_attention(model: Model, x: torch.Tensor) -> Any:
    x = leaf(x)
    y = nn.functional.scaled_dot_product_attention(x[None], x[None], x[None])
    return grad(nn.functional.layer_norm(y, (3,)).square().sum(), x)[0]


class Tripled(torch.autograd.Function):
    """Its backward isn't the derivative, so that one taken anew would show."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, given: torch.Tensor) -> torch.Tensor:
        return 3 * ctx.saved_tensors[0] * given


@forward
def of_a_function_of_its_own(model: Model, x: torch.Tensor) -> Any:
    x = leaf(x)
    return grad(Tripled.apply(x).sum(), x)[0]


def detached(value: Any) -> list[torch.Tensor]:
    return [tensor.detach() for tensor in pytree.tree_leaves(value)]


@pytest.mark.parametrize("name", FORWARDS)
def test_equals_eager_at_two_sizes(name: str) -> None:
    torch.manual_seed(0)
    model = Model(FORWARDS[name]).eval()
    x, other = torch.randn(4, 3), torch.randn(7, 3)
    program = onnxport.export(model, (x.clone(),), dynamic_shapes={"args": (ROWS,)})
    for given in (x, other):
        wanted = detached(model(given.clone()))
        for one, expected in zip(program(given), wanted, strict=True):
            expect_equal(one, expected)
    assert all(parameter.grad is None for parameter in Model(FORWARDS[name]).parameters())
    assert torch.autograd.grad is grad


class OfInput(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.square()
        return grad(y, x, grad_outputs=torch.ones_like(x), create_graph=True)[0]


@pytest.mark.parametrize("size", [1, 3])
def test_an_example_that_requires_a_gradient(size: int) -> None:
    x = torch.rand(size, 3).requires_grad_()
    program = onnxport.export(OfInput(), (x,), dynamic_shapes=({0: "n"},), verify=True)
    other = torch.rand(5, 3).requires_grad_()
    expect_equal(program(other)[0], 2 * other)
    assert onnxport.verify(program, OfInput(), (x,)).passed
    assert onnxport.check(OfInput(), (x,)).passed
    *_, shapes = onnxport.infer_dynamic_shapes(OfInput(), [(x,), (other,)])
    assert shapes is not None


def test_where_gradients_are_off_for_the_caller() -> None:
    model = Model(of_a_detached_input).eval()

    class On(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            with torch.inference_mode(False), torch.enable_grad():
                return model(x.clone())

    x = torch.randn(4, 3)
    wanted = model(x).detach()
    for block in (torch.no_grad, torch.inference_mode):
        with block():
            expect_equal(onnxport.export(On(), (x,))(x)[0], wanted)


def test_a_gradient_of_nothing_is_told() -> None:
    with pytest.raises(
        onnxport.CaptureError, match=r"test_gradient_in_forward\.py[\s\S]*x\.requires_grad_\(\)"
    ) as caught:
        onnxport.export(OfInput(), (torch.rand(2, 3),))
    assert "onnxport_builtin" not in str(caught.value)
    assert "strict:" not in str(caught.value).replace("non-strict:", "")
