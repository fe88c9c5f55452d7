"""The arguments of a call: one that can't be is refused with the parameter's name, before anything is done."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, get_args

from onnxport import ArgumentError, InputError, warn
from onnxport.kit import listed, provenance, settings, shown, wrong

_DEPRECATED = {
    "training": "set the mode of the model itself (model.eval()) before exporting",
    "operator_export_type": "only ONNX operators are written",
    "do_constant_folding": "constants are always folded; see optimize=",
    "custom_opsets": "use custom_translation_table or a plugin",
    "export_modules_as_functions": "name the module classes in functions=",
    "autograd_inlining": "autograd functions are always inlined",
}
_CHOICES = {"mutation": get_args(settings.Mutation), "metadata": get_args(provenance.Level)}
_FLAGS = (
    "dynamo",
    "external_data",
    "report",
    "optimize",
    "verify",
    "profile",
    "dump_exported_program",
    "export_params",
    "keep_initializers_as_inputs",
)


def check_call(function: Callable[..., Any], given: Mapping[str, Any]) -> tuple[type | str, ...]:
    """Check the arguments of an export that are looked at before anything is done.

    Args:
        function: what was called; its parameters are looked at for a hint where another one is given.
        given: its arguments, by parameter.

    Returns:
        The module classes of ``functions``.

    Raises:
        InputError: an argument can't be.
    """
    verbose, seed = given["verbose"], given["seed"]
    require_flags(verbose=None if callable(verbose) else verbose, **{name: given[name] for name in _FLAGS})
    if not given["dynamo"]:
        raise InputError(
            "dynamo=False asks for the TorchScript exporter, which onnxport doesn't have: leave it out.",
            parameter="dynamo",
        )
    for name, choices in _CHOICES.items():
        value = given[name]
        if not isinstance(value, str) or value not in choices:
            raise InputError(
                f"{name}={shown(value)}: it must be one of {', '.join(map(repr, choices))}.", parameter=name
            )
    path_argument("artifacts_dir", given["artifacts_dir"], "the path of a folder")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise InputError(f"seed={shown(seed)}: give an int, or leave it out.", parameter="seed")
    for name in given["deprecated"]:
        if name not in _DEPRECATED:
            known = list(inspect.signature(function).parameters)
            close = [*(k for k in known if k.startswith(name)), *difflib.get_close_matches(name, known, n=1)]
            near = f"Did you mean {close[0]!r}?" if close else "Leave it out."
            raise InputError(f"export() has no parameter {name!r}. {near}", parameter=name)
        warn(f"{name}= is deprecated and has no effect: {_DEPRECATED[name]}.", DeprecationWarning)
    return classes_of(given["functions"])


def path_argument(parameter: str, value: object, wanted: str = "the path of a file") -> str:
    """A path as a string. Numbers, which ``open`` takes for file descriptors and closes, are none.

    Raises:
        InputError: it is neither a string nor an ``os.PathLike`` that gives one, or it is empty, or has a NUL.
    """
    path: object = None
    if isinstance(value, (str, os.PathLike)):
        try:
            path = os.fspath(value)
        except Exception:  # a class of the caller's: it raises, or gives a number
            path = None
    if isinstance(path, bytes) and not isinstance(value, bytes):
        path = os.fsdecode(path)
    if not isinstance(path, str):
        raise wrong(parameter, value, wanted)
    if not path or "\0" in path:
        raise InputError(f"{parameter}={shown(value)}: give {wanted}.", parameter=parameter)
    return path


def is_empty(value: Any) -> bool:
    """Whether a parameter was left out or is an empty collection. An array is never empty."""
    return value is None or (isinstance(value, (tuple, list, dict)) and not value)


def require_flags(**flags: Any) -> None:
    """Refuse what can't be meant as True, False or None; an array, say, would fail wherever it is first asked.

    Raises:
        InputError: names the parameter.
    """
    for name, value in flags.items():
        if value is not None and not isinstance(value, int):
            raise ArgumentError(f"{name}={shown(value)}: it must be True or False.", parameter=name)


def takes(function: Any, *args: Any) -> bool:
    """Whether something can be called with these arguments; true where Python can't tell, as for some built-ins."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*args)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def classes_of(given: Any) -> tuple[type | str, ...]:
    """``functions``, a collection of module classes and of their names.

    Raises:
        InputError: it is anything else.
    """
    classes = None if isinstance(given, type) else listed(given)
    if classes is None or not all(isinstance(f, (str, type)) for f in classes):
        raise InputError(
            f"functions={shown(given)}: it must be a list of module classes or of their qualified names.",
            parameter="functions",
        )
    return tuple(classes)
