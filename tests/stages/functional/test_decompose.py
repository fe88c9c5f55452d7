"""One node as a graph of other operators: torch's decompositions, a plugin's own, shared expansions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from onnxport import Unsupported
from onnxport_builtin.decomposer import Decomposer
from onnxport_functional.functionalize import functionalize_graph
from torch.export import Dim

X = torch.randn(2, 3)


class Calls(torch.nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def _nodes(function: Any, target: Any, dynamic: bool = False) -> list[torch.fx.Node]:
    shapes = ({0: Dim.DYNAMIC},) if dynamic else None
    program = torch.export.export(Calls(function), (X,), dynamic_shapes=shapes, strict=False)
    return [node for node in program.graph.nodes if node.target is target]


def _run(decomposer: Decomposer, node: torch.fx.Node, *values: Any) -> Any:
    expansion = decomposer.expand(node)
    returned = expansion.graph_module(*values)
    return expansion.pack(list(returned))


def test_torchs_decomposition_computes_the_same() -> None:
    (node,) = _nodes(lambda x: torch.nn.functional.silu(x), torch.ops.aten.silu.default)
    torch.testing.assert_close(_run(Decomposer({}, functionalize_graph), node, X), torch.nn.functional.silu(X))


def test_several_results_are_a_list() -> None:
    (node,) = _nodes(lambda x: torch.var_mean(x, 1), torch.ops.aten.var_mean.correction) or _nodes(
        lambda x: torch.var_mean(x, 1), torch.ops.aten.var_mean.dim
    )
    found = _run(Decomposer({}, functionalize_graph), node, X)
    for got, want in zip(found, torch.var_mean(X, 1), strict=True):
        torch.testing.assert_close(got, want)


def test_equal_calls_share_an_expansion() -> None:
    def twice(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(torch.nn.functional.silu(x))

    first, second = _nodes(twice, torch.ops.aten.silu.default, dynamic=True)
    decomposer = Decomposer({}, functionalize_graph)
    assert decomposer.expand(first) is decomposer.expand(second)


def test_a_plugins_decomposition_comes_first() -> None:
    (node,) = _nodes(lambda x: torch.nn.functional.silu(x), torch.ops.aten.silu.default)
    own = Decomposer({torch.ops.aten.silu.default: lambda x: x * 3}, functionalize_graph)
    torch.testing.assert_close(_run(own, node, X), X * 3)


def test_what_cannot_be_expanded_says_why() -> None:
    (node,) = _nodes(lambda x: torch.linalg.eig(x @ x.mT)[0], torch.ops.aten.linalg_eig.default)
    with pytest.raises(Unsupported, match="torch has none for this operator"):
        Decomposer({}, functionalize_graph).expand(node)

    def broken(x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")

    (node,) = _nodes(lambda x: torch.nn.functional.silu(x), torch.ops.aten.silu.default)
    with pytest.raises(Unsupported, match="ValueError: no"):
        Decomposer({torch.ops.aten.silu.default: broken}, functionalize_graph).expand(node)
