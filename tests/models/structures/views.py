"""Writes through views: transposed, expanded, unfolded, views of views, and vmap."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models.structures.structure import BUFFER, INPUT, floats, ints, structure

ROWS = ({0: "rows"},)
X, OTHER = floats(4, 6), floats(7, 6)


@structure(X, dynamic=ROWS, other=(OTHER,))
def slice_of_a_transposed_view(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.t()[1:5:2].mul_(10)
    return y


@structure(X, dynamic=ROWS, other=(OTHER,), mutates={"x": INPUT})
def transposed_input_written_back(x: torch.Tensor) -> torch.Tensor:
    x.mT[2].copy_(x[:, 0] * 2)
    return x.t()


@structure(X)
def five_views_deep(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.view(2, 2, 6).permute(2, 0, 1)[1:].flatten(1)[:, 1:3].unsqueeze(0).add_(100)
    return y


@structure(X, dynamic=ROWS, other=(OTHER,))
def one_row_of_an_expanded_view(x: torch.Tensor) -> torch.Tensor:
    y = x[:1].clone()
    y.expand(5, 6)[2].add_(x[1])
    return y


@structure(X)
def expanded_view_narrowed_before_the_write(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = x[0].clone()
    wide = y.unsqueeze(1).expand(6, 3)
    wide[:, 1].mul_(2)
    wide[1:4, 0].sub_(1)
    return y, wide


@structure(X)
def expanded_view_read_after_writes_to_its_base(x: torch.Tensor) -> torch.Tensor:
    y = x[:1].clone()
    wide = y.expand(3, 6)
    first = wide.sum()
    y[:, ::2] = 7
    return wide + first


@structure(X)
def expanded_view_filled(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = x[0].clone()
    y.expand(3, 6)[:, 2:].fill_(0.5)
    y.expand(3, 6).zero_() if y.dim() == 2 else None
    return y, y.expand(2, 6)


@structure(X)
def windows_of_unfold_written(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.unfold(1, 2, 2).add_(1)
    y.unfold(0, 1, 2)[:, 1:3].mul_(-1)
    return y


@structure(X, dynamic=ROWS, other=(OTHER,))
def windows_of_unfold_written_with_dynamic_rows(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.unfold(1, 3, 3)[:, 1, 0].neg_()
    y.unfold(1, 2, 3).copy_(x[:, :4].reshape(x.shape[0], 2, 2))
    return y


@structure(X)
def every_other_window_of_an_overlapping_unfold(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.unfold(1, 2, 1)[:, ::2].add_(10)
    return y


@structure(X)
def overlapping_windows_filled(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.unfold(1, 4, 1)[:, 1].fill_(3)
    return y


@structure(X, refused="several elements of the view are one element of the tensor")
def overlapping_windows_written_in_eager_order(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.unfold(1, 2, 1).add_(1)
    return y


@structure(X, dynamic=ROWS, other=(OTHER,))
def blocks_of_a_matrix_by_view_and_permute(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    blocks = y.view(-1, 3, 2).transpose(0, 1)
    blocks[1].zero_()
    blocks[2, :, 1] += 5
    return y


@structure(floats(4, 4), dynamic=({0: "n", 1: "n"},), other=(floats(6, 6),))
def diagonals_off_the_middle(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.diagonal(1)[1:].fill_(0)
    y.t().diagonal(-2).mul_(-1)
    return y


@structure(floats(2, 3, 3))
def batched_diagonal_of_a_slice(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[1:].diagonal(dim1=-2, dim2=-1).add_(torch.tensor([1.0, 2.0, 3.0]))
    y.diagonal(0, 0, 1).zero_()
    return y


@structure(X)
def as_strided_window(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    torch.as_strided(y, (3, 2), (6, 2), 1).add_(9)
    torch.as_strided(y, (2, 2), (1, 12)).mul_(-1)
    return y


@structure(X)
def as_strided_view_of_a_view(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[1:].as_strided((2, 2), (6, 3), 7).neg_()
    return y


@structure(floats(2, 3, 4))
def movedim_then_select_then_write(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.movedim(-1, 0)[1, :, 1:] *= 3
    y.swapdims(0, 2)[..., 0].relu_()
    return y


@structure(X, dynamic=ROWS, other=(OTHER,))
def parts_of_split_written_in_a_loop(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    for i, part in enumerate(y.split([1, 2, 3], dim=1)):
        part.mul_(i + 1)
    for i, row in enumerate(y.unbind(1)):
        row.add_(i)
    return y


@structure(X, dynamic=ROWS, other=(OTHER,))
def halves_swapped_through_chunk(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    left, right = y.chunk(2, -1)
    kept = left.clone()
    left.copy_(right)
    right.copy_(kept)
    return y


@structure(X, dynamic=ROWS, other=(OTHER,))
def overlapping_slices_copied(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, 1:] = y[:, :-1].clone()
    y[:-1, 0].copy_(y[1:, 1])
    return y


@structure(X, dynamic=ROWS, other=(OTHER,))
def last_rows_by_negative_indices(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[-2:] = 0
    y[-1, -3:-1] = 8
    y.narrow(0, -3, 2).add_(0.5)
    y.select(1, -1).neg_()
    return y


@structure(X, ints(1, 3), other=[(X, ints(0, 2))])
def advanced_and_basic_indices_mixed(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    y = x.reshape(2, 2, 6).clone()
    y[:, 1, index] = torch.tensor([1.0, 2.0])
    y[0, :, 1:3][:, torch.tensor([1])] = -5.0
    y[..., index, None] += 1
    return y


@structure(X, X > 0, dynamic=({0: "rows"}, {0: "rows"}), other=(OTHER, OTHER > 1))
def mask_of_a_part_assigned(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, 2:].masked_fill_(mask[:, 2:], -1)
    y[mask] = 0.25
    y[1:][mask[:-1]] += 2
    return y


@structure(X, dynamic=ROWS, other=(OTHER,))
def mask_with_values_assigned(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    mask = y > 0.3
    y[mask] = y[mask] * 2 - 1
    return y


@structure(X, X > 0)
def masked_scatter_into_a_transposed_view(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.t().masked_scatter_(mask.t(), torch.arange(24.0))
    return y


@structure(X, dynamic=ROWS, other=(OTHER,))
def scatter_into_a_slice(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(x.shape[0], 8)
    y[:, 1:7].scatter_(1, x.argsort(1), x)
    y[:, 2:].scatter_reduce_(1, x.argsort(1), x, "amax")
    return y


@structure(floats(2, 3, 2), dynamic=({0: "rows"},), other=(floats(5, 3, 2),))
def complex_view_of_real_pairs_rotated(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    torch.view_as_complex(y)[:, 1].mul_(1j)
    torch.view_as_complex(y).imag.add_(1)
    return y


@structure(X, refused="bits reinterpreted: needs opset 26")
def sign_bits_cleared_through_a_dtype_view(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[1:].view(torch.int32).bitwise_and_(0x7FFFFFFF)
    return y


@structure(X, dynamic=ROWS, other=(OTHER,))
def ravel_reshape_and_flatten_share(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.ravel()[:6] = 1
    y.reshape(-1, 3)[:, 2].mul_(2)
    y.flatten()[-1] = 0
    return y


@structure(X, dynamic=ROWS, other=(OTHER,))
def reshape_that_copies_is_written(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = x.clone()
    copy = y.t().reshape(-1)
    copy.zero_()
    y.t().contiguous().add_(1)
    return y, copy


@structure(X, dynamic=ROWS, other=(OTHER,))
def view_made_before_and_read_after(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y = x.clone()
    column, block = y[:, 1], y[1:, 2:4]
    wide = column[:, None].expand(-1, 3)
    y.mul_(2)
    block.add_(column[1:, None])
    return column, wide, block, y


@structure(X)
def write_through_an_unsqueezed_and_squeezed_chain(x: torch.Tensor) -> torch.Tensor:
    y = x[:1].clone()
    y.squeeze(0).unsqueeze(-1).unsqueeze_(0).transpose_(0, 2).mul_(3)
    return y


@structure(floats(3, 4), mutates={"x": INPUT})
def view_of_an_input_returned_after_the_write(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    part = x[1:]
    x.add_(1)
    part.mul_(2)
    return part, x.t()


@structure(X, buffers={"table": torch.zeros(4, 2, 6)}, mutates={"table": BUFFER})
def buffer_written_through_three_views(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.table.transpose(0, 1)[1, :, ::2] = x[:, :3]
    self.table[:, 0].diagonal().fill_(4)
    self.table.flatten(1)[:, -1].sub_(1)
    return self.table.sum(1)


@structure(X)
class ViewsHeldInADictionary(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        y = x.clone()
        views = {"head": y[:2], "tail": y[2:], "columns": [y[:, 0], y[:, 1]]}
        views["head"].mul_(2)
        for column in views["columns"]:
            column.add_(1)
        views["tail"][0] = views["head"][1]
        return views
