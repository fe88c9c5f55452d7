"""The tables of the runtimes: JSON files that say where they are from, and when they were transcribed."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

NAMES = ("tensorrt", "coreml", "qnn", "openvino", "webgpu", "onnxruntime-mobile")


@dataclass(frozen=True)
class Operator:
    """What a runtime takes of an operator. What is left out isn't restricted, or isn't known.

    Attributes:
        types: of its numbers, as ONNX names them: ``FLOAT16``.
        ranks: of an input, by its index, the numbers of axes.
        constant: indices of inputs that have to be constants.
        static: indices of inputs whose sizes have to be fixed.
        inputs: how many of the inputs may be there.
        outputs: how many of the outputs may be used.
        attributes: values by name; ``"ones"`` for a list of ones.
        versions: first and last version of the operator, of each kernel; no last one for those that are open.
        note: a restriction that a look at the model doesn't tell.
    """

    types: Sequence[str] = ()
    ranks: Mapping[str, Sequence[int]] = field(default_factory=dict)
    constant: Sequence[int] = ()
    static: Sequence[int] = ()
    inputs: int | None = None
    outputs: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    versions: Sequence[tuple[int, int | None]] = ()
    note: str = ""


@dataclass(frozen=True)
class Target:
    """A runtime.

    Attributes:
        name: what ``check(runtime=...)`` takes.
        description: one line for people, with the version.
        source: where the table is from.
        date: when it was transcribed.
        otherwise: what becomes of a node that the runtime doesn't take.
        unknown: what the table doesn't tell.
        operators: by name, with the domain where it isn't ONNX's own.
        opsets: the first and the last opset; None where the table doesn't tell.
        dynamic: whether inputs may have dynamic sizes.
        without: types that no operator takes.
        narrowed: types that are taken, and computed in a narrower one.
    """

    name: str
    description: str
    source: str
    date: str
    otherwise: str
    unknown: Sequence[str]
    operators: Mapping[str, Operator]
    opsets: tuple[int, int] | None = None
    dynamic: bool = True
    without: Sequence[str] = ()
    narrowed: Sequence[str] = ()


@functools.cache
def targets() -> Mapping[str, Target]:
    """All runtimes of the pack by name."""
    return {name: _target(name) for name in NAMES}


def _target(name: str) -> Target:
    text = resources.files(__package__).joinpath("data").joinpath(f"{name}.json").read_text("utf-8")
    data: dict[str, Any] = json.loads(text)
    operators = {operator: Operator(**facts) for operator, facts in data.pop("operators").items()}
    opsets = data.pop("opsets", None)
    return Target(name, operators=operators, opsets=None if opsets is None else tuple(opsets), **data)
