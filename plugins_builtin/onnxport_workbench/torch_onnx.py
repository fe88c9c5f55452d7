"""``as_torch_onnx()``: code that calls torch's exporter gets this one, unchanged."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

import onnxport
import torch
from onnxport import DynamicShapesError, ONNXProgram, warn
from onnxport.kit import MIN_OPSET

_NAME = "export"
_patching = threading.RLock()
_active = 0
_undo: Callable[[], None] = lambda: None  # noqa: E731


@contextlib.contextmanager
def as_torch_onnx() -> Iterator[None]:
    """Let ``torch.onnx.export`` mean :func:`onnxport.export`, for tools that call it and can't be changed.

    It doesn't matter whether a tool imported the function before or after. What it returns is an
    :class:`onnxport.ONNXProgram` that is an instance of ``torch.onnx.ONNXProgram`` too; errors are instances of
    ``torch.onnx.OnnxExporterError`` in any case.

    A call with ``dynamo=False``, or of ``torch.onnx.utils.export``, is exported all the same, with a warning, since
    there it is the tool's wish and not the user's. Its arguments mean what they mean to that exporter: ``dynamic_axes``
    are taken, ``training`` sets the mode of the model for the export (evaluation, if it is left out), a dict in place
    of ``args`` is keywords, and weights are in the .onnx file itself up to 2 GiB. An axis of ``dynamic_axes`` that the
    model makes static is static in the file, with a warning, as is said of an ``opset_version`` below the oldest that
    onnxport writes, which becomes that one.

    Can be nested, and used as a decorator. Everything is as before at the end, after exceptions too.

    Note:
        torch has one ``export`` for the whole process: while any thread is inside, all threads get onnxport's.
    """
    global _active, _undo
    with _patching:
        _active += 1
        if _active == 1:
            _undo = _replace()
    try:
        yield
    finally:
        with _patching:
            _active -= 1
            if _active == 0:
                _undo()


def _replace() -> Callable[[], None]:
    """Replace torch's functions; returns what takes that back."""
    with contextlib.ExitStack() as stack:
        for owner, replacement, code in ((torch.onnx, _export, _forward), (torch.onnx.utils, _legacy, _forward_legacy)):
            stack.callback(_replace_one(owner, replacement, code))
        return stack.pop_all().close


def _replace_one(owner: Any, replacement: Callable[..., Any], forward: Any) -> Callable[[], None]:
    """A plain function gets other code, so that those who imported it have the replacement too.

    One that somebody wrapped already is replaced in its module.
    """
    original: Any = getattr(owner, _NAME)
    if not isinstance(original, types.FunctionType) or original.__closure__:
        setattr(owner, _NAME, replacement)
        return lambda: setattr(owner, _NAME, original)
    code, attributes = original.__code__, dict(vars(original))
    vars(original)["__signature__"] = inspect.signature(original)
    original.__code__ = forward.__code__

    def undo() -> None:
        original.__code__ = code
        vars(original).clear()
        vars(original).update(attributes)

    return undo


def _forward(*args: Any, **kwargs: Any) -> Any:
    """The code that torch's function gets: it runs among torch's globals."""
    from onnxport_workbench.torch_onnx import _export

    return _export(*args, **kwargs)


def _forward_legacy(*args: Any, **kwargs: Any) -> Any:
    """The code that the function of torch's TorchScript exporter gets."""
    from onnxport_workbench.torch_onnx import _legacy

    return _legacy(*args, **kwargs)


def _export(*args: Any, **kwargs: Any) -> ONNXProgram:
    if not kwargs.get("dynamo", True):
        return _legacy(*args, **{name: value for name, value in kwargs.items() if name != "dynamo"})
    opset = kwargs.get("opset_version")
    if isinstance(opset, int) and not isinstance(opset, bool) and 0 < opset < MIN_OPSET:
        warn(f"opset_version={opset} is older than onnxport writes: the file has opset {MIN_OPSET}.")
        kwargs["opset_version"] = MIN_OPSET
    with warnings.catch_warnings():  # a tool's table is for all of its models
        warnings.filterwarnings("ignore", r"custom_translation_table\[.*has no effect", UserWarning)
        program = onnxport.export(*args, **kwargs)
    program.__class__ = program_of_both()
    return program


# The TorchScript exporter's calls ------------------------------------------------------------------------------------


_USUAL = {
    "operator_export_type": "ONNX",
    "do_constant_folding": True,
    "custom_opsets": {},
    "export_modules_as_functions": False,
    "autograd_inlining": True,
}


def _legacy(*args: Any, **kwargs: Any) -> ONNXProgram:
    """A call of the TorchScript exporter, with its meaning of the arguments."""
    warn(
        "This call asks for torch's TorchScript exporter (dynamo=False). Under as_torch_onnx() onnxport exports it all "
        "the same; leave that block if you want torch's own."
    )
    given = dict(zip(("model", "args", "f"), args)) | kwargs
    for name, usual in _USUAL.items():  # what asks for nothing else than is done anyway
        if getattr(given.get(name), "name", given.get(name)) in (None, usual):
            given.pop(name, None)
    if isinstance(given.get("args"), Mapping) and not given.get("kwargs"):
        given["kwargs"] = given.pop("args")
    given.setdefault("external_data", None)  # a file of its own only beyond 2 GiB
    axes = _named_axes(given.pop("dynamic_axes", None), given.get("input_names"), given.get("output_names"))
    with _mode(given.get("model"), given.pop("training", None)):
        while True:
            try:
                return _export(**given, **({"dynamic_axes": axes} if axes else {}))
            except DynamicShapesError as error:
                frozen = [axis for axis in error.axes if axis.name and axis.size is not None]
                rest = _without(axes, {axis.name for axis in frozen})
                if rest == axes:
                    raise
                listed = "".join(
                    f"\n    axis {axis.axis} of {axis.input} ({axis.name!r}){f': {axis.line}' if axis.line else ''}"
                    for axis in frozen
                )
                warn(
                    "The model makes static what this call's dynamic_axes ask for. The file has the example's sizes "
                    f"there:{listed}\nChange these lines to have such an axis dynamic."
                )
                axes = rest


def _named_axes(axes: Any, input_names: Any, output_names: Any) -> Any:
    """``dynamic_axes`` with a name for each axis, of those inputs and outputs that there are."""
    if not isinstance(axes, Mapping):
        return axes
    if input_names and output_names:
        if unknown := [name for name in axes if name not in (*input_names, *output_names)]:
            warn(f"dynamic_axes names {unknown}, which are none of input_names and output_names: they are left out.")
        axes = {name: axes[name] for name in axes if name not in unknown}
    return {
        name: {axis: f"{name}_dynamic_axes_{i}" for i, axis in enumerate(spec, 1)}
        if isinstance(spec, (list, tuple))
        else spec
        for name, spec in axes.items()
    }


def _without(axes: Any, frozen: Set[str]) -> Any:
    """``dynamic_axes`` without the dimensions of these names."""
    if not isinstance(axes, Mapping):
        return axes
    specs = {name: dict(spec) for name, spec in axes.items()}
    return {name: {axis: label for axis, label in spec.items() if label not in frozen} for name, spec in specs.items()}


@contextlib.contextmanager
def _mode(model: Any, training: Any) -> Iterator[None]:
    """Bring a model into the mode that ``training`` names: that of evaluation, if it names none."""
    wanted = getattr(training, "name", "EVAL")
    if not isinstance(model, torch.nn.Module) or wanted == "PRESERVE":
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    if model.training != (wanted == "TRAINING"):
        model.train(wanted == "TRAINING")
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@functools.cache
def program_of_both() -> type[ONNXProgram]:
    """onnxport's program, for tools that test for torch's class."""
    bases = (ONNXProgram, torch.onnx.ONNXProgram)
    return type(
        "ONNXProgram",
        bases,
        {"__module__": ONNXProgram.__module__, "__doc__": ONNXProgram.__doc__, "_kind": staticmethod(program_of_both)},
    )


__all__ = ["as_torch_onnx"]
