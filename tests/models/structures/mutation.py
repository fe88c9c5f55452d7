"""Buffers and inputs that forward changes, and operators that write where they are told to."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from models.structures.structure import BUFFER, INPUT, floats, ints, structure

ROWS = ({0: "rows"},)
X, OTHER = floats(4, 6), floats(7, 6)


@structure(X, other=(OTHER,), dynamic=ROWS, buffers={"calls": torch.tensor(0)}, mutates={"calls": BUFFER})
def counter_of_calls(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.calls += 1
    return x * self.calls


@structure(X, other=(OTHER,), dynamic=ROWS, buffers={"mean": torch.zeros(6)}, mutates={"mean": BUFFER})
def moving_average_by_lerp(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.mean.lerp_(x.mean(0), 0.1)
    return x - self.mean


@structure(X, buffers={"old": torch.zeros(6), "new": torch.ones(6)}, mutates={"old": BUFFER, "new": BUFFER})
def two_buffers_swapped(self: Any, x: torch.Tensor) -> torch.Tensor:
    kept = self.old.clone()
    self.old.copy_(self.new)
    self.new.copy_(kept + x[0])
    return self.old + self.new


@structure(X, buffers={"ring": torch.zeros(3, 6)}, mutates={"ring": BUFFER})
def ring_buffer_rolled(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.ring.copy_(torch.roll(self.ring, 1, 0))
    self.ring[0] = x.mean(0)
    return self.ring.sum(0)


@structure(X, buffers={"ring": torch.zeros(3, 6), "at": ints(1)}, mutates={"ring": BUFFER, "at": BUFFER})
def ring_buffer_with_a_pointer(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.ring.index_copy_(0, self.at, x[:1])
    self.at.add_(1).remainder_(3)
    return self.ring * 2


@structure(X, buffers={"ring": floats(3, 6)}, mutates={"ring": BUFFER})
def buffer_shifted_onto_itself(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.ring[:-1] = self.ring[1:].clone()
    self.ring[-1] = x[0]
    return self.ring.mean(0)


@structure(
    X, other=(X * 9 - 1,), buffers={"peak": torch.tensor(0.5), "seen": torch.tensor(False)},
    mutates={"peak": BUFFER, "seen": BUFFER},
)  # fmt: skip
def peak_and_a_flag(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.peak.copy_(torch.maximum(self.peak, x.abs().max()))
    self.seen.logical_or_(x.max() > 1)
    return x / self.peak


@structure(X, buffers={"total": torch.zeros(6)}, mutates={"total": BUFFER})
def buffer_replaced_by_assignment(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.total = self.total + x.sum(0)
    self.total = self.total * 0.5
    return self.total + x


@structure(X, buffers={"seen": floats(6)}, mutates={"seen": BUFFER})
def buffer_returned_and_then_written(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    before = self.seen.clone()
    view = self.seen[:3]
    self.seen.add_(x[0])
    return before, view, self.seen


@structure(X, dynamic=ROWS, other=(OTHER,), mutates={"x": INPUT})
def input_scaled_in_place(x: torch.Tensor) -> torch.Tensor:
    x.mul_(0.5).clamp_(min=-0.5)
    return x.sum(1)


@structure(X, floats(6), mutates={"x": INPUT, "bias": INPUT})
def two_inputs_written_by_each_other(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    x.add_(bias)
    bias.copy_(x[2])
    return x * bias


@structure({"a": X, "b": [floats(2, 3), floats(3)]}, mutates={"state_a": INPUT, "state_b_1": INPUT})
def inputs_in_a_container_written(state: dict[str, Any]) -> torch.Tensor:
    state["a"][0].zero_()
    state["b"][1].add_(state["b"][0].sum(0))
    return state["a"].sum() + state["b"][1]


@structure(X, other=(-X,), mutates={"x": INPUT})
def input_masked_in_place_by_itself(x: torch.Tensor) -> torch.Tensor:
    x[x < 0] *= -2
    return x.sqrt()


@structure(X, mutates={"x": INPUT}, options={"input_names": ["image"], "output_names": ["result"]})
def renamed_input_is_written(x: torch.Tensor) -> torch.Tensor:
    x[:, 0] = 1
    return x * 2


@structure(
    floats(3, 4, 5), other=(floats(6, 4, 5),), dynamic=({0: "batch"},), training=True,
    mutates={"norm.running_mean": BUFFER, "norm.running_var": BUFFER, "norm.num_batches_tracked": BUFFER},
)  # fmt: skip
class BatchNormInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x).relu_()


@structure(floats(3, 4, 5), training=True, uncaptured="float|guard|data-dependent")
class BatchNormWithCumulativeAverage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4, momentum=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


@structure(
    floats(3, 4, 5, 2), training=True,
    mutates={"norm.running_mean": BUFFER, "norm.running_var": BUFFER, "norm.num_batches_tracked": BUFFER},
)  # fmt: skip
class OneBatchNormUsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.norm(x) * 2 + 1)


@structure(floats(3, 4, 5), training=True, dynamic=({0: "batch"},), other=(floats(5, 4, 5),))
class BatchNormFrozenWhileTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4).eval()

    def train(self, mode: bool = True) -> BatchNormFrozenWhileTraining:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


@structure(floats(3, 4, 5), training=True, dynamic=({0: "batch"},), other=(floats(5, 4, 5),))
class BatchNormWithoutStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


@structure(floats(3, 4, 5), training=True, buffers={"mean": torch.zeros(4), "var": torch.ones(4)},
           mutates={"mean": BUFFER, "var": BUFFER})  # fmt: skip
def functional_batch_norm_in_training(self: Any, x: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(x, self.mean, self.var, training=True, momentum=0.3)


@structure(floats(3, 4, 5), training=True, mutates={"norm.running_mean": BUFFER, "norm.running_var": BUFFER})
class InstanceNormInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm1d(4, track_running_stats=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


@structure(floats(3, 4), training=True, mutates={"layer.weight_u": BUFFER, "layer.weight_v": BUFFER}, rtol=1e-3)
class SpectralNormInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.utils.spectral_norm(nn.Linear(4, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@structure(floats(5, 4), training=True, buffers={"codes": floats(3, 4), "counts": torch.ones(3)},
           mutates={"codes": BUFFER, "counts": BUFFER}, dynamic=({0: "batch"},), other=(floats(8, 4),))  # fmt: skip
def vector_quantizer_that_learns_its_codes(self: Any, x: torch.Tensor) -> torch.Tensor:
    nearest = torch.cdist(x, self.codes).argmin(1)
    hot = F.one_hot(nearest, 3).to(x.dtype)
    self.counts.mul_(0.9).add_(hot.sum(0), alpha=0.1)
    self.codes.mul_(0.9).add_(hot.t() @ x, alpha=0.1)
    return self.codes[nearest]


@structure(X, buffers={"grid": torch.zeros(4, 6)}, mutates={"grid": BUFFER})
def out_is_a_buffer(self: Any, x: torch.Tensor) -> torch.Tensor:
    torch.mul(x, 3, out=self.grid)
    return self.grid + 1


@structure(X, dynamic=ROWS, other=(OTHER,))
def out_is_a_strided_slice(x: torch.Tensor) -> torch.Tensor:
    wide = torch.zeros(x.shape[0], 12)
    torch.add(x, 1, out=wide[:, ::2])
    torch.sub(x, 1, out=wide[:, 1::2])
    return wide


@structure(X)
def out_of_sort_and_topk(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    values, indices = torch.empty(4, 6), torch.empty(4, 6, dtype=torch.int64)
    torch.sort(x, dim=1, out=(values, indices))
    best, places = torch.empty(4, 2), torch.empty(4, 2, dtype=torch.int64)
    torch.topk(x, 2, dim=1, out=(best, places))
    return values, indices, best, places


@structure(X)
def out_of_cat_stack_and_matmul(x: torch.Tensor) -> torch.Tensor:
    joined = torch.empty(8, 6)
    torch.cat([x, x * 2], out=joined)
    pairs = torch.empty(2, 4, 6)
    torch.stack([x, x + 1], out=pairs)
    product = torch.empty(8, 4)
    torch.matmul(joined, pairs[1].t(), out=product)
    return product


@structure(X)
def out_of_another_dtype(x: torch.Tensor) -> torch.Tensor:
    result = torch.empty(4, 6, dtype=torch.float64)
    torch.add(x, 1, out=result)
    return result


@structure(X, ints(2, 0, 2), dynamic=(None, {0: "picked"}), other=(X, ints(1, 1, 3, 1)), ops=("ScatterND",))
def rows_accumulated_at_repeated_indices(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(4, 6)
    total.index_put_((index,), x[:1].expand(index.shape[0], 6), accumulate=True)
    return total


@structure(X, ints(2, 0, 2), dynamic=(None, {0: "picked"}), other=(X, ints(1, 1, 3, 1)), mutates={"x": INPUT})
def input_accumulated_at_repeated_indices(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    x.index_add_(0, index, torch.ones(index.shape[0], 6), alpha=0.5)
    x.index_put_((index, index), torch.tensor(1.0), accumulate=True)
    return x


@structure(X, other=(OTHER,), dynamic=ROWS)
def running_products_kept_in_a_preallocated_result(x: torch.Tensor) -> torch.Tensor:
    result = x.new_empty(x.shape)
    total = torch.ones(x.shape[0])
    for i in range(6):
        total.mul_(x[:, i])
        result[:, i] = total
    return result


@structure(X, other=(OTHER,), dynamic=ROWS)
def random_free_reductions_into_rows(x: torch.Tensor) -> torch.Tensor:
    table = torch.full((3, x.shape[0]), float("nan"))
    torch.amax(x, 1, out=table[0])
    table[1].copy_(x.mean(1))
    table[2, :] = x.std(1)
    return table.nan_to_num_(nan=-1.0)


@structure(X)
def foreach_operators_on_parts(x: torch.Tensor) -> list[torch.Tensor]:
    parts = [x.clone(), x[:2] * 2, x[2]]
    torch._foreach_mul_(parts[:2], 3.0)
    torch._foreach_add_(parts[:2], [x, x[:2]], alpha=2)
    return parts


@structure(X, buffers={"a": torch.zeros(6)}, mutates={"a": BUFFER})
class TwoNamesForOneBuffer(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        alias = self.a
        alias.add_(x[0])
        self.a.mul_(2)
        return alias + 1


@structure(X, buffers={"lag": torch.zeros(1)}, mutates={"lag": BUFFER})
class BufferChangedByASubmoduleCalledTwice(nn.Module):
    class Step(nn.Module):
        def forward(self, x: torch.Tensor, lag: torch.Tensor) -> torch.Tensor:
            y = x + lag
            lag.copy_(y.mean().reshape(1))
            return y

    def __init__(self) -> None:
        super().__init__()
        self.step = self.Step()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(self.step(x, self.lag), self.lag)


@structure(X, mutates={"inner.state": BUFFER, "inner.extra": BUFFER})
class BuffersOfASubmoduleSomeNotInTheStateDict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.register_buffer("state", torch.zeros(6))
        self.inner.register_buffer("extra", torch.ones(6), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inner.state.add_(x.sum(0))
        self.inner.extra.sub_(self.inner.state)
        return x * self.inner.extra


@structure(X, options={"mutation": "error"}, refused=r"changes calls \(buffer mutation\), x \(user input mutation\)",
           buffers={"calls": torch.tensor(0)})  # fmt: skip
def mutation_refused_when_asked(self: Any, x: torch.Tensor) -> torch.Tensor:
    self.calls.add_(1)
    return x.add_(1)


@structure(X, options={"mutation": "error"}, other=(X * 2,))
def temporary_writes_are_no_mutation(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y.add_(1)[0].zero_()
    return y


@structure(X, ints(5, 3), buffers={"bits": ints(1, 2)}, mutates={"bits": BUFFER, "flags": INPUT})
def bits_set_in_place(self: Any, x: torch.Tensor, flags: torch.Tensor) -> torch.Tensor:
    self.bits |= flags
    flags &= 6
    flags ^= self.bits
    flags <<= 2
    return x[:2] * flags[:, None]


@structure(X)
def parameter_updated_by_a_gradient_step(x: torch.Tensor) -> torch.Tensor:
    weight = torch.ones(6, 2)
    with torch.no_grad():
        weight.sub_(x.t() @ (x @ weight), alpha=0.01)
    return x @ weight


@structure(X, mutates={"weight": "PARAMETER_MUTATION"})
class ParameterWrittenWithoutGradient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.weight.mul_(0.9)
        return x * self.weight


@structure(X, floats(2, 3), mutates={"x": "USER_INPUT_MUTATION"})
def storage_of_an_input_replaced(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x.set_(y)
    return x + 1


@structure(floats(6))
def resized_temporary(x: torch.Tensor) -> torch.Tensor:
    y = torch.empty(0)
    y.resize_(2, 3)
    y.copy_(x.reshape(2, 3))
    return y


@structure(X, ints(3, 0, 1, 2))
def permutation_written_back_in_place(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[order] = y.clone()
    y[:, [0, 5]] = y[:, [5, 0]]
    return y
