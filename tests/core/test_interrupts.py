"""Ctrl-C and exceptions at every stage leave torch's global state, the model and the files as they were."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxport
import pytest
import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.fx.experimental import _config as shape_config
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

STAGES = ("capture", "functionalize", "translate", "optimize", "verify", "save")
ERRORS = (KeyboardInterrupt, MemoryError, SystemExit, RuntimeError)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()
        self.register_buffer("calls", torch.zeros(1))
        self.norm.train()
        self.raises: type[BaseException] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        y = self.drop(self.norm(self.conv(x)).relu_())
        if self.raises is not None:
            raise self.raises
        return torch.ops.aten.silu_backward(y, y).flatten(1) + self.calls


def state(model: nn.Module) -> dict[str, Any]:
    """All that an export changes for a while, in torch, in Python and in the model."""
    hooks = torch.nn.modules.module
    asked = torch.onnx.is_in_onnx_export
    return {
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "default dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "random": torch.get_rng_state().tolist(),
        "modes": _get_current_dispatch_mode_stack(),
        "functions": torch.overrides._get_current_function_mode_stack(),
        "fake mode": torch._guards.detect_fake_mode(),
        "tracing": torch._guards.TracingContext.try_get(),
        "in export": (asked, asked.__code__, asked(), onnxport.is_in_onnx_export(), torch.compiler.is_exporting()),
        "shapes": ({k: getattr(shape_config, k) for k in ("use_duck_shape", "backed_size_oblivious")}),
        "replacements": ShapeEnv._set_replacement,
        "containers": set(pytree.SUPPORTED_NODES),
        "global hooks": [len(getattr(hooks, name)) for name in dir(hooks) if name.startswith("_global_") and
                         isinstance(getattr(hooks, name), dict)],
        "call": nn.Module.__call__,
        "attributes": (nn.Module.__getattr__, nn.Module.__setattr__),
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "modules": [(name, type(module), module.training) for name, module in model.named_modules()],
        "weights": {name: (value.data_ptr(), value.tolist()) for name, value in model.state_dict().items()},
        "requires": [parameter.requires_grad for parameter in model.parameters()],
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "directory": Path.cwd(),
    }  # fmt: skip


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an earlier export; temporary files go below it, so that what is left is seen."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "model.onnx").write_bytes(b"earlier")
    (tmp_path / "model.onnx.data").write_bytes(b"earlier weights")
    yield tmp_path
    assert not list((tmp_path / "temporary").glob("onnxport*"))


def export(folder: Path, model: nn.Module, **options: Any) -> onnxport.ONNXProgram:
    torch.manual_seed(3)
    return onnxport.export(
        model,
        (torch.ones(2, 3, 6, 6),),
        folder / "model.onnx",
        dynamic_shapes=({0: "batch"},),
        verify=True,
        artifacts_dir=folder,
        **options,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("stage", STAGES)
def test_stopped_at_the_start_of_a_stage(files: Path, stage: str, error: type[BaseException]) -> None:
    def stop(name: str) -> None:
        if name == stage:
            raise error("stopped")

    model = Model().eval()
    torch.manual_seed(3)
    before, present = state(model), contents(files)
    with pytest.raises(error, match="stopped"):
        export(files, model, verbose=stop)
    after = state(model)
    assert {key: (before[key], after[key]) for key in before if before[key] != after[key]} == {}
    assert contents(files) == present


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", ["forward", "translation", "decomposition", "pass", "writing"])
def test_stopped_within_a_stage(
    files: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: type[BaseException]
) -> None:
    def stop(*_args: Any, **_kwargs: Any) -> Any:
        raise error("stopped")

    model = Model().eval()
    options: dict[str, Any] = {}
    if place == "forward":
        model.raises = error
    elif place == "translation":
        options["custom_translation_table"] = {torch.ops.aten.relu.default: lambda op, self: stop()}
    elif place == "decomposition":
        from torch._decomp import decomposition_table

        monkeypatch.setitem(decomposition_table, torch.ops.aten.silu_backward.default, stop)
    elif place == "pass":
        from onnxport.optimize import pipeline

        monkeypatch.setattr(pipeline.order, "run", stop)
    else:
        from onnxport_builtin.program import saving

        monkeypatch.setattr(saving, "write_model", stop)
    torch.manual_seed(3)
    before, present = state(model), contents(files)
    # an ordinary exception in forward, a translation or a decomposition is reported as one of onnxport's errors
    with pytest.raises((error, onnxport.OnnxExporterError)) as caught:
        export(files, model, **options)
    if not issubclass(error, Exception):
        assert caught.type is error
    after = state(model)
    assert {key: (before[key], after[key]) for key in before if before[key] != after[key]} == {}
    assert contents(files) == present


def test_a_successful_export_changes_nothing_either(files: Path) -> None:
    model = Model().eval()
    torch.manual_seed(3)
    before = state(model)
    program = export(files, model, report=True, profile=True)
    program.release()
    after = state(model)
    assert {key: (before[key], after[key]) for key in before if before[key] != after[key]} == {}
    model.conv.train()
    assert onnxport.check(model, (torch.ones(2, 3, 6, 6),)).passed
    assert model.conv.training and not model.norm.training


def test_a_report_tells_of_an_interrupt(tmp_path: Path) -> None:
    def stop(name: str) -> None:
        if name == "translate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path, Model().eval(), verbose=stop, report=True)
    (report,) = tmp_path.glob("*.md")
    assert "Failed:\n\n```text\nKeyboardInterrupt" in report.read_text()
    assert "- functionalize: ok" in report.read_text() and "- optimize: not run" in report.read_text()


def test_interrupts_of_find_mismatch_leave_no_files(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model().eval()
    program = export(files, model)
    program.release()
    before = state(model)
    monkeypatch.setattr("onnxport_builtin.program.runtime.run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        onnxport.find_mismatch(program)
    after = state(model)
    assert {key: (before[key], after[key]) for key in before if before[key] != after[key]} == {}
