"""Tables of embeddings in 4 bits for onnxruntime's CPU: a table that a product reads too is stored once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnxport
import onnxport_onnxruntime
import pytest
import torch
from onnxport import ONNXProgram
from support import optimized_types
from torch import nn

OWN: dict[str, Any] = {"runtime": "onnxruntime-cpu", "plugins": [onnxport_onnxruntime], "verbose": False}
LOOKUP = "GatherBlockQuantized"


class Tied(nn.Module):
    """A table whose rows are looked up, and by which heads multiply."""

    def __init__(self, heads: int = 1, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.inner = nn.Linear(width, width)
        self.heads = nn.ModuleList(nn.Linear(width, 50, bias=False) for _ in range(heads))
        for head in self.heads:
            head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> Any:
        x = self.inner(self.embed(ids))
        return [head(x) for head in self.heads] or x


def tied(seed: int = 0, **options: Any) -> Tied:
    torch.manual_seed(seed)
    return Tied(**options).eval()


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(1))


def counts(program: ONNXProgram) -> Counter[str]:
    return Counter(node.op_type for node in program.model.graph)


def tables(program: ONNXProgram) -> list[str]:
    """The initializers that have the numbers of the table."""
    names = program.model.graph.initializers
    return [name for name in names if name.startswith("embed") and name.endswith(("int4", "halves"))]


@pytest.mark.parametrize("kind", ["int4", "uint4", {"bits": 4, "block_size": 16}])
@pytest.mark.parametrize("width", [64, 72])
def test_a_tied_table_is_stored_once(kind: Any, width: int) -> None:
    model = tied(width=width)
    plain = onnxport.export(model, (ids(2, 5),), dynamic_shapes=({0: "n", 1: "s"},), quantize=kind, verbose=False)
    program = onnxport.export(plain.exported_program, quantize=kind, verify=True, **OWN)
    assert counts(program)[LOOKUP] == 1 and counts(plain)[LOOKUP] == 0
    assert len(tables(program)) == 1 and len(tables(plain)) == 2
    assert optimized_types(program).count("MatMulNBits") == 2
    for shape in ((2, 5), (1, 1), (3, 2)):
        torch.testing.assert_close(program(ids(*shape))[0], plain(ids(*shape))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 1, 3)])
def test_places_of_every_rank(shape: tuple[int, ...]) -> None:
    model = tied()
    plain = onnxport.export(model, (ids(*shape),), quantize="uint4", verbose=False)
    program = onnxport.export(plain.exported_program, quantize="uint4", **OWN)
    (expected,), (found,) = plain(ids(*shape)), program(ids(*shape))
    assert counts(program)[LOOKUP] == 1 and found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_negative_places() -> None:
    program = onnxport.export(tied(), (ids(3),), quantize="int4", **OWN)
    torch.testing.assert_close(program(torch.tensor([-1, -50, 3])), program(torch.tensor([49, 0, 3])))


def test_a_table_that_only_lookups_read() -> None:
    model = tied(heads=0)
    program = onnxport.export(model, (ids(4),), quantize={"embed.weight": "int4"}, **OWN)
    assert counts(program)[LOOKUP] == 1 and len(tables(program)) == 1
    rounded = onnxport.export(model, (ids(4),), quantize={"embed.weight": "int4"}, verbose=False)
    torch.testing.assert_close(program(ids(4))[0], rounded(ids(4))[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("options", "heads"), [({"portable": True}, 1), ({}, 2)])
def test_what_stays_standard(options: dict[str, Any], heads: int) -> None:
    """A file that other runtimes take too; a table that several products read, each in a way of its own."""
    model = tied(heads=heads)
    program = onnxport.export(model, (ids(4),), quantize="int4", verify=True, **OWN, **options)
    assert not counts(program)[LOOKUP]


def test_8_bits_stay_standard() -> None:
    assert not counts(onnxport.export(tied(), (ids(4),), quantize="int8", **OWN))[LOOKUP]


def test_a_program_is_rounded_later() -> None:
    program = onnxport.export(tied(), (ids(4),), **OWN)
    assert counts(onnxport.quantize(program, "int4"))[LOOKUP] == 1


def test_saved_loaded_verified_and_given_other_weights(tmp_path: Path) -> None:
    model, other, path = tied(), tied(seed=1), tmp_path / "model.onnx"
    onnxport.export(model, (ids(4),), path, quantize="uint4", **OWN)
    assert onnxport.verify(path, model, (ids(4),)).passed
    assert not onnxport.verify(path, other, (ids(4),)).passed
    program = ONNXProgram.load(path)
    program.apply_weights(other.state_dict())
    expected = onnxport.export(other, (ids(4),), quantize="uint4", **OWN)
    torch.testing.assert_close(program(ids(4))[0], expected(ids(4))[0])
