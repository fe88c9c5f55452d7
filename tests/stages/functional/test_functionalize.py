"""Functionalized graphs compute what eager computes, mutations included."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from functional_support import Model, check, write_targets
from onnxport.errors import CaptureError, Unsupported
from onnxport_functional import aliasing
from onnxport_functional.functionalize import functionalize, functionalize_graph
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten
X = torch.linspace(-2, 3, 24).reshape(4, 6)
OTHER = torch.linspace(-1, 2, 42).reshape(7, 6)


def _case(function: Any) -> Any:
    CASES[function.__name__] = function
    return function


CASES: dict[str, Any] = {}


@_case
def relu_on_a_temporary(x):
    return (x + 1).relu_()


@_case
def chain_of_in_place(x):
    y = x * 2
    y.add_(1).mul_(3).sigmoid_().sub_(0.5)
    return y


@_case
def input_is_written(x):
    x.mul_(2)
    return x + 1


@_case
def input_written_and_returned(x):
    return x.add_(1), x


@_case
def input_written_through_view(x):
    x[1:3].mul_(2)
    return x.sum(0)


@_case
def view_of_view(x):
    y = x.clone()
    y[1:3][:, 2].fill_(7.0)
    return y


@_case
def view_read_after_base_write(x):
    y = x.clone()
    row = y[1]
    y.mul_(10)
    return row + 1, y


@_case
def base_read_after_view_write(x):
    y = x.clone()
    y[0].add_(100)
    return y, y[0], y[1]


@_case
def two_views_of_one_base(x):
    y = x.clone()
    a, b = y[:, :3], y[:, 1:4]
    a.add_(1)
    b.mul_(2)
    return a, b, y


@_case
def write_before_and_after_read(x):
    y = x.clone()
    first = y + 1
    y.zero_()
    return first, y + 2


@_case
def setitem_number(x):
    y = x.clone()
    y[:, 1] = 5
    return y


@_case
def setitem_tensor(x):
    y = torch.zeros_like(x)
    y[1:3] = x[:2]
    return y


@_case
def setitem_broadcast(x):
    y = x.clone()
    y[:, :3] = torch.arange(3.0)
    return y


@_case
def setitem_step(x):
    y = x.clone()
    y[::2, 1::2] = -1
    return y


@_case
def setitem_mask(x):
    y = x.clone()
    y[y > 0.5] = 0.0
    return y


@_case
def setitem_index_tensor(x):
    y = x.clone()
    y[torch.tensor([0, 2])] = 1.0
    return y


@_case
def setitem_ellipsis_none(x):
    y = x.clone()
    y[..., None, 0] = 3
    return y


@_case
def augmented_setitem(x):
    y = x.clone()
    y[:, 1] += 2
    y[0] *= y[1]
    return y


@_case
def index_put_accumulate(x):
    y = x.clone()
    index = torch.tensor([0, 0, 1])
    y.index_put_((index,), torch.ones(3, 6), accumulate=True)
    return y


@_case
def masked_fill(x):
    y = x.clone()
    y.masked_fill_(x > 0, -1.0)
    return y


@_case
def masked_fill_on_transposed(x):
    y = x.clone()
    y.t().masked_fill_((x > 0).t(), -1.0)
    return y


@_case
def scatter_in_place(x):
    y = x.clone()
    y.scatter_(1, torch.zeros(4, 2, dtype=torch.long), 9.0)
    y.scatter_add_(0, torch.ones(1, 6, dtype=torch.long), x[:1])
    return y


@_case
def index_fill_index_add_index_copy(x):
    y = x.clone()
    index = torch.tensor([1, 3])
    y.index_fill_(0, index, 2.0).index_add_(0, index, x[:2]).index_copy_(1, index, x[:, :2])
    return y


@_case
def transpose_write(x):
    y = x.clone()
    y.transpose(0, 1)[2].add_(5)
    return y


@_case
def permute_write(x):
    y = x.reshape(4, 2, 3).clone()
    y.permute(2, 0, 1)[1].mul_(3)
    return y


@_case
def movedim_swapaxes_write(x):
    y = x.reshape(4, 2, 3).clone()
    y.movedim(0, 2)[0].mul_(3)
    y.swapaxes(0, 2)[1].add_(1)
    return y


@_case
def view_write(x):
    y = x.clone()
    y.view(2, 12)[0].relu_()
    return y


@_case
def reshape_that_is_a_view(x):
    y = x.clone()
    y.reshape(-1)[3:9].zero_()
    return y


@_case
def reshape_that_copies(x):
    y = x.clone()
    z = y.t().reshape(-1)
    z.zero_()
    return y, z


@_case
def flatten_unflatten(x):
    y = x.clone()
    y.flatten()[2:4].fill_(1.5)
    y.unflatten(1, (2, 3))[:, 1].neg_()
    return y


@_case
def squeeze_unsqueeze(x):
    y = x.clone()
    y.unsqueeze(0).mul_(2)
    y[:1].squeeze(0).add_(1)
    return y


@_case
def contiguous_of_contiguous(x):
    y = x.clone()
    y.contiguous().add_(1)
    return y


@_case
def contiguous_of_transposed(x):
    y = x.clone()
    z = y.t().contiguous()
    z.add_(1)
    return y, z


@_case
def to_same_dtype(x):
    y = x.clone()
    y.to(torch.float32).add_(1)
    y.to(torch.float64).add_(1)
    return y


@_case
def detach_shares(x):
    y = x.clone()
    y.detach().exp_()
    return y


@_case
def dropout_in_eval_shares(x):
    y = x.clone()
    z = torch.nn.functional.dropout(y, 0.5, False)
    z.add_(1)
    return y, z


@_case
def diagonal_write(x):
    y = x.clone()
    y.diagonal().fill_(9)
    y.diagonal(1).mul_(2)
    return y


@_case
def fill_diagonal(x):
    y = x.clone()
    y.fill_diagonal_(4)
    return y


@_case
def chunk_write(x):
    y = x.clone()
    a, b = y.chunk(2, 1)
    a.relu_()
    b.add_(a)
    return y, a, b


@_case
def split_and_unbind_write(x):
    y = x.clone()
    y.split([1, 2, 3], 1)[1].mul_(2)
    y.unbind(0)[1].add_(1)
    y.tensor_split(3, 1)[2].sub_(1)
    return y


@_case
def list_reread_after_write(x):
    y = x.clone()
    parts = y.split(2, 1)
    y.add_(1)
    return torch.cat(parts, 0)


@_case
def expand_read(x):
    y = x[:1].clone()
    wide = y.expand(3, 6)
    y.mul_(2)
    return wide + 1


@_case
def expand_fill(x):
    y = x[:1].clone()
    y.expand(3, 6).fill_(2.0)
    return y


@_case
def unfold_write(x):
    y = x.clone()
    y.unfold(1, 2, 2)[:, 1:].add_(1)
    y.unfold(1, 3, 1)[:, ::3].mul_(2)
    y[:1].expand(4, 6)[2].sub_(3)
    y.unfold(1, 4, 1)[:, 1].fill_(0.5)
    return y


@_case
def narrow_write(x):
    y = x.clone()
    y.narrow(1, 2, 2).cos_()
    return y


@_case
def as_strided_write(x):
    y = x.clone()
    y.as_strided((2, 3), (6, 1), 1).add_(1)
    return y


@_case
def dtype_view(x):
    y = x.clone()
    bits = y.view(torch.int32)
    bits.bitwise_and_(0x7FFFFFFF)
    return y


@_case
def complex_parts(x):
    z = torch.complex(x, x + 1)
    z.real.mul_(2)
    z.imag.add_(1)
    torch.view_as_real(z)[..., 0].neg_()
    return torch.view_as_real(z)


@_case
def view_as_complex_write(x):
    y = x.reshape(4, 3, 2).clone()
    torch.view_as_complex(y).mul_(2)
    return y


@_case
def copy_into_slice(x):
    y = torch.zeros(4, 6)
    y[:, 2:].copy_(x[:, :4])
    y[0].copy_(y[1])
    return y


@_case
def copy_casts_and_broadcasts(x):
    y = torch.zeros(4, 6, dtype=torch.int64)
    y.copy_(x[0] * 10)
    return y


@_case
def int_add_keeps_dtype(x):
    y = (x * 10).to(torch.int32)
    y.add_(torch.ones(6, dtype=torch.int64))
    y.mul_(torch.tensor(3))
    return y


@_case
def half_add_promoted(x):
    y = x.to(torch.float16)
    y.add_(x)
    return y


@_case
def comparison_in_place(x):
    y = x.clone()
    y.gt_(0.5)
    z = x.clone()
    z.logical_not_()
    return y, z


@_case
def cumsum_in_place(x):
    y = (x * 3).to(torch.int32)
    y.cumsum_(0)
    return y


@_case
def operators_in_place(x):
    y = x.clone()
    y += 1
    y -= x
    y *= 2
    y /= 3
    y **= 2
    y //= 0.25
    y %= 3
    z = x > 0
    z |= x > 1
    z &= x < 2
    z ^= x > 2
    w = torch.arange(6)
    w <<= 1
    w >>= 2
    return y, z, w


@_case
def pow_and_floor_divide_tensors(x):
    y = x.abs() + 1
    y.pow_(x)
    y.floor_divide_(x.abs() + 0.5)
    y.float_power_(2.0) if y.dtype is torch.float64 else None
    return y


@_case
def zero_and_fill_tensor(x):
    y = x.clone()
    y[1].fill_(x[0, 0])
    y[2].zero_()
    return y


@_case
def zero_mask(x):
    m = x > 0
    m[0].zero_()
    m[1] = True
    return m


@_case
def out_variant(x):
    out = torch.empty(4, 6)
    result = torch.add(x, 1, out=out)
    return out, result * 2


@_case
def out_into_slice(x):
    out = torch.zeros(8, 6)
    torch.mul(x, 2, out=out[2:6])
    return out


@_case
def out_of_several(x):
    values, indices = torch.empty(4), torch.empty(4, dtype=torch.long)
    torch.max(x, 1, out=(values, indices))
    return values + 1, indices


@_case
def out_resized(x):
    out = torch.empty(0)
    torch.matmul(x, x.t(), out=out)
    return out


@_case
def foreach(x):
    a, b = x.clone(), x + 1
    torch._foreach_add_([a, b], 1.0)
    torch._foreach_mul_([a, b], [b, b])
    return a, b


@_case
def addmm_and_friends(x):
    y = torch.zeros(4, 4)
    y.addmm_(x, x.t()).addcmul_(y + 1, y + 2, value=0.5).lerp_(torch.ones(4, 4), 0.25)
    return y


@_case
def activations_in_place(x):
    f = torch.nn.functional
    y = x.clone()
    for function in (f.relu_, f.leaky_relu_, f.elu_, f.selu_, f.celu_):
        y = function(y)
    y = f.hardtanh(f.hardswish(f.silu(y, inplace=True), inplace=True), inplace=True)
    y.clamp_(-1, 1).tanh_()
    return f.relu6(y, inplace=True)


@_case
def transposed_in_place(x):
    y = x.clone()
    y.t_()
    y[0].add_(1)
    y.unsqueeze_(0)
    return y * 2


@_case
def loop_filling_rows(x):
    y = torch.zeros(6, 4)
    for i in range(6):
        y[i] = x[:, i] * i
        y[i, 1:3] += y[i - 1, 1:3]
    return y


@_case
def swap_rows(x):
    y = x.clone()
    y[[0, 1]] = y[[1, 0]]
    top = y[2].clone()
    y[2] = y[3]
    y[3] = top
    return y


@_case
def swap_rows_by_alias(x):
    y = x.clone()
    top = y[2]
    y[2] = y[3]
    y[3] = top
    return y


@_case
def broadcast_tensors_share(x):
    y, row = x.clone(), torch.ones(6)
    a, b = torch.broadcast_tensors(y, row)
    a.mul_(2)
    row.add_(1)
    return y, b


@_case
def containers(x):
    state = {"a": x.clone(), "list": [x + 1, x + 2]}
    state["a"].add_(1)
    state["list"][0] = state["list"][1].mul_(2)
    state["list"].append(state["a"][0].neg_())
    return state


@_case
def no_grad_region(x):
    y = x.clone()
    with torch.no_grad():
        y.add_(1)
        z = y[0]
    z.mul_(2)
    return y, z


@_case
def output_is_input_view(x):
    x.add_(1)
    return x.t(), x[0]


@_case
def triu_tril_in_place(x):
    y = x.clone()
    return y.triu_(1), y.clone().tril_()


@_case
def random_in_place_is_pure(x):
    y = x.clone()
    y.uniform_(-0.0, 0.0)
    return y.bernoulli_(0.0)


@_case
def dead_writes(x):
    y = x.clone()
    y.add_(1)
    return x * 2


#: cases whose forward writes four rows, or values of that many
FIXED_ROWS = {
    "scatter_in_place", "setitem_tensor", "copy_into_slice", "copy_casts_and_broadcasts", "addmm_and_friends",
    "loop_filling_rows", "out_variant", "out_into_slice", "out_of_several", "as_strided_write",
    "masked_fill_on_transposed", "swap_rows", "swap_rows_by_alias", "view_of_view", "view_write",
    "permute_write", "movedim_swapaxes_write", "split_and_unbind_write", "view_as_complex_write",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_matches_eager(name: str) -> None:
    check(Model(CASES[name]), (X,), (X * 2 - 1,))


@pytest.mark.parametrize("name", [name for name in CASES if name not in FIXED_ROWS])
def test_matches_eager_with_dynamic_rows(name: str) -> None:
    check(Model(CASES[name]), (X,), (OTHER,), dynamic_shapes={"args": ({0: Dim.DYNAMIC},)})


def _counter(self, x):
    self.count.add_(1)
    self.total += x.sum()
    return x * self.count


def _kv_cache(self, x, position):
    self.cache[:, position] = x
    return self.cache.sum(1)


def _cache_at_tensor_position(self, x, position):
    self.cache.index_copy_(1, position, x[:, None])
    return self.cache * 2


def _cache_slice(self, x):
    self.cache[:, : x.shape[1]] = x
    return self.cache[:, : x.shape[1]].sum()


def _unbacked_position(self, x, position):
    p = position.item()
    torch._check(p >= 0)
    torch._check(p < 8)
    self.cache.narrow(1, p, 1).copy_(x[:, None])
    return self.cache.clone()


def _plain_attribute(self, x):
    self.cache = self.cache + x[:, None]
    return self.cache


BUFFERED = {
    "counter": (_counter, {"count": torch.tensor(0), "total": torch.tensor(0.0)}, (X,)),
    "kv_cache": (_kv_cache, {"cache": torch.zeros(4, 8)}, (X[:, 0], 3)),
    "cache_at_tensor": (_cache_at_tensor_position, {"cache": torch.zeros(4, 8)}, (X[:, 0], torch.tensor([2]))),
    "cache_slice": (_cache_slice, {"cache": torch.zeros(4, 8)}, (X,)),
    "unbacked_position": (_unbacked_position, {"cache": torch.zeros(4, 8)}, (X[:, 0], torch.tensor(5))),
    "reassigned": (_plain_attribute, {"cache": torch.zeros(4, 8)}, (X[:, 0],)),
}


@pytest.mark.parametrize("name", BUFFERED)
@pytest.mark.parametrize("decomposed", [False, True], ids=["training", "decomposed"])
def test_buffers(name: str, decomposed: bool) -> None:
    function, buffers, args = BUFFERED[name]
    functional = check(Model(function, **buffers), args, decomposed=decomposed)
    assert {m.target for m in functional.mutations} == set(buffers)
    assert {m.kind for m in functional.mutations} == {"BUFFER_MUTATION"}


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("decomposed", [False, True], ids=["training", "decomposed"])
def test_batch_norm_in_training(affine: bool, decomposed: bool) -> None:
    model = torch.nn.Sequential(torch.nn.Conv1d(4, 3, 1), torch.nn.BatchNorm1d(3, affine=affine)).train()
    functional = check(model, (X.reshape(2, 4, 3),), decomposed=decomposed)
    names = {m.target for m in functional.mutations}
    assert names == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_batch_norm_without_statistics_or_in_eval_changes_nothing() -> None:
    assert check(torch.nn.BatchNorm1d(4, track_running_stats=False), (X.reshape(2, 4, 3),)).mutations == ()
    assert check(torch.nn.BatchNorm1d(4).eval(), (X.reshape(2, 4, 3),)).mutations == ()


def test_tied_buffers_are_one() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("a", torch.zeros(6))
            self.register_buffer("b", self.a)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.a[1:].add_(1)
            return self.b + x

    functional = check(Tied(), (X,), tied=True)
    assert len(functional.mutations) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_strict_capture(strict: bool) -> None:
    for name in ("augmented_setitem", "two_views_of_one_base", "containers", "reshape_that_copies"):
        check(Model(CASES[name]), (X,), strict=strict)


@_case
def turned_and_broadcast(x):
    y = x.clone()
    wide, turned = torch.broadcast_tensors(y, y[:, :1])[1], torch.einsum("ij->ji", y)
    y.t_().add_(1)
    return wide, turned, y * 2


def _reloaded(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


@pytest.mark.parametrize(
    "name", ["two_views_of_one_base", "reshape_that_copies", "contiguous_of_contiguous", "dropout_in_eval_shares",
             "chunk_write", "to_same_dtype", "turned_and_broadcast", "input_is_written", "list_reread_after_write"],
)  # fmt: skip
def test_loaded_program_has_lost_its_storages(name: str) -> None:
    check(Model(CASES[name]), (X,), reload=_reloaded)
    check(Model(CASES[name]), (X,), (OTHER,), dynamic_shapes={"args": ({0: Dim.DYNAMIC},)}, reload=_reloaded)


def _cond_with_writes_inside(x):
    def yes(x):
        y = x.clone()
        y[0].add_(1)
        return y

    def no(x):
        return (x * 2).relu_()

    z = torch.cond(x.sum() > 0, yes, no, (x,))
    z.add_(1)
    return z


def _write_before_cond(x):
    y = x.clone()
    y[0] = 4
    return torch.cond(y.sum() > 0, lambda x: x + 1, lambda x: x - 1, (y,)) + y


@pytest.mark.parametrize("function", [_cond_with_writes_inside, _write_before_cond])
def test_control_flow(function: Any) -> None:
    check(Model(function), (X,), (-X,))


def test_assertions_are_dropped_and_named() -> None:
    def function(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        k = n.item()
        torch._check(k > 0)
        torch._check(k <= 4)
        return x[:k].to(torch.float64)

    functional = check(Model(function), (X, torch.tensor(2)), (X, torch.tensor(3)))
    assert functional.dropped_assertions
    targets = [str(node.target) for node in functional.graph_module.graph.nodes]
    assert not any("assert" in target or "constrain" in target for target in targets)


def test_a_pure_program_keeps_its_graph() -> None:
    program = torch.export.export(torch.nn.Linear(6, 2), (X,))
    functional = functionalize(program)
    assert functional.graph_module is program.graph_module
    assert [output.kind for output in functional.user_outputs] == ["node"]


def test_constant_outputs() -> None:
    functional = functionalize(torch.export.export(Model(lambda x: (x.add_(1), 3, None)), (X.clone(),)))
    assert [(o.kind, o.arg if o.kind == "constant" else None) for o in functional.user_outputs] == [
        ("node", None), ("constant", 3), ("constant", None),
    ]  # fmt: skip


def test_metadata_is_kept() -> None:
    functional = check(Model(CASES["augmented_setitem"]), (X,))
    for node in functional.graph_module.graph.nodes:
        if node.op == "call_function":
            assert node.meta.get("stack_trace"), node.format_node()
            assert "nn_module_stack" in node.meta


def test_repeated_write_of_augmented_assignment_is_written_once() -> None:
    functional = check(Model(lambda x: _rows(x.clone())), (X,))
    targets = [node.target for node in functional.graph_module.graph.nodes if node.op == "call_function"]
    assert targets.count(aten.select_scatter.default) == 1


def _rows(y: torch.Tensor) -> torch.Tensor:
    y[:, 1] += 2
    return y


def test_custom_operator_that_writes() -> None:
    with torch.library._scoped_library("onnxport_test", "DEF") as library:
        library.define("fill_first(Tensor(a!) x, float value) -> ()")
        library.impl("fill_first", _fill_first_row, "CompositeExplicitAutograd")
        functional = check(Model(_fill_first), (X,))
    targets = [node.target for node in functional.graph_module.graph.nodes]
    assert torch.ops.higher_order.auto_functionalized in targets


def _fill_first_row(x: torch.Tensor, value: float) -> None:
    x[0].fill_(value)


def _fill_first(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    torch.ops.onnxport_test.fill_first(y, 3.0)
    return y * 2


def test_a_write_to_what_overlaps_itself_is_refused() -> None:
    program = torch.export.export(Model(lambda x: x.clone().unfold(0, 2, 1).add_(1)), (X,))
    with pytest.raises(CaptureError, match="several elements of the view are one element"):
        functionalize(program)


def test_fallback_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliasing, "pure_twin", lambda target: None)
    functional = check(Model(CASES["chain_of_in_place"]), (X,), fallback=True)
    assert "no pure operator does the same" in (functional.fallback or "")


@pytest.mark.parametrize("affine", [False, True])
def test_instance_norm_in_training(affine: bool) -> None:
    model = torch.nn.InstanceNorm2d(2, track_running_stats=True, affine=affine, momentum=0.3).train()
    functional = check(model, (X.reshape(3, 2, 2, 2),), (X.reshape(3, 2, 2, 2).exp(),))
    assert {m.target for m in functional.mutations} >= {"running_mean", "running_var"}


def test_functionalize_graph_of_one_node() -> None:
    def function(x: torch.Tensor) -> list[torch.Tensor]:
        y = x.new_zeros(4, 6)
        y[0].copy_(x[1])
        return [y.relu_()]

    with torch._subclasses.FakeTensorMode() as mode:
        graph = make_fx(function)(mode.from_tensor(X))
    pure = functionalize_graph(graph)
    assert write_targets(pure) == []
    torch.testing.assert_close(torch.fx.Interpreter(pure).run(X), function(X))


def test_functionalize_graph_refuses_to_write_inputs() -> None:
    with torch._subclasses.FakeTensorMode() as mode:
        graph = make_fx(lambda x: [x.add_(1)])(mode.from_tensor(X))
    with pytest.raises(Unsupported, match="lies outside"):
        functionalize_graph(graph)


def test_linear_in_the_number_of_writes() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        for i in range(40):
            y[i % 4] += i
        return y

    functional = check(Model(function), (X,))
    assert len(functional.graph_module.graph.nodes) <= 3 * 40 + 4
