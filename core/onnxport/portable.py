"""Exceptions that can be copied and pickled, whatever their constructors take."""

from __future__ import annotations

import copy
import pickle
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar


class Portable:
    """Makes an exception survive :mod:`pickle` and :mod:`copy`, whatever its ``__init__`` takes and its attributes are.

    Python makes an exception again by calling its class with ``args``, which fails, or doubles a message, where
    ``__init__`` takes something else. Here it is made without that call. Each attribute travels by itself, so that one
    that can't be pickled, or not be read again, is None on the other side instead of an error there. The cause goes
    along where it can.

    Attributes:
        stays: names of attributes that are never pickled, since they are too large. A copy shares them.
    """

    stays: ClassVar[frozenset[str]] = frozenset()

    def __reduce__(self) -> tuple[Any, ...]:
        kept = {name: value for name, value in _state(self).items() if name not in self.stays}
        cls = _importable(type(self))
        args = self.args if cls is type(self) else (str(self),)  # type: ignore[attr-defined]
        packed = [text if (text := _packed(arg)) is not None else _packed(str(arg)) for arg in args]
        return _unpickled, (cls, packed, _each(kept, _packed))

    def __copy__(self) -> Any:
        return _made(type(self), self.args, _state(self))  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        def copied(value: Any) -> Any:
            try:
                return copy.deepcopy(value, memo)
            except Exception:  # a module or a lock: whatever it raises, both errors then share it
                return value

        state = _state(self)
        large = {name: value for name, value in state.items() if name in self.stays}
        copies = {**_each({name: value for name, value in state.items() if name not in large}, copied), **large}
        return _made(type(self), tuple(map(copied, self.args)), copies)  # type: ignore[attr-defined]


def _state(error: Any) -> dict[str, Any]:
    """The attributes of an exception, those in slots and of classes such as OSError too, and its cause."""
    state: dict[str, Any] = {"__cause__": error.__cause__, "__suppress_context__": error.__suppress_context__}
    for cls in type(error).__mro__:
        if cls in (object, BaseException):
            break
        for name, descriptor in vars(cls).items():
            if isinstance(descriptor, (types.MemberDescriptorType, types.GetSetDescriptorType)):
                value = getattr(error, name, None)
                if name not in ("__dict__", "__weakref__") and value is not None:
                    state[name] = value
    return {**state, **vars(error)}


def _made(cls: type, args: tuple[Any, ...], state: Mapping[str, Any]) -> Any:
    """An exception of a class with these ``args`` and attributes, without calling its ``__init__``."""
    for base in cls.__mro__:  # that of the base whose memory layout the class has: Python refuses all others
        if isinstance(vars(base).get("__new__"), types.BuiltinFunctionType):
            try:
                error: Any = base.__new__(cls)  # type: ignore[call-overload]
                break
            except TypeError:
                continue
    error.args = args
    for name, value in state.items():
        try:
            setattr(error, name, value)
        except (AttributeError, TypeError):  # a property of the class: it follows from the others
            vars(error)[name] = value
    return error


def _importable(cls: type) -> type:
    """The class, or the nearest base of it that can be found by its name: that of a class in a function can't."""
    for base in cls.__mro__:
        found: Any = sys.modules.get(base.__module__)
        for name in base.__qualname__.split("."):
            found = getattr(found, name, None)
        if found is base:
            return base
    return Exception


def _packed(value: Any) -> Any:
    """The pickle of a value, or a list of those of a list's items; None for what can't be pickled."""
    if type(value) in (list, tuple):
        return type(value)(map(_packed, value))
    try:
        return pickle.dumps(value)
    except Exception:  # whatever a foreign object raises: it stays behind
        return None


def _unpacked(packed: Any) -> Any:
    if isinstance(packed, (list, tuple)):
        return type(packed)(map(_unpacked, packed))
    try:
        return None if packed is None else pickle.loads(packed)
    except Exception:  # its class isn't here, or raises when it is called
        return None


def _unpickled(cls: type, args: Iterable[Any], state: Mapping[str, Any]) -> Any:
    return _made(cls, tuple(map(_unpacked, args)), _each(state, _unpacked))


def _each(state: Mapping[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    return {name: function(value) for name, value in state.items()}
