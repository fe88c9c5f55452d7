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
    table = {torch.ops.aten.relu_.default: lambda x: x}
    with pytest.raises(onnxport.TableError, match=r"isn't op, and no plugin adapts such functions"):
        onnxport.export(model, (X,), plugins=(), custom_translation_table=table)


@pytest.mark.usefixtures("alone")
def test_a_plugin_adapts_what_it_knows_and_nothing_else() -> None:
    class Formula:
        """A unary operator by its ONNX name."""

        def __init__(self, name: str) -> None:
            self.name = name

    class Adapter:
        @onnxport.hookimpl
        def onnxport_adapt(self, function: object) -> onnxport.Translation | None:
            if not isinstance(function, Formula):
                return None
            return onnxport.Translation("formula::any", lambda op, self: getattr(op, function.name)(self))

    class Tanh(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.tanh()

    tanh = torch.ops.aten.tanh.default
    program = onnxport.export(Tanh(), (X,), plugins=[Adapter()], custom_translation_table={tanh: Formula("Sin")})
    torch.testing.assert_close(program(X)[0], X.sin())
    with pytest.raises(onnxport.TableError, match="which is no function"):
        onnxport.export(Tanh(), (X,), plugins=[Adapter()], custom_translation_table={tanh: 3})


@pytest.mark.usefixtures("alone")
def test_an_adapter_that_fails_or_returns_something_else_is_left_out() -> None:
    class Raises:
        @onnxport.hookimpl
        def onnxport_adapt(self, function: object) -> onnxport.Translation | None:
            raise RuntimeError("not ready")

    class Wrong:
        @onnxport.hookimpl
        def onnxport_adapt(self, function: object) -> object:
            return function

    def tanh(op: onnxport.Builder, self: onnxport.Tensor) -> onnxport.Tensor:
        return op.Sin(self)

    model = nn.Tanh()
    for adapter in (Raises(), Wrong()):
        program = onnxport.export(
            model, (X,), plugins=[adapter], custom_translation_table={torch.ops.aten.tanh.default: tanh}
        )
        torch.testing.assert_close(program(X)[0], X.sin())
        assert "onnxport_adapt failed" in discovery.load([adapter]).failures[0].error


def test_without_any_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "BUILTIN_PACKAGE", "onnxport_that_is_not_installed")
    discovery.forget()
    try:
        with pytest.raises(onnxport.PluginError, match="has the operators, isn't installed"):
            onnxport.export(Writing().eval(), (X,), plugins=())
    finally:
        discovery.forget()
