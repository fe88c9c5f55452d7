"""The core with the operators alone, and without any plugin."""

from __future__ import annotations

from collections.abc import Iterator

import onnxport
import pytest
import torch
from onnxport.host import discovery
from torch import nn

X = torch.randn(2, 3)


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x).clone()
        y[:, 0] = 0
        return y.relu_()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin with the operators, and none for stages."""
    monkeypatch.setattr(discovery, "STAGE_PACKAGES", ("onnxport_that_is_not_installed",))
    discovery.forget()
    yield
    discovery.forget()


@pytest.mark.usefixtures("alone")
def test_an_export_needs_the_operators_alone() -> None:
    model = Writing().eval()
    program = onnxport.export(model, (X,), plugins=(), dynamic_shapes=({0: "n"},))
    for x in (X, torch.randn(5, 3)):
        torch.testing.assert_close(program(x)[0], model(x))
    assert not onnxport.check(model, (X,), plugins=()).refusals


@pytest.mark.usefixtures("alone")
def test_what_needs_another_plugin_says_so() -> None:
    model = Writing().eval()
    with pytest.raises(onnxport.InputError, match=r"verify=True needs a plugin"):
        onnxport.export(model, (X,), plugins=(), verify=True)
    with pytest.raises(onnxport.InputError, match=r"functions= needs a plugin"):
        onnxport.export(model, (X,), plugins=(), functions=[nn.Linear])


def test_without_any_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "BUILTIN_PACKAGE", "onnxport_that_is_not_installed")
    discovery.forget()
    try:
        with pytest.raises(onnxport.PluginError, match="has the operators, isn't installed"):
            onnxport.export(Writing().eval(), (X,), plugins=())
    finally:
        discovery.forget()
