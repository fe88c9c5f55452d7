"""apply_weights tells all weights that a state dict lacks in one error; strict=False keeps what the program has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

X = torch.randn(2, 3)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()


class Mixed(nn.Module):
    """Tied, unused, folded and non-persistent ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.unused = nn.Parameter(torch.ones(5))
        self.scale = nn.Parameter(torch.randn(3))
        self.register_buffer("kept", torch.randn(3))
        self.register_buffer("offset", torch.randn(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)) * (self.scale * 2) + self.kept + self.offset * torch.tensor([1.0, 2.0, 3.0])


def names_of(program: onnxport.ONNXProgram, weights: Any) -> list[str]:
    """The names that the error has."""
    before = {name: value.const_value for name, value in program.model.graph.initializers.items()}
    with pytest.raises(onnxport.WeightError) as caught:
        program.apply_weights(weights)
    assert all(f"{name}: missing" in str(caught.value) for name in caught.value.names)
    assert "strict=False" in str(caught.value)
    assert before == {name: value.const_value for name, value in program.model.graph.initializers.items()}
    return list(caught.value.names)


@pytest.mark.parametrize("optimize", [True, False])
def test_of_a_program(optimize: bool) -> None:
    model, other = net(), net()
    program = onnxport.export(model, (X,), optimize=optimize)
    state = other.state_dict()
    used = [name for name in state if name != "1.num_batches_tracked"]
    assert sorted(names_of(program, {})) == sorted(used)
    assert sorted(names_of(program, {name: state[name] for name in used[2:]})) == ["0.bias", "0.weight"]
    program.apply_weights(state)
    torch.testing.assert_close(program(X)[0], other(X))
    program.apply_weights({name: model.state_dict()[name] for name in ("3.weight", "3.bias")}, strict=False)
    expected = nn.Sequential(*other[:3], model[3])
    torch.testing.assert_close(program(X)[0], expected(X))
    program.apply_weights({}, strict=False)
    torch.testing.assert_close(program(X)[0], expected(X))


def test_what_a_state_dict_need_not_have() -> None:
    model = Mixed().eval()
    state = model.state_dict()
    for optimize in (True, False):
        program = onnxport.export(model, (X,), optimize=optimize)
        program.apply_weights(state)
        for name in ("unused", "second.weight"):  # the graph doesn't use it; it is tied to one that is given
            program.apply_weights({key: value for key, value in state.items() if key != name})
        program.apply_weights({key: value for key, value in state.items() if key != "first.weight"})
        without = {key: value for key, value in state.items() if key not in ("first.weight", "second.weight", "kept")}
        assert sorted(names_of(program, without)) == ["first.weight", "kept"]
        assert names_of(program, {key: value for key, value in state.items() if key != "scale"}) == ["scale"]
        torch.testing.assert_close(program(X)[0], model(X))


def test_a_fake_export_filled_in_parts(tmp_path: Path) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        program = onnxport.export(net(), (torch.randn(2, 3),))
    model = net()
    state = dict(model.state_dict())
    used = [name for name in state if name != "1.num_batches_tracked"]
    assert sorted(names_of(program, {})) == sorted(used)
    for i, names in enumerate((used[:3], used[3:])):
        save_file({name: state[name] for name in names}, tmp_path / f"{i}.safetensors")
        with pytest.raises(onnxport.WeightError, match="missing"):
            program.apply_weights(tmp_path / f"{i}.safetensors")
        program.apply_weights(tmp_path / f"{i}.safetensors", strict=False)
        if not i:
            with pytest.raises(onnxport.WeightError, match="has no data"):
                program.save(tmp_path / "early.onnx")
    program.save(tmp_path / "m.onnx")
    assert onnxport.verify(tmp_path / "m.onnx", model, (X,)).passed


def test_of_a_file(tmp_path: Path) -> None:
    """It tells its weights from constants by what is written beside them."""
    model, other = net(), net()
    onnxport.export(model, (X,), tmp_path / "m.onnx", optimize=False)
    program = onnxport.ONNXProgram.load(tmp_path / "m.onnx")
    state = {name: value for name, value in other.state_dict().items() if name != "1.num_batches_tracked"}
    assert sorted(names_of(program, {})) == sorted(state)
    assert names_of(program, {name: value for name, value in state.items() if name != "3.bias"}) == ["3.bias"]
    program.apply_weights(state)
    torch.testing.assert_close(program(X)[0], other(X))
    program.apply_weights({"3.bias": torch.zeros(2)}, strict=False)
    with torch.no_grad():
        other[3].bias.zero_()
    torch.testing.assert_close(program(X)[0], other(X))


def test_other_faults_are_in_the_same_error() -> None:
    program = onnxport.export(net(), (X,))
    state = {**net().state_dict(), "3.bias": torch.zeros(3), "more": torch.zeros(1)}
    del state["0.bias"]
    for strict, count in ((True, 3), (False, 2)):
        with pytest.raises(onnxport.WeightError, match=rf"^{count} weights? do(n't|esn't) fit") as caught:
            program.apply_weights(state, strict=strict)
        assert set(caught.value.names) == {"3.bias", "more", *(["0.bias"] if strict else [])}
    with pytest.raises(onnxport.InputError, match="strict="):
        program.apply_weights(state, strict="no")  # type: ignore[arg-type]
