"""The settings of a call of ``export`` or ``check``, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from onnxport.errors import InputError
from onnxport.host.call import Call
from onnxport.host.discovery import Plugins, load
from onnxport.host.registry import Registry
from onnxport.host.table import table_records
from onnxport.vocabulary.provenance import Level

Mutation = Literal["outputs", "error", "drop"]
_CONVERTERS = {"dtype": "onnxport_precisions", "quantize": "onnxport_quantizers"}


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
    opset, profile = loaded.act("choose_target", version, runtime, portable, loaded.profiles)
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
