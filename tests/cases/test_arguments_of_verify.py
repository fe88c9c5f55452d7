"""verify and its like refuse arguments of a wrong type by the parameter's name; numbers are never taken for files."""

from __future__ import annotations

import decimal
import fractions
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxport
import pytest
import torch

X = torch.randn(2, 3)
MODEL = torch.nn.Linear(3, 3).eval()
EXPORTED = torch.export.export(MODEL, (X,))
PROGRAM = onnxport.export(EXPORTED)


class Odd(os.PathLike[Any]):
    """A path that gives something else."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __fspath__(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


WRONG: dict[str, Callable[[Any], Any]] = {
    "args": lambda value: onnxport.verify(PROGRAM, args=value),
    "kwargs": lambda value: onnxport.verify(PROGRAM, kwargs=value),
    "rtol": lambda value: onnxport.verify(PROGRAM, rtol=value),
    "atol": lambda value: onnxport.verify(PROGRAM, atol=value),
    "other_inputs": lambda value: onnxport.verify(PROGRAM, other_inputs=value),
    "model": lambda value: onnxport.verify(PROGRAM, value),
    "generate": lambda value: onnxport.verify(PROGRAM, generate=value),
    "program": lambda value: onnxport.verify(value, MODEL, (X,)),
    "mismatch program": lambda value: onnxport.find_mismatch(value),
    "mismatch args": lambda value: onnxport.find_mismatch(PROGRAM, value),
    "mismatch kwargs": lambda value: onnxport.find_mismatch(PROGRAM, kwargs=value),
    "mismatch rtol": lambda value: onnxport.find_mismatch(PROGRAM, rtol=value),
    "mismatch atol": lambda value: onnxport.find_mismatch(PROGRAM, atol=value),
    "mismatch exported_program": lambda value: onnxport.find_mismatch(PROGRAM, exported_program=value),
    "mismatch memory_budget": lambda value: onnxport.find_mismatch(PROGRAM, memory_budget=value),
    "mismatch repro": lambda value: onnxport.find_mismatch(PROGRAM, repro=value),
    "path": onnxport.ONNXProgram.load,
    "session providers": lambda value: PROGRAM.initialize_inference_session(providers=value),
    "session session_options": lambda value: PROGRAM.initialize_inference_session(session_options=value),
    "session initializer": lambda value: PROGRAM.initialize_inference_session(value),
    "infer model": lambda value: onnxport.infer_dynamic_shapes(value, [(X,), (X,)]),
    "infer inputs": lambda value: onnxport.infer_dynamic_shapes(MODEL, value),
    "failure program": lambda value: onnxport.VerificationResult().raise_on_failure(value),
}
VALUES = [
    3,
    1.5,
    "abc\0",
    b"abc",
    {1: 2},
    [1, 2],
    (3, 4),
    {5},
    object(),
    Unprintable(),
    np.zeros(2),
    1j,
    X > 0,
    int,
    Odd(3),
]
TAKEN = {
    "args": (list, tuple, torch.Tensor), "mismatch args": (list, tuple, torch.Tensor), "rtol": (int, float),
    "atol": (int, float), "mismatch rtol": (int, float), "mismatch atol": (int, float),
    "mismatch memory_budget": (int,), "generate": (int,),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_each_parameter(name: str) -> None:
    parameter = name.rpartition(" ")[2]
    for value in VALUES:
        if isinstance(value, TAKEN.get(name, ())) and not isinstance(value, type):
            continue
        with pytest.raises(onnxport.InputError, match=parameter) as caught:
            WRONG[name](value)
        assert caught.value.parameter == parameter and str(caught.value).rstrip().endswith(".")


@pytest.mark.parametrize("value", [[3], [(X,)], [((X,), None, 3)], [((X,), [1])], [(3, None)], [((X,), {1: X})], "ab"])
def test_other_inputs(value: Any) -> None:
    with pytest.raises(onnxport.InputError, match=r"other_inputs") as caught:
        onnxport.verify(PROGRAM, other_inputs=value)
    assert caught.value.parameter == "other_inputs"


@pytest.mark.parametrize("value", [3, "builtin", object, [None], [3], ["no-such-plugin"]])
def test_plugins(value: Any) -> None:
    with pytest.raises(onnxport.OnnxExporterError):
        onnxport.verify(PROGRAM, plugins=value)


def test_right_ones() -> None:
    pairs = [((X,), None), [[X], {}]]
    assert onnxport.verify(PROGRAM, MODEL, [X], None, other_inputs=pairs, generate=False).passed
    assert onnxport.verify(PROGRAM, MODEL, X).passed  # one tensor is one argument, and not its rows
    assert onnxport.verify(PROGRAM, MODEL, (), {"input": X}).passed
    assert onnxport.find_mismatch(PROGRAM, X).passed


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize(
    "value",
    [float("nan"), -1e-9, float("inf"), -float("inf"), np.float32("nan"), np.array(-1.0), torch.tensor(float("nan")),
     "1e-3", True, np.bool_(True), torch.tensor(True), 1j, np.array([1.0]), torch.tensor([1.0]), b"1", [1e-3],
     decimal.Decimal("NaN"), 10**400, torch.empty((), device="meta"), torch.tensor(1j)],
)  # fmt: skip
def test_tolerances_that_mean_nothing(name: str, value: Any) -> None:
    other = torch.nn.Linear(3, 3).eval()
    for call in (onnxport.verify, onnxport.find_mismatch):
        with pytest.raises(onnxport.InputError, match=f"{name}=") as caught:
            call(PROGRAM, **({"model": other} if call is onnxport.verify else {}), **{name: value})
        assert caught.value.parameter == name


@pytest.mark.parametrize(
    "value",
    [0, 1, 1e-3, np.float32(1e-3), np.int64(1), np.array(1e-3), torch.tensor(1e-3), torch.tensor(1),
     fractions.Fraction(1, 1000), decimal.Decimal("0.001"), torch.tensor(0.5, dtype=torch.bfloat16)],
)  # fmt: skip
def test_tolerances_of_any_number(value: Any) -> None:
    assert onnxport.verify(PROGRAM, MODEL, rtol=value, atol=value or 1e-4).passed
    other = torch.nn.Linear(3, 3).eval()
    with torch.no_grad():
        other.load_state_dict({name: weight + 100 for name, weight in MODEL.state_dict().items()})
    assert value >= 1 or not onnxport.verify(PROGRAM, other, rtol=value, atol=value).passed


@pytest.mark.parametrize("value", [0, 1, 2, True, False, 99, 1.0, np.int64(1), torch.tensor(1), Odd(1), Odd(True)])
def test_numbers_are_never_taken_for_files(value: Any, tmp_path: Path) -> None:
    """A file descriptor of that number is neither opened nor closed."""
    handles = [os.open(tmp_path, os.O_RDONLY) for _ in range(3)]
    before = [os.fstat(number) for number in (0, 1, 2, *handles)]
    calls: list[Callable[[Any], Any]] = [
        onnxport.ONNXProgram.load,
        lambda given: onnxport.verify(given, MODEL, (X,)),
        lambda given: onnxport.find_mismatch(given, exported_program=EXPORTED),
        lambda given: onnxport.find_mismatch(PROGRAM, repro=given),
        lambda given: onnxport.export(MODEL, (X,), given),
        lambda given: onnxport.export(MODEL, (X,), artifacts_dir=given, report=True),
        PROGRAM.save,
        PROGRAM.apply_weights,
    ]
    for call in calls:
        with pytest.raises(onnxport.OnnxExporterError):
            call(value)
        assert [os.fstat(number) for number in (0, 1, 2, *handles)] == before
    for handle in handles:
        os.close(handle)


@pytest.mark.parametrize("value", [Odd(b"m.onnx"), Odd("m.onnx"), Path("m.onnx"), "m.onnx"])
def test_paths_of_all_kinds(value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PROGRAM.save(value)
    assert (tmp_path / "m.onnx").exists()
    assert onnxport.verify(value, MODEL, (X,)).passed
    assert onnxport.ONNXProgram.load(value).exported_program is None


@pytest.mark.parametrize("value", [Odd(RuntimeError("no")), Odd(None), "", "a\0b", Odd("")])
def test_what_is_no_path(value: Any) -> None:
    for call in (onnxport.ONNXProgram.load, lambda given: onnxport.verify(given, MODEL, (X,)), PROGRAM.save):
        with pytest.raises(onnxport.OnnxExporterError):
            call(value)


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor, count: int) -> torch.Tensor:
        return x * count


@pytest.mark.parametrize(
    "value",
    [np.array([object()]), np.array(["a"]), np.zeros((2, 3), "datetime64[s]"), torch.empty(2, 3, device="meta"),
     torch.ones(2, 3, dtype=torch.int8), torch.ones(3), torch.ones(2, 4), "x", None],
)  # fmt: skip
def test_inputs_of_a_call(value: Any) -> None:
    for call in (PROGRAM, PROGRAM.call_reference, lambda x: PROGRAM.compute_values(["linear"], (x,))):
        with pytest.raises(onnxport.InputError, match=r"The input input: float32\[2, 3\]") as caught:
            call(value)
        assert caught.value.parameter == "input"


@pytest.mark.parametrize("value", [10**40, float("nan"), "3", None])
def test_numbers_of_a_call(value: Any) -> None:
    program = onnxport.export(Scaled(), (X, 3), dynamic_shapes=(None, torch.export.Dim.DYNAMIC))
    with pytest.raises(onnxport.InputError, match="The input count") as caught:
        program(X, value)
    assert caught.value.parameter == "count"
