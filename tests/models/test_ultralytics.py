"""`YOLO(...).export(format="onnx")`, unchanged, inside `as_torch_onnx()`: the file computes what the model does."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxport
import onnxruntime
import pytest
import torch

# ultralytics writes its settings when it is imported, and installs what it misses unless it is told not to.
os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")

ultralytics = pytest.importorskip("ultralytics")

TASKS = {"classify": "-cls", "detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb"}
PLAIN: dict[str, Any] = {}
DYNAMIC: dict[str, Any] = {"dynamic": True}
NMS: dict[str, Any] = {"nms": True, "conf": 1e-6, "max_det": 20}  # random weights are sure of nothing
QUICK = [("classify", DYNAMIC), ("detect", PLAIN), ("detect", NMS)]
ALL = [
    (task, options)
    for task in TASKS
    for options in (PLAIN, DYNAMIC, NMS, {**NMS, **DYNAMIC})
    if (task, options) not in QUICK and not (task == "classify" and "nms" in options)
]


def check(task: str, options: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.utils.export import engine

    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    models: list[Any] = []
    torch2onnx = engine.torch2onnx
    monkeypatch.setattr(engine, "torch2onnx", lambda model, *a, **k: models.append(model) or torch2onnx(model, *a, **k))
    with onnxport.as_torch_onnx():
        file = ultralytics.YOLO(f"yolo11n{TASKS[task]}.yaml").export(format="onnx", imgsz=96, verbose=False, **options)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    shapes = [(1, 3, 96, 96)]
    if "dynamic" in options:  # a loop over the images of a batch keeps their number, as it does for torch's exporter
        shapes += [(1, 3, 64, 128)] if "nms" in options else [(2, 3, 64, 128), (3, 3, 160, 96)]
    for shape in shapes:
        images = torch.rand(shape)
        with torch.no_grad():
            expected = models[0](images)
        results = session.run(None, {"images": images.numpy()})
        flat = torch.utils._pytree.tree_leaves(expected)[: len(results)]
        assert len(flat) == len(results)
        for got, want in zip(results, flat):
            np.testing.assert_allclose(got, want.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("task", "options"), QUICK)
def test_exports(task: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(task, options, tmp_path, monkeypatch)


@pytest.mark.grid
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("task", "options"), ALL)
def test_other_exports(task: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(task, options, tmp_path, monkeypatch)
