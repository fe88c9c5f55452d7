"""One dimension that was asked for: read from an entry, found in the arguments, and given to torch.export."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import sympy
from onnxport.kit import Asked, pytree
from torch.export import Dim

from onnxport_builtin.request import pytrees

if TYPE_CHECKING:
    from onnxport.kit import Leaf, Request

_HINT = type(Dim.AUTO)
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv)


def asked_for(dim: Any) -> Asked | None:
    """Read one entry; None when the axis is static.

    Raises:
        TypeError: it is nothing that names a dimension.
    """
    if dim is None:
        return None
    if isinstance(dim, str):
        if not dim.strip():
            raise TypeError("an empty name")
        return Asked(dim, dim, _arithmetic(dim))
    if isinstance(dim, _HINT):
        kind = dim.type.name
        return None if kind == "STATIC" else Asked(dim, contract=kind == "DYNAMIC")
    if isinstance(dim, Dim):
        root = getattr(dim, "root", None)
        expression = None if root is None else dim.fn(sympy.Symbol(root.__name__, integer=True))  # type: ignore[attr-defined]
        try:
            getattr(dim, "min", None)
        except AssertionError as error:  # a derived Dim finds out when it is asked
            raise TypeError(f"{dim.__name__}, of which torch says: {error}") from None
        return Asked(dim, dim.__name__, expression)
    raise TypeError(f"{dim!r}, a {type(dim).__name__}")


def _arithmetic(text: str) -> sympy.Expr | None:
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # no expression, surrogates, or endless nesting
        return None
    if not isinstance(tree, ast.BinOp):
        return None

    def build(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and isinstance(node.op, _OPERATORS):
            a, b = build(node.left), build(node.right)
            if isinstance(node.op, ast.Add):
                return a + b
            if isinstance(node.op, ast.Sub):
                return a - b
            return a * b if isinstance(node.op, ast.Mult) else sympy.floor(a / b)
        if isinstance(node, ast.Name):
            return sympy.Symbol(node.id, integer=True)
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return sympy.Integer(node.value)
        raise ValueError(text)

    try:
        found = build(tree)
    except ValueError:
        return None  # a name with signs in it, such as "batch-size!"
    return found if found.free_symbols else None


# Reading -------------------------------------------------------------------------------------------------------------


def places(leaves: Iterable[Leaf]) -> Iterator[tuple[Leaf, int, Asked, int]]:
    """Every axis that something was asked of, with its size in the example."""
    for leaf in leaves:
        for axis, asked in leaf.asked.items():
            if axis is not None:
                yield leaf, axis, asked, int(leaf.value.shape[axis])


def solved(expression: sympy.Expr, size: int, known: Mapping[str, int]) -> dict[str, int] | None:
    """The sizes of an expression's names; None when they contradict the size. Names that can't be told are left out."""
    symbols = sorted(expression.free_symbols, key=str)
    free = [s for s in symbols if s.name not in known]
    bound = expression.subs({s: known[s.name] for s in symbols if s.name in known})
    if not free:
        return {} if bound == size else None
    if len(free) > 1:
        return {}
    for candidate in range(size + 2) if size < 10_000 else sympy.solve(bound - size, free[0]):
        if bound.subs(free[0], candidate) == size:
            return {free[0].name: int(candidate)}
    return None


# For torch.export ----------------------------------------------------------------------------------------------------


def torch_shapes(request: Request, *, relaxed: bool = False) -> dict[str, Any] | None:
    """The structure that ``torch.export.export`` wants; None when nothing is dynamic.

    Args:
        request: the request.
        relaxed: give ``Dim``s as hints too, which never contradict the model.
    """
    if not any(leaf.asked for leaf in request.leaves):
        return None
    leaves = iter(request.leaves)
    exact = {a.dim.root.__name__ for leaf in request.leaves for a in leaf.asked.values() if hasattr(a.dim, "root")}

    def mirror(value: Any) -> Any:
        if not pytrees.is_registered(value):
            return _torch_shape(next(leaves), None if relaxed else exact)
        if isinstance(value, dict) and type(value) in pytree.BUILTIN_TYPES:
            same = value.copy()
            for key in value:
                same[key] = mirror(value[key])
            return same
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*[mirror(item) for item in value])
        if type(value) in pytree.BUILTIN_TYPES:
            return type(value)(mirror(item) for item in value)
        # torch.export describes other containers by what they flatten to
        items = pytree.SUPPORTED_NODES[type(value)].flatten_fn(value)[0]
        return type(items)(mirror(item) for item in items)

    return {name: mirror(value) for name, value in request.arguments}


def _torch_shape(leaf: Leaf, exact: set[str] | None) -> Any:
    if None in leaf.asked:
        return None if isinstance(leaf.value, float) else Dim.DYNAMIC if leaf.asked[None].contract else Dim.AUTO
    return {axis: _torch_dim(asked, exact) for axis, asked in leaf.asked.items()} or None


def _torch_dim(asked: Asked, exact: set[str] | None) -> Any:
    """A ``Dim`` where the caller's words need one, a hint elsewhere: a ``Dim`` must allow all that the model allows."""
    low, high = asked.bounds
    unbounded = low < 3 and high is None
    if (
        isinstance(asked.dim, Dim)
        and exact is not None
        and (not unbounded or asked.expression is not None or asked.name in exact)
    ):
        return asked.dim
    return Dim.AUTO if asked.expression is not None or unbounded else Dim.AUTO(min=low, max=high)


def expressions_of(asked: Asked, actual: sympy.Expr) -> Iterator[tuple[sympy.Symbol, str]]:
    """The names of symbols that follow from an axis that was asked for and came out as ``actual``."""
    if asked.name is None:
        return
    if asked.expression is None:
        if actual.is_Symbol:
            yield actual, asked.name
        return
    ours, theirs = list(asked.expression.free_symbols), list(actual.free_symbols)
    if len(ours) == len(theirs) == 1 and sympy.simplify(asked.expression.subs(ours[0], theirs[0]) - actual) == 0:
        yield theirs[0], ours[0].name
    elif actual.is_Symbol:
        yield actual, asked.name
