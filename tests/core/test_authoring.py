"""Steps that packs import: the cases in which they go beyond what the built-in translations ask of them."""

from __future__ import annotations

import importlib
from typing import Any

import onnxport
import pytest
import torch
from onnxport import DataType, Unsupported, authoring, kit
from onnxport.authoring import choose, filled, iota, static
from onnxport.lazy import homes_in
from support import export_and_compare

ADD = torch.ops.aten.add.Tensor


class Model(torch.nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x) + x


def check(emit: Any, expected: Any, x: torch.Tensor, other: torch.Tensor) -> None:
    """The addition translated by ``emit`` is what the table says, at the example's size and another one."""

    def translated(op: onnxport.Builder, self: onnxport.Tensor, other: onnxport.Tensor, *, alpha: int = 1) -> Any:
        return op.Add(emit(op, other), other)  # in the model, the other operand is its input

    model = Model(expected)
    table = {ADD: translated}
    for dynamic in (None, ({0: "n"},)):
        program = onnxport.export(model.eval(), (x,), dynamic_shapes=dynamic, custom_translation_table=table)
        for given in (x,) if dynamic is None else (x, other):
            torch.testing.assert_close(program(given)[0], model(given))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32, torch.int64])
def test_iota_of_a_dtype(dtype: torch.dtype) -> None:
    x, other = torch.ones(3, dtype=dtype), torch.ones(7, dtype=dtype)
    element = onnxport.onnx_dtype(dtype)

    def count(x: torch.Tensor) -> torch.Tensor:
        return torch.arange(x.shape[0], dtype=dtype)

    check(lambda op, x: iota(op, op.size(x, 0), element), count, x, other)
    check(lambda op, x: iota(op, op.Squeeze(op.Shape(x)), element), count, x, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
def test_filled_by_dims_and_by_a_tensor(dtype: torch.dtype) -> None:
    x, other = torch.ones(2, 3, dtype=dtype), torch.ones(5, 3, dtype=dtype)
    element = onnxport.onnx_dtype(dtype)

    def twos(x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, 2)

    check(lambda op, x: filled(op, x.shape, 2, element), twos, x, other)
    check(lambda op, x: filled(op, x, 2, element), twos, x, other)
    check(lambda op, x: filled(op, op.Compress(op.Reshape(x, [-1, 3]), [True]), 2, element), twos, x[:1], x[:1])


def test_filled_with_a_size() -> None:
    x, other = torch.ones(2, 3), torch.ones(5, 3)
    check(
        lambda op, x: filled(op, x, op.size(x, 0), DataType.FLOAT), lambda x: torch.full_like(x, x.shape[0]), x, other
    )


def test_choose_takes_numbers_for_either() -> None:
    x, other = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([-1.0, 4.0])
    check(lambda op, x: choose(op, op.Less(x, 0), 0.5, x), lambda x: torch.where(x < 0, 0.5, x), x, other)
    check(lambda op, x: choose(op, op.Less(x, 0), x, 0.5), lambda x: torch.where(x < 0, x, 0.5), x, other)


def test_static_refuses_sizes() -> None:
    def refused(op: onnxport.Builder, self: onnxport.Tensor, other: Any, *, alpha: int = 1) -> Any:
        with pytest.raises(Unsupported, match="kernel must be static"):
            static("kernel", op.size(self, 0))
        assert static("kernel", op.size(self, 1), 4) == [3, 4]
        return op.Add(self, other)

    export_and_compare(
        lambda x: x + x, (torch.randn(2, 3),), dynamic_shapes=(({0: "n"},),), custom_translation_table={ADD: refused}
    )


def test_unknown_names() -> None:
    with pytest.raises(AttributeError, match=r"'onnxport.authoring' has no attribute 'nothing'"):
        _ = authoring.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", [onnxport, authoring, kit])
def test_modules_with_a_stub_give_what_it_lists(module: Any) -> None:
    for name, home in homes_in("__init__" if module is onnxport else module.__name__.rpartition(".")[2]).items():
        found = getattr(importlib.import_module(home), name, None) or importlib.import_module(f"{home}.{name}")
        assert getattr(module, name) is found, name


# Sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [2, 4, 9])
def test_the_larger_and_the_smaller_of_sizes(rows: int) -> None:
    """Sizes that are known at run time only are compared there, with each other and with numbers."""

    def translated(op: onnxport.Builder, self: onnxport.Tensor, other: onnxport.Tensor, *, alpha: int = 1) -> Any:
        n, m = op.size(self, 0), op.size(self, 1)
        numbers = [authoring.larger(op, n, 4), authoring.smaller(op, n, 4), authoring.larger(op, n, m),
                   authoring.smaller(op, m, n), authoring.larger(op, 3, 5), authoring.smaller(op, n, n)]  # fmt: skip
        total = op.ReduceSum(op.cast(op.sizes(numbers), DataType.FLOAT))
        flags = [authoring.is_less(op, n, 4), authoring.is_less(op, 4, n), authoring.is_less(op, n, m)]
        assert authoring.is_less(op, 3, 5) is True and authoring.is_less(op, n, n) is False
        for place, flag in enumerate(flags):
            total = op.Add(total, op.Where(flag, 100.0 * 10**place, 0.0))
        return op.Add(op.Mul(self, 0.0), op.Squeeze(total))

    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x

    shapes = ({0: torch.export.Dim("n", min=2), 1: "m"},)
    program = onnxport.export(
        Sum(), (torch.randn(3, 5),), dynamic_shapes=shapes, custom_translation_table={ADD: translated}
    )
    for columns in (3, 6):
        n, m = rows, columns
        expected = max(n, 4) + min(n, 4) + max(n, m) + min(n, m) + 5 + n + 100 * (n < 4) + 1000 * (n > 4)
        expected += 10000 * (n < m)
        torch.testing.assert_close(program(torch.randn(n, m))[0], torch.full((n, m), float(expected)))


def test_a_condition_is_no_python_bool() -> None:
    """``if`` would take one branch for all sizes."""

    def translated(op: onnxport.Builder, self: onnxport.Tensor, other: onnxport.Tensor, *, alpha: int = 1) -> Any:
        return op.Add(self, other) if authoring.is_less(op, op.size(self, 0), 4) else op.Sub(self, other)

    model = Model(torch.relu).eval()
    table = {ADD: translated}
    with pytest.warns(UserWarning, match=r"whether n<4 is known at run time only: write op\.Where or op\.If"):
        onnxport.export(model, (torch.randn(3),), dynamic_shapes=({0: "n"},), custom_translation_table=table)


def test_shapes_and_types_of_foreign_nodes() -> None:
    seen: list[Any] = []

    def translated(op: onnxport.Builder, self: onnxport.Tensor, other: onnxport.Tensor, *, alpha: int = 1) -> Any:
        n = op.size(self, 0)
        seen.append(op.call("com.example", "Alike", op.cast(self, DataType.DOUBLE), like=self))
        seen.append(op.call("com.example", "Two", self, outputs=2, like=self, shapes=[[n * 2, 3], None])[0])
        seen.append(op.call("com.example", "Typed", self, dtypes=[DataType.INT64, torch.bool], shapes=[[n], [4]])[1])
        seen.append(op.call("com.example", "Plain", self))
        return op.Add(self, other)

    program = onnxport.export(
        Model(torch.relu).eval(), (torch.randn(3, 5),), dynamic_shapes=({0: "n"},),
        custom_translation_table={ADD: translated}, optimize=False,
    )  # fmt: skip
    told = [(value.dtype, None if value.shape is None else [str(dim) for dim in value.shape]) for value in seen]
    assert told == [
        (DataType.FLOAT, ["n", "5"]),
        (DataType.FLOAT, ["2*n", "3"]),
        (DataType.BOOL, ["4"]),
        (DataType.FLOAT, None),
    ]
    assert program.model.graph


@pytest.mark.parametrize("shapes", [[], [[1], [2]]])
def test_a_shape_for_each_result(shapes: Any) -> None:
    def translated(op: onnxport.Builder, self: onnxport.Tensor, other: onnxport.Tensor, *, alpha: int = 1) -> Any:
        return op.call("com.example", "One", self, other, shapes=shapes)

    with pytest.raises(onnxport.OnnxExporterError, match=r"One has 1 results?, and shapes="):
        onnxport.export(Model(torch.relu).eval(), (torch.randn(3),), custom_translation_table={ADD: translated})


def test_each_random_node_has_a_seed_of_its_own() -> None:
    seeds: list[Any] = []

    def translated(op: onnxport.Builder, self: onnxport.Tensor, other: onnxport.Tensor, *, alpha: int = 1) -> Any:
        seeds.extend(authoring.seed_of(op, draw) for draw in range(2))
        return op.Add(self, other)

    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + 1.5) + x

    for seed in (None, 7):
        onnxport.export(Twice(), (torch.randn(2),), seed=seed, custom_translation_table={ADD: translated})
    assert seeds[:4] == [None] * 4 and len(set(seeds[4:])) == 4
