"""What a zoo's file asks for: cases, which are models times opsets, dtypes, runtimes and options."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from onnxport.kit import UsageError

from onnxport_zoo.resolvers import Resolver, resolver_at, resolver_named

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
DTYPES = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True)
class Case:
    """One model with the settings of one export.

    Attributes:
        model: ``module:function``, ``file.py:function``, the path of a ``.pt2`` file, or ``resolver:name``.
        folder: where relative paths start.
        opset: None leaves it to the runtime's profile.
        dtype: what floating-point weights and inputs are turned into; empty leaves them as they are.
        runtime: the profile that the file is written for.
        options: of ``onnxport.export``.
        verify: of ``onnxport.verify``.
        label: tells variants of a model apart whose options differ.
        depends: files that the model depends on, beside its own module.
        latency: whether to measure it.
        seconds: how long it may take.
        memory: how many bytes it may have; 0 for what the machine has for each job.
        place: of the resolver that the model's name starts with, ``file.py:attribute``; empty for those of packs.
    """

    model: str
    folder: str = "."
    opset: int | None = None
    dtype: str = ""
    runtime: str = "onnx"
    options: Mapping[str, Any] = field(default_factory=dict)
    verify: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    depends: tuple[str, ...] = ()
    latency: bool = True
    seconds: float = 600.0
    memory: int = 0
    place: str = ""

    @property
    def name(self) -> str:
        """What tells the case apart from the others of its zoo."""
        parts = [f"opset {self.opset}" if self.opset else "", self.dtype, self.label]
        parts.insert(1, "" if self.runtime == "onnx" else self.runtime)
        return " ".join([self.model, *(f"[{part}]" for part in parts if part)])

    def settings(self) -> dict[str, Any]:
        """All that may change the result but the limits, as JSON has it."""
        place = {"resolver": self.place} if self.place else {}
        return {
            **place,
            "model": self.model,
            "opset": self.opset,
            "dtype": self.dtype,
            "runtime": self.runtime,
            "options": dict(self.options),
            "verify": dict(self.verify),
            "latency": self.latency,
        }

    @property
    def resolver(self) -> Resolver | None:
        """What gives the model; None where a factory or a file does."""
        if self.place:
            return resolver_at(self.place, self.folder)
        return resolver_named(self.model.partition(":")[0])


#: Keys of a table of the file: whether a list gives the variants of a product, and the types of a value.
_KEYS: dict[str, tuple[type, ...]] = {
    "opsets": (int,),
    "dtypes": (str,),
    "runtimes": (str,),
    "exclude": (str,),
    "depends": (str,),
    "options": (dict,),
    "verify": (dict,),
    "label": (str,),
    "latency": (bool,),
    "seconds": (int, float),
    "memory": (int, str),
}
_LISTS = {"opsets", "dtypes", "runtimes", "exclude", "depends", "models"}


def read_zoo(path: str | Path) -> list[Case]:
    """The cases of a zoo's file, in its order.

    Raises:
        UsageError: the file can't be read or has what no zoo has, a resolver is unknown or knows no such model, or two
            cases have one name.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML file: {error}") from error
    if unknown := sorted(data.keys() - {"defaults", "resolvers", "cases"}):
        raise UsageError(
            f"{path}: {', '.join(unknown)}: a zoo has the tables [defaults] and [resolvers] and tables [[cases]] only"
        )
    defaults, tables, places = data.get("defaults", {}), data.get("cases", []), data.get("resolvers", {})
    if not isinstance(places, dict) or not all(isinstance(place, str) and ":" in place for place in places.values()):
        raise UsageError(f"{path}: [resolvers] has a place for each name, such as mine = 'models.py:resolver'")
    if not isinstance(defaults, dict) or not isinstance(tables, list) or not tables:
        raise UsageError(f"{path} has no cases: add a table [[cases]] with model = 'module:function'")
    cases: dict[str, Case] = {}
    for number, table in enumerate(tables, 1):
        place = f"{path}, case {number}"
        if not isinstance(table, dict):
            raise UsageError(f"{place}: cases are tables: write [[cases]]")
        for case in _cases_of(_checked({**defaults, **table}, place), path.parent, place, places):
            if case.name in cases:
                raise UsageError(f"{place}: there are two cases {case.name!r}: give one of them a label = '...'")
            cases[case.name] = case
    return list(cases.values())


def _checked(table: dict[str, Any], place: str) -> dict[str, Any]:
    kinds = {**_KEYS, "model": (str,), "models": (str,)}
    if unknown := sorted(table.keys() - kinds.keys()):
        raise UsageError(f"{place}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(kinds))}")
    for key, value in table.items():
        items = value if key in _LISTS else [value]
        if not isinstance(items, list) or not all(_is(item, kinds[key]) for item in items):
            names = " or ".join(kind.__name__ for kind in kinds[key])
            raise UsageError(f"{place}: {key} is {value!r}; it must be {'a list of ' if key in _LISTS else ''}{names}")
    for dtype in table.get("dtypes", ()):
        if dtype not in DTYPES:
            raise UsageError(f"{place}: dtype {dtype!r} is unknown; known are {', '.join(DTYPES)}")
    if ("model" in table) == ("models" in table):
        raise UsageError(f"{place}: give either model = '...' or models = ['...', ...]")
    return table


def _is(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def _cases_of(table: dict[str, Any], folder: Path, place: str, places: Mapping[str, str]) -> Iterator[Case]:
    patterns = table["models"] if "models" in table else [table["model"]]
    own = {name: resolver_at(each, str(folder.absolute())) for name, each in places.items()}
    models = dict.fromkeys(model for pattern in patterns for model in _models(pattern, place, own))
    shared: dict[str, Any] = {key: table[key] for key in ("options", "verify", "label", "latency") if key in table}
    shared["seconds"] = float(table.get("seconds", Case.seconds))
    shared["memory"] = bytes_of(table.get("memory", 0), place)
    shared["depends"] = tuple(table.get("depends", ()))
    excluded = table.get("exclude", ())
    for model in models:
        if any(fnmatchcase(model, pattern) for pattern in excluded):
            continue
        product = itertools.product(
            table.get("opsets") or [None], table.get("dtypes") or [""], table.get("runtimes") or ["onnx"]
        )
        for opset, dtype, runtime in product:
            resolver = places.get(model.partition(":")[0], "")
            yield Case(model, str(folder.absolute()), opset, dtype, runtime, place=resolver, **shared)


def _models(pattern: str, place: str, own: Mapping[str, Resolver]) -> list[str]:
    """What a model's text stands for: itself, or all that its resolver has of a pattern."""
    scheme, separator, rest = pattern.partition(":")
    resolver = (own.get(scheme) or resolver_named(scheme)) if separator else None
    if resolver is None:
        if "*" in pattern:
            raise UsageError(f"{place}: {pattern}: there is no resolver {scheme!r}: install the pack that has it")
        return [pattern]
    try:
        names = resolver.matching(rest)
    except ImportError as error:
        needed = ", ".join(resolver.distributions) or "the library"
        raise UsageError(f"{place}: {pattern} can't be listed: {error}. Install {needed}.") from error
    if not names:
        raise UsageError(f"{place}: {scheme} has no model that {rest!r} matches")
    return [f"{scheme}:{name}" for name in names]


def bytes_of(size: int | str, place: str) -> int:
    """Bytes of a number, or of a text such as ``"4 GiB"``.

    Raises:
        UsageError: it is no size.
    """
    if isinstance(size, int):
        if size < 0:
            raise UsageError(f"{place}: memory is {size}; it must be a number of bytes, such as '4 GiB'")
        return size
    found = re.fullmatch(r"\s*([0-9.]+)\s*([kmg]i?)?b?\s*", size.lower())
    try:
        return int(float(found[1]) * _UNITS[found[2] or ""])  # type: ignore[index]
    except (TypeError, ValueError):
        raise UsageError(f"{place}: memory is {size!r}; it must be a size such as '4 GiB'") from None
