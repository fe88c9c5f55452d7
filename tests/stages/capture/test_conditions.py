"""What a capture takes for granted about dynamic sizes: numbers made of them are errors, branches are warned about."""

from __future__ import annotations

import json
import warnings

import onnxport
import pytest
import torch
from onnxport.errors import DynamicShapesError
from support import FunctionModule, export_and_compare

IMAGES = torch.rand(2, 3, 20, 24)
OTHERS = torch.rand(3, 3, 26, 42)
SHAPES = ({0: "batch", 2: "h", 3: "w"},)


class One(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def center(x):
    top, left = int((x.shape[-2] - 10) / 2.0 + 0.5), int((x.shape[-1] - 12) / 2.0 + 0.5)
    return x[..., top : top + 10, left : left + 12]


def test_an_offset_that_int_would_make_a_number_follows_the_size():
    export_and_compare(One(center), (IMAGES,), dynamic_shapes=SHAPES, other_args=(OTHERS,))


def rows(x):
    return torch.stack([x[:, :, i] for i in range(x.shape[2] // 2)])


def test_a_number_made_of_a_dynamic_size_is_an_error_with_its_line():
    with pytest.raises(DynamicShapesError, match=r"\(h // 2\) == 10.*test_conditions.py:[0-9]+: .*for i in range"):
        onnxport.export(One(rows), (IMAGES,), dynamic_shapes=SHAPES)


def test_a_branch_on_sizes_is_told():
    def longer_side(x):
        return x + 1 if x.shape[-1] > x.shape[-2] else x - 1

    with pytest.warns(UserWarning, match=r"right where these hold only:\n +w > h, because of .*x \+ 1 if"):
        export_and_compare(One(longer_side), (IMAGES,), dynamic_shapes=SHAPES, other_args=(OTHERS,))


@pytest.mark.parametrize(
    ("function", "other"),
    [
        (lambda x: x.reshape(x.shape[0], 3, x.shape[2] // 4, 4, -1, 4).amax((3, 5)), torch.rand(3, 3, 28, 40)),
        (lambda x: torch.cat([x, torch.nn.functional.interpolate(x[..., ::2, ::2], scale_factor=2.0)]), OTHERS),
    ],
    ids=["windows", "halved and doubled"],
)
def test_what_leaves_most_sizes_is_taken_in_silence(function, other):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        export_and_compare(One(function), (IMAGES,), dynamic_shapes=SHAPES, other_args=(other,))


def short(x):
    assert x.shape[0] < 10
    return x * 2


def whole(x):
    return x.reshape(-1, 4, 3) if x.shape[0] % 4 == 0 else x


@pytest.mark.parametrize("dim", ["batch", torch.export.Dim("batch"), torch.export.Dim.DYNAMIC], ids=str)
@pytest.mark.parametrize(
    ("function", "condition"),
    [(short, r"{} < 10, because of .*assert x"), (whole, r"\({} % 4\) == 0, because of .* if x")],
)
def test_what_the_models_own_code_asks_of_a_size_is_told(function, condition, dim):
    name = "batch" if dim is not torch.export.Dim.DYNAMIC else r"x.shape\[0\]"
    with pytest.warns(UserWarning, match=condition.format(name)):
        onnxport.export(One(function), (torch.rand(8, 3),), dynamic_shapes=({0: dim},))


def test_a_range_that_the_caller_knows_is_no_news():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        program = onnxport.export(
            One(short), (torch.rand(8, 3),), dynamic_shapes=({0: torch.export.Dim("batch", max=9)},)
        )
    assert list(program.model.graph.inputs[0].shape) == ["batch", 3]


def test_what_operators_ask_of_a_size_is_reported(tmp_path, capsys):
    def rows(x):
        return x.view(-1, 4, x.shape[1])[x.shape[1] :]

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        onnxport.export(
            One(rows),
            (torch.rand(8, 3),),
            dynamic_shapes=({0: "n"},),
            report=True,
            verbose=True,
            artifacts_dir=tmp_path,
        )
    assert "only where ((3*n) % 12) == 0" in capsys.readouterr().out
    (report,) = tmp_path.glob("*.md")
    assert "| ((3*n) % 12) == 0 | an operator |" in report.read_text()


def test_a_sum_that_the_model_makes_something_else_is_an_error():
    class Double(torch.nn.Module):
        def forward(self, x, y):
            return torch.cat([x, x]) + y

    args = torch.rand(2, 3), torch.rand(4, 3)
    with pytest.raises(DynamicShapesError, match=r"Axis 0 of y was asked to be d\+2, but the model makes it 2\*d"):
        onnxport.export(Double(), args, dynamic_shapes=({0: "d"}, {0: "d+2"}))
    export_and_compare(
        Double(), args, dynamic_shapes=({0: "d"}, {0: "2*d"}), other_args=(torch.rand(3, 3), torch.rand(6, 3))
    )


def test_a_sum_that_was_asked_for_holds_of_the_sizes_that_are_tried():
    """No mask is too short, where it was asked to be as long as what it covers; for a mask of its own, that is told."""

    class Masked(torch.nn.Module):
        def forward(self, past, new, mask):
            both = torch.cat([past, new])
            return both if mask.shape[0] > both.shape[0] else both + mask

    args = torch.rand(5), torch.rand(3), torch.rand(8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        program = onnxport.export(Masked(), args, dynamic_shapes=({0: "past"}, {0: "new"}, {0: "past + new"}))
    assert [str(x.shape) for x in program.model.graph.inputs] == ["[past]", "[new]", "[past + new]"]


class Pyramid(torch.nn.Module):
    """Features of three sizes, each from windows over the one before, brought back to the largest one's size."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Conv2d(2, 2, 3, 2, 1) for _ in range(5))

    def down(self, index: int, x: torch.Tensor) -> torch.Tensor:
        return self.layers[index](torch.nn.functional.avg_pool2d(x, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = self.down(2, self.layers[1](self.layers[0](x)))
        middle = self.down(3, large)
        small = torch.nn.functional.interpolate(self.down(4, middle), scale_factor=2.0)
        both = torch.nn.functional.interpolate(torch.cat([small, middle], 1), scale_factor=2.0)
        return torch.cat([both, large], 1)


def test_equations_that_sympy_can_not_solve(tmp_path):
    """``x/8 == 4*(x/4//8)``, as yolov9 asks of its images, is a condition like others."""
    model, x = Pyramid().eval(), torch.rand(1, 2, 64, 64)
    shapes = {"x": {0: "n", 2: "h", 3: "w"}}
    program = onnxport.export(model, (x,), dynamic_shapes=shapes, report=True, artifacts_dir=tmp_path)
    assert str(program.model.graph.inputs[0].shape) == "[n,2,h,w]"
    for size in ((1, 2, 96, 64), (2, 2, 32, 128)):
        other = torch.rand(size)
        torch.testing.assert_close(program(other)[0], model(other), rtol=1e-4, atol=1e-5)
    (report,) = tmp_path.glob("*.json")
    conditions = json.loads(report.read_text())["conditions_on_sizes"]
    assert any("==" in condition and "h" in condition for condition in conditions)


@pytest.mark.parametrize(("height", "other"), [(8, 16), (5, 10), (16, 8), (4, 12), (12, 4), (6, 9), (7, 7), (2, 10)])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_a_quotient_of_two_sizes_that_became_a_number(height: int, other: int, is_reversed: bool) -> None:
    """The condition holds wherever the sizes have the example's ratio: at none of the sizes that it is tried with."""

    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        first, second = (y, x) if is_reversed else (x, y)
        return torch.nn.functional.interpolate(x, scale_factor=second.shape[2] / first.shape[2])

    args = torch.randn(1, 2, height, 8), torch.randn(1, 2, other, 8)
    with pytest.raises(onnxport.DynamicShapesError, match=r"test_conditions\.py:\d+: .*scale_factor"):
        onnxport.export(FunctionModule(forward), args, dynamic_shapes={"args": ({2: "height"}, {2: "other"})})
