"""Whatever a public function or method is called with, the answer is a result or an error of onnxport's own.

Thousands of generated calls, over the signature of ``export()`` and all other public functions and methods. None may
end in a traceback from inside, close a file descriptor, or leave a file behind where it fails. A value of a wrong type
is an ``InputError``.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import string
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxport
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.export import Dim


class Tiny(nn.Module):
    """A tensor, an optional tensor, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, scale: float = 1.0) -> torch.Tensor:
        y = self.layer(x) * scale
        return y if mask is None else y * mask


X, MASK = torch.randn(2, 3), torch.ones(2, 4)
MODEL = Tiny().eval()
# Most calls translate a program that is captured already: that takes milliseconds.
PROGRAM = torch.export.export(MODEL, (X,))
CALLS = {"count": 0}

words = st.text(string.ascii_letters + "_ /.\0é", max_size=6)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-3, 70), st.floats(), words, st.binary(max_size=4))
odd = st.sampled_from(
    [object(), torch.float32, np.zeros(2), {1, 2}, 1j, Path("x"), range(3), torch.ones(2), Tiny, ..., NotImplemented]
)
anything = st.recursive(
    scalars | odd,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(words | st.integers(-3, 5), inner, max_size=3)
    ),
    max_leaves=5,
)
names = st.none() | st.lists(st.sampled_from(["x", "y", "mask", "", "linear", "a b", "é"]) | scalars, max_size=4)
dims = st.one_of(
    st.sampled_from(
        [None, Dim.AUTO, Dim.STATIC, Dim.DYNAMIC, Dim("n"), Dim("m", min=2, max=5), 2 * Dim("k"), "n", "2*n"]
    ),
    st.sampled_from(["n+", "1n", "", "n*m"]),
    st.integers(-2, 4),
    scalars,
)
axes = st.one_of(
    st.none(),
    st.dictionaries(st.integers(-3, 3) | words, dims, max_size=3),
    st.lists(dims, max_size=3),
    st.tuples(dims, dims),
    dims,
)
shapes = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["x", "mask", "scale", "y", "0"]) | words, axes, max_size=3),
    st.lists(axes, max_size=3),
    st.tuples(axes),
    anything,
)
operators = st.sampled_from(
    [
        torch.ops.aten.linear.default,
        torch.ops.aten.linear,
        torch.ops.aten.mul.Tensor,
        "aten::linear",
        torch.relu,
        len,
        3,
    ]
)
functions = st.sampled_from(
    [
        lambda op, *args, **kwargs: op.Identity(args[0] if args else next(iter(kwargs.values()))),
        lambda op, *args, **kwargs: None,
        lambda op, *args, **kwargs: op.NoSuchOperator(),
        lambda op, *args, **kwargs: 1 / 0,
        lambda *args: args[0],
        None,
        [],
        "function",
        3,
    ]
)
tables = st.none() | st.dictionaries(operators, functions, max_size=2) | anything

requests = anything | st.dictionaries(
    words | st.sampled_from(["*", "linear.weight"]), st.sampled_from(["int4", "int8", None, "int5", 4]), max_size=2
)

GOOD: dict[str, st.SearchStrategy[Any]] = {
    "verbose": st.sampled_from([None, False]),
    "input_names": st.none() | st.lists(st.sampled_from(["a", "b", "c"]), max_size=1),
    "output_names": st.none() | st.lists(st.sampled_from(["y", "z"]), max_size=1),
    "opset_version": st.none() | st.integers(18, 24),
    "external_data": st.booleans(),
    "optimize": st.booleans(),
    "export_params": st.booleans(),
    "keep_initializers_as_inputs": st.booleans(),
    "mutation": st.sampled_from(["outputs", "error", "drop"]),
    "metadata": st.sampled_from(["full", "module", "none"]),
    "seed": st.none() | st.integers(0, 9),
    "functions": st.sampled_from([(), (nn.Linear,)]),
}
BAD: dict[str, st.SearchStrategy[Any]] = {
    "model": anything | st.sampled_from([torch.relu, Tiny, nn.Module()]),
    "args": anything,
    "kwargs": anything | st.dictionaries(st.sampled_from(["mask", "scale", "colour"]), anything, max_size=2),
    "f": anything,
    "verbose": anything,
    "input_names": names | anything,
    "output_names": names | anything,
    "opset_version": st.integers() | anything,
    "dynamo": anything,
    "external_data": anything,
    "dynamic_shapes": shapes,
    "custom_translation_table": tables,
    "optimize": anything,
    "export_params": anything,
    "keep_initializers_as_inputs": anything,
    "dynamic_axes": st.dictionaries(st.sampled_from(["x", "y"]) | words, axes, max_size=2) | anything,
    "artifacts_dir": anything,
    "plugins": anything | st.lists(words, max_size=2),
    "mutation": anything,
    "functions": anything | st.lists(words | st.sampled_from([nn.Linear, "torch.nn.Linear", int]), max_size=2),
    "metadata": anything,
    "seed": st.integers() | anything,
    "runtime": anything,
    "portable": anything,
    "quantize": requests,
    "dtype": anything | st.sampled_from(["float16", "bfloat16", torch.float16]),
    "keep": anything | st.dictionaries(words, anything, max_size=2),
    "keep_io": anything,
    "training": anything,
    "colour": anything,
}


def budget(calls: int) -> Callable[[Any], Any]:
    def limited(test: Any) -> Any:
        checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
        return settings(
            max_examples=calls, deadline=None, derandomize=True, database=None, suppress_health_check=checks
        )(test)

    return limited


pytestmark = pytest.mark.filterwarnings("ignore")


@contextlib.contextmanager
def empty_folder() -> Iterator[Path]:
    """A working directory of the call's own."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def attempt(function: Callable[..., Any], /, *args: Any, folder: Path | None = None, **kwargs: Any) -> Any:
    """Call; an error has to be one of onnxport's, with a message, and leave no file and no state."""
    CALLS["count"] += 1
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return function(*args, **kwargs)
    except onnxport.OnnxExporterError as error:
        assert str(error).strip()
    if folder is not None:
        assert not list(folder.iterdir())
    assert torch.is_grad_enabled() and not onnxport.is_in_onnx_export() and not torch.onnx.is_in_onnx_export()
    return None


def ends_well(folder: Path, call: dict[str, Any]) -> bool:
    """An export gives a program, or an error that :func:`attempt` lets pass."""
    call = {"model": PROGRAM, "f": folder / "model.onnx", **call}
    result = attempt(onnxport.export, folder=folder, **call)
    return result is None or isinstance(result, onnxport.ONNXProgram)


@budget(900)
@given(st.sampled_from(sorted(BAD)).flatmap(lambda name: st.tuples(st.just(name), BAD[name])))
def test_one_argument(change: tuple[str, Any]) -> None:
    with empty_folder() as folder:
        assert ends_well(folder, dict([change]))


@budget(300)
@given(st.fixed_dictionaries({}, optional=GOOD), st.fixed_dictionaries({}, optional=BAD))
def test_several_arguments(good: dict[str, Any], bad: dict[str, Any]) -> None:
    with empty_folder() as folder:
        assert ends_well(folder, {**good, **bad})


@budget(150)
@given(st.fixed_dictionaries({}, optional=GOOD))
def test_good_arguments(good: dict[str, Any]) -> None:
    with empty_folder() as folder:
        result = attempt(onnxport.export, PROGRAM, f=folder / "model.onnx", folder=folder, **good)
        assert isinstance(result, onnxport.ONNXProgram) and (folder / "model.onnx").exists()


@budget(300)
@given(shapes, st.booleans(), st.booleans())
def test_dynamic_shapes(asked: Any, keyword: bool, names_given: bool) -> None:
    """Of a module: most don't fit, and are refused before the capture."""
    given_args: dict[str, Any] = {"args": (X,), "kwargs": {"mask": MASK}} if keyword else {"args": (X, MASK)}
    with empty_folder() as folder:
        named = {"input_names": ["left", "right"]} if names_given else {}
        assert ends_well(folder, {"model": MODEL, "dynamic_shapes": asked, **given_args, **named})


@budget(60)
@given(st.lists(anything, max_size=3), st.dictionaries(st.sampled_from(["mask", "scale"]), anything, max_size=2))
def test_example_inputs(args: list[Any], kwargs: dict[str, Any]) -> None:
    with empty_folder() as folder:
        assert ends_well(folder, {"model": MODEL, "args": tuple(args), "kwargs": kwargs})


@pytest.fixture(scope="module")
def program() -> onnxport.ONNXProgram:
    return onnxport.export(MODEL, (X,), dynamic_shapes=({0: "batch"}, None, None))


state_dicts = st.dictionaries(
    st.sampled_from(["layer.weight", "layer.bias", "other"]),
    st.sampled_from([torch.ones(4, 3), torch.ones(4), torch.ones(4, dtype=torch.int8), torch.ones(2).to_sparse()])
    | odd,
    max_size=3,
)
new_names = st.dictionaries(words | st.just("batch"), words | st.just("b") | anything, max_size=2)
METHODS: dict[str, st.SearchStrategy[tuple[list[Any], dict[str, Any]]]] = {
    "__call__": st.tuples(st.lists(anything, max_size=3), st.dictionaries(words, anything, max_size=1)),
    "call_reference": st.tuples(st.lists(anything, max_size=2), st.just({})),
    "compute_values": st.tuples(st.tuples(anything | st.just(["linear"]), anything).map(list), st.just({})),
    "apply_weights": st.tuples(st.tuples(state_dicts | words | anything).map(list), st.just({})),
    "rename_axes": st.tuples(st.tuples(new_names | anything).map(list), st.just({})),
    "save": st.tuples(
        st.tuples(anything).map(list),
        st.fixed_dictionaries({}, optional={"external_data": anything, "shard_bytes": anything,
                                            "include_initializers": anything}),
    ),
}  # fmt: skip


@budget(700)
@given(st.sampled_from(sorted(METHODS)).flatmap(lambda name: st.tuples(st.just(name), METHODS[name])))
def test_methods_of_a_program(program: onnxport.ONNXProgram, call: tuple[str, Any]) -> None:
    name, (args, kwargs) = call
    with empty_folder() as folder:
        attempt(getattr(program, name), *args, folder=folder, **kwargs)
    if name == "rename_axes":
        dims = program.model.graph.inputs[0].shape
        assert dims is not None
        if str(dims[0]) != "batch":
            program.rename_axes({str(dims[0]): "batch"})


# Every other public function and method ------------------------------------------------------------------------------


class Hostile:
    """It refuses what Python asks of values."""

    def _refuse(self, *_: Any) -> Any:
        raise RuntimeError("no")

    __repr__ = __eq__ = __bool__ = __len__ = __iter__ = __float__ = __index__ = _refuse  # type: ignore[assignment]


class Path3(os.PathLike[Any]):
    def __fspath__(self) -> Any:
        return 3


hostile = st.sampled_from(
    [Hostile(), Path3(), Path3, np.float32("nan"), np.zeros(0), torch.ones(()), len, torch.relu, {}]
)
whatever = anything | hostile
calls_of_forward = st.sampled_from([(X,), [X], X, (), None]) | whatever
pairs = st.lists(st.tuples(calls_of_forward, whatever) | whatever, max_size=2)
tolerances = st.sampled_from([None, 1e-3, 1, np.float32(1e-3), torch.tensor(0.1)]) | scalars | whatever
SMALL = onnxport.export(PROGRAM)
FREE = onnxport.export(MODEL, (X,), dynamic_shapes=({0: "batch"}, None, None))
RESULT = onnxport.verify(SMALL)


class Own(onnxport.ExportableModule):
    """What it says of itself is given."""

    def __init__(self, **said: Any) -> None:
        super().__init__()
        self.said = {"example_arguments": ((X,), None), **said}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1

    def example_arguments(self) -> Any:
        return self.said["example_arguments"]

    def dynamic_shapes(self) -> Any:
        return self.said.get("dynamic_shapes")

    def input_names(self) -> Any:
        return self.said.get("input_names")

    def output_names(self) -> Any:
        return self.said.get("output_names")


def decorated(targets: list[Any], options: dict[str, Any]) -> Any:
    return onnxport.translation(*targets, **options)(lambda op, x: x)


def set_session(value: Any) -> None:
    SMALL.inference_session = value
    SMALL.release()


def exported_by_torch(**call: Any) -> Any:
    with onnxport.as_torch_onnx():
        return torch.onnx.export(PROGRAM, **call)


def one(name: str, values: Any) -> st.SearchStrategy[tuple[str, Any]]:
    return st.tuples(st.just(name), values)


#: By name of a function, the call, and the values of each of its parameters; one is given at a time.
FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "verify": (
        lambda **call: onnxport.verify(**{"program": SMALL, "generate": False, **call}),
        {"program": whatever, "model": whatever, "args": calls_of_forward, "kwargs": whatever, "rtol": tolerances,
         "atol": tolerances, "other_inputs": pairs | whatever, "generate": whatever, "plugins": whatever},
    ),
    "find_mismatch": (
        lambda **call: onnxport.find_mismatch(**{"program": SMALL, **call}),
        {"program": whatever, "args": calls_of_forward, "kwargs": whatever, "exported_program": whatever,
         "rtol": tolerances, "atol": tolerances, "memory_budget": whatever, "repro": whatever},
    ),
    "view": (
        lambda **call: onnxport.view(**{"model": SMALL, "output": "page.html", **call}),
        dict.fromkeys(("model", "output", "before", "verification", "mismatch", "latencies"), whatever),
    ),
    "quantize": (
        lambda **call: onnxport.quantize(**{"program": SMALL, **call}),
        {"program": whatever, "request": requests},
    ),
    "infer_dynamic_shapes": (
        lambda **call: onnxport.infer_dynamic_shapes(**{"model": MODEL, "inputs": [(X,), (X[:1],)], **call}),
        {"model": whatever, "inputs": st.lists(calls_of_forward, max_size=3) | whatever},
    ),
    "load": (onnxport.ONNXProgram.load, {"path": whatever}),
    "check": (
        lambda **call: onnxport.check(**{"model": PROGRAM, **call}),
        {"model": whatever, "args": calls_of_forward, "kwargs": whatever, "dynamic_shapes": shapes,
         "opset_version": whatever, "custom_translation_table": tables | whatever, "plugins": whatever,
         "functions": whatever, "prefer": whatever, "runtime": whatever},
    ),
    "program": (
        lambda **call: repr(onnxport.ONNXProgram(**{"model": SMALL.model, **call})),
        {"model": whatever, "exported_program": whatever},
    ),
    "initialize_inference_session": (
        SMALL.initialize_inference_session,
        {"initializer": whatever, "session_options": whatever,
         "providers": st.lists(whatever | st.just("CPUExecutionProvider"), max_size=2) | whatever},
    ),
    "inference_session": (set_session, {"value": whatever}),
    "run": (SMALL.run, {"args": calls_of_forward, "kwargs": whatever, "all_outputs": whatever}),
    "compute_values": (
        lambda **call: SMALL.compute_values(**{"value_names": ["linear"], "args": (X,), **call}),
        {"value_names": whatever, "args": calls_of_forward, "kwargs": whatever},
    ),
    "apply_weights": (
        lambda **call: SMALL.apply_weights(**{"state_dict": MODEL.state_dict(), **call}),
        {"state_dict": state_dicts | whatever, "strict": whatever},
    ),
    "save": (
        lambda **call: SMALL.save(**{"destination": io.BytesIO(), **call}),
        {"destination": whatever, "include_initializers": whatever, "keep_initializers_as_inputs": whatever,
         "external_data": whatever, "shard_bytes": whatever},
    ),
    "fix": (lambda **call: FREE.fix(**call), dict.fromkeys(["batch", "other"], whatever)),
    "export_together": (
        lambda place="together", **call: onnxport.export_together(**{"models": {"a": SMALL}, "folder": place, **call}),
        {"models": st.just({}) | whatever, "place": whatever,
         "verify": whatever},
    ),
    "save_together": (
        lambda place="together", **call: onnxport.save_together(**{"programs": {"a": SMALL}, "folder": place, **call}),
        {"programs": st.just({"model": 1}) | whatever, "place": whatever},
    ),
    "raise_on_failure": (RESULT.raise_on_failure, {"program": whatever}),
    "to_onnx": (lambda **call: Own(**call).to_onnx(), dict.fromkeys(
        ["example_arguments", "dynamic_shapes", "input_names", "output_names"], whatever)),
    "export of it": (lambda **call: onnxport.export(Own(**call)), {"example_arguments": whatever}),
    "export_arguments": (lambda **call: Own(**call).export_arguments(), {"example_arguments": whatever}),
    "torch.onnx.export": (exported_by_torch, {name: BAD[name] for name in
                          ("args", "kwargs", "opset_version", "input_names", "optimize", "colour", "training")}),
    "translation": (decorated, {"targets": st.lists(whatever, max_size=2), "options": st.fixed_dictionaries(
        {}, optional={"opset": whatever, "priority": whatever, "complex": whatever})}),
    "collect": (lambda sources: onnxport.collect(*sources), {"sources": st.lists(whatever, max_size=2)}),
    "promote": (lambda operands: onnxport.promote(*operands), {"operands": st.lists(whatever, max_size=2)}),
    "onnx_dtype": (onnxport.onnx_dtype, {"dtype": whatever}),
    "component_dtype": (onnxport.component_dtype, {"dtype": whatever}),
}  # fmt: skip
NEEDED = {"translation": {"targets": ["aten::relu"], "options": {}}}


@budget(1800)
@given(
    st.sampled_from([(name, parameter) for name, (_, values) in FUNCTIONS.items() for parameter in values]).flatmap(
        lambda place: st.tuples(st.just(place[0]), st.just(place[1]), FUNCTIONS[place[0]][1][place[1]])
    )
)
def test_every_function(call: tuple[str, str, Any]) -> None:
    name, parameter, value = call
    open_files = [os.fstat(number) for number in (0, 1, 2)]
    with empty_folder() as folder:
        attempt(FUNCTIONS[name][0], folder=folder, **{**NEEDED.get(name, {}), parameter: value})
    assert [os.fstat(number) for number in (0, 1, 2)] == open_files


def test_every_public_function_and_method_is_called() -> None:
    """One that is added has to be among them."""
    called = {name.partition(" ")[0].rpartition(".")[2] for name in (*FUNCTIONS, *METHODS)} | {"export"}
    public = {name for name in onnxport.__all__ if inspect.isfunction(getattr(onnxport, name))}
    public |= {name for name, member in vars(onnxport.ONNXProgram).items()
               if not name.startswith("_") and inspect.isroutine(getattr(onnxport.ONNXProgram, name))}  # fmt: skip
    without_arguments = {"is_in_onnx_export", "as_torch_onnx", "release", "optimize"}
    inner = {"stage", "note", "warn"}  # for verify, and for plugins while they capture
    assert public - called == without_arguments | inner


def test_enough_calls_were_made(request: pytest.FixtureRequest) -> None:
    """Runs last; alone, it has nothing to count. Several workers share the calls, and a sample has its part."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    part = 2 * workers * request.config.getoption("--every")
    assert CALLS["count"] == 0 or CALLS["count"] >= 4000 // part
