"""The values and nodes of a graph under construction: onnx_ir's own, with what a translator needs to remember."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from onnxport.vocabulary import provenance
from onnxport.vocabulary.dtypes import COMPONENT, onnx_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch.fx


class Concrete(type(ir.Value)):  # type: ignore[misc]
    """The metaclass of values and sizes: their instances are told by type.

    onnx_ir's classes are protocols, whose ``isinstance`` costs microseconds where the answer is no.
    """

    __instancecheck__ = type.__instancecheck__
    __subclasscheck__ = type.__subclasscheck__


class Tensor(ir.Value, metaclass=Concrete):
    """An ONNX value.

    Attributes:
        dtype: element type; that of the components for a complex tensor.
        shape: ints and :class:`Size`; the logical shape, without the trailing axis of 2, for a complex tensor.
            None where it isn't known.
        is_complex: the value holds complex numbers as a real tensor with a trailing axis of 2.
    """

    __slots__ = ("accepted", "is_complex")

    if TYPE_CHECKING:
        # ir.Value allows for values of no known type; those that a translation sees have one. A shape's dims
        # are `int | Size`, and where it may be missing the translation knows best.
        dtype: ir.DataType
        shape: Any

    def __init__(
        self,
        name: str | None,
        dtype: ir.DataType | None,
        shape: ir.Shape | None = None,
        *,
        is_complex: bool = False,
        const_value: ir.TensorProtocol | None = None,
    ) -> None:
        super().__init__(
            name=name,
            shape=shape,
            type=None if dtype is None else ir.TensorType(dtype),
            const_value=const_value,
        )
        self.is_complex = is_complex
        #: it has its final name and shape: an input, a weight, or the checked result of an FX node
        self.accepted = False


class Node(ir.Node):
    """An ONNX node that remembers the FX node it comes from and the translation that emitted it.

    The metadata strings are made when they are first read (by a user, or by saving), not while translating.

    Attributes:
        describe: gives the strings, of the FX node, the translation, their level and the module that the graph is of.
        alike: for the call of a module's function, the FX nodes that the body was made of, and those of this call.
    """

    __slots__ = ("_level", "_root", "alike", "describe", "fx_node", "origin")

    def __init__(
        self,
        *args: Any,
        fx_node: torch.fx.Node | None,
        origin: Any,
        level: str,
        root: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.fx_node = fx_node
        self.origin = origin
        self._level = level
        self._root = root
        self.describe: Callable[..., dict[str, str]] = provenance.node_properties
        self.alike: tuple[Sequence[torch.fx.Node], Sequence[torch.fx.Node]] = (), ()

    @property
    def metadata_props(self) -> dict[str, str]:  # type: ignore[override]
        """Provenance of the node as strings, with the documented keys."""
        if self._metadata_props is None:
            self._metadata_props = self.describe(self.fx_node, self.origin, self._level, self._root)
        return self._metadata_props


class Result:
    """The expected element type, shape and complex flag of one result of the FX node."""

    __slots__ = ("dtype", "is_complex", "shape")

    def __init__(self, fake: torch.Tensor, shape: ir.Shape) -> None:
        self.is_complex = fake.dtype in COMPONENT
        self.dtype = COMPONENT[fake.dtype] if self.is_complex else onnx_dtype(fake.dtype)
        self.shape = shape
