"""Branches, loops, scans and maps, nested and together with writes, captured weights and sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch._higher_order_ops import associative_scan, scan, while_loop
from torch._higher_order_ops import map as torch_map
from torch.utils.checkpoint import checkpoint

from models.structures.structure import BUFFER, INPUT, floats, ints, structure

X, OTHER = floats(4, 6), floats(7, 6)
ROWS = ({0: "rows"},)


@structure(X, other=[(OTHER.abs(),), (-OTHER.abs(),)], dynamic=ROWS, ops=("If",))
def branches_that_write_temporaries(x: torch.Tensor) -> torch.Tensor:
    def high(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[1:].mul_(2)
        return y.relu_()

    def low(x: torch.Tensor) -> torch.Tensor:
        y = torch.zeros_like(x)
        y[:, ::2] = x[:, ::2]
        return y

    return torch.cond(x.sum() > 0, high, low, (x,))


@structure(X, other=[(-X,)], buffers={"seen": torch.zeros(6)}, mutates={"seen": BUFFER}, ops=("If",))
def branch_that_writes_a_buffer(self: Any, x: torch.Tensor) -> torch.Tensor:
    def count(x: torch.Tensor) -> torch.Tensor:
        self.seen.add_(x.sum(0))
        return x + self.seen

    return torch.cond(x.sum() > 0, count, lambda x: x.clone(), (x,))


@structure(X, other=[(-X,)], buffers={"seen": torch.zeros(6)}, mutates={"seen": BUFFER}, ops=("If",))
def branch_result_stored_in_a_buffer(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.seen.copy_(torch.cond(x.sum() > 0, lambda s, x: s + x.sum(0), lambda s, x: s * 0.5, (self.seen, x)))
    return x * self.seen


@structure(X, other=[(-X,)], mutates={"x": INPUT})
def branches_that_write_a_part_of_their_operand(x: torch.Tensor) -> torch.Tensor:
    def first(x: torch.Tensor) -> torch.Tensor:
        x[0].add_(1)
        return x.sum(0)

    def last(x: torch.Tensor) -> torch.Tensor:
        x[-1].sub_(1)
        return x.mean(0)

    return torch.cond(x.sum() > 0, first, last, (x,)) + x[0]


@structure(X, other=[(-X,), (X + 5,)], buffers={"high": torch.tensor(0), "low": torch.tensor(0)},
           mutates={"high": BUFFER, "low": BUFFER})  # fmt: skip
def nested_branches_that_count_in_buffers(self: Any, x: torch.Tensor) -> torch.Tensor:
    def high(x: torch.Tensor) -> torch.Tensor:
        self.high.add_(1)
        return x * self.high

    def low(x: torch.Tensor) -> torch.Tensor:
        self.low.add_(2)
        return x - self.low

    def outer(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.mean() > 1, high, low, (x,))

    return torch.cond(x.sum() > 0, outer, lambda x: x.clone(), (x,))


@structure(X, buffers={"turns": torch.tensor(0)}, refused="(?s)the body of a higher order operator writes to.*outside")
def loop_that_writes_a_buffer(self: Any, x: torch.Tensor) -> Any:
    def step(i: torch.Tensor, y: torch.Tensor) -> Any:
        self.turns.add_(1)
        return i + 1, y * 2

    return while_loop(lambda i, y: i < 3, step, (torch.tensor(0), x))


@structure(X, other=[(OTHER.abs() * 3,), (-OTHER.abs(),)], dynamic=ROWS)
class NestedBranchesWithLayersInEach(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(6, 3) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def outer(x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.mean() > 1, lambda x: self.a(x), lambda x: self.b(x).relu(), (x,))

        return torch.cond(x.sum() > 0, outer, lambda x: self.c(x), (x,))


@structure(X, torch.tensor(True), dynamic=({0: "rows"}, None), other=[(OTHER, torch.tensor(False))])
def branch_on_a_boolean_input(x: torch.Tensor, flag: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.cond(flag, lambda x: (x + 1, x.sum(0)), lambda x: (x - 1, x.amax(0)), (x,))


@structure(X, dynamic=ROWS, other=[(OTHER,), (X[:2],)])
def branch_on_a_size(x: torch.Tensor) -> torch.Tensor:
    return torch.cond(x.shape[0] > 5, lambda x: x.mean(0), lambda x: x.sum(0), (x,))


@structure(X, other=[(-X,)])
def branches_of_different_sizes(x: torch.Tensor) -> torch.Tensor:
    y = torch.cond(x.sum() > 0, lambda x: x[:3].clone(), lambda x: x[1:3].clone(), (x,))
    return y.sum(0)


@structure(X, dynamic=ROWS, other=[(OTHER,), (-OTHER,)])
def branch_that_returns_a_captured_tensor(x: torch.Tensor) -> torch.Tensor:
    y, z = x * 2, x + 3
    return torch.cond(x[0, 0] > 0, lambda: y.clone(), lambda: z.clone(), ()) + y


@structure(X, dynamic=ROWS, other=[(OTHER,), (-OTHER,)])
def three_branches_in_a_row(x: torch.Tensor) -> torch.Tensor:
    for i in range(3):
        x = torch.cond(x[i].sum() > 0, lambda x: x * 0.5, lambda x: x + 1, (x,))
    return x


@structure(X, dynamic=ROWS, other=(OTHER,), ops=("Loop",))
def loop_that_writes_rows_of_its_state(x: torch.Tensor) -> Any:
    def step(i: torch.Tensor, y: torch.Tensor) -> Any:
        y = y.clone()
        y[:, 1:] += y[:, :-1].clone()
        return i + 1, y

    return while_loop(lambda i, y: i < 3, step, (torch.tensor(0), x))


@structure(floats(5).abs(), other=[(floats(5).abs() * 40,)], ops=("Loop",))
def newton_iterations_until_converged(x: torch.Tensor) -> Any:
    def goes_on(guess: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
        return error > 1e-6

    def step(guess: torch.Tensor, error: torch.Tensor) -> Any:
        new = 0.5 * (guess + (x + 1) / guess)
        return new, (new - guess).abs().max()

    return while_loop(goes_on, step, (torch.ones(5), torch.tensor(1.0)))[0]


@structure(X, dynamic=ROWS, other=(OTHER,))
class LoopWithALayerAndABuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.register_buffer("limit", torch.tensor(4))

    def forward(self, x: torch.Tensor) -> Any:
        return while_loop(
            lambda i, y: (i < self.limit) & (y.abs().max() < 1e3),
            lambda i, y: (i + 1, self.layer(y).tanh() + x),
            (torch.tensor(0), x),
        )


@structure(torch.zeros(1, 6), torch.tensor(5), uncaptured="to have same metadata")
def loop_state_that_grows(x: torch.Tensor, count: torch.Tensor) -> Any:
    return while_loop(lambda i, y: i < count, lambda i, y: (i + 1, torch.cat([y, y[-1:] + 1])), (torch.tensor(0), x))[1]


@structure(X)
def loop_with_an_int_counter(x: torch.Tensor) -> Any:
    return while_loop(lambda i, y: i < 4, lambda i, y: (i + 1, y + i), (1, x))


@structure(torch.tensor(7), other=[(torch.tensor(27),)])
def collatz_steps(n: torch.Tensor) -> Any:
    def step(n: torch.Tensor, steps: torch.Tensor) -> Any:
        return torch.where(n % 2 == 0, n // 2, 3 * n + 1), steps + 1

    return while_loop(lambda n, steps: n > 1, step, (n, torch.tensor(0)))


@structure(X, dynamic=ROWS, other=(OTHER,), ops=("Scan",))
def scan_of_a_recurrence_with_decay(x: torch.Tensor) -> Any:
    return scan(lambda h, x: (h * 0.9 + x, (h - x).tanh()), torch.zeros(6), x, dim=0)


@structure(X, dynamic=ROWS, other=(OTHER,))
class GatedScanWithWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(12, 6)

    def forward(self, x: torch.Tensor) -> Any:
        def step(h: torch.Tensor, row: torch.Tensor) -> Any:
            gate = self.gate(torch.cat([h, row], -1)).sigmoid()
            h = gate * h + (1 - gate) * row
            return h, h.clone()

        return scan(step, torch.zeros(6), x, dim=0)


@structure(X)
def scan_backwards_along_columns(x: torch.Tensor) -> Any:
    return scan(lambda h, x: (h + x, (h * x).clone()), torch.zeros(4), x, dim=1, reverse=True)


@structure({"a": X, "b": X * 2})
def scan_over_a_dictionary(xs: dict[str, torch.Tensor]) -> Any:
    def step(h: dict[str, torch.Tensor], row: dict[str, torch.Tensor]) -> Any:
        return {"sum": h["sum"] + row["a"], "max": torch.maximum(h["max"], row["b"])}, row["a"] - h["max"]

    return scan(step, {"sum": torch.zeros(6), "max": torch.full((6,), -9.0)}, xs, dim=0)


@structure(X, dynamic=ROWS, other=(OTHER,))
def map_over_rows_with_captured_matrix(x: torch.Tensor) -> torch.Tensor:
    w = torch.arange(36.0).reshape(6, 6) / 36
    return torch_map(lambda row, w: (w @ row).relu() - row, x, w)


@structure(X, dynamic=ROWS, other=[(OTHER,), (-X,)])
def branch_inside_a_map(x: torch.Tensor) -> torch.Tensor:
    def one(row: torch.Tensor) -> torch.Tensor:
        return torch.cond(row.sum() > 0, lambda r: r * 2, lambda r: r - 1, (row,))

    return torch_map(one, x)


@structure(X, dynamic=ROWS, other=(OTHER,))
def associative_scan_of_products(x: torch.Tensor) -> torch.Tensor:
    return associative_scan(lambda a, b: a * b, x, dim=0, combine_mode="generic")


@structure(X, X.sigmoid(), dynamic=({0: "rows"}, {0: "rows"}), other=(OTHER, OTHER.sigmoid()))
def linear_recurrence_by_associative_scan(x: torch.Tensor, decay: torch.Tensor) -> Any:
    def combine(a: Any, b: Any) -> Any:
        return a[0] * b[0], a[1] * b[0] + b[1]

    return associative_scan(combine, (decay, x), dim=0, combine_mode="generic")[1]


@structure(X, dynamic=ROWS, other=(OTHER,))
class CheckpointedBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=False)
        return x


@structure(X, uncaptured="data-dependent|guard on|Could not")
def branch_by_a_python_if_on_data(x: torch.Tensor) -> torch.Tensor:
    return x + 1 if x.sum() > 0 else x - 1


@structure(X, dynamic=ROWS, other=(OTHER,))
class NestedCompileRegionsCalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        @torch.compiler.nested_compile_region
        def block(layer_weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return (x @ layer_weight).relu() + 1

        return block(self.second.weight, block(self.first.weight, x))


@structure(X, torch.tensor(3), other=[(X, torch.tensor(1)), (X * 2, torch.tensor(4))])
def early_exit_by_masks(x: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    halted = torch.zeros(4, dtype=torch.bool)
    for i in range(4):
        new = x * 1.5
        x = torch.where((halted | (i >= steps))[:, None], x, new)
        halted = halted | (x.sum(1) > 4)
    return x


@structure(ints(3, 0, 2, 1), X, other=[(ints(0, 1, 2, 3), X)])
def switch_by_stacked_branches(which: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    choices = torch.stack([x, x.relu(), x.tanh(), -x])
    return choices[which, torch.arange(4)]


@structure(X, buffers={"seen": torch.zeros(6)}, mutates={"seen": BUFFER})
def nested_compile_region_that_writes_a_buffer(self: Any, x: torch.Tensor) -> torch.Tensor:
    @torch.compiler.nested_compile_region
    def block(x: torch.Tensor) -> torch.Tensor:
        self.seen.add_(x.sum(0))
        return x * self.seen

    return block(block(x))


@structure(X, dynamic=ROWS, other=(OTHER,))
def nested_compile_region_that_writes_its_argument(x: torch.Tensor) -> torch.Tensor:
    @torch.compiler.nested_compile_region
    def block(y: torch.Tensor) -> torch.Tensor:
        y[0].zero_()
        return y.sum(0)

    y = x.clone()
    return block(y) + y


@structure(X, buffers={"seen": torch.zeros(6)}, mutates={"seen": BUFFER})
class CheckpointThatWritesABuffer(nn.Module):
    def block(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add_(x.mean(0))
        return x * self.seen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.block, x, use_reentrant=False) + 1


@structure(X, dynamic=ROWS, other=[(OTHER,), (-OTHER,)], buffers={"seen": torch.zeros(6)}, mutates={"seen": BUFFER})
def buffer_written_before_between_and_after_branches(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.seen += x[0]
    y = torch.cond(x.sum() > 0, lambda x, s: x * s, lambda x, s: x - s, (x, self.seen))
    self.seen.mul_(2)
    z = torch.cond(y.sum() > 0, lambda y, s: y + s, lambda y, s: y.clone(), (y, self.seen))
    self.seen[1:].zero_()
    return z + self.seen


@structure(X, dynamic=ROWS, other=[(-X,), (-OTHER,)])
def vmap_in_a_branch(x: torch.Tensor) -> torch.Tensor:
    def rows(x: torch.Tensor) -> torch.Tensor:
        return torch.vmap(lambda row: row.clone().mul_(2) - row.mean())(x)

    return torch.cond(x.sum() > 0, rows, lambda x: x + 1, (x,))


@structure(X, dynamic=ROWS, other=[(OTHER,), (-X,)])
def view_returned_by_a_branch_written(x: torch.Tensor) -> torch.Tensor:
    y = torch.cond(x.sum() > 0, lambda x: x.t().clone(), lambda x: (x * 2).t().clone(), (x,))
    y[0].add_(1)
    y.t()[0] = 3
    return y


@structure(X, buffers={"sums": torch.zeros(6)}, mutates={"sums": BUFFER})
def scan_started_from_a_buffer(self: Any, x: torch.Tensor) -> torch.Tensor:
    last, sums = scan(lambda h, x: (h * 0.5 + x, (h * 1.0).clone()), self.sums.clone(), x, dim=0)
    self.sums.copy_(last)
    return sums


@structure(X, refused="a branch writes to a tensor that another operand shares")
def branch_that_writes_what_another_operand_shows(x: torch.Tensor) -> torch.Tensor:
    def first(y: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        y.add_(1)
        return row * 2

    y = x.clone()
    return torch.cond(x.sum() > 0, first, lambda y, row: row - 1, (y, y[0]))


@structure(X, uncaptured="Encountered (aliasing|input mutation) during higher order op tracing")
def loop_that_writes_its_state_in_place(x: torch.Tensor) -> Any:
    return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y.mul_(2)), (torch.tensor(0), x.clone()))
