"""Writes into slices that are empty, inverted or cut short by the size at hand: the shape stays, as in eager."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import onnxport
import onnxruntime
import pytest
import torch
from support import expect_equal

Tensor = torch.Tensor
N = "y.shape[0]"
SLICES = (
    "-3:0", "3:1", ":0", "0:0", "-1:0", "-2:-4", "-40:-20", "40:50", "-40:2", "2:40", "2:-2", ":-3", "-3:", "-3:-1",
    ":4", "1:-1", "-40:-1", "-1:", ":1", "-3:2", "-3:y.shape[1] - 2", f"{N}//2:", f"{N}//2:-1", f"{N}//2:{N}//3",
    f"{N}-3:", f"{N}-3:{N}-1", f":{N}-3", f"{N}-3:2", f"{N}:", f"2:{N}-2", f"{N}-4:-2", f"{N}-10:{N}-5", f"-2:{N}-1",
    "::2", "1::2", "-3::2", ":-3:2", "6:2:2", f"3:{N}:3", "-4:-1:2", "40::3",
)  # fmt: skip
STATEMENTS = {
    "a number": "y[{0}] = 7.0",
    "a row": "y[{0}] = row",
    "its own content": "y[{0}] = y[{0}] * 2 + 1",
    "in place": "y[{0}].add_(1)",
    "filled": "y[{0}].fill_(5)",
    "a part of it": "y[{0}][:, 0] = 3.0",
    "a transposed view": "y.T[:, {0}] = 7.0",
    "scattered": "y.copy_(torch.slice_scatter(y, y[{0}] * 3, 0, *bounds))",
}


class Writes(torch.nn.Module):
    """A result for each write, which is done to a copy of the input."""

    def __init__(self, writes: Iterable[Callable[..., Any]]) -> None:
        super().__init__()
        self.writes = list(writes)

    def forward(self, x: Tensor, k: Tensor) -> tuple[Tensor, ...]:
        results = []
        for write in self.writes:
            y = x * 1
            write(y, k)
            results.append(y)
        return (*results, k + 0)


def _statement(text: str, part: str) -> Callable[..., Any]:
    code = compile(text.format(part), text, "exec")
    ends = [end if end else None for end in (*part.split(":"), "")]
    bounds = compile("[" + ", ".join(str(end) for end in ends[: 2 if ends[2] is None else 3]) + "]", part, "eval")

    def write(y: Tensor, k: Tensor) -> None:
        exec(code, {"y": y, "row": k[0], "torch": torch, "bounds": eval(bounds, {"y": y})})

    return write


def _session(program: onnxport.ONNXProgram) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _expect(session: onnxruntime.InferenceSession, model: Writes, names: list[str], n: int, k: int) -> None:
    x, other = torch.rand(n, 2), torch.rand(k, 2)
    given = {"x": x.numpy(), "k": other.numpy()}
    got = session.run(None, {value.name: given[value.name] for value in session.get_inputs()})
    wrong = []
    for name, value, expected in zip([*names, "k"], got, model(x, other), strict=True):
        try:
            expect_equal(torch.from_numpy(value), expected)
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
    assert not wrong, f"n = {n}, k = {k}: " + "\n".join(wrong)


def _expect_at_sizes(kind: str, slices: list[str], sizes: Iterable[int]) -> None:
    model = Writes(_statement(STATEMENTS[kind], part) for part in slices)
    args = torch.rand(9, 2), torch.rand(3, 2)
    session = _session(onnxport.export(model, args, dynamic_shapes=({0: "n"}, {0: "k"})))
    for n in sizes:
        _expect(session, model, slices, n, 3)


@pytest.mark.parametrize("kind", ["a number", "a row", "filled"])
def test_the_shape_stays_at_every_size(kind: str) -> None:
    _expect_at_sizes(kind, list(SLICES), range(1 if kind == "filled" else 0, 13))


@pytest.mark.parametrize("kind", sorted({*STATEMENTS} - {"a number", "a row", "filled"}))
def test_what_is_read_is_written(kind: str) -> None:
    """From the size on from which torch.export's assumptions hold for all of these slices."""
    _expect_at_sizes(kind, [part for part in SLICES if part != f"{N}-10:{N}-5"], (7, 8, 12))


def test_what_is_read_is_written_at_small_sizes() -> None:
    slices = ["-3:0", ":0", "0:0", "-1:0", "-2:-4", "-40:-20", "40:50", "-40:2", "-1:", ":1", f"{N}:", "40::3"]
    for kind in ("its own content", "in place"):
        _expect_at_sizes(kind, slices, range(1, 6))


@pytest.mark.parametrize("n", [0, 5])
@pytest.mark.parametrize("kind", ["a row", "in place"])
def test_static_sizes(kind: str, n: int) -> None:
    model = Writes(_statement(STATEMENTS[kind], part) for part in SLICES)
    _expect(_session(onnxport.export(model, (torch.rand(n, 2), torch.rand(3, 2)))), model, list(SLICES), n, 3)


VIEWS: Mapping[str, Callable[[Tensor, Tensor], Any]] = {
    "narrow to nothing": lambda y, k: y.narrow(0, 1, 0).fill_(5),
    "narrow from the end": lambda y, k: y.narrow(0, -3, 3).mul_(5),
    "narrow to nothing from the end": lambda y, k: y.narrow(0, -3, 0).fill_(5),
    "narrow by a size": lambda y, k: y.narrow(0, 2, k.shape[0]).mul_(5),
    "narrow by a size from the end": lambda y, k: y.narrow(0, -4, k.shape[0]).mul_(5),
    "narrow at a size": lambda y, k: y.narrow(0, y.shape[0] - k.shape[0], k.shape[0]).fill_(5),
    "narrow at a size from the end": lambda y, k: y.narrow(0, -k.shape[0], k.shape[0]).add_(5),
    "one row at a size from the end": lambda y, k: y.narrow(0, -k.shape[0], 1).fill_(5),
    "narrow at a tensor": lambda y, k: y.narrow(0, torch.tensor(-2), 2).mul_(5),
    "read at a size from the end": lambda y, k: y.add_(y.narrow(0, -k.shape[0], k.shape[0]).sum()),
    "from a size to the end": lambda y, k: y[k.shape[0] :].fill_(5),
    "from a size from the end": lambda y, k: y[-k.shape[0] :].fill_(5),
    "to a size from the end": lambda y, k: y[: -k.shape[0]].add_(5),
    "between sizes": lambda y, k: y[k.shape[0] : -k.shape[0]].fill_(5),
    "between sizes in place": lambda y, k: y[k.shape[0] : -k.shape[0]].add_(5),
    "between sizes that cross": lambda y, k: y[2 * k.shape[0] : k.shape[0]].fill_(5),
    "between sizes that cross in place": lambda y, k: y[2 * k.shape[0] : k.shape[0]].add_(5),
    "in steps of a size": lambda y, k: y[1 :: k.shape[0]].add_(5),
    "filled in steps of a size": lambda y, k: y[1 :: k.shape[0]].fill_(5),
    "one at a size": lambda y, k: y[k.shape[0]].add_(5),
    "one from the end": lambda y, k: y[-k.shape[0]].fill_(5),
    "one at a difference": lambda y, k: y[k.shape[0] - y.shape[0]].fill_(5),
    "a column at a difference": lambda y, k: y.T[:, k.shape[0] - y.shape[0]].add_(5),
    "the first of a slice": lambda y, k: y[-3:-1][:1].add_(3),
    "the last of a slice": lambda y, k: y[1:][-1].fill_(3),
    "a copy": lambda y, k: y[-k.shape[0] :].copy_(k),
    "a transposed copy": lambda y, k: y[1:].T.copy_(y[:1].T),
    "a part of a split": lambda y, k: y.split([1, y.shape[0] - 1])[1].fill_(3),
    "a part between places": lambda y, k: y.tensor_split((1, 3))[1].fill_(3),
    "a part between places that cross": lambda y, k: y.tensor_split((3, 1))[1].fill_(3),
    "the part behind places that cross": lambda y, k: y.tensor_split((3, 1))[2].mul_(3),
    "a part between places from the end": lambda y, k: y.tensor_split((-2, 1))[1].fill_(3),
    "a part between places of a tensor": lambda y, k: y.tensor_split(torch.tensor([3, 1]))[2].mul_(3),
    "a part of columns": lambda y, k: y.hsplit((1, 0))[2].mul_(3),
    "a part of rows": lambda y, k: y.vsplit((2, 1))[2].mul_(3),
    "a diagonal": lambda y, k: y.diagonal().fill_(5),
    "a diagonal beside": lambda y, k: y.diagonal(1).add_(5),
    "a diagonal below": lambda y, k: y.diagonal(-1).add_(5),
    "a diagonal outside": lambda y, k: y.diagonal(5).add_(5),
    "a diagonal above": lambda y, k: y.diagonal(2).fill_(5),
    "a diagonal scattered": lambda y, k: y.copy_(torch.diagonal_scatter(y, y.diagonal(1) * 2, 1)),
    "a row scattered": lambda y, k: y.copy_(torch.select_scatter(y, k[0], 0, -k.shape[0])),
    "an empty index": lambda y, k: y.index_put_((torch.zeros(0, dtype=torch.int64),), torch.tensor(3.0)),
    "an empty index added": lambda y, k: y.index_add_(0, torch.zeros(0, dtype=torch.int64), k[:0]),
    "a mask of a slice": lambda y, k: y[1:-1].__setitem__(y[1:-1] > 0.5, 3.0),
}


@pytest.mark.parametrize("start", range(0, len(VIEWS), 12))
def test_other_views(start: int) -> None:
    names = list(VIEWS)[start : start + 12]
    model = Writes(VIEWS[name] for name in names)
    args = torch.rand(9, 2), torch.rand(3, 2)
    session = _session(onnxport.export(model, args, dynamic_shapes=({0: "n"}, {0: "k"})))
    for n, k in [(4, 1), (5, 3), (6, 4), (7, 2), (9, 4)]:
        _expect(session, model, names, n, k)


def test_a_buffer_and_an_input() -> None:
    class Kept(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kept", torch.zeros(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            self.kept[-3 : x.shape[1] - 3] = x.sum()
            self.kept[3:1].add_(x.sum())
            x[-3:0] = 7.0
            x[2:-2] += 1
            return x * 2

    model = Kept()
    program = onnxport.export(model, (torch.rand(6, 2),), dynamic_shapes=({0: "n"},))
    for n in (3, 4, 5, 9):
        eager, x = Kept(), torch.rand(n, 2)
        given = x.clone()
        expected = eager(x)
        values = dict(zip([output.name for output in program.model.graph.outputs], program.run((given,)), strict=True))
        for name, value in {"mul": expected, "kept": eager.kept, "x": x}.items():
            found = [v for key, v in values.items() if key.split("_out")[0].startswith(name)]
            expect_equal(found[0], value)
