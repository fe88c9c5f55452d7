"""What plugins teach the builder about ONNX operators and sizes, as records: the core itself knows none by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Inference:
    """What a node of an ONNX operator gives, told while it is emitted.

    Results of FX nodes have the element types and shapes that torch knows; this is for the values between them. Unknown
    is always allowed, wrong never. ``inputs`` are tensors, None for those that are left out; ``attributes`` are their
    values by name, or an ``onnx_ir.Attr`` for a reference to a function's parameter.

    Attributes:
        op_type: the operator.
        dims: called as ``(inputs, attributes)``; gives the dimensions of the first result, or None.
        dtypes: called as ``(attributes, count, inputs)``; gives the element types of ``count`` results, None for those
            that aren't known. Only for operators whose schema leaves them open, or that have none.
        domain: of the operator.
    """

    op_type: str
    dims: Callable[..., Any] | None = None
    dtypes: Callable[..., Any] | None = None
    domain: str = ""


@dataclass(frozen=True, slots=True)
class SizeFunction:
    """A function that symbolic sizes are made of, as ONNX nodes.

    Attributes:
        name: of the class of the sympy expression, such as ``"FloorDiv"``.
        emit: called with ``op`` and the expression's arguments; gives a tensor of shape [1], of int64, float64 or bool.
            ``op.symbols.vector`` gives the same of an argument.
    """

    name: str
    emit: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class SizeText:
    """How dimensions are written in the file.

    Attributes:
        write: called with a sympy expression, the names of symbols, and the remainders (``Mod(size, 2)``) that are
            known to be 0; gives the text.
    """

    write: Callable[[Any, Mapping[Any, str], Iterable[Any]], str]


@dataclass(frozen=True, slots=True)
class FunctionWriter:
    """How ``op.function`` writes functions of the model.

    Attributes:
        make: called with ``op`` for an export that has functions. It gives an object whose method
            ``function(domain, name, body, inputs, key, attributes)`` adds what it emits to ``op.functions`` and returns
            the results of the call.
    """

    make: Callable[[Any], Any]


Record = Inference | SizeFunction | SizeText | FunctionWriter


class Emission:
    """Records, by what the builder looks for; the first one about something is taken.

    Args:
        records: of plugins, in the order in which they go before each other.

    Attributes:
        inference: by domain and operator.
        size_functions: by name.
        size_text: writes dimensions; None where no plugin does.
        function_writer: makes what emits functions of a model; None where no plugin does.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        backwards = [*records][::-1]  # so that the first is the one that stays
        single = {type(each): each for each in backwards}
        self.inference = {(each.domain, each.op_type): each for each in backwards if isinstance(each, Inference)}
        self.size_functions = {each.name: each.emit for each in backwards if isinstance(each, SizeFunction)}
        text, functions = single.get(SizeText), single.get(FunctionWriter)
        self.size_text = text.write if isinstance(text, SizeText) else None
        self.function_writer = functions.make if isinstance(functions, FunctionWriter) else None
