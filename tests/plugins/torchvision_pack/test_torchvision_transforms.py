"""torchvision's transforms in a model follow the height and width of its images."""

from __future__ import annotations

import pytest
import torch

torchvision = pytest.importorskip("torchvision")
pytest.importorskip("onnxport_torchvision")

from support import export_and_compare  # noqa: E402
from torchvision.transforms import functional as v1  # noqa: E402
from torchvision.transforms.v2 import functional as v2  # noqa: E402

WIDE, TALL = torch.rand(2, 3, 20, 24), torch.rand(3, 3, 26, 18)


class Transformed(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: v2.resize(x, [12]),
        lambda x: v1.center_crop(v1.resize(x, [12], antialias=True), [10, 10]),
        lambda x: v2.rotate(x, 30.0, expand=False),
        lambda x: v1.normalize(v2.center_crop(x, [10, 12]), [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]),
    ],
    ids=["resize", "resize and crop", "rotate", "crop and normalize"],
)
def test_transforms_of_wide_and_tall_images(function):
    shapes = ({0: "batch", 2: "h", 3: "w"},)
    export_and_compare(Transformed(function), (WIDE,), dynamic_shapes=shapes, other_args=(TALL,), atol=1e-4)
    assert not hasattr(v1, "int") and v1._compute_resized_output_size((4, 8), [2]) == [2, 4]
