"""What plugins teach the builder about ONNX operators and sizes, as records: the core itself knows none by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


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
class Form:
    """How an operator is written at opsets that don't have it, or have an older form of it.

    Translations write the newest form; this adapts it when it is emitted.

    Attributes:
        op_type: the operator, such as ``"ReduceMean"``.
        below: the first opset that has the operator as translations write it; the form is for older ones.
        write: called as ``(op, native, *inputs, outputs=None, **attributes)`` with what a translation gives
            ``op.ReduceMean``. ``native`` emits the operator as the target opset has it; it is None if that has none.
            Raise ``Unsupported("needs opset 18: ...")`` for what can't be written.
    """

    op_type: str
    below: int
    write: Callable[..., Any]


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
class Widening:
    """Operators that are computed in a wider element type, between casts, where a narrow one isn't available.

    Attributes:
        types: called with an operator's name, version and domain; gives the wider type by type variable of its schema
            and element type, such as ``{("T", DataType.BFLOAT16): DataType.FLOAT}``.
    """

    types: Callable[[str, int, str], Mapping[Any, Any]]


@dataclass(frozen=True, slots=True)
class FunctionWriter:
    """How ``op.function`` writes functions of the model.

    Attributes:
        make: called with ``op`` for an export that has functions. It gives an object whose method
            ``function(domain, name, body, inputs, key, attributes)`` adds what it emits to ``op.functions`` and returns
            the results of the call.
    """

    make: Callable[[Any], Any]


class Inferred(NamedTuple):
    """What is known of a result without torch: its element type, and dimensions as ints, names, or None."""

    dtype: int | None
    dims: tuple[int | str | None, ...] | None


Check = Callable[[Sequence[Any], Sequence[Any]], Mapping[int, Inferred]]
Explain = Callable[[Exception, Sequence[Any]], str | None]


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """A check of the nodes that a table or a third party emits: built-in translations are held to it by tests.

    Attributes:
        make: called with ``op`` for an export that has such translations. It gives a function that takes the nodes that
            were emitted for one FX node, and what the translation returned. It returns what it infers of the results,
            by ``id``, which is compared with what torch knows, and raises a ``MistakeError`` where a node can't be.
    """

    make: Callable[[Any], Check]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What exceptions of translations mean.

    Attributes:
        explain: called with an exception, and the nodes that were emitted before it; gives what the translation did
            ("uses an operator of Python on a tensor: …"), or None.
    """

    explain: Explain


Record = Inference | Form | SizeFunction | SizeText | Widening | FunctionWriter | NodeCheck | Explanation


class Emission:
    """Records, by what the builder looks for; the first one about something is taken.

    Args:
        records: of plugins, in the order in which they go before each other.

    Attributes:
        inference: by domain and operator.
        forms: by operator.
        size_functions: by name.
        size_text: writes dimensions; None where no plugin does.
        wider_types: tells the types that operators are computed in a wider one for; None where no plugin does.
        function_writer: makes what emits functions of a model; None where no plugin does.
        node_checks: make what looks at the nodes of third parties.
        explanations: tell what exceptions of translations mean.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        listed = list(records)
        backwards = listed[::-1]  # so that the first one stays
        self.inference = {(each.domain, each.op_type): each for each in backwards if isinstance(each, Inference)}
        self.forms = {each.op_type: each for each in backwards if isinstance(each, Form)}
        self.size_functions = {each.name: each.emit for each in backwards if isinstance(each, SizeFunction)}
        self.size_text = next((each.write for each in listed if isinstance(each, SizeText)), None)
        self.wider_types = next((each.types for each in listed if isinstance(each, Widening)), None)
        self.function_writer = next((each.make for each in listed if isinstance(each, FunctionWriter)), None)
        self.node_checks = [each.make for each in listed if isinstance(each, NodeCheck)]
        self.explanations = [each.explain for each in listed if isinstance(each, Explanation)]
