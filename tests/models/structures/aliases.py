"""Tensors that share memory in odd ways, and inputs that change shape in place: found by tests/fuzzing."""

from __future__ import annotations

import torch

from models.structures.structure import BUFFER, INPUT, floats, structure

ROWS = ({0: "rows"},)
X, OTHER = floats(4, 6), floats(7, 6)


@structure(X, dynamic=ROWS, other=(OTHER,), mutates={"x": INPUT})
def input_turned_in_place(x: torch.Tensor) -> torch.Tensor:
    x.t_()
    return x * 2


@structure(X, buffers={"kept": floats(3, 2)}, mutates={"kept": BUFFER})
def buffer_given_another_axis_in_place(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    self.kept.unsqueeze_(0)
    return x[:3, :2] + self.kept


@structure(X)
def input_turned_and_turned_back(x: torch.Tensor) -> torch.Tensor:
    return x.t_().transpose_(0, 1) + 1


@structure(X, dynamic=ROWS, other=(OTHER,), mutates={"x": INPUT})
def result_of_broadcast_tensors_read_after_a_write(x: torch.Tensor) -> torch.Tensor:
    wide = torch.broadcast_tensors(x, x[:, :1])[1]
    x.add_(1)
    return wide


@structure(X)
def result_of_broadcast_tensors_written(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    y, row = x.clone(), x[0].clone()
    first, second = torch.broadcast_tensors(y, row)
    first[1:].mul_(2)
    return y, row, second


@structure(X)
def foreach_on_overlapping_tensors(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    torch._foreach_mul_([y[:, :3], y[:2], y], [2.0, 3.0, 5.0])
    return y


@structure(X)
def foreach_on_the_rows_of_one_tensor(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    torch._foreach_add_(list(y.unbind(0)), list(x.flip(0).unbind(0)), alpha=3)
    return y


@structure(X, buffers={"kept": floats(4)}, refused="it resizes a tensor that shares memory with another")
def out_that_resizes_a_view_of_a_buffer(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    out = self.kept.reshape(-1)
    torch.clamp(x, -1, 1, out=out)
    return out


@structure(floats(3, 3, 3))
def diagonal_of_a_cube_filled(x: torch.Tensor) -> torch.Tensor:
    return x.clone().fill_diagonal_(9.0)


@structure(floats(9, 2))
def diagonal_of_a_tall_matrix_filled_again_and_again(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return x.clone().fill_diagonal_(9.0, wrap=True), x[:3].clone().fill_diagonal_(7.0, True)


@structure(X)
def constant_of_one_element_with_stride_zero(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros(1).view(1).chunk(2, -1)[-1] + torch.ones(()).expand(1) + x.new_zeros(1).chunk(2)[0] * x


@structure(X, dynamic=ROWS, other=(OTHER,), mutates={"x": INPUT})
def input_turned_under_another_name(x: torch.Tensor) -> torch.Tensor:
    torch.atleast_2d(x.contiguous()).t_()
    return x + 1


@structure(
    floats(2, 3),
    floats(5),
    torch.ones(1, 5, dtype=torch.bool),
    dynamic=({0: "n"}, {0: "k"}, {1: "k"}),
    other=(floats(3, 3), floats(4), torch.zeros(1, 4, dtype=torch.bool)),
)
def masked_scatter_of_a_source_that_may_be_empty(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros(3).masked_scatter(torch.zeros(3, dtype=torch.bool), y[mask[0]])
