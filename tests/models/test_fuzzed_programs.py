"""Random programs of views and writes: what they return, and what becomes of inputs and buffers, is what eager gives.

A program is a list of steps, each of which adds a view, a new tensor, or a write to any tensor that there is, so that
views of views outlive the writes. It runs at the sizes of the example and at two others, one of them 1. A second trace
is never needed. torch.export can't capture all of them, and writes to what overlaps itself are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import onnxport
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import expect_equal
from torch import nn

_TARGET = "pkg.torch.export.graph_signature.OutputSpec.target"
Tensor = torch.Tensor
DTYPES = [torch.float32, torch.float32, torch.int64, torch.float64, torch.complex64]
SHAPES = [("n", 4, 3), (2, "n", 3), ("n", 2, 2), (4, "n"), ("n",)]
SIZES = (6, 3, 1)
DONE: Counter[str] = Counter()

VIEWS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "slice": lambda t, a, b: t[a:],
    "step": lambda t, a, b: t[..., :: b % 3 + 1],
    "inner": lambda t, a, b: t[:, a:-1],
    "row": lambda t, a, b: t[-1],
    "column": lambda t, a, b: t[:, a],
    "new axis": lambda t, a, b: t[None, :, None],
    "transpose": lambda t, a, b: t.transpose(a, -1),
    "turned": lambda t, a, b: t.mT,
    "permute": lambda t, a, b: t.permute(*range(1, t.dim()), 0),
    "flat": lambda t, a, b: t.view(-1),
    "reshape": lambda t, a, b: t.reshape(-1, t.shape[-1]),
    "flatten": lambda t, a, b: t.flatten(a),
    "unflatten": lambda t, a, b: t.unflatten(a, (2, -1)),
    "unsqueeze": lambda t, a, b: t.unsqueeze(a),
    "expand": lambda t, a, b: t.unsqueeze(0).expand(2, *t.shape),
    "one of expand": lambda t, a, b: t.expand(3, *t.shape)[b % 3],
    "windows": lambda t, a, b: t.unfold(a, 2, b % 3 + 1),
    "diagonal": lambda t, a, b: t.diagonal(b % 3 - 1, a, -1),
    "movedim": lambda t, a, b: t.movedim(a, -1),
    "narrow": lambda t, a, b: t.narrow(a, b % 2, 1),
    "split": lambda t, a, b: t.split([1, t.shape[a] - 1], a)[b % 2],
    "unbind": lambda t, a, b: t.unbind(a)[b % 2],
    "strided": lambda t, a, b: t.as_strided((2, 2), (1, b % 3 + 1), a),
    "part": lambda t, a, b: (t.real, t.imag)[b % 2] if t.is_complex() else t.detach(),
    "pairs": lambda t, a, b: torch.view_as_real(t) if t.is_complex() else t.contiguous(),
    "broadcast": lambda t, a, b: torch.broadcast_tensors(t, t[..., :1])[b % 2],
    "deep": lambda t, a, b: t.detach()[...].to(t.dtype).view_as(t),
}
NEW: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "clone": lambda t, a, b: t.clone(),
    "sum": lambda t, a, b: t + t.flip(0),
    "zeros": lambda t, a, b: torch.zeros_like(t),
    "mask": lambda t, a, b: (t != b).to(t.dtype),
    "stack": lambda t, a, b: torch.stack([t, t * 2])[b % 2],
}
WRITES: dict[str, Callable[[Tensor, Tensor, int, int], Any]] = {
    "add": lambda t, o, a, b: t.add_(b),
    "multiply": lambda t, o, a, b: t.mul_(-1),
    "augmented": lambda t, o, a, b: t.__iadd__(o),
    "copy": lambda t, o, a, b: t.copy_(o),
    "fill": lambda t, o, a, b: t.fill_(b),
    "zero": lambda t, o, a, b: t[a:].zero_(),
    "assign": lambda t, o, a, b: t.__setitem__(slice(a, None), o),
    "assign a column": lambda t, o, a, b: t.__setitem__((slice(None), a), b),
    "add to a part": lambda t, o, a, b: t[..., a:].add_(b),
    "where positive": lambda t, o, a, b: t.masked_fill_(t.abs() > 2, b),
    "by mask": lambda t, o, a, b: t.__setitem__(t.abs() > 1, b),
    "put": lambda t, o, a, b: t.index_put_((torch.tensor([0]),), torch.tensor(b).to(t.dtype)),
    "accumulate": lambda t, o, a, b: t.index_put_((torch.tensor([0, 0]),), torch.tensor(b).to(t.dtype), True),
    "index add": lambda t, o, a, b: t.index_add_(0, torch.tensor([0, 0]), torch.stack([t[-1], t[0]])),
    "index copy": lambda t, o, a, b: t.index_copy_(0, torch.tensor([0]), t[-1:] * 2),
    "scatter": lambda t, o, a, b: t.scatter_(-1, torch.zeros_like(t, dtype=torch.int64)[..., :1], b),
    "scatter add": lambda t, o, a, b: t.scatter_add_(0, torch.zeros_like(t, dtype=torch.int64), t.clone()),
    "out": lambda t, o, a, b: torch.add(t, b, out=t),
    "foreach": lambda t, o, a, b: torch._foreach_add_([t, t[a:]], b),
    "diagonal": lambda t, o, a, b: t.diagonal(0, 0, -1).add_(b),
    "unbound": lambda t, o, a, b: [part.mul_(i) for i, part in enumerate(t.unbind(-1))],
    "negate": lambda t, o, a, b: t.neg_(),
}


class Step(NamedTuple):
    """`first` and `second` choose among the tensors that there are."""

    name: str
    first: int
    second: int
    a: int
    b: int


class Program(nn.Module):
    """Two inputs and a buffer, changed step by step; returns some of the tensors."""

    def __init__(self, steps: list[Step], returned: list[int], buffer: Tensor) -> None:
        super().__init__()
        self.steps, self.returned = steps, returned
        self.register_buffer("kept", buffer.clone())

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        made = [x, y, self.kept]
        for step in self.steps:
            take(made, step)
        return tuple(made[i % len(made)] for i in self.returned)


def take(made: list[Tensor], step: Step) -> None:
    """One step; a view or a new tensor is appended."""
    target, other = made[step.first % len(made)], made[step.second % len(made)]
    if step.name in WRITES:
        WRITES[step.name](target, other.clone(), step.a, step.b)
    else:
        made.append((VIEWS.get(step.name) or NEW[step.name])(target, step.a, step.b))


def possible(steps: list[Step], runs: list[list[Tensor]]) -> list[Step]:
    """The steps that eager takes at all sizes, that change no rank from size to size, and whose numbers stay small."""
    kept: list[Step] = []
    for step in steps:
        tried = [[tensor.clone() for tensor in run] for run in runs]
        try:
            for made in tried:
                for earlier in (*kept, step):
                    take(made, earlier)
        except (RuntimeError, IndexError, TypeError, ValueError):
            continue
        tensors = [tensor for made in tried for tensor in made]
        if len({tuple(t.dim() for t in made) for made in tried}) == 1 and all(
            t.numel() < 300 and (t.numel() == 0 or t.abs().max() < 1e4) for t in tensors
        ):
            kept.append(step)
    return kept


def example(shape: tuple[Any, ...], n: int, dtype: torch.dtype, seed: int) -> Tensor:
    sizes = [n if size == "n" else size for size in shape]
    values = torch.randint(-4, 5, sizes, generator=torch.Generator().manual_seed(seed))
    return torch.complex(values.float(), values.flip(0).float()) if dtype.is_complex else values.to(dtype)


names = st.sampled_from([*VIEWS, *VIEWS, *WRITES, *WRITES, *NEW])
indices = st.integers(0, 30)
steps_of = st.lists(
    st.builds(Step, names, indices, indices, st.integers(0, 1), st.integers(-2, 3)), min_size=6, max_size=14
)
programs = st.tuples(
    steps_of,
    st.lists(indices, min_size=1, max_size=4),
    st.sampled_from(DTYPES),
    st.tuples(st.sampled_from(SHAPES), st.sampled_from(SHAPES)),
    st.booleans(),
)


def accepts(program: onnxport.ONNXProgram, args: tuple[Tensor, ...]) -> bool:
    """Whether what torch captured takes these sizes; not those that the model's own slices exclude."""
    try:
        with torch.no_grad():
            program.exported_program.module()(*(arg.clone() for arg in args))
    except (RuntimeError, AssertionError, IndexError):
        return False
    return True


def same_as_eager(drawn: tuple[Any, ...]) -> None:
    steps, returned, dtype, shapes, dynamic = drawn
    sizes = SIZES if dynamic else SIZES[:1]
    inputs = [tuple(example(shape, n, dtype, i) for i, shape in enumerate(shapes)) for n in sizes]
    buffer = example((4, 3), 0, dtype, 2)
    model = Program(possible(steps, [[*args, buffer] for args in inputs]), returned, buffer)
    axes = tuple({i: torch.export.Dim.DYNAMIC for i, size in enumerate(shape) if size == "n"} for shape in shapes)
    try:
        copies = tuple(arg.clone() for arg in inputs[0])
        program = onnxport.export(model, copies, dynamic_shapes=axes if dynamic else None)
    except onnxport.DynamicShapesError:
        DONE["shapes"] += 1
        return
    except onnxport.OnnxExporterError as error:
        message = str(error)
        known = ("torch.export can't capture", "several elements of the view", "outside the tensor it is called on")
        assert any(text in message for text in known), message
        DONE["refused"] += 1
        return
    DONE["exported"] += 1
    for args in inputs:
        eager, given_args = Program(model.steps, returned, buffer), tuple(arg.clone() for arg in args)
        expected = [value.clone() for value in eager(*given_args)]
        if args is not inputs[0] and not accepts(program, args):
            continue
        values = program.run(tuple(arg.clone() for arg in args))
        changed = {"x": args[0], "y": args[1], "kept": buffer}
        outputs = list(zip(program.model.graph.outputs, values))
        changed.update({o.metadata_props[_TARGET]: v for o, v in outputs if _TARGET in o.metadata_props})
        user = [value for output, value in outputs if _TARGET not in output.metadata_props]
        after = dict(zip(("x", "y", "kept"), (*given_args, eager.kept)))
        for name, value in after.items():
            expect_equal(changed[name], value)
        assert len(user) == len(expected)
        for got, want in zip(user, expected):
            expect_equal(got, want)


def check_programs(count: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    quiet = settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=checks)
    DONE.clear()
    quiet(given(programs)(same_as_eager))()
    assert DONE["exported"] > 0.6 * sum(DONE.values()), DONE


@pytest.fixture(autouse=True)
def _no_second_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: torch.export.ExportedProgram, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("traced a second time")

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", refuse)


@pytest.mark.filterwarnings("ignore")
def test_random_programs() -> None:
    check_programs(40)


@pytest.mark.grid
@pytest.mark.filterwarnings("ignore")
def test_many_random_programs() -> None:
    check_programs(1500)
