"""What hooks may return: each item is looked at when the hook was called, so that a mistake is its plugin's alone."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from reprlib import repr as brief
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch._ops import OpOverload

from onnxport.errors import OnnxExporterError
from onnxport.host.hookspecs import Container, Pass
from onnxport.host.info import PluginInfo
from onnxport.host.profiles import Profile
from onnxport.host.records import Deferred, Translation, check_opset, check_profile, key_of, operator_named
from onnxport.vocabulary.opsets import LOWEST_OPSET, NEWEST_OPSET

_T = TypeVar("_T")

_TORCH = frozenset({"aten", "prims", "quantized", "quantized_decomposed"})
"""Namespaces of torch itself: what isn't in them when they are loaded will never be."""
_HIGHER_ORDER = "higher_order"
_OPSETS = range(LOWEST_OPSET, NEWEST_OPSET + 1)
_PLAIN = re.compile(r"\w+::\w+(\.(?!default$)\w+)?").fullmatch
"""Tells names that are keys as they stand."""


def _listed(value: Any, kind: type[_T]) -> list[_T]:
    """The items of what a hook returned.

    Raises:
        TypeError: it is no list, or has items of another kind.
    """
    if kind is not object and isinstance(value, kind):
        raise TypeError(f"returned a {kind.__name__}: return a list of {kind.__name__} objects")
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"expected a list of {kind.__name__} objects, got {brief(value)}")
    items = list(value)
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(f"expected {kind.__name__} objects, got {brief(item)}")
    return items


def _expect(condition: bool, owner: str, field: str, value: Any, wanted: str) -> None:
    if not condition:
        raise TypeError(f"{owner}: {field} is {brief(value)}, it must be {wanted}")


def translations(info: PluginInfo, value: Any, kept: frozenset[int]) -> list[Translation]:
    """Records, with the plugin that brought them and its tier."""
    name, tier = info.name, info.tier
    return [record if id(record) in kept else _record(record, name, tier) for record in _listed(value, Translation)]


def _record(record: Translation, plugin: str, tier: int) -> Translation:
    """A record as the host keeps it. Some thousand are made at start-up, so that what is right is told at a glance."""
    target, function, opset, priority = record.target, record.function, record.opset, record.priority
    if type(target) is not str or not _PLAIN(target):
        target = key_of(target)
    if not (type(function) is Deferred or callable(function)):
        raise TypeError(f"the translation of {record.name}: function is {brief(function)}, it must be callable")
    if type(priority) is not int or type(record.complex) is not bool or type(opset) is not int or opset not in _OPSETS:
        owner = f"the translation of {record.name}"
        _expect(type(priority) is int, owner, "priority", priority, "an int")
        _expect(type(record.complex) is bool, owner, "complex", record.complex, "True or False")
        check_opset(opset, owner)
    # Not dataclasses.replace, which takes several times as long.
    if record.profile is not None:
        check_profile(record.profile, f"the translation of {record.name}")
    needs_builder, profile = record.needs_builder, record.profile
    return Translation(target, function, opset, priority, record.complex, plugin, tier, needs_builder, profile)


def resolved(info: PluginInfo, value: Any, kept: frozenset[int]) -> list[Translation] | None:
    """Records for one target, which takes the place of theirs; None where there are none."""
    records = _listed(value, Translation)
    own = [record if id(record) in kept else replace(record, target="resolved::target") for record in records]
    return translations(info, own, kept) or None


def adapted(_info: PluginInfo, value: Any, _kept: frozenset[int]) -> Translation:
    """One record, whose function and complex flag are used."""
    if not isinstance(value, Translation):
        raise TypeError(f"expected a Translation, got {brief(value)}")
    _expect(callable(value.function), "the Translation", "function", value.function, "callable")
    return value


def decompositions(info: PluginInfo, value: Any, _kept: frozenset[int]) -> Mapping[OpOverload, Callable[..., Any]]:
    """Functions by operator."""
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a dict of functions by OpOverload, got {brief(value)}")
    for target, function in value.items():
        if not isinstance(target, OpOverload):
            key_of(target)  # which says what is wrong with a packet
            raise TypeError(f"the key {brief(target)} is no OpOverload, such as torch.ops.aten.gelu.default")
        _expect(callable(function), f"the decomposition of {key_of(target)}", "the function", function, "callable")
    return value


def containers(_info: PluginInfo, value: Any, _kept: frozenset[int]) -> list[Container]:
    """Classes that hold tensors."""
    items = _listed(value, Container)
    for item in items:
        _expect(isinstance(item.cls, type), "a Container", "cls", item.cls, "a class")
        owner = f"the Container of {item.cls.__qualname__}"
        _expect(callable(item.flatten), owner, "flatten", item.flatten, "a function")
        _expect(callable(item.unflatten), owner, "unflatten", item.unflatten, "a function")
        _expect(item.names is None or callable(item.names), owner, "names", item.names, "a function or None")
        name = item.serialized_name
        _expect(name is None or isinstance(name, str), owner, "serialized_name", name, "a string or None")
    return items


def passes(info: PluginInfo, value: Any, kept: frozenset[int]) -> list[Pass]:
    """Passes, with the plugin that brought them."""
    items = _listed(value, Pass)
    for item in items:
        _expect(isinstance(item.name, str) and bool(item.name), "a Pass", "name", item.name, "a string")
        owner = f"the Pass {item.name!r}"
        _expect(callable(item.function), owner, "function", item.function, "a function")
        for field in ("before", "after"):
            place = getattr(item, field)
            _expect(place is None or isinstance(place, str), owner, field, place, "the name of a pass or None")
        check_profile(item.profile, owner)
    return [item if id(item) in kept else replace(item, plugin=info.name) for item in items]


class Patch(AbstractContextManager[Any]):
    """A context manager of a plugin: where entering or leaving it fails, that is the plugin's fault alone."""

    def __init__(self, info: PluginInfo, inner: AbstractContextManager[Any]) -> None:
        self._info, self._inner = info, inner
        self._is_active = False

    def __enter__(self) -> Any:
        try:
            value = self._inner.__enter__()
        except OnnxExporterError:  # what is wrong with the model, not with the plugin
            raise
        except Exception as error:
            self._info.fail("a context manager of onnxport_patches failed", error)
            return None
        self._is_active = True
        return value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._is_active:
            return
        try:
            self._inner.__exit__(kind, error, traceback)
        except Exception as raised:
            if raised is not error:
                self._info.fail("a context manager of onnxport_patches failed", raised)


def patches(info: PluginInfo, value: Any, kept: frozenset[int]) -> list[Patch]:
    """Context managers for one capture."""
    items: list[AbstractContextManager[Any]] = _listed(value, AbstractContextManager)  # type: ignore[type-abstract]
    return [item if isinstance(item, Patch) and id(item) in kept else Patch(info, item) for item in items]


def profiles(info: PluginInfo, value: Any, kept: frozenset[int]) -> list[Profile]:
    """Runtimes, with the plugin that brought them."""
    items = _listed(value, Profile)
    for item in items:
        _expect(isinstance(item.name, str) and bool(item.name), "a Profile", "name", item.name, "a string")
        owner = f"the Profile {item.name!r}"
        _expect(isinstance(item.domains, Mapping), owner, "domains", item.domains, "a dict of versions by domain")
        for domain, version in item.domains.items():
            is_version = type(version) is int and version > 0
            _expect(is_version, owner, f"the version of {domain!r}", version, "a positive int")
        if item.opset is not None:
            check_opset(item.opset, owner)
        _expect(item.kernels is None or callable(item.kernels), owner, "kernels", item.kernels, "a function or None")
    return [item if id(item) in kept else replace(item, plugin=info.name) for item in items]


def functionalizers(_info: PluginInfo, value: Any, _kept: frozenset[int]) -> list[Any]:
    """Objects that make graphs pure."""
    items = _listed(value, object)
    for item in items:
        for method in ("program", "graph"):
            _expect(callable(getattr(item, method, None)), "a functionalizer", method, item, "a method of it")
    return items


def functions(_info: PluginInfo, value: Any, _kept: frozenset[int]) -> list[Any]:
    """Functions that the core calls itself: their errors are errors of the call."""
    items = _listed(value, object)
    for item in items:
        _expect(callable(item), "an item of the list", "it", item, "a function")
    return items


CHECKS: Mapping[str, Callable[[PluginInfo, Any, frozenset[int]], Any]] = {
    "onnxport_translations": translations,
    "onnxport_resolve": resolved,
    "onnxport_adapt": adapted,
    "onnxport_decompositions": decompositions,
    "onnxport_containers": containers,
    "onnxport_patches": patches,
    "onnxport_functionalizers": functionalizers,
    "onnxport_profiles": profiles,
    **dict.fromkeys(
        (
            "onnxport_walkers",
            "onnxport_checkpoints",
            "onnxport_verify",
            "onnxport_check",
            "onnxport_after_export",
        ),
        functions,
    ),
    "onnxport_fx_passes": passes,
    "onnxport_ir_passes": passes,
}


def unknown_operator(target: str) -> str:
    """What is wrong with a qualified name whose namespace is torch's own and has no such operator; else empty.

    Of a namespace whose library isn't loaded nothing can be said.
    """
    namespace, _, name = target.partition("::")
    if namespace == _HIGHER_ORDER:
        known = set(torch._ops._higher_order_ops)
        near = [] if name in known else difflib.get_close_matches(name, known, 1, 0.85)
        return f"torch has no {target}; did you mean {_HIGHER_ORDER}::{near[0]}?" if near else ""
    if namespace not in _TORCH or torch._C._dispatch_has_kernel(target):
        return ""
    overload = operator_named(target)
    if isinstance(overload, OpOverload) and "Tensor" in str(overload._schema):  # known to TorchScript alone
        return ""
    known = {known for known in torch._C._dispatch_get_all_op_names() if known.startswith(f"{namespace}::")}
    packet, _, given = target.partition(".")
    overloads = sorted(known & {packet} | {known for known in known if known.startswith(f"{packet}.")})
    if overloads:
        which = f"no overload {given!r}" if given else "no default overload"
        return f"torch has no {target}: {packet} has {which}; name one of {', '.join(overloads)}"
    packets = {known.partition(".")[0].lower(): known.partition(".")[0] for known in sorted(known, reverse=True)}
    near = difflib.get_close_matches(packet.lower(), packets, 1, 0.7)
    hint = f"; did you mean {packets[near[0]]}?" if near else ""
    return f"torch {torch.__version__} has no operator {target}{hint}" if known else ""
