"""The model that a command's argument names: what a factory returns, or a saved program."""

from __future__ import annotations

import dataclasses
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module, util
from pathlib import Path
from typing import Any

from onnxport_workbench.cli_options import UsageError
from onnxport_workbench.shown import model_size

#: Attributes, or methods without arguments, by which modules of libraries tell an input: Lightning's and transformers'.
_INPUTS_OF_MODULES = ("example_inputs", "example_input_array", "dummy_inputs")


@dataclasses.dataclass
class Example:
    """A model with its example inputs, and options for the export."""

    model: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> str:
        """How large the model is, in words; empty where that isn't known."""
        return model_size(self.model)


def import_all(names: Sequence[str] | None) -> None:
    """Import the modules that ``--import`` names, such as those that register custom operators.

    Raises:
        UsageError: one can't be imported.
    """
    for name in names or ():
        _import(name)


def load_example(spec: str) -> Example:
    """The model that a command's argument names.

    Args:
        spec: ``module:factory``, ``path/to/file.py:factory``, or the path of a ``.pt2`` file.

    Raises:
        UsageError: nothing is there, it can't be imported, or the factory fails or returns something else.
    """
    if spec.endswith(".pt2"):
        return Example(_saved_program(spec))
    module_name, separator, path = spec.rpartition(":")
    if not (separator and module_name and path):
        raise UsageError(f"{spec!r} is neither MODULE:FACTORY nor the path of a .pt2 file")
    named: Any = _import(module_name)
    for name in path.split("."):
        if not hasattr(named, name):
            raise UsageError(f"{module_name} has no {path}")
        named = getattr(named, name)
    return _example(spec, _returned(spec, named))


def default_output(spec: str) -> Path:
    """The file that an export writes where none is named: ``resnet.onnx`` for ``models:resnet``, here; ``net.pt2``'s
    lies beside it."""
    if spec.endswith(".pt2"):
        return Path(spec).with_suffix(".onnx")
    return Path(f"{spec.rpartition(':')[2]}.onnx")


def _saved_program(path: str) -> Any:
    import torch

    if not Path(path).is_file():
        raise UsageError(f"there is no file {path}")
    try:
        return torch.export.load(path)
    except Exception as error:
        raise UsageError(
            f"{path} can't be read as an ExportedProgram: {error}\nIf it has operators of a library, name the module "
            "that registers them: --import mylib."
        ) from error


def _import(name: str) -> Any:
    try:
        if name.endswith(".py"):
            path = Path(name)
            found = util.spec_from_file_location(path.stem, path)
            if not path.is_file() or found is None or found.loader is None:
                raise UsageError(f"there is no file {name}")
            module = util.module_from_spec(found)
            sys.modules[path.stem] = module
            found.loader.exec_module(module)
            return module
        if "" not in sys.path:
            sys.path.insert(0, "")
        return import_module(name)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{name} can't be imported: {type(error).__name__}: {error}") from error


def _returned(spec: str, named: Any) -> Any:
    """What a factory gives; a module or a program that is named itself is taken as it is."""
    import torch

    if isinstance(named, (torch.nn.Module, torch.export.ExportedProgram)):
        return named
    if not callable(named):
        raise UsageError(f"{spec} isn't callable: it must return a model and its example inputs")
    try:
        made = named()
    except (Exception, SystemExit) as error:
        raise UsageError(f"{spec} failed:\n{''.join(traceback.format_exception(error))}") from error
    if isinstance(named, type) and isinstance(made, torch.nn.Module):
        made.eval()  # nobody else had the chance
    return made


def _example(spec: str, made: Any) -> Example:
    import torch

    if isinstance(made, torch.export.ExportedProgram):
        return Example(made)
    if isinstance(made, torch.nn.Module):
        return _with_own_inputs(spec, made)
    if isinstance(made, dict):
        options = dict(made)
        model = options.pop("model", None)
        if model is not None and ("args" in options or "kwargs" in options):
            return Example(model, _as_args(options.pop("args", ())), options.pop("kwargs", None), options)
        if isinstance(model, torch.nn.Module):
            return dataclasses.replace(_with_own_inputs(spec, model), options=options)
        if model is not None:
            return Example(model, options=options)
    elif isinstance(made, (tuple, list)) and len(made) in (2, 3):
        return Example(made[0], _as_args(made[1]), made[2] if len(made) == 3 else None)
    raise UsageError(
        f"{spec} must return (model, args), (model, args, kwargs), a dict with 'model', an ExportableModule, or a "
        f"module that has example_inputs; it returned {type(made)}"
    )


def _with_own_inputs(spec: str, model: Any) -> Example:
    """A module that tells its own inputs, as an ``ExportableModule`` does, and modules of some libraries."""
    if hasattr(model, "example_arguments"):
        return Example(model)  # the export asks for them, and for names and dynamic shapes
    for name in _INPUTS_OF_MODULES:
        inputs = getattr(model, name, None)
        try:
            inputs = inputs() if callable(inputs) else inputs
        except Exception as error:
            raise UsageError(f"{name}() of the model of {spec} failed: {type(error).__name__}: {error}") from error
        if isinstance(inputs, Mapping):
            return Example(model, (), dict(inputs))
        if inputs is not None:
            return Example(model, _as_args(inputs))
    return Example(model)  # a forward without arguments, or an error that says what it needs


def _as_args(args: Any) -> tuple[Any, ...]:
    return tuple(args) if isinstance(args, (tuple, list)) else (args,)


__all__ = ["Example", "default_output", "import_all", "load_example"]
