"""Runs a functionalized program with the FX interpreter, beside eager."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnxport.functional.program import FunctionalProgram
from onnxport_functional.functionalize import functionalize
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree


class Model(torch.nn.Module):
    """A module around a plain function, with buffers."""

    def __init__(self, function: Callable[..., Any], **buffers: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        self.takes_self = bool(buffers)
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer.clone())

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args) if self.takes_self else self.function(*args)


class CheckedInterpreter(torch.fx.Interpreter):
    """Fails where a value contradicts the fake value recorded for its node."""

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "output" or (n.op == "get_attr" and isinstance(result, torch.nn.Module)):
            return result
        assert "val" in n.meta, f"{n.format_node()} has no fake value"
        fakes, values = pytree.tree_leaves(n.meta["val"]), pytree.tree_leaves(result)
        for fake, value in zip(fakes, values):
            if isinstance(value, torch.Tensor):
                assert fake.dtype == value.dtype, f"{n.format_node()}: {fake.dtype}, not {value.dtype}"
                assert fake.dim() == value.dim(), f"{n.format_node()}: {fake.shape}, not {value.shape}"
                for a, b in zip(fake.shape, value.shape):
                    assert not isinstance(a, int) or a == b, f"{n.format_node()}: {fake.shape}, not {value.shape}"
        return result


def write_targets(graph_module: torch.fx.GraphModule) -> list[str]:
    """The operators of a graph, and of the graphs in it, that write or assert."""
    found = []
    for module in graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                if isinstance(node.target, torch._ops.OpOverload):
                    if node.target._schema.is_mutable or "assert" in node.target.name():
                        found.append(str(node.target))
                    if node.target in (torch.ops.aten.batch_norm.default, torch.ops.aten.native_batch_norm.default):
                        assert not node.args[5] or node.args[3] is None
    return found


def feed(program: ExportedProgram, args: Sequence[Any]) -> dict[str, Any]:
    """A value for each placeholder: clones of weights, and the flat user inputs."""
    inputs = iter(pytree.tree_leaves(args))
    values: dict[str, Any] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            values[spec.arg.name] = next(inputs)
        else:
            source = program.constants if spec.target in program.constants else program.state_dict
            values[spec.arg.name] = source[spec.target].detach().clone()
    return values


def check(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    *others: tuple[Any, ...],
    dynamic_shapes: Any = None,
    strict: bool = False,
    fallback: bool = False,
    decomposed: bool = False,
    tied: bool = False,
    reload: Callable[[ExportedProgram], ExportedProgram] | None = None,
) -> FunctionalProgram:
    """Functionalizes `model` and compares with eager at `args` and at `others`: outputs, buffers, inputs.

    With `tied`, a buffer may change under another's name.
    """
    program = torch.export.export(
        copy.deepcopy(model), copy.deepcopy(args), dynamic_shapes=dynamic_shapes, strict=strict
    )
    if decomposed:
        program = program.run_decompositions({})
    if reload:
        program = reload(program)
    before = str(program.graph)
    functional = functionalize(program)
    assert str(program.graph) == before, "the program was changed"
    functional.graph_module.graph.lint()
    assert bool(functional.fallback) == fallback, functional.fallback
    assert write_targets(functional.graph_module) == []
    names = [node.name for node in functional.graph_module.graph.nodes if node.op == "placeholder"]
    assert names == [node.name for node in program.graph.nodes if node.op == "placeholder"]
    for given in (args, *others):
        eager, eager_args, graph_args = copy.deepcopy(model), copy.deepcopy(given), copy.deepcopy(given)
        values = feed(program, graph_args)
        for name, tensor in eager.state_dict().items():
            for spec in program.graph_signature.input_specs:
                if spec.target == name:
                    values[spec.arg.name] = tensor.clone()
        torch.manual_seed(0)
        with torch.no_grad():
            expected = eager(*eager_args)
        torch.manual_seed(0)
        with torch.no_grad():
            results = CheckedInterpreter(functional.graph_module).run(*values.values())
        count = len(functional.mutations)
        assert len(results) == count + len(functional.user_outputs)
        returned = pytree.tree_leaves(expected)
        torch.testing.assert_close(list(results[count:]), returned, equal_nan=True, rtol=1e-5, atol=1e-5)
        state = dict(eager.state_dict(), **dict(eager.named_buffers()))
        after = dict(zip((spec.arg.name for spec in user_specs(program)), pytree.tree_leaves(eager_args)))
        before_args = dict(zip(after, pytree.tree_leaves(given)))
        changed = {}
        for mutation, value in zip(functional.mutations, results):
            truth = after[mutation.target] if mutation.kind == "USER_INPUT_MUTATION" else state[mutation.target]
            torch.testing.assert_close(value, truth, equal_nan=True, rtol=1e-5, atol=1e-5)
            changed[mutation.target] = mutation
        for name, tensor in after.items():
            if name not in changed and isinstance(tensor, torch.Tensor):
                torch.testing.assert_close(tensor, before_args[name], equal_nan=True, msg=f"{name} changed unnoticed")
        for name, tensor in dict(model.named_buffers()).items():
            if name not in changed and not tied:
                torch.testing.assert_close(state[name], tensor, equal_nan=True, msg=f"{name} changed unnoticed")
    return functional


def user_specs(program: ExportedProgram) -> list[Any]:
    """The input specs of what the user passes."""
    return [spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
