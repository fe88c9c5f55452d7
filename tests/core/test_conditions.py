"""What a capture takes for granted about dynamic sizes: numbers made of them are errors, branches are warned about."""

from __future__ import annotations

import warnings

import onnxport
import pytest
import torch
from onnxport.errors import DynamicShapesError
from support import export_and_compare

IMAGES = torch.rand(2, 3, 20, 24)
OTHERS = torch.rand(3, 3, 26, 42)
SHAPES = ({0: "batch", 2: "h", 3: "w"},)


class One(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def center(x):
    top, left = int((x.shape[-2] - 10) / 2.0 + 0.5), int((x.shape[-1] - 12) / 2.0 + 0.5)
    return x[..., top : top + 10, left : left + 12]


def test_an_offset_that_int_would_make_a_number_follows_the_size():
    export_and_compare(One(center), (IMAGES,), dynamic_shapes=SHAPES, other_args=(OTHERS,))


def rows(x):
    return torch.stack([x[:, :, i] for i in range(x.shape[2] // 2)])


def test_a_number_made_of_a_dynamic_size_is_an_error_with_its_line():
    with pytest.raises(DynamicShapesError, match=r"h//2\), 10.*test_conditions.py:[0-9]+: .*for i in range"):
        onnxport.export(One(rows), (IMAGES,), dynamic_shapes=SHAPES)


def test_a_branch_on_sizes_is_told():
    def longer_side(x):
        return x + 1 if x.shape[-1] > x.shape[-2] else x - 1

    with pytest.warns(UserWarning, match=r"the example's branches in the model only:\n +w > h, because of .*x \+ 1 if"):
        export_and_compare(One(longer_side), (IMAGES,), dynamic_shapes=SHAPES, other_args=(OTHERS,))


@pytest.mark.parametrize(
    ("function", "other"),
    [
        (lambda x: x.reshape(x.shape[0], 3, x.shape[2] // 4, 4, -1, 4).amax((3, 5)), torch.rand(3, 3, 28, 40)),
        (lambda x: torch.cat([x, torch.nn.functional.interpolate(x[..., ::2, ::2], scale_factor=2.0)]), OTHERS),
        (lambda x: x if x.shape[2] < 4 else x.flip(2), OTHERS),
    ],
    ids=["windows", "halved and doubled", "range"],
)
def test_what_leaves_most_sizes_is_taken_in_silence(function, other):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        export_and_compare(One(function), (IMAGES,), dynamic_shapes=SHAPES, other_args=(other,))
