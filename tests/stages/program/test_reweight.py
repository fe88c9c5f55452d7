"""Weights of a real export: filled in after a fake one, exchanged, refused where constants were made of them."""

from __future__ import annotations

import io

import onnxport
import pytest
import torch
from onnxport.errors import WeightError
from onnxport.host import discovery
from onnxport_workbench.verify import verify
from torch._subclasses.fake_tensor import FakeTensorMode


class Model(torch.nn.Module):
    """A transposed weight, a fused batch norm, an index computed at export."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
        self.conv = torch.nn.Conv1d(4, 4, 3, padding=1)
        self.norm = torch.nn.BatchNorm1d(4)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.register_buffer("index", torch.arange(4))
        self.table = torch.nn.Parameter(torch.randn(9, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(self.linear(x))) + self.table[self.index] + torch.tensor([2.0])


def export(model: torch.nn.Module, x: torch.Tensor, **options):
    return onnxport.export(model, (x,), dynamic_shapes=({0: "batch"},), **options)


@pytest.mark.parametrize("optimize", [True, False])
def test_fake_export_filled_later(optimize: bool) -> None:
    with FakeTensorMode():
        program = export(Model().eval(), torch.randn(3, 4, 8), optimize=optimize)
    with pytest.raises(WeightError, match="has no data"):
        program.save(io.BytesIO())
    program.save(io.BytesIO(), include_initializers=False)
    model = Model().eval()
    state = model.state_dict()
    del state["linear.bias"], state["table"]
    with pytest.raises(WeightError) as caught:
        program.apply_weights(state)
    assert "linear.bias: missing" in str(caught.value) and "table: missing" in str(caught.value)
    program.apply_weights(model.state_dict())
    verify(program, model, (torch.randn(3, 4, 8),)).raise_on_failure()


def test_exchange() -> None:
    model, other = Model().eval(), Model().eval()
    program = export(model, torch.randn(3, 4, 8))
    with pytest.raises(WeightError) as caught:
        program.apply_weights(other.state_dict())
    assert "1 weight doesn't fit" in str(caught.value) and "table: computed into constants at export" in str(
        caught.value
    )
    state = other.state_dict() | {"table": model.table}
    program.apply_weights(state)
    other.load_state_dict(state)
    verify(program, other).raise_on_failure()
    program = export(model, torch.randn(3, 4, 8), optimize=False)
    program.apply_weights(Model().eval().state_dict())
    assert not verify(program, model).passed


def test_small_weights_are_no_constants() -> None:
    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = torch.nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.one

    program = onnxport.export(Small(), (torch.randn(3),))
    program.apply_weights({"one": torch.tensor(5.0)})
    assert program(torch.ones(3))[0].tolist() == [5, 5, 5]


def test_a_plugin_reads_checkpoints_of_its_own(tmp_path) -> None:
    class Reader:
        """Files of ``torch.save``."""

        @onnxport.hookimpl
        def onnxport_checkpoints(self):
            return [lambda path: torch.load(path, weights_only=True) if path.endswith(".pt") else None]

    model = torch.nn.Linear(2, 2)
    program = onnxport.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), plugins=[Reader()])
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    program.apply_weights(tmp_path / "weights.pt")
    torch.testing.assert_close(program(torch.ones(1, 2))[0], model(torch.ones(1, 2)))
    with pytest.raises(WeightError, match=r"neither a \.safetensors file"):
        program.apply_weights(tmp_path / "weights.bin")


def test_no_plugin_reads_checkpoints(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(discovery, "STAGE_PACKAGES", ())
    discovery.forget()
    try:
        program = onnxport.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),), plugins=())
        with pytest.raises(WeightError, match="No plugin reads the checkpoint"):
            program.apply_weights(tmp_path / "weights.safetensors")
    finally:
        discovery.forget()
