"""Region operators become the nodes of their bodies, with the casts that autocast would have made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functional_support import Model, check
from onnxport_functional.functionalize import functionalize
from onnxport_functional.regions import inline_regions
from torch.utils.checkpoint import checkpoint

aten = torch.ops.aten
X = torch.linspace(-2, 3, 24).reshape(4, 6)
W = torch.linspace(-1, 1, 36).reshape(6, 6)


def targets(graph_module: torch.fx.GraphModule) -> list[Any]:
    return [node.target for node in graph_module.graph.nodes if node.op == "call_function"]


def assert_no_regions(graph_module: torch.fx.GraphModule) -> None:
    names = {target.name() for target in targets(graph_module) if isinstance(target, torch._ops.HigherOrderOperator)}
    assert not names & {"wrap_with_set_grad_enabled", "wrap_with_autocast", "tag_activation_checkpoint"}


def nested_grad_modes(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = x + 1
        with torch.enable_grad():
            z = y * 2
        y = y + z
    return y - 1


def several_results(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        a, b = x.chunk(2, 1)
        c = a.clone().add_(1)
    return a * b, c


def autocast_matmul(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ W
        z = torch.nn.functional.linear(y, W)
        kept = x + 1
    return y, z, kept


def autocast_mixed(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ W
        joined = torch.cat([y, x])
        normal = torch.nn.functional.layer_norm(y.float(), (6,))
        summed = y + x
        loss = torch.nn.functional.mse_loss(y, x)
    return joined, normal, summed, loss


def autocast_disabled_inside(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = x @ W
        with torch.autocast("cpu", enabled=False):
            z = x @ W
        w = z @ W
    return y, z, w


def autocast_attention(x: torch.Tensor) -> torch.Tensor:
    q = x.reshape(1, 2, 4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return torch.nn.functional.scaled_dot_product_attention(q, q, q)


def autocast_einsum(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return torch.einsum("ij,kj->ik", x, W)


def autocast_double_is_left(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return x.double() @ W.double()


def cond_in_a_region(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: x.clone().sub_(1), (x,))
    return torch.cond(x.sum() > 1, lambda x: x * 3, lambda x: x * 2, (y,))


REGIONS = [
    nested_grad_modes,
    several_results,
    autocast_matmul,
    autocast_mixed,
    autocast_disabled_inside,
    autocast_attention,
    autocast_einsum,
    autocast_double_is_left,
    cond_in_a_region,
]


@pytest.mark.parametrize("function", REGIONS, ids=lambda f: f.__name__)
def test_matches_eager(function: Any) -> None:
    functional = check(Model(function), (X,), (-X,))
    assert_no_regions(functional.graph_module)


@pytest.mark.parametrize("function", [nested_grad_modes, several_results, cond_in_a_region], ids=lambda f: f.__name__)
def test_matches_eager_when_captured_strictly(function: Any) -> None:
    functional = check(Model(function), (X,), (-X,), strict=True)
    assert_no_regions(functional.graph_module)


def test_strict_autocast_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    program = torch.export.export(Model(autocast_matmul), (X,), strict=True)
    functional = functionalize(program)
    assert_no_regions(functional.graph_module)
    assert "recorded its autocast region without casts" in caplog.text


def test_checkpoint() -> None:
    class Checkpointed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.ReLU(inplace=True))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.layer, x, use_reentrant=False) + 1

    functional = check(Checkpointed(), (X,))
    assert_no_regions(functional.graph_module)


def test_a_weight_is_cast_once() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return (x @ W) @ W

    functional = check(Model(function), (X,))
    assert targets(functional.graph_module).count(aten._to_copy.default) == 2


def test_writes_in_a_region_reach_the_outer_graph() -> None:
    def function(self: Any, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        with torch.no_grad():
            self.total.add_(x.sum())
            y[0].zero_()
        return y * self.total

    functional = check(Model(function, total=torch.tensor(0.0)), (X,))
    assert [mutation.target for mutation in functional.mutations] == ["total"]


def test_autograd_function() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad * 2

    for strict in (False, True):
        functional = check(Model(lambda x: Twice.apply(x) + 1), (X,), strict=strict)
        assert targets(functional.graph_module) == [aten.mul.Tensor, aten.add.Tensor]


def test_invoke_subgraph_is_inlined_only_when_asked() -> None:
    @torch.compiler.nested_compile_region
    def block(x: torch.Tensor) -> torch.Tensor:
        return (x + 1).relu_()

    program = torch.export.export(Model(lambda x: block(block(x))), (X,), strict=True)
    kept = functionalize(program)
    assert torch.ops.higher_order.invoke_subgraph in targets(kept.graph_module)
    inlined = functionalize(program, inline_subgraphs=True)
    assert targets(inlined.graph_module) == [aten.add.Tensor, aten.relu.default] * 2
    torch.testing.assert_close(torch.fx.Interpreter(inlined.graph_module).run(X)[0], ((X + 1).relu() + 1).relu())


def test_bodies_recorded_apart_alias_their_inputs() -> None:
    @torch.compiler.nested_compile_region
    def block(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[1:].mul_(2)
        return y.t()

    program = torch.export.export(Model(lambda x: block(block(x)).add(1).mul_(2)), (X,), strict=True)
    inlined = functionalize(program, inline_subgraphs=True)
    assert inlined.fallback is None
    expected = X.clone()
    expected[1:] *= 2
    expected = expected.t().clone()
    expected[1:] *= 2
    torch.testing.assert_close(torch.fx.Interpreter(inlined.graph_module).run(X)[0], (expected.t() + 1) * 2)


def test_a_graph_without_regions_is_returned_as_it_is() -> None:
    program = torch.export.export(torch.nn.Linear(6, 2), (X,))
    assert inline_regions(program.graph_module) is program.graph_module
