"""Folded constants stand for nodes without changing what the graph computes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import onnxport
import pytest
import torch
from functional_support import Model
from onnxport.host.discovery import load
from onnxport.kit import Folded
from onnxport_builtin.folding import fold_constants
from onnxport_functional.functionalize import functionalize
from torch.fx import Node

X = torch.linspace(-2, 3, 24).reshape(4, 6)


def fold(model: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[Folded, list[str]]:
    """Folds `model`, checks the values against eager, and names the operators that are left."""
    program = torch.export.export(model, args, **kwargs)
    functional = functionalize(program)
    folded = fold_constants(functional, program, load(()).semantics)
    assert not folded.interior & set(folded)

    class Substituting(torch.fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            if n in folded:
                return folded[n]
            return None if n in folded.interior else super().run_node(n)

    weights = {**program.state_dict, **program.constants}
    values = [weights[s.target] for s in program.graph_signature.input_specs if s.target is not None]
    with torch.no_grad():
        results = Substituting(functional.graph_module).run(*values, *args)
        expected = torch.utils._pytree.tree_leaves(model(*args))
    torch.testing.assert_close(list(results)[len(functional.mutations) :], expected)
    nodes = functional.graph_module.graph.nodes
    left = [n for n in nodes if n.op == "call_function" and n not in folded and n not in folded.interior]
    return folded, [str(node.target) for node in left]


def test_mask_of_ranges_is_one_constant() -> None:
    def masked(x: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(6, 6).tril() * (torch.arange(6)[:, None] < 4)
        return x @ mask

    folded, left = fold(Model(masked), X)
    assert len(folded) == 1
    assert left == ["aten.matmul.default"]


def test_position_ids_buffer_is_sliced_at_export() -> None:
    model = Model(lambda self, x: x + self.ids[:, : x.shape[1]], ids=torch.arange(512).reshape(1, -1))
    folded, left = fold(model, X)
    assert [value.shape for value in folded.values()] == [torch.Size([1, 6])]
    assert left == ["aten.add.Tensor"]


def test_dynamic_sizes_are_left() -> None:
    model = Model(lambda x: x + torch.arange(x.shape[0])[:, None])
    folded, left = fold(model, X, dynamic_shapes={"args": ({0: torch.export.Dim.DYNAMIC},)})
    assert not folded
    assert any("arange" in target for target in left)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + torch.rand(4, 6) * 0,
        lambda x: x + torch.nn.functional.dropout(torch.ones(6), 1.0, True),
        lambda x: x + torch.empty(6).zero_().bernoulli_(0.0),
    ],
)
def test_random_operators_are_left(function: Callable[..., Any]) -> None:
    folded, _ = fold(Model(function), X)
    names = {node.target for node in folded}
    assert not any(torch.Tag.nondeterministic_seeded in target.tags for target in names)


def test_dropout_that_drops_nothing_is_folded() -> None:
    _, left = fold(Model(lambda x: x + torch.nn.functional.dropout(torch.ones(6), 0.5, False)), X)
    assert left == ["aten.add.Tensor"]


def test_mutated_buffers_are_left() -> None:
    def count(self: Any, x: torch.Tensor) -> torch.Tensor:
        self.n.add_(1)
        return x * self.n

    program = torch.export.export(Model(count, n=torch.tensor(1.0)), (X,))
    assert not fold_constants(functionalize(program), program, load(()).semantics)


def test_weights_stay_weights() -> None:
    class Weighted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small = torch.nn.Parameter(torch.randn(6, 6))
            self.large = torch.nn.Parameter(torch.randn(6, 6000))
            self.scale = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x @ self.small.t() * self.scale.exp()) @ self.large.abs()

    folded, left = fold(Weighted(), X)
    assert [str(node.target) for node in folded] == ["aten.exp.default"]
    assert "aten.t.default" in left
    assert "aten.abs.default" in left


def test_large_results_of_nothing_are_left() -> None:
    model = Model(lambda x: x.sum() + torch.zeros(600, 600).tril() + torch.arange(600))
    folded, left = fold(model, X)
    assert all(value.nbytes <= 1024 * 1024 for value in folded.values())
    assert any("tril" in target for target in left)


def test_lists_are_folded_through() -> None:
    def parts(x: torch.Tensor) -> torch.Tensor:
        a, b = torch.arange(12.0).chunk(2)
        return x * a + b

    folded, left = fold(Model(parts), X)
    assert len(folded) == 2
    assert left == ["aten.mul.Tensor", "aten.add.Tensor"]


def test_constant_output() -> None:
    folded, left = fold(Model(lambda x: (x + 1, torch.arange(3) * 2)), X)
    assert [value.tolist() for value in folded.values()] == [[0, 2, 4]]
    assert left == ["aten.add.Tensor"]


def test_fake_weights_are_left() -> None:
    with torch._subclasses.FakeTensorMode() as mode:
        model = Model(lambda self, x: x + self.b.exp(), b=torch.zeros(6))
        program = torch.export.export(model, (mode.from_tensor(X),))
    assert not fold_constants(functionalize(program), program, load(()).semantics)


def test_failing_evaluation_leaves_the_node(caplog: pytest.LogCaptureFixture) -> None:
    with torch.library._scoped_library("aten", "FRAGMENT") as library:
        library.define("onnxport_fails(Tensor x) -> Tensor")
        library.impl("onnxport_fails", lambda x: torch.empty_like(x), "Meta")
        library.impl("onnxport_fails", _fail, "CPU")
        program = torch.export.export(Model(lambda x: x + torch.ops.aten.onnxport_fails(torch.ones(6))), (X,))
        with caplog.at_level(logging.DEBUG, logger="onnxport.folding"):
            folded = fold_constants(functionalize(program), program, load(()).semantics)
    assert [str(node.target) for node in folded] == ["aten.ones.default"]
    assert "left to the model" in caplog.text


def _fail(x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("not today")


def test_microseconds_a_node() -> None:
    def many(x: torch.Tensor) -> torch.Tensor:
        table = torch.arange(6.0)
        for i in range(300):
            table = table + i
        return x + table

    program = torch.export.export(Model(many), (X,))
    functional = functionalize(program)
    start = time.perf_counter()
    folded = fold_constants(functional, program, load(()).semantics)
    assert len(folded) == 1
    assert time.perf_counter() - start < 0.5


def test_a_third_party_folds_in_its_own_way() -> None:
    class Pack:
        @onnxport.hookimpl
        def onnxport_folders(self) -> list[Callable[..., Any]]:
            def fold_nothing(functional: Any, program: Any, semantics: Any, is_kept: Any) -> Folded:
                return Folded({}, functional.skipped)

            return [fold_nothing]

    model = Model(lambda x: x + torch.arange(6.0).roll(1).cumsum(0))
    for plugins, is_computed in (((), True), ([Pack()], False)):
        program = onnxport.export(model, (X,), plugins=plugins)
        assert ({node.op_type for node in program.model.graph} == {"Add"}) is is_computed
        torch.testing.assert_close(program(X)[0], model(X))
