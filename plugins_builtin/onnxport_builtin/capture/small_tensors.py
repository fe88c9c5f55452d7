"""Values of small tensors of integers, where a size or a branch of forward depends on them.

torch.export knows the elements of a tensor that forward makes of literals; those of buffers are data to it, and so is
what forward computes of a size by way of tensors. A stride that a model keeps in a buffer, or a length rounded by
``torch.ceil``, then is a number that nothing is known of. While a non-strict capture traces, this follows the elements
of small tensors beside the trace. Where forward asks for one:

- A number is that number. Buffers that forward writes are none: a capture that had read one is done again without.
- An expression of sizes is a size; the graph goes on to compute it by the model's own operators.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.export._trace as tracing
from onnxport import note
from onnxport.kit import Replacement
from torch._C import _functorch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.fx.experimental import proxy_tensor
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakIdKeyDictionary

from onnxport_builtin.capture import elements
from onnxport_builtin.capture.elements import UnknownElementsError

LARGEST = 64  # elements
_SYMBOLIC = (np.ndarray, torch.SymInt, torch.SymFloat, torch.SymBool)
_UNKNOWN = (UnknownElementsError, ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError)
_RANGES = ("arange", "eye", "linspace")
_READS = ("item", "_local_scalar_dense", "is_nonzero", "equal")


def small_tensors() -> Iterator[Replacement]:
    """While it is active, elements of small tensors are followed."""
    return _Followed().replaced()


class _WrittenBufferError(Exception):
    """A capture read a buffer that forward writes."""


@dataclass(frozen=True)
class _Value:
    """A real tensor, or an array of elements with a symbolic one among them."""

    elements: Any
    buffers: frozenset[str]
    writes: int


class _Followed:
    """What is known of the tensors of a trace."""

    def __init__(self) -> None:
        self._written: set[str] = set()  # buffers, found out by an earlier trace
        self._begin({}, {})

    def _begin(self, buffers: Mapping[str, torch.Tensor], fakes: Mapping[str, Any]) -> None:
        self._values: Any = WeakIdKeyDictionary()
        self._writes: dict[int, int] = {}
        self._read: set[str] = set()
        self._tracer: Any = None
        self._storages: dict[int, set[str]] = {}
        self._fakes = fakes  # whose storages stay alive, so that no other has their number
        for name, buffer in buffers.items():
            fake = fakes.get(name)
            if not isinstance(fake, FakeTensor) or buffer.layout != torch.strided:
                continue
            self._storages.setdefault(_storage(fake), set()).add(name)
            if not buffer.is_floating_point() and not buffer.is_complex() and buffer.numel() <= LARGEST:
                with _real():  # a fake mode is on
                    self._values[fake] = _Value(buffer.detach().clone(), frozenset((name,)), 0)

    def replaced(self) -> Iterator[Replacement]:
        if hasattr(tracing, "_fakify_params_buffers") and hasattr(proxy_tensor, "proxy_call"):
            yield Replacement(tracing, "_fakify_params_buffers", self._beginning)
            yield Replacement(proxy_tensor, "proxy_call", self._following)
            yield Replacement(torch.export, "export", self._again)

    def _beginning(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def fakify(mode: Any, module: torch.nn.Module) -> Any:
            fakes = original(mode, module)
            self._begin(dict(module.named_buffers(remove_duplicate=False)), fakes)
            return fakes

        return fakify

    def _again(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def export(*args: Any, **kwargs: Any) -> Any:
            while True:
                self._begin({}, {})
                with contextlib.suppress(_WrittenBufferError):
                    program = original(*args, **kwargs)
                    if not (written := _assigned(program) & self._read):
                        for name in sorted(self._read):
                            note(
                                f"the values of the buffer {name} are part of the graph: a size or a branch needs them"
                            )
                        return program
                    self._written |= written

        return export

    # The trace --------------------------------------------------------------------------------------------------------

    def _following(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def proxy_call(mode: Any, func: Any, pre_dispatch: bool, args: Any, kwargs: Any) -> Any:
            if self._tracer is None and pre_dispatch:
                self._tracer = weakref.ref(mode.tracer)
            is_transformed = (
                _functorch.get_dynamic_layer_stack_depth() > 0
            )  # a vmap's example is no tensor of the model
            if is_transformed or not pre_dispatch or self._tracer is None or self._tracer() is not mode.tracer:
                return original(mode, func, pre_dispatch, args, kwargs)
            if func.overloadpacket.__name__ in _READS:
                return self._answer(original, mode, func, args, kwargs)
            out = original(mode, func, pre_dispatch, args, kwargs)
            if out is not NotImplemented:
                self._follow(mode.tracer, func, args, kwargs, out)
            return out

        return proxy_call

    def _answer(self, original: Callable[..., Any], mode: Any, func: Any, args: Any, kwargs: Any) -> Any:
        values = [self._known(mode.tracer, arg) for arg in args]
        if any(value is None for value in values):
            return original(mode, func, True, args, kwargs)
        self._read.update(*(value.buffers for value in values))  # type: ignore[union-attr]
        if all(isinstance(value.elements, torch.Tensor) for value in values):  # type: ignore[union-attr]
            with _real():
                return func(*(value.elements for value in values), **kwargs)  # type: ignore[union-attr]
        if len(values) > 1 or values[0].elements.size != 1:  # type: ignore[union-attr]
            return original(mode, func, True, args, kwargs)
        answer = values[0].elements.reshape(-1)[0]  # type: ignore[union-attr]
        if func.overloadpacket.__name__ == "is_nonzero":
            return bool(answer) if isinstance(answer, torch.SymBool) else bool(answer != 0)
        if args[0].dtype.is_floating_point:
            args[0].item_memo = elements.symbolic_float(answer)
        elif isinstance(answer, torch.SymInt):
            args[0].item_memo = answer
        elif isinstance(answer, torch.SymBool):
            return answer
        return original(mode, func, True, args, kwargs)

    def _known(self, tracer: Any, tensor: Any) -> _Value | None:
        value = self._values.get(tensor)
        if value is not None:
            current = self._writes.get(_storage(tensor), 0) == value.writes
            return value if current and not self._written & value.buffers else None
        if not isinstance(tensor, FakeTensor):
            is_small = type(tensor) is torch.Tensor and tensor.numel() <= LARGEST
            return _Value(tensor, frozenset(), 0) if is_small else None
        slot = proxy_tensor.get_proxy_slot(tensor, tracer, None)
        constant = getattr(slot, "constant", None)
        return None if constant is None else _Value(constant, frozenset(), 0)

    def _follow(self, tracer: Any, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        outs = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        results = None
        if all(_is_small(tensor) for tensor in outs):
            with contextlib.suppress(*_UNKNOWN), proxy_tensor.disable_proxy_modes_tracing():
                results = self._results(tracer, func, args, kwargs, outs)
        if func._schema.is_mutable:
            self._note_writes(func, args, kwargs)
        if results is None:
            return
        values, buffers = results
        for value, tensor in zip(values, outs, strict=True):
            if tuple(value.shape) != tuple(tensor.shape):
                return
            self._values[tensor] = _Value(value, buffers, self._writes.get(_storage(tensor), 0))

    def _note_writes(self, func: Any, args: Any, kwargs: Any) -> None:
        for position, parameter in enumerate(func._schema.arguments):
            if parameter.alias_info is None or not parameter.alias_info.is_write:
                continue
            written = kwargs.get(parameter.name, args[position] if position < len(args) else None)
            for tensor in pytree.tree_leaves(written):
                if isinstance(tensor, torch.Tensor):
                    storage = _storage(tensor)
                    self._writes[storage] = self._writes.get(storage, 0) + 1
                    names = self._storages.get(storage, set())
                    self._written |= names
                    if names & self._read:
                        raise _WrittenBufferError

    def _results(
        self, tracer: Any, func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]
    ) -> tuple[list[Any], frozenset[str]] | None:
        """What the operator's results hold, and the buffers that this was made of."""
        name = func.overloadpacket.__name__
        fill = elements.filled(name, args, kwargs)
        if isinstance(fill, (bool, int, float, *_SYMBOLIC)):
            return [_filled(fill, outs[0])], frozenset()
        is_write = func._schema.is_mutable
        if torch.Tag.nondeterministic_seeded in func.tags or (is_write and not _writes_its_first(func)):
            return None
        leaves, spec = pytree.tree_flatten((args, kwargs))
        values = {i: self._known(tracer, leaf) for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)}
        known = [value for value in values.values() if value is not None]
        if len(known) < len(values) or not (known or name in _RANGES):
            return None
        buffers: frozenset[str] = frozenset().union(*(value.buffers for value in known))
        given = [leaf if (value := values.get(i)) is None else value.elements for i, leaf in enumerate(leaves)]
        if is_write and isinstance(given[0], torch.Tensor):
            with _real():
                given[0] = given[0].clone()
        args, kwargs = pytree.tree_unflatten(given, spec)
        if any(isinstance(leaf, _SYMBOLIC) for leaf in given):
            return _symbolic(name.removesuffix("_") if is_write else name, func, args, kwargs, outs), buffers
        with _real():
            real = func(*args, **kwargs)
        return [leaf for leaf in pytree.tree_leaves(real) if isinstance(leaf, torch.Tensor)], buffers


def _symbolic(name: str, func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> list[Any]:
    with _real():
        try:
            arrays = elements.moved(func, args, kwargs)
        except UnknownElementsError:
            arrays = [elements.computed(name, args, kwargs)]
    return [_cast(array, tensor) for array, tensor in zip(arrays, outs, strict=True)]


def _cast(array: np.ndarray[Any, Any], like: torch.Tensor) -> Any:
    """The elements as ones of the tensor's type; a real tensor where none is symbolic."""
    result = np.empty(array.shape, dtype=object)
    for index in np.ndindex(*array.shape):
        result[index] = elements.cast(array[index], like.dtype)
    leaves = result.reshape(-1).tolist()
    if any(isinstance(leaf, (*_SYMBOLIC, elements.Quotient)) for leaf in leaves):
        return result
    with _real():
        return torch.tensor(leaves, dtype=like.dtype).reshape(result.shape)


def _filled(number: Any, like: torch.Tensor) -> Any:
    if not isinstance(number, _SYMBOLIC):
        with _real():
            return torch.full(tuple(like.shape), number, dtype=like.dtype)
    array = np.empty(tuple(like.shape), dtype=object)
    value = elements.element(number)
    for index in np.ndindex(*array.shape):
        array[index] = value
    return _cast(array, like)


def _is_small(tensor: torch.Tensor) -> bool:
    return all(isinstance(size, int) for size in tensor.shape) and math.prod(tensor.shape) <= LARGEST


def _writes_its_first(func: Any) -> bool:
    """Whether it is the operator of that name without an underscore, written into its first argument."""
    infos = [parameter.alias_info for parameter in func._schema.arguments]
    written = [info is not None and info.is_write for info in infos]
    name = func.overloadpacket.__name__
    return bool(written) and written[0] and not any(written[1:]) and name.endswith("_") and not name.endswith("__")


def _assigned(program: Any) -> set[str]:
    """The buffers that a program writes; what forward assigns to one is a write that no trace sees."""
    buffers = program.graph_signature.inputs_to_buffers
    written = set(program.graph_signature.buffers_to_mutate.values())
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            written |= {buffers[arg.name] for arg in node.all_input_nodes[:1] if arg.name in buffers}
    return written


def _storage(tensor: torch.Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # a tensor without storage, such as a sparse one
        return 0


@contextlib.contextmanager
def _real() -> Iterator[None]:
    with unset_fake_temporarily(), torch.utils._python_dispatch._disable_current_modes():
        yield
