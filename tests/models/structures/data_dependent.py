"""Sizes that depend on values: nonzero, masks, unique, item, repeat_interleave, ranges."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from models.structures.structure import BUFFER, INPUT, floats, ints, structure

X, OTHER = floats(4, 6), floats(7, 6)
ROWS = ({0: "rows"},)
COUNTS = ints(2, 0, 3, 1)


@structure(X, dynamic=ROWS, other=[(OTHER,), (-X.abs(),)])
def rows_where_a_column_is_positive(x: torch.Tensor) -> torch.Tensor:
    return x[x[:, 0] > 0] * 2


@structure(X, dynamic=ROWS, other=[(OTHER,), (torch.zeros(3, 6),)])
def nonzero_positions_gathered_and_normalized(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    rows, columns = (x > 0.5).nonzero(as_tuple=True)
    values = x[rows, columns]
    return rows, values / (values.sum() + 1), columns.float().sum()


@structure(X, dynamic=ROWS, other=(OTHER,))
def mask_selected_then_scattered_back(x: torch.Tensor) -> torch.Tensor:
    mask = x > 0
    chosen = torch.masked_select(x, mask).sqrt()
    return torch.zeros_like(x).masked_scatter(mask, chosen)


@structure(X, dynamic=ROWS, other=(OTHER,))
def loss_over_masked_rows_only(x: torch.Tensor) -> torch.Tensor:
    keep = x.sum(1) > -1
    kept = x[keep]
    return F.mse_loss(kept[:, :3], kept[:, 3:], reduction="sum") / kept.shape[0]


@structure(X, torch.tensor(3), dynamic=({0: "rows"}, None), other=[(OTHER, torch.tensor(5)), (OTHER, torch.tensor(0))])
def slice_up_to_an_item(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    count = n.item()
    torch._check(count >= 0)
    torch._check(count <= x.shape[0])
    return x[:count].cumsum(0)


@structure(X, torch.tensor(1), other=[(X, torch.tensor(3)), (X, torch.tensor(0))])
def row_selected_by_an_item(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    row = n.item()
    torch._check(row >= 0)
    torch._check(row < 4)
    return x.select(0, row) + x.narrow(0, row, 1)


@structure(torch.tensor(4), other=[(torch.tensor(9),), (torch.tensor(0),)])
def arange_up_to_an_item(n: torch.Tensor) -> tuple[torch.Tensor, ...]:
    count = n.item()
    torch._check(count >= 0)
    positions = torch.arange(count)
    return positions * 2, positions[:, None] >= positions


@structure(torch.tensor(4), torch.tensor(2), other=[(torch.tensor(2), torch.tensor(5))])
def canvas_of_item_sizes(height: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    h, w = height.item(), width.item()
    for size in (h, w):
        torch._check(size >= 1)
    canvas = torch.zeros(h, w + 1)
    canvas[:, 0] = 1
    return canvas + torch.full((w + 1,), 2.0)


@structure(COUNTS, other=[(ints(0, 5, 1),)], dynamic=({0: "groups"},))
def repeat_interleave_by_counts(counts: torch.Tensor) -> torch.Tensor:
    return torch.repeat_interleave(counts)


@structure(X, COUNTS, dynamic=({0: "rows"}, {0: "rows"}), other=(OTHER[:3], ints(1, 0, 4)))
def rows_repeated_by_counts(x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(counts, dim=0)


@structure(X, COUNTS, dynamic=({0: "rows"}, {0: "rows"}), other=(OTHER[:3], ints(1, 0, 4)))
def length_regulator_of_a_speech_model(x: torch.Tensor, durations: torch.Tensor) -> torch.Tensor:
    ends = durations.cumsum(0)
    total = durations.sum().item()
    torch._check(total >= 0)
    frames = torch.arange(total)
    owner = (frames[:, None] >= ends[None]).sum(1)
    return x[owner] + frames[:, None]


@structure(ints(3, 1, 3, 7, 1), dynamic=({0: "n"},), other=[(ints(5, 5, 5),)])
def unique_values_with_counts_and_inverse(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    values, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True)
    return values, inverse, counts / counts.sum()


@structure(ints(3, 3, 1, 1, 1, 3), dynamic=({0: "n"},), other=[(ints(2, 2),)])
def runs_of_equal_values(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.unique_consecutive(x, return_inverse=True, return_counts=True)


@structure(ints(3, 3, 0, 9), dynamic=({0: "n"},), other=[(ints(3, 5, 3),)])
def greedy_ctc_decoding(labels: torch.Tensor) -> torch.Tensor:
    collapsed = torch.unique_consecutive(labels)
    return collapsed[collapsed != 0]


@structure(X, ints(2, 0, 2, 1), dynamic=({0: "rows"}, {0: "rows"}), other=(OTHER, ints(0, 0, 1, 2, 5, 5, 1)))
def mean_of_each_group(x: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    groups, index = torch.unique(group, return_inverse=True)
    sums = x.new_zeros(groups.shape[0], 6).index_add_(0, index, x)
    return sums / torch.bincount(index).unsqueeze(1)


@structure(X, dynamic=ROWS, other=(OTHER,))
def argwhere_of_maxima(x: torch.Tensor) -> torch.Tensor:
    return torch.argwhere(x == x.amax(1, keepdim=True))


@structure(floats(9), torch.tensor(2), other=[(floats(9) * 2, torch.tensor(5))])
def top_k_of_an_item(x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    count = k.item()
    torch._check(count >= 0)
    torch._check(count <= 9)
    return x.topk(count).values


@structure(floats(12), torch.tensor(3), other=[(floats(12), torch.tensor(4))])
def split_in_two_at_an_item(x: torch.Tensor, n: torch.Tensor) -> tuple[torch.Tensor, ...]:
    at = n.item()
    torch._check(at >= 0)
    torch._check(at <= 12)
    left, right = x.split([at, 12 - at])
    return left * 2, right - 1


@structure(floats(12), ints(3, 4), other=[(floats(12), ints(2, 6))])
def reshape_to_sizes_in_a_tensor(x: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    rows, columns = sizes.tolist()
    return x.reshape(rows, columns)


@structure(floats(12), ints(3, 4), other=[(floats(12), ints(6, 2))])
def reshape_to_sizes_in_a_tensor_with_a_check(x: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    rows, columns = sizes.tolist()
    torch._check(rows * columns == 12)
    torch._check(rows >= 1)
    torch._check(columns >= 1)
    return x.reshape(rows, columns).t() + 1


@structure(X, dynamic=ROWS, other=(OTHER,))
def chosen_rows_padded_again(x: torch.Tensor) -> torch.Tensor:
    chosen = x[x[:, 1] > 0]
    torch._check(chosen.shape[0] <= x.shape[0])
    padding = x.new_zeros(x.shape[0] - chosen.shape[0], 6)
    return torch.cat([chosen, padding])


@structure(X, dynamic=ROWS, other=(OTHER,))
def two_masks_joined(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[x[:, 0] > 0], x[x[:, 1] > 0]]).softmax(0)


@structure(X, dynamic=ROWS, other=(OTHER,), buffers={"kept": torch.tensor(0)}, mutates={"kept": BUFFER})
def mask_count_stored_in_a_buffer(self: Any, x: torch.Tensor) -> torch.Tensor:
    kept = x[x[:, 0] > 0]
    self.kept.add_(kept.shape[0])
    return kept.sort(0).values


@structure(X, dynamic=ROWS, other=(OTHER,), mutates={"x": INPUT})
def rows_of_nonzero_indices_written(x: torch.Tensor) -> torch.Tensor:
    index = (x[:, 0] > 0).nonzero().squeeze(1)
    x[index] = 0.5
    x.index_add_(0, index, torch.ones(index.shape[0], 6))
    return index


@structure(torch.tensor(3), other=(torch.tensor(7),))
def window_of_an_item_length(n: torch.Tensor) -> torch.Tensor:
    count = n.item()
    torch._check(count >= 2)
    return torch.linspace(0, 1, count) * torch.ones(count).cumsum(0)


@structure(X, torch.tensor(1.5), other=[(X, torch.tensor(-2.0))])
def float_item_as_a_factor(x: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, Any]:
    factor = scale.item()
    return x * factor + factor**2, factor


@structure(X, torch.tensor(2), other=[(X, torch.tensor(3))])
def one_hot_of_an_item_width(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    count = n.item()
    torch._check(count >= 2)
    torch._check(count <= 6)
    best = x[:, :count].argmax(1)
    return (best[:, None] == torch.arange(count)).int()


@structure(ints(2, 0, 3, 1), dynamic=({0: "n"},), other=[(ints(4, 1),)])
def padding_mask_of_lengths(lengths: torch.Tensor) -> torch.Tensor:
    longest = lengths.max().item()
    torch._check(longest >= 0)
    return torch.arange(longest)[None] < lengths[:, None]


@structure(X, uncaptured="data-dependent|Could not")
def size_used_without_a_check(x: torch.Tensor) -> torch.Tensor:
    kept = x[x[:, 0] > 0]
    return kept if kept.shape[0] > 2 else kept + 1


@structure(floats(2, 3, 4), dynamic=({0: "batch"},), other=(floats(5, 3, 4),))
def nested_masks(x: torch.Tensor) -> torch.Tensor:
    outer = x[x[:, 0, 0] > -3]
    inner = outer[:, 1][outer[:, 1] > 0]
    return inner.exp()


_SOME = torch.tensor([True, False, True, True, False, False])


@structure(floats(6, 3), _SOME, other=(floats(6, 3), torch.zeros(6, dtype=torch.bool)))
def losses_of_nothing_are_not_a_number(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    kept = x[mask]
    loss = torch.nn.functional
    return loss.mse_loss(kept, kept + 1), loss.smooth_l1_loss(kept, kept * 2), loss.kl_div(kept, kept.abs())


@structure(
    floats(6, 3), _SOME, other=[(floats(6, 3), torch.zeros(6, dtype=torch.bool)), (floats(6, 3), _SOME.cumsum(0) == 1)]
)
def views_of_a_selection_written(x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    kept, turned = x[mask], x[mask]
    kept.fill_(3)
    kept.view(-1, 3, 1)[:, 0] = 1
    turned.unsqueeze_(0)
    turned.transpose_(1, 2)
    turned.add_(1)
    return kept, turned
