"""What a captured program assumes about sizes that data decide, held against the example inputs.

torch.export traces without values. Where it can't know the length of a selection it goes on as if that weren't 1, or
asserts what it needs: ``x.squeeze()`` keeps the axis, and ``x.view(3, -1)`` fits. A file has neither the assertions nor
another rank. Where the example inputs themselves show that it is otherwise, the file would be wrong for these.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import sympy
import torch
import torch.utils._pytree as pytree
from onnxport import CaptureError
from onnxport.kit import guards, mutated, placeholder_values, source_line, storage_of
from torch.export import ExportedProgram
from torch.fx import Interpreter, Node

logger = logging.getLogger("onnxport")


def checked(program: ExportedProgram) -> ExportedProgram:
    """The program, if its example inputs don't show that it assumes what isn't so."""
    check_assumptions(program)
    return program


def check_assumptions(program: ExportedProgram) -> None:
    """Run a program whose sizes data decide with its example inputs, and compare its shapes with the recorded ones.

    Programs without such sizes, and those that can't be run here, aren't checked.

    Raises:
        CaptureError: a tensor has another rank or size than the program says; the message has the model's line.
    """
    if program.example_inputs is None or not any(_decides(node) for node in program.graph.nodes):
        return
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            _Run(program).run(*_inputs(program))
    except _Contradiction as error:
        raise CaptureError(error.reason) from None
    except Exception as error:  # whatever the model's own operators raise: no device, no kernel, no data
        logger.debug("assumptions about data-dependent sizes aren't checked: %s: %s", type(error).__name__, error)


_COMPOSITE = ("aten::where", "aten::nonzero_numpy", "aten::repeat_interleave", "aten::is_nonzero")


def _decides(node: Node) -> bool:
    """Whether the operator makes sizes of data."""
    target = node.target
    if _unbacked(node) or not isinstance(target, torch._ops.OpOverload):
        return bool(_unbacked(node))
    if target is torch.ops.aten.index.Tensor:
        indices = pytree.tree_leaves(node.args[1])
        return any(isinstance(i, Node) and i.meta["val"].dtype in (torch.bool, torch.uint8) for i in indices)
    by_data = (torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output)
    return any(tag in target.tags for tag in by_data) or (
        target._schema.name in _COMPOSITE and target is not torch.ops.aten.where.self
    )


class _Contradiction(Exception):  # noqa: N818 - becomes a CaptureError
    """The example shows that what was assumed doesn't hold."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)  # torch.fx adds to it
        self.reason = reason


def _unbacked(node: Node) -> Mapping[Any, Any]:
    """The symbols that the node creates, with the places in its value."""
    return node.meta.get("unbacked_bindings") or {}


def _inputs(program: ExportedProgram) -> Iterator[Any]:
    """The values of the placeholders; copies of those that the program writes."""
    args, kwargs = program.example_inputs or ((), {})
    values = placeholder_values(program, tuple(args), dict(kwargs or {}))
    written = {
        storage_of(leaf)
        for node in program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload) and mutated(node.target)
        for source in node.all_input_nodes
        for leaf in pytree.tree_leaves(source.meta.get("val"))
    }
    for node in program.graph.find_nodes(op="placeholder"):
        value = values[node.name]
        is_written = isinstance(value, torch.Tensor) and storage_of(node.meta.get("val")) in written
        yield value.detach().clone() if is_written else value


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and bool(mutated(node.target))


def _symbols(size: Any) -> Any:
    return size.node.expr.free_symbols if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)) else ()


class _Run(Interpreter):
    """Runs a program on its example, and compares what comes out with what was recorded."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program.graph_module)
        self._program = program
        self._bound: dict[Any, Any] = {}
        self._origins: dict[Any, Node] = {}

    def run_node(self, n: Node) -> Any:
        if n.op == "output":
            return None
        if n.op == "call_function" and not (n.users or _unbacked(n) or _writes(n)):
            return None  # an assertion: one that doesn't hold matters where a shape followed from it
        value = super().run_node(n)
        for symbol, path in _unbacked(n).items():
            self._bound[symbol] = sympy.sympify(pytree.key_get(value, path))
            self._origins[symbol] = n
        recorded, actual = pytree.tree_leaves(n.meta.get("val")), pytree.tree_leaves(value)
        for fake, real in zip(recorded, actual) if len(recorded) == len(actual) else ():
            self._compare(n, fake, real)
        return value

    def _compare(self, node: Node, fake: Any, real: Any) -> None:
        if isinstance(fake, torch.Tensor) is not isinstance(real, torch.Tensor):
            return
        recorded = list(fake.shape) if isinstance(fake, torch.Tensor) else [fake]
        actual = list(real.shape) if isinstance(real, torch.Tensor) else [real]
        sizes = [self._size(size, other) for size, other in zip(recorded, actual)]
        differs = len(recorded) != len(actual) or sizes != actual
        if differs and node.op != "placeholder" and self._is_allowed():
            raise _Contradiction(self._because(node, recorded, actual))

    def _size(self, size: Any, actual: Any) -> Any:
        if not isinstance(size, torch.SymInt):
            return size if type(size) is int else actual
        expression = size.node.expr
        if expression.is_Symbol:
            self._bound.setdefault(expression, sympy.Integer(actual))
        value = expression.xreplace(self._bound)
        return int(value) if value.is_number else actual

    def _is_allowed(self) -> bool:
        """Whether the example's own sizes are among those that the program was captured for."""
        return not any(guard.expr.xreplace(self._bound) == sympy.false for guard in guards(self._program))

    def _because(self, node: Node, recorded: Any, actual: Any) -> str:
        """What doesn't hold, and the line of the model that it is because of."""
        for expression in self._conditions():
            if not isinstance(expression, sympy.Eq) or expression.xreplace(self._bound) != sympy.false:
                continue
            names = {s: sympy.Symbol(f"the length of {self._origins[s].name}") for s in expression.free_symbols}
            given = " and ".join(
                f"{names[s]} is {self._bound[s]} ({source_line(self._origins[s])})" for s in sorted(names, key=str)
            )
            return (
                f"torch.export assumes that {expression.xreplace(names)}, because of "
                f"{source_line(self._asking(expression, node))}. With the example inputs {given}. A file would be "
                "wrong for these. Make the lengths equal in forward, say by expand() what is broadcast, or give "
                "example inputs for which it holds."
            )
        return (
            f"torch.export assumes that the size of {node.name} is {recorded}, because of {source_line(node)}. With "
            f"the example inputs it is {actual}. A file would be wrong for these. Don't let a rank or a size depend on "
            "how many elements data select there: name the axes of squeeze(), say by expand() what is broadcast; or "
            "give example inputs for which it holds."
        )

    def _conditions(self) -> Iterator[Any]:
        """The conditions on sizes that data decide whose symbols are known."""
        for node in self._program.graph.nodes:
            env = getattr(getattr(node.meta.get("val"), "fake_mode", None), "shape_env", None)
            if env is not None:
                expressions = [c.expr for listed in env.deferred_runtime_asserts.values() for c in listed]
                yield from (e for e in expressions if e.free_symbols and e.free_symbols <= self._origins.keys())
                return

    def _asking(self, expression: Any, node: Node) -> Node:
        """The first operator that reads all the sizes of a condition; `node` where there is none."""
        for reader in self._program.graph.nodes:
            leaves = [leaf for n in reader.all_input_nodes for leaf in pytree.tree_leaves(n.meta.get("val"))]
            read = {s for leaf in leaves if isinstance(leaf, torch.Tensor) for n in leaf.shape for s in _symbols(n)}
            if expression.free_symbols <= read and len(reader.all_input_nodes) > 1:
                return reader  # type: ignore[no-any-return]
        return node
