"""What came of a capture: the program, the names of its inputs, outputs and dimensions, and conditions on sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sympy
    from torch.export import ExportedProgram


@dataclass
class InputLeaf:
    """One leaf of the model's inputs, as the file has it.

    Attributes:
        placeholder: name of the FX placeholder.
        name: name in the file; empty when it is baked in.
        path: readable place among the arguments.
        kind: ``"tensor"``, ``"number"`` (a symbolic int, written as a 0-d tensor) or ``"baked"``.
        value: the constant that is baked in.
        axes: requested name by axis.
    """

    placeholder: str
    name: str
    path: str
    kind: str
    value: Any = None
    axes: dict[int, str] = field(default_factory=dict)


@dataclass
class Interface:
    """The final names of the file's inputs, outputs and dimensions.

    Attributes:
        inputs: all leaves of the inputs, baked ones included.
        outputs: one name for each output of the user; empty where the output is None.
        output_paths: readable place of each of them.
        output_axes: by index of an output, by axis, the dimension name that was asked for.
        dim_names: by symbol or expression of the shape environment, the dimension name.
    """

    inputs: list[InputLeaf] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    output_paths: list[str] = field(default_factory=list)
    output_axes: dict[int, dict[int, str]] = field(default_factory=dict)
    dim_names: dict[sympy.Basic, str] = field(default_factory=dict)

    @property
    def baked(self) -> list[InputLeaf]:
        """What was hard-coded into the model."""
        return [leaf for leaf in self.inputs if leaf.kind == "baked"]


@dataclass(frozen=True, slots=True)
class Captured:
    """A model that was captured: what the next stages take.

    Attributes:
        program: the exported program.
        interface: the names of its inputs, outputs and dimensions in the file.
        limits: conditions on dynamic sizes that the program assumes, each with the line of the model that
            asked, empty for an operator.
    """

    program: ExportedProgram
    interface: Interface
    limits: Mapping[str, str] = field(default_factory=dict)
