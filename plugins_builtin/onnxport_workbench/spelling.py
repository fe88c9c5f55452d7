"""The operators that people mean: names as onnxport, torch's graphs, its errors and Python print them."""

from __future__ import annotations

import builtins
import difflib
import fnmatch
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from onnxport.kit import translations

if TYPE_CHECKING:
    from onnxport.kit import Key

_PRINTED = (
    re.compile(r"\w+\[target=(?P<name>[^\]]+)\]"),  # a node of an FX graph
    re.compile(r"<OpOverload(?:Packet)?\(op='(?P<name>[^']+)'(?:, overload='(?P<overload>[^']*)')?\)>"),
    re.compile(r"<(?:built-in )?(?:function|method|type) (?P<name>[\w.]+)[^>]*>"),
)
_QUALIFIED = re.compile(r"\w+::\w+(\.\w+)?")
_FIRST = ("aten", "higher_order", "prims")
_LISTED = 3


def unwrapped(text: str) -> str:
    """The bare name in what was printed: without brackets, arguments, quotes and ``torch.ops``."""
    for pattern in _PRINTED:
        if found := pattern.search(text):
            named = found.groupdict()
            return unwrapped(f"{named['name']}.{named['overload']}" if named.get("overload") else named["name"])
    name = text.strip().strip("'\"`").partition("(")[0].strip().removeprefix("torch.ops.")
    return name.removeprefix("_") if name.startswith("_operator.") else name


def qualified(text: str) -> str:
    """The name as ``namespace::name.overload``; empty for one without a namespace."""
    name = unwrapped(text)
    if "::" not in name:
        namespace, dot, rest = name.partition(".")
        if not (namespace and dot and rest):
            return ""
        name = f"{namespace}::{rest}"
    return name.removesuffix(".default")


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern is part of an operator's name; or, as a glob, matches all of it, with or without namespace."""
    if not any(mark in pattern for mark in "*?["):
        return pattern in name
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.partition("::")[2], pattern)


def named(text: str, known: Iterable[Key]) -> tuple[list[Key], list[Key]]:
    """The targets that a name means, several only where it is that of all overloads; and others that it may mean.

    Args:
        text: such as ``aten::gelu``, ``torch.ops.aten.gelu.default``, ``<built-in function add>`` or ``gelu``.
        known: the targets that have translations.
    """
    keys = list(known)
    name, full = unwrapped(text), qualified(text)
    exact: list[Key] = [key for key in keys if key == full or (callable(key) and translations.name_of(key) == name)]
    if exact or (exact := _overloads(full, keys)):
        return exact, []
    function = python_function(name, bare="<" in text)
    if function is not None:
        return [function], []
    if "::" in name or _is_of_torch(full):
        return [full], []
    last = name.removesuffix(".default").rpartition(".")[2]
    groups = {space: _of_namespace(space, last, keys) for space in dict.fromkeys(_namespaces(keys))}
    found = next((group for group in groups.values() if group), [])
    others: list[Key] = [key for group in groups.values() for key in group if key not in found]
    python: list[Key] = [key for key in keys if callable(key) and translations.name_of(key).rpartition(".")[2] == last]
    return (found, [*others, *python]) if found else (python, [])


def python_function(name: str, *, bare: bool = False) -> Callable[..., object] | None:
    """The function of Python or torch that computes sizes in graphs, such as ``operator.add``; None for another name.

    Args:
        name: with its module; or without it, where ``bare``.
        bare: whether the name alone will do.
    """
    module, _, last = name.rpartition(".")
    for holder in (operator, math, builtins, torch):
        if holder.__name__ == module or (bare and not module):
            found = getattr(holder, last, None)
            if callable(found) and not isinstance(found, type) and (holder is not torch or "sym_" in last):
                return found  # type: ignore[no-any-return]
    return None


def _overloads(full: str, keys: Sequence[Key]) -> list[Key]:
    """The targets whose name is that, with any overload; none where the name has one itself."""
    return [key for key in keys if isinstance(key, str) and full and key.partition(".")[0] == full]


def _namespaces(keys: Sequence[Key]) -> list[str]:
    found = {key.partition("::")[0] for key in keys if isinstance(key, str)}
    return sorted(found, key=lambda space: (_FIRST.index(space) if space in _FIRST else len(_FIRST), space))


def _of_namespace(space: str, last: str, keys: Sequence[Key]) -> list[Key]:
    """The default overload of that name in a namespace; all of them where it has none."""
    full = f"{space}::{last}"
    return [full] if full in keys else _overloads(full, keys)


def packet_of(overloads: Sequence[Key]) -> str:
    """The name that overloads have in common."""
    return str(overloads[0]).partition(".")[0]


def near(text: str, known: Iterable[Key]) -> list[str]:
    """Names that look like it, best first."""
    known = list(known)
    namespace, _, rest = qualified(text).partition("::")
    last = re.split(r"[.:]", unwrapped(text).removesuffix(".default"))[-1].lower()
    if namespace in _namespaces(known):
        last = rest.partition(".")[0].lower()
    by_last: dict[str, list[str]] = {}
    for key in known:
        name = translations.name_of(key)
        short = name.partition("::")[2].partition(".")[0] or name.rpartition(".")[2]
        by_last.setdefault(short.lower(), []).append(name)
    close = difflib.get_close_matches(last, by_last, n=_LISTED, cutoff=0.7)
    close += [each for each in by_last if len(last) > 2 and last in each and each not in close]
    return [min(by_last[each], key=_order) for each in close[:_LISTED]]


def _order(name: str) -> tuple[int, int, str]:
    namespace = name.partition("::")[0]
    return (_FIRST.index(namespace) if namespace in _FIRST else len(_FIRST), len(name), name)


def _is_of_torch(full: str) -> bool:
    """Whether torch has an operator of that name, though nothing translates it."""
    return bool(_QUALIFIED.fullmatch(full)) and not isinstance(translations.operator_named(full), str)


__all__ = ["matches", "named", "near", "packet_of", "python_function", "qualified", "unwrapped"]
