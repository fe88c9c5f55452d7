"""Arithmetic on dynamic sizes: padding to multiples, strides, ranges, reshapes, conditions."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from models.structures.structure import floats, ints, structure

X, OTHER = floats(5, 6), floats(8, 6)
ROWS = ({0: "rows"},)
IMAGE, OTHER_IMAGE = floats(2, 3, 7, 9), floats(1, 3, 12, 6)
IMAGES = ({0: "batch", 2: "height", 3: "width"},)


@structure(X, dynamic=ROWS, other=[(OTHER,), (floats(3, 6),)])
def rows_padded_to_a_multiple(x: torch.Tensor) -> torch.Tensor:
    padded = F.pad(x, (0, 0, 0, -x.shape[0] % 4))
    return padded.reshape(-1, 4, 6).sum(1)


@structure(X, dynamic=ROWS, other=(OTHER,))
def halves_of_a_dynamic_axis(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    half = x.shape[0] // 2
    return x[:half], x[half:], x[half:][: x.shape[0] - 2 * half + 1], x[-half:]


@structure(X, dynamic=ROWS, other=(OTHER,))
def sizes_in_values(x: torch.Tensor) -> torch.Tensor:
    n = x.shape[0]
    return x / n + torch.sym_sqrt(n) * x.sum() / (n * 6) - torch.tensor(n).float()


@structure(X, dynamic=ROWS, other=[(OTHER,), (floats(2, 6),)])
def smaller_and_larger_of_sizes(x: torch.Tensor) -> torch.Tensor:
    n = min(x.shape[0], 4)
    m = max(x.shape[0], 7)
    return torch.ones(m, n) * x[:n, 0]


@structure(X, dynamic=ROWS, other=(OTHER,))
def ranges_forwards_and_backwards(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    n = x.shape[0]
    return torch.arange(n - 1, -1, -1), torch.arange(0, 2 * n, 3), torch.arange(n).flip(0) * 2


@structure(X, dynamic=ROWS, other=(OTHER,))
def triangles_and_identities_of_a_dynamic_size(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    n = x.shape[0]
    return torch.eye(n), torch.ones(n, n).triu(1), torch.tril_indices(4, 4), torch.full((n, 2), n), x.new_zeros(n + 1)


@structure(IMAGE, dynamic=IMAGES, other=(OTHER_IMAGE,))
def image_padded_to_even_sizes_and_packed(x: torch.Tensor) -> torch.Tensor:
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    batch, channels, height, width = x.shape
    y = x.view(batch, channels, height // 2, 2, width // 2, 2)
    return y.permute(0, 1, 3, 5, 2, 4).reshape(batch, channels * 4, height // 2, width // 2)


@structure(IMAGE, dynamic=IMAGES, other=(OTHER_IMAGE,))
class UNetWithCroppedSkips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 3, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(self.down(x).relu_())
        return torch.cat([y[:, :, : x.shape[2], : x.shape[3]], x], 1)


@structure(IMAGE, floats(2, 2, 4, 3), dynamic=(IMAGES[0], {0: "batch"}), other=(OTHER_IMAGE, floats(1, 2, 4, 3)))
def resized_to_the_size_of_another(x: torch.Tensor, small: torch.Tensor) -> torch.Tensor:
    up = F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False)
    return torch.cat([x, up], 1).mean((2, 3)) + F.interpolate(small, scale_factor=2.0).mean((2, 3)).sum(1, keepdim=True)


@structure(IMAGE, dynamic=IMAGES, other=(OTHER_IMAGE,))
def tokens_of_patches_and_back(x: torch.Tensor) -> torch.Tensor:
    patches = F.unfold(x, 3, stride=2, padding=1)
    folded = F.fold(patches, x.shape[2:], 3, stride=2, padding=1)
    return folded / F.fold(torch.ones_like(patches), x.shape[2:], 3, stride=2, padding=1)


@structure(X, floats(3, 6), dynamic=({0: "n"}, {0: "m"}), other=(OTHER, floats(4, 6)))
def outer_products_of_two_dynamic_axes(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    pairs = torch.cat([a[:, None].expand(-1, b.shape[0], -1), b[None].expand(a.shape[0], -1, -1)], -1)
    return pairs.reshape(a.shape[0] * b.shape[0], 12).view(a.shape[0], -1, 12).sum(1)


@structure(X, dynamic=ROWS, other=(OTHER,))
def repeated_and_tiled_by_a_size(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    n = x.shape[0]
    return x[:1].repeat(n, 2), x[0].tile(n, 1), x[0].repeat_interleave(n), x[:2].expand(n, 2, 6)


@structure(X, dynamic=ROWS, other=(OTHER,))
def square_root_of_a_size(x: torch.Tensor) -> torch.Tensor:
    return x / math.sqrt(x.shape[0])


@structure(floats(4, 6), dynamic=ROWS, refused=r"always 4 \[Eq\(Mod\(6\*size, 4\), 0\)\]")
def reshape_that_wants_a_multiple(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(4, -1)


@structure(X, dynamic=ROWS, refused="makes static what was asked to be dynamic(.|\n)*always 5(.|\n)*sizes.py")
class DynamicAxisFrozenByAWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(floats(5, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


@structure(X, dynamic=ROWS, other=[(OTHER,), (floats(3, 6),)])
def axes_flattened_transposed_and_split_again(x: torch.Tensor) -> torch.Tensor:
    n = x.shape[0]
    y = x.t().reshape(-1).view(2, 3, n).transpose(0, 2).flatten(1)
    return y.unflatten(1, (3, 2)).movedim(0, -1)


@structure(X, dynamic=ROWS, other=(OTHER,))
def chunks_of_a_dynamic_axis(x: torch.Tensor) -> torch.Tensor:
    first, *rest = x.t().split(4, 0)
    return first.sum() + rest[0].mean(0)


@structure(floats(1, 6), dynamic=ROWS, other=(floats(3, 6),))
def example_of_size_one(x: torch.Tensor) -> torch.Tensor:
    return (x + torch.ones(6)).sum(0) / x.shape[0] + x[:1].expand(x.shape[0], -1)


@structure(floats(5, 5), dynamic=({0: "rows", 1: "columns"},), other=(floats(3, 7),))
def equal_example_sizes_that_are_independent(x: torch.Tensor) -> torch.Tensor:
    return x.t() @ x + x.shape[1]


@structure(X, 3, dynamic=({0: "rows"}, None))
def python_number_as_a_size(x: torch.Tensor, n: int) -> torch.Tensor:
    return x[:n].repeat(n, 1)


@structure(X, dynamic=ROWS, other=[(OTHER,), (floats(2, 6),)])
def strided_and_reversed_slices(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    n = x.shape[0]
    return x[::2], x[1::2].flip(0), x[n - 2 :], x[: n - 1], x[-1:], x[n // 3 : n // 3 + 1]


@structure(X, ints(1, 4, 2), dynamic=({0: "rows"}, {0: "picked"}), other=(OTHER, ints(7, 0)))
def negative_and_wrapped_indices(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    wrapped = (index - x.shape[0]) % x.shape[0]
    return x[wrapped] + x[index - x.shape[0]] + x[-1]


@structure(floats(2, 30), dynamic=({1: "samples"},), other=(floats(2, 44),))
def frames_with_an_overlap_added_back(x: torch.Tensor) -> torch.Tensor:
    frames = x.unfold(1, 8, 4)
    count = frames.shape[1]
    y = torch.zeros(2, 4 * (count - 1) + 8)
    for i in range(2):
        half = frames[:, :, 4 * i : 4 * i + 4].reshape(2, -1)
        y[:, 4 * i : 4 * i + 4 * count] += half
    return y
