"""The part of the builder that makes values: constants, casts, sizes and shapes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir import DataType

from onnxport.emit import literals
from onnxport.emit.complex_values import ComplexValues
from onnxport.emit.symbols import Size, Symbols
from onnxport.emit.tensor import Tensor
from onnxport.emit.weights import TorchTensor
from onnxport.errors import Unsupported
from onnxport.vocabulary.dtypes import COMPONENT, ONNX_TO_TORCH, SINCE, onnx_dtype, saturates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch.fx

_SMALL = 1024  # bytes; constants up to this size are shared by content


class Values(ComplexValues):
    """Makes values of numbers, torch tensors and sizes."""

    if TYPE_CHECKING:
        opset: int
        node: torch.fx.Node | None
        symbols: Symbols

        def unique(self, base: str) -> str: ...

    def tensor(self, value: Any, dtype: DataType | None = None) -> Tensor | None:
        """A value as a tensor: tensors as they are, numbers and lists as constants, sizes as computed."""
        if value is None or isinstance(value, Tensor):
            return value  # type: ignore[return-value]
        if isinstance(value, Size):
            result = self.symbols.scalar(value.expr)
            return self.cast(result, dtype) if dtype is not None else result
        if isinstance(value, (list, tuple)) and any(isinstance(v, (Size, Tensor)) for v in value):
            return self.sizes(value)
        if isinstance(value, np.ndarray) and dtype is None:
            return self.const(value)
        return self.const(value, dtype)

    def const(self, value: Any, dtype: DataType | torch.dtype | None = None) -> Tensor:
        """A constant, as an initializer that equal constants share.

        Args:
            value: number, nested list, numpy array, or torch tensor (not copied; may be of any size and dtype).
            dtype: element type; by default int64, float32 or bool as the value is, or the array's own.
        """
        wanted = None if dtype is None else onnx_dtype(dtype)
        if isinstance(value, torch.Tensor):
            if wanted is not None and onnx_dtype(value.dtype) is not wanted:
                value = value.to(ONNX_TO_TORCH[wanted])
            data: ir.TensorProtocol = TorchTensor(value)
            is_complex = value.dtype in COMPONENT
            key: Any = (data.dtype, tuple(value.shape), data.tobytes()) if data.nbytes <= _SMALL else None
            shape = ir.Shape(list(value.shape))
        else:
            array, element = literals.array(value, wanted)
            is_complex = False
            shape = ir.Shape(array.shape)
            key = (element, array.shape, array.tobytes()) if array.nbytes <= _SMALL else None
            found = self.frame.constants.get(key) if key is not None else None
            if found is not None:
                return found
            data = ir.Tensor(array, dtype=element)
        found = self.frame.constants.get(key) if key is not None else None
        if found is not None and found.is_complex == is_complex:
            return found
        name = self.unique(self.node.name + "_const" if key is None and self.node is not None else "const")
        data.name = name
        tensor = Tensor(name, data.dtype, shape, const_value=data, is_complex=is_complex)
        if is_complex:
            self.frame.complexes.append(tensor)
        if key is not None:
            self.frame.remember(self.frame.constants, key, tensor)
        self.frame.remember(self.frame.initializers, name, tensor)
        return tensor

    def derived(self, what: str, function: Callable[..., torch.Tensor], *values: Tensor) -> Tensor | None:
        """The weight that a function makes of weights or constants; None where one of them isn't, or has no data.

        It is made again when `ONNXProgram.apply_weights` replaces what it is made of.

        Args:
            what: names the result, after the first value; equal calls for the same values share it.
            function: takes the torch tensors and returns one, whose dtype and shape are the result's.
        """
        key = (what, *map(id, values))
        data = [value.const_value for value in values]
        frame = self.frame
        if key in frame.constants or not all(isinstance(d, TorchTensor) and d.has_data for d in data):
            return frame.constants.get(key)
        first, *others = data
        made = first.derive(function, self.unique(f"{values[0].name}.{what}"), others)  # type: ignore[union-attr,arg-type]
        tensor = Tensor(made.name, made.dtype, ir.Shape(list(made.shape)), const_value=made)
        frame.remember(frame.constants, key, tensor)
        frame.remember(frame.initializers, made.name, tensor)
        return tensor

    def cast(self, value: Any, dtype: DataType | torch.dtype) -> Tensor:
        """The value in another element type; no node where it already has it. Numbers become constants."""
        wanted = onnx_dtype(dtype)
        if isinstance(value, Size):
            value = self.symbols.scalar(value.expr)
        if not isinstance(value, Tensor):
            return self.const(value, wanted)
        if value.dtype is wanted:
            return value  # type: ignore[return-value]
        for element in (value.dtype, wanted):
            if SINCE.get(element, 0) > self.opset:  # type: ignore[arg-type]
                raise Unsupported(f"needs opset {SINCE[element]}: {element.name}")  # type: ignore[index,union-attr]
        if wanted is DataType.FLOAT8E8M0:  # an exponent, of -127 at least; the sign is dropped
            value = self.Max(self.Abs(self.cast(value, DataType.FLOAT)), 2.0**-127)
            return self.Cast(value, to=wanted, saturate=0, round_mode="nearest")
        overflows = wanted.name.startswith("FLOAT8") and not saturates(wanted)
        if overflows and wanted is DataType.FLOAT8E4M3FN:  # onnxruntime 1.32 takes 480 to 496 for 448
            value = self.cast(value, DataType.FLOAT)
            fits = self.LessOrEqual(self.Abs(value), 464.0)
            value = self.Mul(value, self.Where(fits, np.float32(1), np.float32("nan")))
        return self.Cast(value, to=wanted, saturate=0 if overflows else None)

    def sizes(self, dims: Iterable[int | Size | Tensor]) -> Tensor:
        """A 1-D int64 tensor of ints, sizes and integer scalars."""
        listed = list(dims)
        if not any(isinstance(d, Tensor) for d in listed):
            if all(isinstance(d, int) for d in listed):
                return self.const([int(d) for d in listed], DataType.INT64)  # type: ignore[arg-type]
            return self.symbols.vectors(listed)  # type: ignore[arg-type]
        parts: list[Tensor] = []
        for computed, run in itertools.groupby(listed, lambda dim: isinstance(dim, Tensor)):
            if computed:
                parts += [self.Reshape(self.cast(dim, DataType.INT64), [1]) for dim in run]
            else:
                parts.append(self.sizes(run))  # type: ignore[arg-type]
        return parts[0] if len(parts) == 1 else self.Concat(*parts, axis=0)

    def shape(self, value: Tensor) -> Tensor:
        """The logical shape as a 1-D int64 tensor; a constant where it is static."""
        if value.shape is not None and all(isinstance(d, int) or type(d) is Size for d in value.shape):
            return self.sizes(value.shape)  # type: ignore[arg-type]
        return self.Shape(value, end=-1) if value.is_complex else self.Shape(value)

    def size(self, value: Tensor, axis: int) -> int | Size:
        """One dimension of a value whose shape is known."""
        if value.shape is None:
            raise Unsupported(f"the shape of {value.name} isn't known: compute it with op.Shape")
        return value.shape[axis]  # type: ignore[return-value]

    def rank(self, value: Tensor) -> int:
        """The number of logical dimensions."""
        if value.shape is None:
            raise Unsupported(f"the rank of {value.name} isn't known: reshape the value first")
        return len(value.shape)
