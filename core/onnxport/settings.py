"""The settings of a call of ``export`` or ``check``, checked once."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from onnxport.errors import InputError, OpsetError
from onnxport.host.call import Call
from onnxport.host.discovery import Plugins, load
from onnxport.host.registry import Registry
from onnxport.host.table import table_records
from onnxport.records.profiles import Profile, chosen_profile
from onnxport.vocabulary.callers import warn
from onnxport.vocabulary.checks import path_argument, shown
from onnxport.vocabulary.opsets import DEFAULT_OPSET, MAX_OPSET, MIN_OPSET
from onnxport.vocabulary.provenance import Level

Mutation = Literal["outputs", "error", "drop"]
_CONVERTERS = {"dtype": "onnxport_precisions", "quantize": "onnxport_quantizers"}
_DEPRECATED = {
    "training": "set the mode of the model itself (model.eval()) before exporting",
    "operator_export_type": "only ONNX operators are written",
    "do_constant_folding": "constants are always folded; see optimize=",
    "custom_opsets": "use custom_translation_table or a plugin",
    "export_modules_as_functions": "name the module classes in functions=",
    "autograd_inlining": "autograd functions are always inlined",
}


@dataclass(frozen=True)
class Settings:
    """The settings of a translation; see :func:`export` for each field."""

    opset: int
    call: Call
    registry: Registry
    mutation: Mutation = "outputs"
    metadata: Level = "full"
    optimize: bool = True
    seed: int | None = None
    functions: tuple[type | str, ...] = ()


def call_for(
    version: int | None,
    table: Any,
    plugins: Any,
    prefer: Any,
    runtime: object,
    portable: object = False,
    conversions: Mapping[str, Any] | None = None,
    model: Any = None,
) -> tuple[int, Call]:
    """The target opset and what takes part: what is wrong with either is told before the capture.

    ``conversions`` has what is asked by parameter: of ``dtype=`` and ``quantize=``, in the order in which it is done.
    """
    loaded = load(plugins)
    profile = chosen_profile(runtime, portable, loaded.profiles)
    opset = opset_of(version, profile)
    asked = {name: request for name, request in (conversions or {}).items() if request is not None}
    plans = {name: _plan(loaded, name, request, version, model) for name, request in asked.items()}
    opset = version or max([opset, *(plan.opset for plan in plans.values())])
    records = [] if table is None else table_records(table, loaded.adapt)
    return opset, Call(loaded, opset, records, prefer, replace(profile, quantized="quantize" in plans), plans)


def _plan(plugins: Plugins, name: str, request: Any, opset: int | None, model: Any) -> Any:
    """What the first plugin that takes the request of a parameter makes of it.

    Raises:
        InputError: none takes it.
    """
    state = getattr(model, "state_dict", None)
    names = list(state() if callable(state) else state or ()) or None
    for converter in plugins.items(_CONVERTERS[name]):
        plan = converter.plan(request, opset, names)
        if plan is not None:
            return plan
    raise InputError(f"{name}= needs a plugin that takes it ({_CONVERTERS[name]}): install one.", parameter=name)


def opset_of(version: int | None, profile: Profile) -> int:
    """The target opset.

    Raises:
        OpsetError: it is none that can be written.
    """
    if version is None:
        return profile.opset or DEFAULT_OPSET
    if not isinstance(version, int) or isinstance(version, bool) or not MIN_OPSET <= version <= MAX_OPSET:
        raise OpsetError(
            f"opset_version={shown(version)} can't be written: onnxport writes opsets {MIN_OPSET} to {MAX_OPSET} "
            f"(the newest that the installed onnx knows). Leave it out for {DEFAULT_OPSET}.",
            parameter="opset_version",
            opset=version,
            lowest=MIN_OPSET,
            highest=MAX_OPSET,
        )
    return version


def check_arguments(
    function: Callable[..., Any],
    dynamo: bool,
    mutation: str,
    metadata: str,
    artifacts: Any,
    seed: Any,
    deprecated: Mapping[str, Any],
) -> None:
    """Check the arguments that are looked at before anything is done.

    Args:
        function: what was called; its parameters are looked at for a hint where another one is given.

    Raises:
        InputError: an argument can't be.
    """
    if not dynamo:
        raise InputError(
            "dynamo=False asks for the TorchScript exporter, which onnxport doesn't have: leave it out.",
            parameter="dynamo",
        )
    for name, value, choices in (("mutation", mutation, Mutation), ("metadata", metadata, Level)):
        if not isinstance(value, str) or value not in get_args(choices):
            listed = ", ".join(map(repr, get_args(choices)))
            raise InputError(f"{name}={shown(value)}: it must be one of {listed}.", parameter=name)
    path_argument("artifacts_dir", artifacts, "the path of a folder")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise InputError(f"seed={shown(seed)}: give an int, or leave it out.", parameter="seed")
    for name in deprecated:
        if name not in _DEPRECATED:
            known = list(inspect.signature(function).parameters)
            close = [*(k for k in known if k.startswith(name)), *difflib.get_close_matches(name, known, n=1)]
            near = f"Did you mean {close[0]!r}?" if close else "Leave it out."
            raise InputError(f"export() has no parameter {name!r}. {near}", parameter=name)
        warn(f"{name}= is deprecated and has no effect: {_DEPRECATED[name]}.", DeprecationWarning)
