"""Derivatives and transforms in forward that torch.export captures below autograd only; operators stay whole in it."""

from __future__ import annotations

from typing import Any

import onnxport
import pytest
import torch
from support import export_and_compare, op_types

ROWS = ({0: torch.export.Dim.DYNAMIC},)


@torch.library.triton_op("onnxport_test::kernel", mutates_args=())
def kernel(x: torch.Tensor) -> torch.Tensor:
    return x.sin() * 3


def translated(op: Any, x: Any) -> Any:
    return op.Mul(op.Sin(x), 3.0)


class Energy(torch.nn.Module):
    """The energy of a set of points, and the forces on them."""

    def __init__(self, with_kernel: bool = False) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 1))
        self.with_kernel = with_kernel

    def forward(self, points: torch.Tensor) -> Any:
        with torch.enable_grad():
            places = points.detach().requires_grad_(True)
            distances = (places[:, None] - places[None]).square().sum(-1) + 1
            energy = self.network(places).sum() + distances.log().sum()
            forces = -torch.autograd.grad(energy, places)[0]
        if self.with_kernel:
            forces = torch.ops.onnxport_test.kernel(forces)
        return energy.detach(), forces


def test_forces_at_two_sizes() -> None:
    export_and_compare(Energy(), (torch.randn(4, 3),), dynamic_shapes=ROWS, other_args=(torch.randn(7, 3),))


def test_gradients_of_rows_in_a_branch() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        rows = torch.vmap(torch.func.grad(lambda row: (row**3).sum()))
        return torch.cond(x.sum() > 0, rows, lambda x: x - 1.0, (x,))

    x, other = torch.rand(4, 3), -torch.rand(6, 3)
    export_and_compare(function, (x,), dynamic_shapes=ROWS, other_args=(other,))


def test_kernels_are_translated_or_refused_but_not_decomposed() -> None:
    table = {torch.ops.onnxport_test.kernel.default: translated}
    model, args = Energy(with_kernel=True), (torch.randn(4, 3),)
    assert "Sin" in op_types(export_and_compare(model, args, custom_translation_table=table))
    with pytest.raises(
        onnxport.UnsupportedOperatorsError, match=r"onnxport_test::kernel[\s\S]*custom_translation_table"
    ):
        onnxport.export(model.eval(), args)


def test_other_failures_are_tried_as_before() -> None:
    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if bool(x.sum() > 0) else x - 1

    with pytest.raises(onnxport.CaptureError) as caught:
        onnxport.export(Branching(), (torch.ones(3),))
    assert "below autograd" not in str(caught.value)


def test_integers_between_two_bounds() -> None:
    drawn = onnxport.export(
        _function(lambda x: (x.clone().random_(2, 9), x.long().random_(2, 9))), (torch.zeros(40, 50),), seed=1
    )(torch.zeros(40, 50))
    for values, dtype in zip(drawn, (torch.float32, torch.int64)):
        assert values.dtype is dtype
        assert sorted(values.unique().tolist()) == list(range(2, 9))


def _function(function: Any) -> torch.nn.Module:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return function(x)

    return Model().eval()
