"""A number made of a size that holds for a few sizes only is refused, in the range that a Dim names as elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import onnxport
import pytest
import torch
from support import FunctionModule, export_and_compare

Tensor = torch.Tensor
RANGE = torch.export.Dim("n", min=5, max=64)

COUNTED: dict[str, Callable[[Tensor], Tensor]] = {
    "the last part": lambda x: x.split(2, 1)[-1],
    "from behind": lambda x: x.split(2, -2)[0],
    "a function": lambda x: torch.split(x, 2, 1)[1],
    "chunks": lambda x: x.chunk(6, 1)[-1],
    "a number of rows": lambda x: x[:, : int(x.shape[1] // 2)] if x.shape[1] // 2 == 3 else x,
}


@pytest.mark.parametrize("name", COUNTED)
def test_a_number_of_parts_that_the_range_does_not_keep(name: str) -> None:
    with pytest.raises(
        onnxport.DynamicShapesError, match=r"test_number_of_parts_in_a_range|in 5\.\.64, but the model takes 5\.\.6"
    ):
        onnxport.export(FunctionModule(COUNTED[name]), (torch.ones(2, 6, 3),), dynamic_shapes={"args": ({1: RANGE},)})


def test_a_number_of_parts_that_holds_in_the_range() -> None:
    export_and_compare(
        lambda x: (x.chunk(3, 1)[-1] * 2, x.chunk(2, 1)[0]),
        (torch.randn(2, 6, 3),),
        dynamic_shapes={"args": ({1: RANGE},)},
        other_args=(torch.randn(2, 11, 3),),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint8, torch.int8])
def test_triangles_of_dtypes_without_a_kernel(dtype: torch.dtype) -> None:
    """In a plain session."""

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.to(dtype).triu(1).float(), x.to(dtype).tril().float()

    export_and_compare(forward, (torch.rand(4, 3) * 9,), dynamic_shapes=None)
