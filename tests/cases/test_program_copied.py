"""Copies of programs run and save: shallow, deep, and through pickle into other processes."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
import subprocess
import sys
import threading
from typing import Any

import onnxport
import pytest
import torch
from support import expect_equal
from torch._subclasses.fake_tensor import FakeTensorMode


class Net(torch.nn.Module):
    """Tied weights, folded and fused ones, a buffer that changes, numbers and containers among the arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.conv, self.norm = torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x, options, flag=True, **rest):
        y = self.second(self.first(x)).relu() + options["shift"][0] - rest["z"]
        self.count += 1
        return {"y": y, "image": self.norm(self.conv(y[None, None])) if flag else y}


ARGS: tuple[Any, ...] = (torch.rand(2, 3), {"shift": [torch.rand(2, 3)]})
KWARGS: dict[str, Any] = {"z": torch.rand(3), "flag": True}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return Net().eval()


@pytest.fixture(scope="module")
def program(model: torch.nn.Module) -> onnxport.ONNXProgram:
    return onnxport.export(model, ARGS, kwargs=KWARGS)


def pickled(program: onnxport.ONNXProgram) -> onnxport.ONNXProgram:
    return pickle.loads(pickle.dumps(program))


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickled,
    "both": lambda program: pickled(copy.deepcopy(program)),
    "a copy of a copy": lambda program: copy.deepcopy(pickled(program)),
}


def saved(program: onnxport.ONNXProgram) -> bytes:
    buffer = io.BytesIO()
    program.save(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("ran", [False, True])
def test_copies_run_and_save(name, ran, model, program):
    if ran:
        program(*ARGS, **KWARGS)
    else:
        program.release()
    want = program(*ARGS, **KWARGS) if ran else [*model(*ARGS, **KWARGS).values()]
    copied = COPIES[name](program)
    assert type(copied) is onnxport.ONNXProgram and copied.inference_session is None
    for got, expected in zip(copied(*ARGS, **KWARGS), want, strict=True):
        expect_equal(got, expected)
    x, options = ARGS
    for got, expected in zip(copied(z=KWARGS["z"], options=options, x=x), want, strict=True):
        expect_equal(got, expected)
    assert len(copied.run(ARGS, KWARGS)) == 3
    assert saved(copied) == saved(program)
    with pytest.raises(onnxport.InputError, match="baked in"):
        copied(*ARGS, z=KWARGS["z"], flag=False)
    with pytest.raises(onnxport.InputError, match="not nested"):
        copied(x, {"shift": x}, **KWARGS)
    assert onnxport.verify(copied, model, ARGS, KWARGS).passed
    assert repr(copied) == repr(program)
    copied.release()


def test_a_deep_copy_is_independent():
    model, x = torch.nn.Linear(3, 2).eval(), torch.rand(1, 3)
    program = onnxport.export(model, (x,), dynamic_shapes=({0: "n"},))
    deep, shallow = copy.deepcopy(program), copy.copy(program)
    before = model(x)
    with torch.no_grad():
        model.weight.mul_(2)
        model.bias.mul_(2)
    expect_equal(deep(x)[0], before)
    expect_equal(program(x)[0], 2 * before)
    expect_equal(shallow(x)[0], 2 * before)
    deep.rename_axes({"n": "batch"})
    assert str(program.model.graph.inputs[0].shape) == "[n,3]"
    deep.apply_weights({name: 3 * weight for name, weight in model.state_dict().items()})
    expect_equal(deep(x)[0], 6 * before)
    expect_equal(program(x)[0], 2 * before)
    assert deep.exported_program is program.exported_program


def test_weights_of_copies(model, program):
    other = {
        name: 2 * weight if weight.dtype.is_floating_point else weight for name, weight in model.state_dict().items()
    }
    deep = copy.deepcopy(program)
    deep.apply_weights(other)
    changed = copy.deepcopy(model)
    changed.load_state_dict(other)
    for got, want in zip(deep(*ARGS, **KWARGS), changed(*ARGS, **KWARGS).values(), strict=True):
        expect_equal(got, want)
    small = torch.nn.Linear(3, 2).eval()
    x = torch.rand(1, 3)
    travelled = pickled(onnxport.export(small, (x,)))
    twice = {name: 2 * weight for name, weight in small.state_dict().items()}
    travelled.apply_weights(twice)
    expect_equal(travelled(x)[0], 2 * small(x))


def test_weights_without_data():
    with FakeTensorMode():
        fake, x = torch.nn.Linear(3, 2).eval(), torch.rand(1, 3)
    program = onnxport.export(fake, (x,))
    with pytest.raises(onnxport.WeightError, match="save with"):
        pickle.dumps(program)
    real = torch.nn.Linear(3, 2).eval()
    deep = copy.deepcopy(program)
    deep.apply_weights(real.state_dict())
    expect_equal(deep(torch.ones(1, 3))[0], real(torch.ones(1, 3)))


def test_weights_on_disk(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    model, x = torch.nn.Linear(30, 20).eval(), torch.rand(1, 30)
    program = onnxport.export(model, (x,))
    weights = {name: 2 * weight for name, weight in model.state_dict().items()}
    safetensors.save_file(weights, tmp_path / "other.safetensors")
    program.apply_weights(tmp_path / "other.safetensors")
    for copied in (copy.deepcopy(program), pickled(program)):
        expect_equal(copied(x)[0], 2 * model(x))


def test_loaded_programs(program, tmp_path):
    program.save(tmp_path / "model.onnx", external_data=True)
    loaded = onnxport.ONNXProgram.load(tmp_path / "model.onnx")
    want = program(*ARGS, **KWARGS)
    for name in COPIES:
        for got, expected in zip(COPIES[name](loaded)(*ARGS, **KWARGS), want, strict=True):
            expect_equal(got, expected)


def test_programs_of_torch_onnx():
    model, x = torch.nn.Linear(3, 2).eval(), torch.rand(1, 3)
    with onnxport.as_torch_onnx():
        program: Any = torch.onnx.export(model, (x,))
    for name in COPIES:
        copied = COPIES[name](program)
        assert isinstance(copied, torch.onnx.ONNXProgram) and isinstance(copied, onnxport.ONNXProgram)
        expect_equal(copied(x)[0], model(x))


def test_functions_and_subgraphs():
    class Branch(torch.nn.Module):
        def forward(self, x):
            return torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, (x,))

    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.linear = Branch(), torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.branch(self.linear(self.linear(x)))

    model = Twice().eval()
    program = onnxport.export(model, (torch.rand(2, 3),), functions=[torch.nn.Linear])
    for name in COPIES:
        for x in (torch.rand(2, 3), -torch.rand(2, 3)):
            expect_equal(COPIES[name](program)(x)[0], model(x))


def test_what_can_not_be_pickled_says_what_to_do():
    @dataclasses.dataclass
    class Local:
        a: torch.Tensor

    class Doubled(torch.nn.Module):
        def forward(self, state):
            return state.a * 2

    program = onnxport.export(Doubled(), (Local(torch.ones(2)),))
    with pytest.raises(TypeError, match=r"save\(path\)"):
        pickle.dumps(program)
    expect_equal(copy.deepcopy(program)(Local(torch.ones(2)))[0], torch.full((2,), 2.0))


_OTHER = """
import pickle, sys, torch
program, args, kwargs, want = pickle.load(open(sys.argv[1], "rb"))
for got, expected in zip(program(*args, **kwargs), want, strict=True):
    torch.testing.assert_close(got, expected)
program.save(sys.argv[2])
"""


def test_another_process(program, tmp_path):
    """Which hasn't imported onnxport, nor seen the model."""
    want = program(*ARGS, **KWARGS)
    with open(tmp_path / "program.pickle", "wb") as file:
        pickle.dump((program, ARGS, KWARGS, want), file)
    command = [sys.executable, "-c", _OTHER, str(tmp_path / "program.pickle"), str(tmp_path / "model.onnx")]
    subprocess.run(command, check=True, timeout=300)
    assert (tmp_path / "model.onnx").exists()


def test_what_other_objects_hold(program):
    """A copy of something that holds a program is a copy of both, and knows what it has seen."""
    held = {"a": program, "b": [program]}
    copied = copy.deepcopy(held)
    assert copied["a"] is copied["b"][0] is not program
    again = pickle.loads(pickle.dumps(held))
    assert again["a"] is again["b"][0]


def test_copies_in_threads(program):
    want = program(*ARGS, **KWARGS)
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(copy.deepcopy(program)(*ARGS, **KWARGS))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 3
    for found in results:
        for got, expected in zip(found, want, strict=True):
            expect_equal(got, expected)
