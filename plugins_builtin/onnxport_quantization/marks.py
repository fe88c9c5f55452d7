"""What a file says of its rounded weights: a line of JSON at the node that dequantizes each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir
import torch
from onnxport.optimize.rewriting import QUANTIZED, all_nodes

from onnxport_quantization.formats import WeightFormat

LOOKUP_DOMAIN, LOOKUP = "com.microsoft", "GatherBlockQuantized"
"""onnxruntime's operator that looks rows up in a table of 4 bits and dequantizes them."""


@dataclass(frozen=True)
class Mark:
    """One rounded weight.

    Attributes:
        weight: its name in the state dict.
        aliases: its other names there.
        axis: the axis of the state dict's tensor, or of its matrix, along which blocks run.
        dtype: the float type that it is cast to before it is rounded, as torch names it.
        format: how it is rounded.
        index: which matrix of a stack it is; None for a weight that is a matrix.
    """

    weight: str
    aliases: tuple[str, ...]
    axis: int
    dtype: str
    format: WeightFormat
    index: int | None = None

    @property
    def key(self) -> str:
        """What reports call it."""
        return self.weight if self.index is None else f"{self.weight}[{self.index}]"

    @property
    def names(self) -> tuple[str, ...]:
        """All its names."""
        return (self.weight, *self.aliases)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The float type."""
        found = getattr(torch, self.dtype)
        return found if isinstance(found, torch.dtype) else torch.float32

    def text(self) -> str:
        """The mark as a line."""
        fields = {"weight": self.weight, "aliases": self.aliases, "axis": self.axis, "dtype": self.dtype}
        place = {} if self.index is None else {"index": self.index}
        return json.dumps({**fields, **place, **self.format.as_dict()})

    @classmethod
    def of(cls, text: str) -> Mark | None:
        """The mark of a line; None for one that says something else."""
        try:
            fields = json.loads(text)
            form = WeightFormat(fields["bits"], fields["block_size"], fields["symmetric"])
            names = tuple(str(name) for name in fields["aliases"])
            index = fields.get("index")
            index = None if index is None else max(0, int(index))
            return cls(str(fields["weight"]), names, int(bool(fields["axis"])), str(fields["dtype"]), form, index)
        except (ValueError, KeyError, TypeError):  # the file may come from anywhere
            return None


def marks_in(model: ir.Model) -> Iterator[tuple[Mark, ir.Node]]:
    """Each mark of a model, with the node that dequantizes."""
    for node in all_nodes(model):
        text = node.metadata_props.get(QUANTIZED)
        mark = Mark.of(text) if text and node.op_type in ("DequantizeLinear", LOOKUP) else None
        if mark is not None:
            yield mark, node
