"""``as_strided`` counts from the start of a storage, and reaches all of it, whatever view it is called on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support import export_and_compare

Tensor = torch.Tensor
AXES = {0: torch.export.Dim("n", min=4, max=64)}

READS: dict[str, Callable[[Tensor], Tensor]] = {
    "beyond a part": lambda a: (
        a.clone().split([a.shape[0] // 2, a.shape[0] - a.shape[0] // 2])[0].as_strided((3, 5), (2, 1))
    ),
    "beyond half": lambda a: a.clone()[: a.shape[0] // 2].flatten().as_strided((2, 8), (1, 1), 0),
    "from a row on": lambda a: a.clone()[1].as_strided((4,), (1,)),
    "before a row": lambda a: a.clone()[1].as_strided((4,), (1,), 0),
    "of a column": lambda a: a.clone()[:, 1].as_strided((4,), (1,), 1),
    "of a transposed": lambda a: a.clone().T.as_strided((3, 2), (1, 3), 2),
    "of an input's part": lambda a: a[1:].as_strided((2, 4), (3, 1), 0),
    "of a view of a view": lambda a: a.clone()[1:][:, None, 1].as_strided((2, 2), (4, 1), 0),
    "windows": lambda a: (a * 2)[2:].as_strided((a.shape[0] - 1, 6), (3, 1), 0),
    "named offset": lambda a: a.clone()[1:].as_strided((2,), (1,), storage_offset=2),
}


@pytest.mark.parametrize("name", READS)
def test_reads(name: str) -> None:
    x, other = torch.randn(6, 3), torch.randn(9, 3)
    export_and_compare(READS[name], (x,), dynamic_shapes=(AXES,), other_args=(other,))
    export_and_compare(READS[name], (x,))


def written_through(a: Tensor) -> Tensor:
    b = a.clone()
    b[1].as_strided((4,), (1,), 0).fill_(7)
    return b


def read_after_a_write(a: Tensor) -> tuple[Tensor, Tensor]:
    b = a.clone()
    row = b[1]
    before = row.as_strided((4,), (1,), 0).clone()
    b.mul_(2)
    return before, row.as_strided((4,), (1,), 0)


def in_a_branch(a: Tensor) -> Tensor:
    return torch.cond(
        a.sum() > 0, lambda x: x[1].as_strided((4,), (1,), 0) + 1, lambda x: x[0].as_strided((4,), (1,)) * 2, (a,)
    )


@pytest.mark.parametrize("forward", [written_through, read_after_a_write, in_a_branch], ids=lambda f: f.__name__)
def test_beside_writes_and_branches(forward: Callable[[Tensor], Tensor]) -> None:
    x, other = torch.randn(6, 3), torch.randn(9, 3)
    export_and_compare(forward, (x,), dynamic_shapes=(AXES,), other_args=(other,))
