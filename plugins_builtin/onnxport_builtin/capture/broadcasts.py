"""Lengths that data decide, beside tensors of other lengths: ``x + y[y > 0]``.

torch 2.14 takes a length that isn't known for one that isn't broadcast: it asserts that the two are equal, and from
then on the length is that number everywhere. In eager mode a selection of one element is broadcast. While an export
captures, the length stays what it is, and the result has the length of the other tensor, which is right in both cases;
the runtime's operators broadcast as eager's do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sympy
import torch
from onnxport.kit import Replacement
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental import symbolic_shapes
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, ShapeEnv, free_unbacked_symbols

aten = torch.ops.aten


def broadcasts() -> Iterator[Replacement]:
    """While any thread is in it, torch's function is replaced."""
    if hasattr(FakeTensorMode, "dispatch") and hasattr(ShapeEnv, "evaluate_sym_node"):
        yield Replacement(FakeTensorMode, "dispatch", _of_unknown_lengths)
        yield Replacement(ShapeEnv, "evaluate_sym_node", _asserting)


#: Operators that broadcast one argument to a shape that others give, and where that one is.
_BROADCAST = {aten.expand.default: 0, aten.copy_.default: 1, aten.copy.default: 1}
#: Operators whose second argument is a list of indices, broadcast to one another.
_INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
#: Operators that torch doesn't mark as elementwise.
_ELEMENTWISE = frozenset(
    getattr(getattr(aten, name), overload)
    for name, overloads in {
        "floor_divide": "default",
        "floor_divide_": "Tensor",
        "isclose": "default",
        "masked_fill": "Tensor",
        "masked_fill_": "Scalar Tensor",
        "rsub": "Tensor",
        "true_divide": "Tensor",
        "where": "ScalarOther ScalarSelf",
    }.items()
    for overload in overloads.split()
    if hasattr(getattr(aten, name), overload)
)


def _of_unknown_lengths(original: Callable[..., Any]) -> Callable[..., Any]:
    def dispatch(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (torch.Tag.pointwise in getattr(func, "tags", ())) or func in _ELEMENTWISE or func in _BROADCAST:
            args = _known(self, func, args)
        elif func in _INDEXED:
            args = (args[0], _known_indices(self, args[1]), *args[2:])
        return original(self, func, types, args, kwargs)

    return _as_of(fake_tensor, dispatch)


_open: Any = weakref.WeakKeyDictionary()
"""By shape environment: the equations that torch would have asserted."""


def _asserting(original: Callable[..., Any]) -> Callable[..., Any]:
    """What can't be decided while a length is open is decided with torch's own assertions."""

    def evaluate_sym_node(self: Any, sym_node: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, sym_node, *args, **kwargs)
        except GuardOnDataDependentSymNode:
            symbols = sym_node.expr.free_symbols
            asserted = [equation for equation in _open.get(self, ()) if equation.free_symbols & symbols]
            if not asserted:
                raise
            for equation in asserted:
                _open[self].remove(equation)
                self.guard_or_defer_runtime_assert(equation, "sizes that are broadcast are equal")
            return evaluate_sym_node(self, sym_node, *args, **kwargs)

    return _as_of(symbolic_shapes, evaluate_sym_node)


def _as_of(module: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as if it stood in a file of torch: frames of others are taken for the model's line."""
    function.__code__ = function.__code__.replace(co_filename=module.__file__)
    return function


def _known_indices(mode: Any, indices: Any) -> Any:
    given = [index for index in indices if isinstance(index, FakeTensor)]
    if not _decided_by_data(given) or any(index.dtype in (torch.bool, torch.uint8) for index in given):
        return indices
    shapes = [index.shape for index in given]
    return [_fitted(mode, index, shapes) if isinstance(index, FakeTensor) else index for index in indices]


def _decided_by_data(tensors: Sequence[torch.Tensor]) -> bool:
    return any(isinstance(n, torch.SymInt) and free_unbacked_symbols(n) for tensor in tensors for n in tensor.shape)


def _known(mode: Any, func: Any, args: Any) -> Any:
    """The arguments, with those of unknown length as if they were of the length to which they are broadcast."""
    given = [arg for arg in args if isinstance(arg, FakeTensor)]
    if not _decided_by_data(given):
        return args
    if func in _BROADCAST:
        fitted = {_BROADCAST[func]}
        wanted = [args[1] if func is aten.expand.default else args[0].shape]
    else:
        fitted = set(range(1 if func._schema.is_mutable else 0, len(args)))
        wanted = [arg.shape for arg in given]
    return tuple(
        _fitted(mode, arg, wanted) if i in fitted and isinstance(arg, FakeTensor) else arg for i, arg in enumerate(args)
    )


def _fitted(mode: Any, tensor: FakeTensor, shapes: Sequence[Sequence[Any]]) -> torch.Tensor:
    """A fake tensor in whose place another may stand: lengths that data decide are those that another tensor has."""
    sizes, strides = list(tensor.shape), list(tensor.stride())
    for axis in range(-len(sizes), 0):
        size: Any = sizes[axis]
        if not isinstance(size, torch.SymInt) or not free_unbacked_symbols(size):
            continue
        others: list[Any] = [shape[axis] for shape in shapes if len(shape) >= -axis]
        known = [n for n in others if not (isinstance(n, torch.SymInt) and free_unbacked_symbols(n))]
        fixed = [n for n in known if not (isinstance(n, int) and n in (1, -1))]
        if fixed:
            sizes[axis], strides[axis] = fixed[0], 0
            equation = sympy.Eq(size.node.expr, fixed[0].node.expr if isinstance(fixed[0], torch.SymInt) else fixed[0])
            asserted = _open.setdefault(size.node.shape_env, [])
            asserted += [equation] if equation.free_symbols and equation not in asserted else []
    if all(a is b for a, b in zip(sizes, tensor.shape)):
        return tensor
    with mode:  # on the same memory, since what is expanded is a view
        return tensor.as_strided(sizes, strides)
