"""`out=` that an operator resizes: the tensor has the result's shape from there on, as in eager."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import onnxport
import pytest
import torch
from support import FunctionModule, export_and_compare

AXES = {0: torch.export.Dim("n", min=4, max=64)}
Tensor = torch.Tensor


def empty(a: Tensor) -> Tensor:
    return torch.empty(0)


def empty_view(a: Tensor) -> Tensor:
    return torch.zeros(a.numel() + 1)[1:0]


def empty_view_of_a_view(a: Tensor) -> Tensor:
    return torch.zeros(2, 3).mT[:0].flatten()


def larger(a: Tensor) -> Tensor:
    return torch.zeros(2, 3, 4, 5)


def double(a: Tensor) -> Tensor:
    return torch.empty(0, dtype=torch.float64)


OPERATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, out: torch.add(a, 1, out=out),
    "mul": lambda a, out: torch.mul(a, a, out=out),
    "div": lambda a, out: torch.div(a, 2, out=out),
    "neg": lambda a, out: torch.neg(a, out=out),
    "eq": lambda a, out: torch.eq(a, 0, out=out),
    "clamp": lambda a, out: torch.clamp(a, 0, 1, out=out),
    "sum": lambda a, out: torch.sum(a, 1, out=out),
    "cumsum": lambda a, out: torch.cumsum(a, 0, out=out),
    "cat": lambda a, out: torch.cat([a, a], out=out),
    "stack": lambda a, out: torch.stack([a, a], out=out),
    "matmul": lambda a, out: torch.matmul(a, a.mT, out=out),
    "where": lambda a, out: torch.where(a > 0, a, a * 2, out=out),
    "prod": lambda a, out: torch.prod(a, 1, out=out),
    "arange": lambda a, out: torch.arange(a.shape[0], out=out),
    "full": lambda a, out: torch.full((a.shape[0], 2), 3, out=out),
    "eye": lambda a, out: torch.eye(a.shape[0], out=out),
    "zeros": lambda a, out: torch.zeros(2, a.shape[0], out=out),
}
DYNAMIC = [empty, empty_view, double]
OUTS = [empty, empty_view, empty_view_of_a_view, larger, double]


def takes(operator: Callable[[Tensor, Tensor], Tensor], out: Tensor) -> bool:
    """Whether eager writes the operator's result into a tensor of this dtype."""
    try:
        operator(torch.ones(6, 3), out)
    except RuntimeError:
        return False
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("made", OUTS, ids=lambda made: made.__name__)
def test_a_tensor_of_another_shape(made: Callable[[Tensor], Tensor]) -> None:
    operators = [operator for operator in OPERATORS.values() if takes(operator, made(torch.ones(6, 3)))]
    assert len(operators) > 5

    def forward(a: Tensor) -> list[Tensor]:
        results = []
        for operator in operators:
            out = made(a)
            operator(a, out)
            results += [out, out[1:] * 2]
        return results

    # torch.export asks whether a memory of static size is large enough, which bounds a dynamic size.
    axes, other = ({"args": (AXES,)}, (torch.randn(9, 3),)) if made in DYNAMIC else (None, None)
    # Eager sums in the dtype of out=.
    tolerance = 1e-5 if made is double else None
    export_and_compare(
        forward, (torch.randn(6, 3),), dynamic_shapes=axes, other_args=other, rtol=tolerance, atol=tolerance
    )


@pytest.mark.filterwarnings("ignore")
def test_what_shares_its_memory_and_is_used_later_is_refused() -> None:
    """Eager writes the result into the base from the view's place on."""

    def forward(a: Tensor) -> tuple[Tensor, Tensor]:
        base = torch.zeros(40)
        out = base[1:0]
        torch.mul(a, 2, out=out)
        return out, base

    with pytest.raises(onnxport.CaptureError, match=r"resizes a tensor that shares memory.*give out= a tensor"):
        export_and_compare(forward, (torch.randn(6, 3),))


@pytest.mark.filterwarnings("ignore")
def test_an_operator_that_resizes_what_it_reads_is_refused() -> None:
    """Eager resizes first, and then reads what is left."""

    def forward(a: Tensor) -> Tensor:
        b = a.clone()
        return torch.sum(b, 0, out=b)

    with pytest.raises(onnxport.CaptureError, match="resizes a tensor that shares memory"):
        export_and_compare(forward, (torch.randn(6, 3),))


@pytest.mark.parametrize("value", [0.5, True, 2])
def test_copies_of_numbers(value: float) -> None:
    def forward(a: Tensor) -> tuple[Tensor, Tensor]:
        b = a.clone()
        b[1:].copy_(value)
        c = a.long()
        c.copy_(a.shape[0])
        return b, c

    export_and_compare(forward, (torch.randn(6, 3),), dynamic_shapes={"args": (AXES,)}, other_args=(torch.randn(9, 3),))


RANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "arange": lambda a, out: torch.arange(a.numel(), out=out),
    "linspace": lambda a, out: torch.linspace(0, 1, a.numel(), out=out),
    "a step": lambda a, out: torch.arange(0, 2 * a.numel(), 2, out=out),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_range_keeps_a_shape_of_as_many_elements(name: str) -> None:
    def forward(a: Tensor) -> tuple[Tensor, Tensor]:
        whole = torch.zeros(a.shape, dtype=torch.float64)
        RANGES[name](a, whole)
        view = torch.zeros(a.shape[0], 2, 3)
        RANGES[name](a, view[:, 1])
        return whole, view

    export_and_compare(forward, (torch.randn(6, 3),), dynamic_shapes={"args": (AXES,)}, other_args=(torch.randn(9, 3),))


REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "sum": torch.sum,
    "nansum": torch.nansum,
    "prod": torch.prod,
    "mean": torch.mean,
    "nanmean": torch.nanmean,
    "cumsum": torch.cumsum,
    "cumprod": torch.cumprod,
}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.uint8]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("given", DTYPES[:4], ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_the_dtype_of_out_is_that_of_the_computation(given: torch.dtype, dtype: torch.dtype) -> None:
    """Eager casts the elements first: 1.5 + 1.5 is 2 in an integer tensor."""
    x = (torch.randn(6, 3) * 3).to(given)
    serving = []
    for function in REDUCTIONS.values():
        for is_empty in (True, False):
            try:
                function(x, 0, out=torch.empty(0 if is_empty else function(x.float(), 0).shape, dtype=dtype))
                serving.append((function, is_empty))
            except RuntimeError:  # eager refuses the pair of dtypes
                continue
    assert serving

    def forward(a: Tensor) -> list[Tensor]:
        results = []
        for function, is_empty in serving:
            shape = [0] if is_empty else a.shape if function in (torch.cumsum, torch.cumprod) else a.shape[1:]
            out = torch.empty(shape, dtype=dtype)
            function(a, 0, out=out)
            results.append(out)
        return results

    other = (torch.randn(9, 3) * 3).to(given)
    tolerance = 2e-2 if torch.float16 in (given, dtype) else 1e-5
    axes = {"args": (AXES,)}
    export_and_compare(forward, (x,), dynamic_shapes=axes, other_args=(other,), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int8, torch.float16])
def test_running_sums_in_place_keep_their_dtype(dtype: torch.dtype) -> None:
    def forward(a: Tensor) -> tuple[Tensor, Tensor]:
        b = (a * 5).to(dtype)
        c = b.clone()
        return b.cumsum_(0), c.cumprod_(0)

    export_and_compare(forward, (torch.randn(4, 3),), rtol=1e-2, atol=1e-2)


class Recorded(torch.nn.Module):
    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._forward = forward

    def forward(self, a: Tensor) -> Tensor:
        return self._forward(a)


def comparison_of_a_constant(a: Tensor) -> Tensor:
    two = a.new_tensor(2)
    out = two.new_empty(0)
    torch.gt(two, 0, out=out)
    return out


def range_in_a_shape(a: Tensor) -> Tensor:
    out = torch.zeros(a.shape)
    torch.arange(a.numel(), out=out)
    return out


@pytest.mark.parametrize("forward", [comparison_of_a_constant, range_in_a_shape])
def test_a_shape_that_torch_records_wrong_is_refused(forward: Callable[[Tensor], Tensor]) -> None:
    program = torch.export.export(Recorded(forward), (torch.zeros(2, 3, dtype=torch.uint8),))
    with pytest.raises(onnxport.CaptureError, match="records a shape for its out= tensor that eager doesn't give"):
        onnxport.export(program, verbose=False)


OVERLAPS: dict[str, Callable[[Tensor], object]] = {
    "sum": lambda b: torch.sum(b, 0, out=b[0]),
    "sum of a 0-d tensor": lambda b: torch.sum(b[0, 0], 0, out=b[0, 0]),
    "mean": lambda b: torch.mean(b, 1, out=b[:, 2]),
    "amax": lambda b: torch.amax(b, 0, keepdim=True, out=b[:1]),
    "mm": lambda b: torch.mm(b, b, out=b),
    "mv": lambda b: torch.mv(b, b[0], out=b[0]),
    "addmm": lambda b: torch.addmm(b, b, b, out=b),
    "addmm_": lambda b: b.addmm_(b, torch.ones(4, 4)),
}
IN_PLACE: dict[str, Callable[[Tensor], object]] = {
    "softmax": lambda b: torch.softmax(b, 0, out=b),
    "where": lambda b: torch.where(b > 0, b, b * 2, out=b),
    "cumsum": lambda b: torch.cumsum(b, 0, out=b),
    "tril": lambda b: torch.tril(b, out=b),
    "std": lambda b: torch.std(b, 0, out=b[0]),
    "the sum of addmm": lambda b: torch.addmm(b, torch.ones(4, 4), torch.ones(4, 4), out=b),
    "add": lambda b: torch.add(b, b, out=b),
}


def onto_itself(write: Callable[[Tensor], object]) -> Callable[[Tensor], Tensor]:
    def forward(a: Tensor) -> Tensor:
        b = a.clone()
        write(b)
        return b

    return forward


@pytest.mark.parametrize("name", OVERLAPS)
def test_what_writes_before_it_has_read_is_refused(name: str) -> None:
    with pytest.raises(onnxport.CaptureError, match="reads memory that it writes"):
        onnxport.export(Recorded(onto_itself(OVERLAPS[name])), (torch.randn(4, 4),), verbose=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", IN_PLACE)
def test_what_reads_first_may_write_there(name: str) -> None:
    export_and_compare(onto_itself(IN_PLACE[name]), (torch.randn(4, 4),))


SEVERAL: dict[str, Callable[[Tensor, tuple[Tensor, Tensor]], Sequence[Tensor]]] = {
    "max": lambda a, out: torch.max(a, 1, out=out),
    "min": lambda a, out: torch.min(a, dim=0, keepdim=True, out=out),
    "topk": lambda a, out: torch.topk(a, 2, out=out),
    "sort": lambda a, out: torch.sort(a, dim=0, descending=True, out=out),
    "stable sort": lambda a, out: torch.sort(a, stable=True, dim=1, out=out),
    "kthvalue": lambda a, out: torch.kthvalue(a, 2, out=out),
    "median": lambda a, out: torch.median(a, 1, out=out),
    "mode": lambda a, out: torch.mode(a.round(), 1, out=out),
    "cummax": lambda a, out: torch.cummax(a, 1, out=out),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_results_of_a_dynamic_batch(name: str) -> None:
    """Into empty tensors, some that have another size, some that have the result's, and views."""

    def forward(a: Tensor) -> list[Tensor]:
        shape = SEVERAL[name](a, (torch.empty(0), torch.empty(0, dtype=torch.int64)))[0].shape
        wide = torch.zeros(*shape, 2)
        empty = torch.empty(0), torch.empty(0, dtype=torch.int64)
        larger = torch.ones(3), torch.ones(2, dtype=torch.int64)
        same = torch.empty(shape), torch.empty(shape, dtype=torch.int64)
        views = wide[..., 1], torch.empty(shape, dtype=torch.int64)
        for out in (empty, larger, same, views):
            SEVERAL[name](a, out)
        return [
            *empty,
            *larger,
            *same,
            wide,
            *SEVERAL[name](a + 1, (torch.empty(0), torch.empty(0, dtype=torch.int64))),
        ]

    x, y = torch.randn(5, 4), torch.randn(9, 4)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "An output with one or more elements was resized")
        export_and_compare(forward, (x,), dynamic_shapes=(({0: "n"},),), other_args=(y,))


def test_one_result_whose_kernel_for_shapes_takes_the_size_for_a_number() -> None:
    def forward(a: Tensor) -> list[Tensor]:
        found = torch.empty(0), torch.empty(0), torch.empty(0)
        torch.gather(a, 1, a.argsort(1), out=found[0])
        torch.linalg.norm(a, dim=1, out=found[1])
        torch.linalg.vector_norm(a, 3, dim=0, out=found[2])
        return list(found)

    export_and_compare(forward, (torch.randn(5, 4),), dynamic_shapes=(({0: "n"},),), other_args=(torch.randn(7, 4),))


def test_another_dtype_is_an_error_as_without_an_export() -> None:
    def forward(a: Tensor) -> Tensor:
        values = torch.empty(0, dtype=torch.float64)
        torch.max(a, 1, out=(values, torch.empty(0, dtype=torch.int64)))
        return values

    with pytest.raises(onnxport.CaptureError, match="dtype"):
        onnxport.export(FunctionModule(forward), (torch.randn(5, 4),), dynamic_shapes=(({0: "n"},),))
