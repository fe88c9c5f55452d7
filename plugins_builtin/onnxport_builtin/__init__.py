"""The built-in operators: a plugin like any other.

Every module of this package, and of ``aten``, is a family of operators; a family is imported when a model first has
one of its operators.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

from onnxport import Pass, Translation, hookimpl


@hookimpl
def onnxport_translations() -> list[Translation]:
    """All records of all families."""
    records: list[Translation] = import_module(f"{__name__}.families").translations()
    return records


@hookimpl
def onnxport_decompositions() -> dict[Any, Callable[..., Any]]:
    """Operators on lists of tensors, and gradients that torch has no decomposition of."""
    modules = (import_module(f"{__name__}.{name}") for name in ("foreach", "backward_decompositions"))
    return {target: function for module in modules for target, function in module.decompositions().items()}


@hookimpl
def onnxport_ir_passes() -> list[Pass]:
    """What makes a model leaner."""
    order = import_module(f"{__name__}.passes.order")
    return [Pass(name, function, is_required=name in order.REQUIRED) for name, function in order.PASSES.items()]


@hookimpl
def onnxport_patches(model: Any) -> list[AbstractContextManager[None]]:
    """Changes to torch and to the model, one file a cause: what each is for, it says itself."""
    names = ("recurrent", "packed", "structure", "quantization", "random", "value", "region")
    recurrent, packed, structures, quantization, numbers, values, regions = (
        import_module(f"{__name__}.{name}_capture") for name in names
    )
    return [
        recurrent.recurrent_shapes(),
        packed.packed_sequences(),
        structures.structures(),
        quantization.pure_modules(),
        numbers.random_numbers(),
        values.known_values(),
        regions.nested_regions(),
        import_module(f"{__name__}.capture.gradients").gradients(),
        import_module(f"{__name__}.capture.solver_memory").solver_memory(),
        import_module(f"{__name__}.capture.torchscript").torchscript_parts(model),
        import_module(f"{__name__}.capture.sparse").dense_tensors(model),
        import_module(f"{__name__}.capture.data_attribute").data_attribute(),
        import_module(f"{__name__}.capture.quantized_modules").quantized_models(model),
        import_module(f"{__name__}.capture.broadcasts").broadcasts(),
        import_module(f"{__name__}.capture.autocast").autocast_in_forward(model),
        import_module(f"{__name__}.capture.pools").pools(),
        import_module(f"{__name__}.capture.parts").parts(),
        import_module(f"{__name__}.capture.ranges").ranges(),
        import_module(f"{__name__}.capture.equations").unsolved_equations(),
        import_module(f"{__name__}.capture.tensors_of_sizes").tensors_of_sizes(),
        import_module(f"{__name__}.capture.small_tensors").small_tensors(),
        import_module(f"{__name__}.capture.signals").signals_of_sizes(),
        import_module(f"{__name__}.capture.python_functions").python_functions(model),
        import_module(f"{__name__}.capture.functions_of_sizes").functions_of_sizes(),
        import_module(f"{__name__}.capture.arithmetic_of_sizes").arithmetic_of_sizes(model),
        import_module(f"{__name__}.capture.forward_derivatives").forward_derivatives(),
    ]
