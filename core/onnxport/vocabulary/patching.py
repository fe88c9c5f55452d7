"""Functions of libraries that are replaced while an export captures: the one way to do so.

Libraries have no place per thread for them. A replacement stands from the first entrance to the last exit, and is
undone in the reverse order.
"""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
_CONDITION = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*(\d+(?:\.\d+)*)\s*")


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """A function, or another value, that takes the place of one of a library while an export captures.

    Attributes:
        owner: the module, class or object that has it; or its name, ``"mylib.layers"`` or ``"mylib.layers:Attention"``,
            for a library that isn't to be imported for this: where it isn't loaded, nothing is replaced.
        name: the attribute of the owner.
        wrapper: gives what takes its place, from the original.
        torch: the releases of torch that need it, such as ``"<2.16"`` or ``">=2.12,<2.15"``; empty for all.
        why: one line: what is wrong without it.
        is_new: the owner has no such attribute; ``wrapper`` gets None where it hasn't.
        plugin: name of the plugin that brought it; filled when the hook is called.
    """

    owner: Any
    name: str
    wrapper: Callable[[Any], Any]
    torch: str = ""
    why: str = ""
    is_new: bool = False
    plugin: str = field(default="")

    @property
    def target(self) -> str:
        """What is replaced, by its full name."""
        if isinstance(self.owner, str):
            return f"{self.owner.replace(':', '.')}.{self.name}"
        module = getattr(self.owner, "__module__", "")
        name = getattr(self.owner, "__qualname__", None) or getattr(self.owner, "__name__", type(self.owner).__name__)
        return f"{module}.{name}.{self.name}" if module else f"{name}.{self.name}"

    @property
    def is_needed(self) -> bool:
        """Whether this release of torch needs it, and the owner's library is loaded."""
        return holds(self.torch, torch.__version__) and (
            not isinstance(self.owner, str) or loaded(self.owner) is not None
        )

    def __str__(self) -> str:
        return f"{self.target}{f' (torch {self.torch})' if self.torch else ''}{f': {self.why}' if self.why else ''}"


@functools.lru_cache(maxsize=1024)
def holds(condition: str, version: str) -> bool:
    """Whether a release is one of those that a condition such as ``">=2.12,<2.15"`` names.

    Raises:
        ValueError: it is no condition.
    """
    release = _release(re.match(r"[\d.]*", version).group())  # type: ignore[union-attr]
    for part in condition.split(",") if condition.strip() else ():
        found = _CONDITION.fullmatch(part)
        if found is None:
            raise ValueError(f"{condition!r} is no condition on a version, such as '<2.16' or '>=2.12,<2.15'")
        if not _OPERATORS[found[1]](release, _release(found[2])):
            return False
    return True


def _release(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(".") if part]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def loaded(name: str) -> Any:
    """The module or class ``"package.module:Class"`` of a library that is loaded; None where it isn't, or lacks it."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split(".") if path else ():
        found = getattr(found, part, None)
    return found


@dataclass(slots=True, eq=False)
class _Standing:
    """A replacement that is made: by how many users, and what was there before."""

    owner: Any
    name: str
    wrapper: Any
    original: Any
    was_own: bool
    users: int = 1


_lock = threading.RLock()
_standing: dict[tuple[int, str], list[_Standing]] = {}  # by the id of the owner, which an entry keeps alive


@contextlib.contextmanager
def applied(replacement: Replacement) -> Iterator[None]:
    """While any thread is in it, the replacement stands.

    Raises:
        AttributeError: the owner has no such attribute, and the replacement isn't said to be a new one.
    """
    with all_applied((replacement,)):
        yield


@contextlib.contextmanager
def all_applied(replacements: Iterable[Replacement]) -> Iterator[None]:
    """While any thread is in it, all of them stand."""
    entered: list[_Standing] = []
    try:
        for replacement in replacements:
            if replacement.is_needed:
                entered.append(_entered(replacement))
        yield
    finally:
        for entry in reversed(entered):
            _leave(entry)


def _entered(replacement: Replacement) -> _Standing:
    owner = loaded(replacement.owner) if isinstance(replacement.owner, str) else replacement.owner
    with _lock:
        entries = _standing.setdefault((id(owner), replacement.name), [])
        for entry in entries:
            if entry.wrapper == replacement.wrapper:
                entry.users += 1
                return entry
        try:
            entries.append(_made(owner, replacement))
        finally:
            if not entries:
                del _standing[id(owner), replacement.name]
        return entries[-1]


def _leave(entry: _Standing) -> None:
    with _lock:
        entry.users -= 1
        if entry.users:
            return
        key = id(entry.owner), entry.name
        _standing[key].remove(entry)
        if not _standing[key]:
            del _standing[key]
        if entry.was_own:
            setattr(entry.owner, entry.name, entry.original)
        else:  # a method that a base class has, or none
            delattr(entry.owner, entry.name)


def _made(owner: Any, replacement: Replacement) -> _Standing:
    name = replacement.name
    if not replacement.is_new and not hasattr(owner, name):
        raise AttributeError(
            f"there is no {replacement.target} to replace: correct its name, limit the releases by torch=, or say "
            "is_new=True"
        )
    original = getattr(owner, name, None)
    was_own = name in vars(owner) or name == "__code__"
    value = replacement.wrapper(original)
    if callable(original) and isinstance(value, types.FunctionType) and "<locals>" in value.__qualname__:
        functools.update_wrapper(value, original)  # made for this: it bears the original's name
    kept = vars(owner).get(name, original)
    setattr(owner, name, staticmethod(value) if isinstance(kept, (staticmethod, classmethod)) else value)
    return _Standing(owner, name, replacement.wrapper, kept, was_own)
