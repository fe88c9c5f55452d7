"""How weights are rounded, and what a caller asks for them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from onnxport import DataType, InputError, OpsetError
from onnxport.kit import shown

_BLOCK_SIZES = (16, 32, 64, 128, 256)
_FIELDS = ("bits", "block_size", "symmetric")
_EVERYTHING = "*"

OPSET_OF_BLOCKS = 21
"""The first opset whose DequantizeLinear has blocks, and integers of 4 bits."""
OPSET_OF_COLUMNS = 13
"""The first opset whose DequantizeLinear has a scale for each column."""


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the numbers of a weight are rounded: to the nearest of a block's 16 or 256 multiples of a scale.

    Attributes:
        bits: of each number: 4 or 8.
        block_size: how many numbers along the summed axis share a scale: 16, 32, 64, 128 or 256; None for one scale a
            column of the product.
        symmetric: whether 0 is in the middle of the integers, which are signed then. If not, they are unsigned, and
            each block has the integer that stands for 0.

    Raises:
        InputError: a value can't be.
    """

    bits: int = 4
    block_size: int | None = 128
    symmetric: bool = True

    def __post_init__(self) -> None:
        problem = ""
        if type(self.bits) is not int or self.bits not in (4, 8):
            problem = f"bits={shown(self.bits)}: weights are written in 4 or 8 bits"
        elif self.block_size is not None and (type(self.block_size) is not int or self.block_size not in _BLOCK_SIZES):
            sizes = ", ".join(map(str, _BLOCK_SIZES))
            problem = f"block_size={shown(self.block_size)}: give one of {sizes}, or None for one scale a column"
        elif not isinstance(self.symmetric, bool):
            problem = f"symmetric={shown(self.symmetric)}: give True or False"
        if problem:
            raise InputError(f"quantize: {problem}.", parameter="quantize")

    @property
    def dtype(self) -> DataType:
        """The type of the integers."""
        return DataType[str(self).partition(",")[0].upper()]

    @property
    def opset(self) -> int:
        """The lowest opset that has it."""
        return OPSET_OF_COLUMNS if self.bits == 8 and self.block_size is None else OPSET_OF_BLOCKS

    def block(self, width: int) -> int:
        """The numbers that share a scale in a weight with ``width`` of them along the summed axis."""
        return max(width, 1) if self.block_size is None else self.block_size

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        kind = f"{'' if self.symmetric else 'u'}int{self.bits}"
        return f"{kind}, {'columns' if self.block_size is None else f'blocks of {self.block_size}'}"


KINDS = {
    "int4": WeightFormat(),
    "int8": WeightFormat(8),
    "uint4": WeightFormat(symmetric=False),
    "uint8": WeightFormat(8, symmetric=False),
}
"""The formats that have a name."""


@dataclass(frozen=True)
class Rule:
    """The format of the weights that a pattern matches; None where they stay as they are."""

    pattern: str
    format: WeightFormat | None

    def matches(self, name: str) -> bool:
        """Whether the pattern is the name, or consecutive parts of it; ``*`` stands for any text."""
        return self.pattern == _EVERYTHING or fnmatchcase(f".{name}.", f"*.{self.pattern}.*")


@dataclass(frozen=True)
class Request:
    """What a caller asks: rules in their order, ``"*"`` the last."""

    rules: tuple[Rule, ...]

    @property
    def opset(self) -> int:
        """The lowest opset that has all formats."""
        return max((rule.format.opset for rule in self.rules if rule.format is not None), default=OPSET_OF_COLUMNS)

    def rule_of(self, names: Collection[str]) -> Rule | None:
        """The rule of a weight with these names: the first that matches one of them.

        Raises:
            InputError: the names are of one tied weight, and other rules than for it hold for some of them.
        """
        chosen: dict[str, Rule | None] = {}
        for name in names:
            chosen[name] = next((rule for rule in self.rules if rule.matches(name)), None)
        explicit = [rule for rule in chosen.values() if rule is not None and rule.pattern != _EVERYTHING]
        if len({rule.format for rule in explicit}) > 1:
            listed = ", ".join(f"{name}: {rule.format}" for name, rule in chosen.items() if rule is not None)
            raise InputError(
                f"quantize: {' and '.join(names)} are one tied weight, and different formats are asked for ({listed}). "
                "Name one of them only, or give both the same format.",
                parameter="quantize",
            )
        return explicit[0] if explicit else next(iter(chosen.values()), None)

    def check_opset(self, opset: int) -> None:
        """Refuse an opset that lacks a format.

        Raises:
            OpsetError: names the format and the opset that has it.
        """
        for rule in self.rules:
            if rule.format is not None and rule.format.opset > opset:
                other = (
                    f", or WeightFormat(8, block_size=None), which opset {OPSET_OF_COLUMNS} has"
                    if rule.format.bits == 8
                    else ""
                )
                raise OpsetError(
                    f"quantize: opset {opset} has no {rule.format}: give opset_version={rule.format.opset} or a newer "
                    f"one{other}.",
                    parameter="opset_version",
                    opset=opset,
                    lowest=rule.format.opset,
                )

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse patterns that match no weight, or none that an earlier pattern leaves.

        Raises:
            InputError: names the patterns, and similar names.
        """
        known = list(names)
        for i, rule in enumerate(self.rules):
            matched = [name for name in known if rule.matches(name)]
            if rule.pattern == _EVERYTHING:
                continue
            if not matched:
                parts = dict.fromkeys(part for name in known for part in (name, *name.split("."), _owner(name)))
                near = difflib.get_close_matches(rule.pattern, parts, 3, 0.6)
                hint = f" Did you mean {', '.join(map(repr, near))}?" if near else _some(known)
                raise InputError(
                    f"quantize: {rule.pattern!r} matches no weight of the model. Give the name of a weight or of a "
                    f"module, or a pattern such as 'layers.*.mlp'.{hint}",
                    parameter="quantize",
                )
            if all(any(earlier.matches(name) for earlier in self.rules[:i]) for name in matched):
                raise InputError(
                    f"quantize: what {rule.pattern!r} matches is matched by an earlier pattern too, which goes first: "
                    "put the more specific pattern before.",
                    parameter="quantize",
                )


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _some(names: list[str]) -> str:
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f" The weights are {listed}." if names else " The model has no weights."


def request_of(given: Any) -> Request:
    """What ``quantize=`` says.

    Args:
        given: a format for all products, or formats by pattern. A format is the name of one, a WeightFormat, a dict of
            its fields, or, by pattern, None.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(given, Request):
        return given
    if isinstance(given, Mapping) and not set(given).issubset(_FIELDS):
        rules = []
        for pattern, value in given.items():
            if not isinstance(pattern, str) or not pattern.strip("."):
                raise InputError(
                    f"quantize: {shown(pattern)} is no name of a weight or a module: give a string, such as 'lm_head'.",
                    parameter="quantize",
                )
            form = None if value is None else _format(value, f"quantize[{pattern!r}]")
            rules.append(Rule(pattern.strip("."), form))
        if all(rule.format is None for rule in rules):
            raise InputError(
                "quantize: no weight gets a format. Add one for all others, such as '*': 'int4', or leave it out.",
                parameter="quantize",
            )
        return Request(tuple(sorted(rules, key=lambda rule: rule.pattern == _EVERYTHING)))
    return Request((Rule(_EVERYTHING, _format(given, "quantize")),))


def _format(given: Any, owner: str) -> WeightFormat:
    if isinstance(given, WeightFormat):
        return given
    if isinstance(given, str):
        known = KINDS.get(given)
        if known is not None:
            return known
        near = difflib.get_close_matches(given, KINDS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"{owner}={given!r} is no format of weights; there are {', '.join(map(repr, KINDS))}.{hint} For other "
            "block sizes give WeightFormat(bits, block_size, symmetric).",
            parameter="quantize",
        )
    if isinstance(given, Mapping) and given:
        unknown = [key for key in given if key not in _FIELDS]
        if unknown:
            raise InputError(
                f"{owner}: a format has no {shown(unknown[0])}; it has {', '.join(_FIELDS)}.", parameter="quantize"
            )
        return WeightFormat(**given)
    raise InputError(
        f"{owner}={shown(given)}: give {', '.join(map(repr, KINDS))}, a WeightFormat, a dict of its fields, or a dict "
        "of formats by the names of weights.",
        parameter="quantize",
    )
