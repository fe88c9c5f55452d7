"""The built-in operators: a plugin like any other.

Every module of this package, and of ``aten``, is a family of operators; a family is imported when a model first has
one of its operators.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import import_module
from typing import Any

from onnxport import Container, Pass, Translation, hookimpl
from onnxport.kit import Action, ProgramPass, Replacement, Strategy


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
def onnxport_patches(model: Any) -> list[Replacement | AbstractContextManager[None]]:
    """Changes to torch and to the model, one file a cause: what each is for, it says itself."""
    return [patch for path, name, *given in _PATCHES for patch in _patches(path, name, model if given else None)]


#: Module, the function that gives its patches, and whether that takes the model; in the order of application.
_PATCHES: tuple[tuple[Any, ...], ...] = (
    ("capture.exporting", "exporting"),
    ("capture.quiet", "quiet", True),
    ("recurrent_capture", "recurrent_shapes"),
    ("packed_capture", "packed_sequences"),
    ("structure_capture", "structures"),
    ("quantization_capture", "pure_modules"),
    ("random_capture", "random_numbers"),
    ("value_capture", "known_values"),
    ("region_capture", "nested_regions"),
    ("capture.gradients", "gradients"),
    ("capture.solver_memory", "solver_memory"),
    ("capture.torchscript", "torchscript_parts", True),
    ("capture.sparse", "dense_tensors", True),
    ("capture.data_attribute", "data_attribute"),
    ("capture.quantized_modules", "quantized_models", True),
    ("capture.broadcasts", "broadcasts"),
    ("capture.shapes_of_views", "shapes_of_views"),
    ("capture.autocast", "autocast_in_forward", True),
    ("capture.pools", "pools"),
    ("capture.parts", "parts"),
    ("capture.ranges", "ranges"),
    ("capture.equations", "unsolved_equations"),
    ("capture.tensors_of_sizes", "tensors_of_sizes"),
    ("capture.small_tensors", "small_tensors"),
    ("capture.signals", "signals_of_sizes"),
    ("capture.python_functions", "python_functions", True),
    ("capture.functions_of_sizes", "functions_of_sizes"),
    ("capture.several_outs", "several_outs"),
    ("capture.scalar_masks", "scalar_masks"),
    ("capture.batching", "symbolic_batches"),
    ("capture.arithmetic_of_sizes", "arithmetic_of_sizes", True),
    ("capture.forward_derivatives", "forward_derivatives"),
)


def _patches(path: str, name: str, model: Any) -> list[Any]:
    """What one file changes; the first line of the file says why."""
    module = import_module(f"{__name__}.{path}")
    given = getattr(module, name)() if model is None else getattr(module, name)(model)
    if isinstance(given, AbstractContextManager):
        return [given]
    why = (module.__doc__ or "").partition("\n")[0]
    return [record if record.why else replace(record, why=why) for record in given]


@hookimpl
def onnxport_semantics() -> list[Any]:
    """What operators fill with, and which calls on constants aren't computed at export time."""
    records: list[Any] = import_module(f"{__name__}.semantics").records()
    return records


def _fold(*arguments: Any) -> Any:
    return import_module(f"{__name__}.folding").fold_constants(*arguments)


@hookimpl
def onnxport_folders() -> list[Callable[..., Any]]:
    """Masks, tables of positions, ranges: what depends on constants alone is computed by torch."""
    return [_fold]


@hookimpl
def onnxport_emission() -> list[Any]:
    """Results of ONNX operators, their forms at older opsets, and sizes as nodes and as text."""
    records: list[Any] = import_module(f"{__name__}.emission").records()
    return records


@hookimpl
def onnxport_strategies() -> list[Strategy]:
    """A trace below autograd, for derivatives and transforms; and the errors that no other capture changes."""
    below_autograd, final_errors = (
        import_module(f"{__name__}.capture.{n}") for n in ("below_autograd", "final_errors")
    )
    return [below_autograd.below_autograd(), final_errors.final_errors()]


@hookimpl
def onnxport_program_passes() -> list[ProgramPass]:
    """What a program assumes is held against its example inputs; weights that torch takes apart are plain."""
    subclasses = import_module(f"{__name__}.capture.subclasses")
    return [
        ProgramPass("assumptions", import_module(f"{__name__}.capture.assumptions").checked),
        ProgramPass("plain_weights", subclasses.with_plain_weights, weights=subclasses.plain_tensors),
    ]


@hookimpl
def onnxport_containers() -> list[Container]:
    """The caches of transformers."""
    return [import_module(f"{__name__}.capture.caches").container()]


@hookimpl
def onnxport_actions() -> list[Action]:
    """The capture; running, saving, loading, other weights."""
    actions: list[Action] = import_module(f"{__name__}.actions").actions()
    return actions


@hookimpl
def onnxport_advice(subject: str | Exception, place: str) -> str | None:
    """What to do about a capture that failed."""
    if isinstance(subject, str):
        return None
    told: str | None = import_module(f"{__name__}.capture.advice").advice(subject, place)
    return told
