"""``dynamic_shapes`` and ``dynamic_axes``: reading them, and giving them to torch.export.

An axis is asked for with a ``Dim``, a hint such as ``Dim.DYNAMIC``, or a string: a name (axes of one name are of one
size) or arithmetic over names, such as ``"2*seq"``. A string or ``Dim.DYNAMIC`` goes to torch.export as ``Dim.AUTO``,
which never fails but may freeze the axis in silence: :mod:`onnxport_builtin.attempts.capture` looks for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from onnxport import DynamicAxis, DynamicShapesError
from onnxport.kit import Asked, pytree
from torch.export import Dim

from onnxport_builtin.request import pytrees
from onnxport_builtin.request.dimensions import asked_for, places, solved
from onnxport_builtin.request.leaves import described

if TYPE_CHECKING:
    from onnxport.kit import Request

_PLAIN = (dict, list, tuple)


class ShapeReader:
    """Reads a specification into the leaves it speaks of.

    Args:
        request: with its arguments, leaves, whose ``asked`` is filled, and names of inputs, which a specification may
            use as keys.
    """

    def __init__(self, request: Request) -> None:
        self._arguments = dict(request.arguments)
        self._bound = request.bound or self._arguments
        self._variadic = request.variadic
        self._path_of = request.path_of
        self._leaves = leaves = request.leaves
        self._by_path = {leaf.path: leaf for leaf in leaves}
        input_names = request.input_names
        self._names: dict[str, str] = {}
        self._parameter = "dynamic_shapes"
        tensors = [leaf.path for leaf in leaves if isinstance(leaf.value, torch.Tensor)]
        everything = [leaf.path for leaf in leaves]
        for name, path in zip(input_names, everything if len(input_names) == len(leaves) else tensors, strict=False):
            self._names[name] = path

    def read(self, shapes: Any) -> None:
        """Read ``dynamic_shapes``.

        Raises:
            DynamicShapesError: it doesn't fit the inputs; the message lists them.
        """
        if isinstance(shapes, Mapping):
            for key, spec in shapes.items():
                if key and key == self._variadic and (key not in self._arguments or self._is_of_keywords(spec)):
                    self._read(key, self._bound[key], spec)
                else:
                    self._read(*self._place(key, "dynamic_shapes"), spec)
        elif isinstance(shapes, (tuple, list)):
            self._read_tuple(shapes)
        else:
            raise self._error(
                f"dynamic_shapes is a {type(shapes).__name__}: give a dict by argument name, or a tuple in their order"
            )
        self._ask_for_counters()
        self._check_sizes()

    def _read_tuple(self, shapes: Sequence[Any]) -> None:
        """One entry an argument, in the order of forward's signature; or, of several ``**kwargs``, of the call."""
        several = len(self._bound.get(self._variadic, ())) > 1
        own = not several or len(shapes) != len(self._arguments)
        arguments = self._bound if own else self._arguments
        count = len(arguments)
        if len(shapes) < count or any(spec is not None for spec in shapes[count:]):
            raise self._error(
                f"dynamic_shapes has {len(shapes)} entries for {count} arguments ({', '.join(arguments)})"
            )
        for (name, value), spec in zip(arguments.items(), shapes, strict=False):
            if own and name == self._variadic and len(value) == 1 and not self._is_of_keywords(spec):
                name, value = next(iter(value.items()))
                self._read(self._path_of(name), value, spec)
            else:
                self._read(name if own else self._path_of(name), value, spec)

    def _is_of_keywords(self, spec: Any) -> bool:
        """Whether an entry for forward's ``**kwargs`` is by the names of the keywords in it."""
        keywords = self._bound[self._variadic]
        return isinstance(spec, Mapping) and bool(spec) and all(key in keywords for key in spec)

    def read_axes(self, axes: Any, output_names: Sequence[str]) -> dict[str, dict[int, str]]:
        """Read ``dynamic_axes``; returns what it says about outputs.

        Raises:
            DynamicShapesError: it doesn't fit the inputs.
        """
        self._parameter = "dynamic_axes"
        if not isinstance(axes, Mapping):
            raise self._error(f"dynamic_axes is a {type(axes).__name__}: give a dict by name of an input or output")
        outputs: dict[str, dict[int, str]] = {}
        for name, spec in axes.items():
            automatic = isinstance(spec, (list, tuple))
            if automatic and all(map(_is_int, spec)):
                spec = {axis: f"{name}_dynamic_axes_{i}" for i, axis in enumerate(spec, 1)}
            if not isinstance(spec, Mapping) or any(not _is_int(axis) for axis in spec):
                raise self._error(f"dynamic_axes[{name!r}] is {spec!r}: give {{axis: name}} or a list of axes")
            if name in output_names:
                outputs[name] = {axis: str(label) for axis, label in spec.items()}
                continue
            try:
                path, value = self._place(name, "dynamic_axes")
            except DynamicShapesError:
                if output_names or not isinstance(name, str):
                    raise
                outputs[name] = {
                    axis: str(label) for axis, label in spec.items()
                }  # a default name, known after the capture
                continue
            self._read(path, value, dict(spec), automatic)
        self._check_sizes()
        return outputs

    def _ask_for_counters(self) -> None:
        """Numbers that count what dynamic tensors hold are inputs, such as the tokens that a cache has seen."""
        counters = pytrees.counters()
        asked = {leaf.path.rpartition(".")[0] for leaf in self._leaves if leaf.asked}
        for leaf in self._leaves:
            layer, _, name = leaf.path.rpartition(".")
            if name in counters and _is_int(leaf.value) and layer in asked and not leaf.asked:
                leaf.asked[None] = Asked(Dim.AUTO, contract=False)

    def _place(self, key: Any, parameter: str) -> tuple[str, Any]:
        """The place that a key names: an argument, an ONNX input, a path (``_`` for ``.`` too), an entry of a dict."""
        if isinstance(key, str) and key in self._arguments:
            return self._path_of(key), self._arguments[key]
        path = self._names.get(key, key)
        if path in self._by_path:
            return path, self._by_path[path].value
        if isinstance(key, str):
            inner = {path: path.partition(".")[2] for path in self._by_path}
            found = [p for p, rest in inner.items() if key in (p.replace(".", "_"), rest, rest.replace(".", "_"))]
            if len(found) == 1:
                return found[0], self._by_path[found[0]].value
            for name, value in self._arguments.items():
                if isinstance(value, Mapping) and key in value:
                    return f"{self._path_of(name)}.{key}", value[key]
        raise self._error(
            f"{parameter} names {key!r}, which is none of the arguments "
            f"{', '.join(self._arguments) or '(there are none)'}"
        )

    def _read(self, path: str, value: Any, spec: Any, automatic: bool = False) -> None:
        if spec is None:
            return
        if not pytrees.is_registered(value):
            self._read_leaf(path, value, spec, automatic)
            return
        keys, items = pytrees.children(value)
        by_axis = isinstance(spec, Mapping) and bool(spec) and all(_is_int(k) for k in spec)
        if by_axis and not (isinstance(value, Mapping) and any(k in value for k in spec)):
            for key, item in zip(keys, items, strict=True):  # one shape for all tensors below that have such axes
                if pytrees.is_registered(item) or (isinstance(item, torch.Tensor) and item.dim() > max(spec)):
                    self._read(f"{path}.{key}", item, spec, automatic)
            return
        if isinstance(spec, Mapping):
            unknown = [key for key in spec if key not in keys]
            if unknown:
                raise self._error(f"dynamic_shapes for {path} has the keys {unknown}, but it has {list(keys)}")
            pairs: Iterable[tuple[Any, Any, Any]] = [(k, v, spec.get(k)) for k, v in zip(keys, items, strict=True)]
        elif isinstance(spec, (tuple, list)):
            pairs = self._positional(path, value, keys, items, list(spec))
        elif type(spec) is type(value):
            pairs = zip(keys, items, pytrees.children(spec)[1], strict=True)
        else:
            raise self._error(
                f"dynamic_shapes for {path} is {spec!r}, but it is a {type(value).__name__} of {len(items)}"
            )
        for key, item, inner in pairs:
            self._read(f"{path}.{key}", item, inner, automatic)

    def _positional(
        self, path: str, value: Any, keys: list[Any], items: list[Any], spec: list[Any]
    ) -> list[tuple[Any, Any, Any]]:
        """Pair children with a list: one entry a child, a flat list of leaves, or (keys, values) of a cache's "
        "layers."""
        leaves = [pytree.tree_leaves(item) for item in items]
        below = [sum(isinstance(leaf, torch.Tensor) for leaf in each) for each in leaves]
        tensors_only = len(spec) != sum(map(len, leaves))
        if isinstance(value, _PLAIN) or not any(pytrees.is_registered(item) for item in items):
            flat = None
        elif (
            len(spec) == 2
            and all(isinstance(s, (tuple, list)) and len(s) == len(items) for s in spec)
            and set(below) == {2}
        ):
            flat, tensors_only = [s for pair in zip(*spec, strict=True) for s in pair], True
        else:
            fits = not tensors_only or len(spec) == sum(below)
            flat = spec if fits and len(spec) != len(items) else None
        if flat is not None:
            inner = iter(flat)
            return [(k, i, _spread(i, inner, tensors_only)) for k, i in zip(keys, items, strict=True)]
        if len(spec) != len(items):
            raise self._error(
                f"dynamic_shapes for {path} has {len(spec)} entries, but it is a {type(value).__name__} of {len(items)}"
            )
        return list(zip(keys, items, spec, strict=True))

    def _read_leaf(self, path: str, value: Any, spec: Any, automatic: bool) -> None:
        leaf = self._by_path[path]
        if not isinstance(value, torch.Tensor):
            if isinstance(value, (bool, str, type(None))) or not isinstance(value, (int, float)) or _is_int(spec):
                if _is_int(spec) and spec == value:
                    return
                raise self._error(f"dynamic_shapes for {path} is {spec!r}, but it is the constant {value!r}: give None")
            asked = self._asked(path, None, spec)
            if asked is not None:
                leaf.asked[None] = asked
            return
        if isinstance(spec, Mapping):
            entries = list(spec.items())
        elif isinstance(spec, (tuple, list)):
            if len(spec) != value.dim():
                raise self._error(f"dynamic_shapes for {path} has {len(spec)} axes, but the tensor has {value.dim()}")
            entries = list(enumerate(spec))
        else:
            raise self._error(
                f"dynamic_shapes for {path} is {spec!r}: give {{axis: name}}, a tuple of one entry an axis, or None"
            )
        for axis, dim in entries:
            if not _is_int(axis) or not -value.dim() <= axis < value.dim():
                raise self._error(
                    f"dynamic_shapes for {path} names axis {axis!r}, but the tensor has {value.dim()}",
                    DynamicAxis(path, axis if _is_int(axis) else None),
                )
            axis %= value.dim()
            if _is_int(dim):
                if dim != value.shape[axis]:
                    raise self._error(
                        f"dynamic_shapes says that axis {axis} of {path} is {dim}, but it is {value.shape[axis]}",
                        DynamicAxis(path, axis, size=int(value.shape[axis])),
                    )
                continue
            asked = self._asked(path, axis, dim)
            if asked is not None:
                leaf.asked[axis] = Asked(asked.dim, asked.name, asked.expression, asked.contract, automatic)

    def _asked(self, path: str, axis: int | None, dim: Any) -> Asked | None:
        try:
            return asked_for(dim)
        except TypeError as error:
            place = path if axis is None else f"axis {axis} of {path}"
            raise self._error(
                f"dynamic_shapes for {place} is {error}: give a name, a Dim, Dim.DYNAMIC, or None",
                DynamicAxis(path, axis),
            ) from None

    def _check_sizes(self) -> None:
        """Axes of one name are of one size, and arithmetic holds of the example."""
        first: dict[str, tuple[int, DynamicAxis]] = {}
        for leaf, axis, asked, size in places(self._leaves):
            where = f"axis {axis} of {leaf.path}"
            high = asked.bounds[1]
            if high is not None and size > high:
                at_fault = DynamicAxis(leaf.path, axis, asked.label)
                raise self._error(f"{where} is {size} in the example, but {asked.dim!r} ends at {high}", at_fault)
            if asked.name is None or asked.automatic:
                continue
            this = DynamicAxis(leaf.path, axis, asked.label)
            known, other = first.setdefault(asked.name, (size, this))
            if known != size:
                raise self._error(
                    f"The dimension {asked.name!r} is {known} at axis {other.axis} of {other.input} but {size} at "
                    f"{where}: axes of one name are of one size",
                    other,
                    this,
                )
        for leaf, axis, asked, size in places(self._leaves):
            if (
                asked.expression is not None
                and solved(asked.expression, size, {k: v[0] for k, v in first.items()}) is None
            ):
                raise self._error(
                    f"Axis {axis} of {leaf.path} is {size} in the example, which is not {asked.name}",
                    DynamicAxis(leaf.path, axis, asked.label),
                )

    def _error(self, message: str, *axes: DynamicAxis) -> DynamicShapesError:
        listing = "".join(f"\n    {leaf.path}: {described(leaf.value)}" for leaf in self._leaves)
        return DynamicShapesError(
            f"{message}.\nThe inputs are:{listing or ' none'}\nGive dynamic_shapes of that structure.",
            parameter=self._parameter,
            axes=axes,
        )


def _spread(value: Any, specs: Iterator[Any], tensors_only: bool) -> Any:
    """As many entries of a flat list as a value has leaves, or tensors, in the value's structure."""
    if not pytrees.is_registered(value):
        return None if tensors_only and not isinstance(value, torch.Tensor) else next(specs)
    return [_spread(item, specs, tensors_only) for item in pytrees.children(value)[1]]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
