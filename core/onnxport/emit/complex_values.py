"""Complex numbers in the builder: real tensors with a last axis of 2, and a flag that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from onnxport.emit.frame import Frame
from onnxport.emit.operators import Operators
from onnxport.emit.tensor import Tensor
from onnxport.vocabulary.dtypes import COMPONENT


class ComplexValues(Operators):
    """The part of the builder that takes complex values apart and puts them together.

    Attributes:
        frame: the graph that nodes go to now.
    """

    if TYPE_CHECKING:
        const: Any

        @property
        def frame(self) -> Frame: ...

    def real(self, value: Tensor) -> Tensor:
        """The real parts of a complex value; a real value as it is."""
        if not value.is_complex:
            return value
        return self._component(value, 0)

    def imag(self, value: Tensor) -> Tensor:
        """The imaginary parts of a complex value."""
        return self._component(value, 1)

    def _component(self, value: Tensor, index: int) -> Tensor:
        part = self.Gather(value, self.const(index), axis=-1)
        part.shape = value.shape
        return part

    def complex(self, real: Tensor, imag: Tensor) -> Tensor:
        """A complex value of its parts, two real tensors of one shape."""
        joined = self.Concat(self.Unsqueeze(real, [-1]), self.Unsqueeze(imag, [-1]), axis=-1)
        return self.as_complex(joined, real.shape)

    def as_complex(self, value: Tensor, shape: ir.Shape | None = None) -> Tensor:
        """A real tensor with a last axis of 2, taken as complex numbers.

        Args:
            shape: the logical shape; by default the value's without its last axis.
        """
        if value.is_complex:
            return value
        if value.producer() is None or value in (self.frame.initializers.get(value.name or ""),):
            value = self.Identity(value)
        if shape is None and value.shape is not None:
            shape = ir.Shape(list(value.shape)[:-1])
        value.shape = shape
        value.is_complex = True
        self.frame.complexes.append(value)
        return value


def any_complex(value: Any) -> bool:
    """Whether there is a complex tensor or number among arguments."""
    if isinstance(value, Tensor):
        return value.is_complex
    if isinstance(value, (list, tuple)):
        return any(any_complex(item) for item in value)
    if isinstance(value, dict):
        return any(any_complex(item) for item in value.values())
    return isinstance(value, complex)


def fake_complex(fake: Any) -> bool:
    """Whether an FX node gives a complex tensor."""
    if isinstance(fake, torch.Tensor):
        return fake.dtype in COMPONENT
    return isinstance(fake, (list, tuple)) and any(fake_complex(item) for item in fake)
