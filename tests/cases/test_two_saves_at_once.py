"""Savers and readers of one path at the same time: a model always stands beside its own weights."""

from __future__ import annotations

import itertools
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxport
import onnxruntime
import pytest
import torch

X = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))


def network(seed: int, layers: int = 2) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(layers))).eval()


MODELS = [network(1), network(2), network(3, layers=3)]
RESULTS = [model(X).detach().numpy() for model in MODELS]


@pytest.fixture(scope="module")
def programs() -> list[onnxport.ONNXProgram]:
    return [onnxport.export(model, (X,)) for model in MODELS]


def computed(path: Path) -> int | None:
    """Which of the models a file computes in onnxruntime; None for none of them."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return which(session.run(None, {"input": X.numpy()})[0])


def which(result: Any) -> int | None:
    return next((i for i, known in enumerate(RESULTS) if np.allclose(result, known, atol=1e-4)), None)


def forked(*functions: Callable[[], object]) -> None:
    """Do things at once, each in a process of its own; all of them succeed."""
    read, write = os.pipe()
    children = []
    for function in functions:
        child = os.fork()
        if not child:
            status = 1
            try:
                os.read(read, 1)
                function()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    os.write(write, b"x" * len(functions))
    os.close(read)
    os.close(write)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert statuses == [0] * len(functions)


def slowly(program: onnxport.ONNXProgram, path: Path, delays: Sequence[float], **options: Any) -> Callable[[], None]:
    """A save whose renames wait before they are done."""

    def save() -> None:
        replace, waits = os.replace, itertools.chain(delays, itertools.repeat(0))

        def later(*names: Any) -> None:
            time.sleep(next(waits))
            replace(*names)

        os.replace = later  # in a process of its own
        program.save(path, **options)

    return save


def files_of(path: Path) -> set[str]:
    """A model's file and those that it names."""
    proto = onnx.load(path, load_external_data=False)
    entries = [entry for tensor in proto.graph.initializer for entry in tensor.external_data]
    return {path.name, *(entry.value for entry in entries if entry.key == "location")}


KINDS: dict[str, Sequence[dict[str, Any]]] = {
    "data": [{"external_data": True}] * 3,
    "shards": [{"external_data": True, "shard_bytes": 17_000}] * 3,
    "data and none": [{"external_data": True}, {"external_data": False}, {"external_data": True}],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [None, 0])
@pytest.mark.parametrize("delays", [((0.1, 0.2), (0.15, 0), (0, 0.1))])
def test_savers(kind: str, before: int | None, delays: Any, programs: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    if before is not None:
        programs[before].save(path, external_data=True)
    forked(*(slowly(programs[i], path, delays[i], **KINDS[kind][i]) for i in range(3)))
    assert computed(path) is not None
    found = set(os.listdir(tmp_path))
    if before is None:  # a first saver's data have the plain names, which nothing tells from a user's file
        found -= {f"m.onnx.data{suffix}" for suffix in ("", "_1", "_2")} - files_of(path)
    assert found == files_of(path)


def test_many_savers_and_readers(programs: Any, tmp_path: Path) -> None:
    """Two savers without a pause; readers find one of the models each time, by onnxruntime or by `load`."""
    path = tmp_path / "m.onnx"
    programs[0].save(path, external_data=True)
    end = time.monotonic() + 4

    def saver(order: Sequence[int]) -> None:
        for i in itertools.cycle(order):
            programs[i].save(path, external_data=True)
            if time.monotonic() > end:
                return

    def by_load() -> None:
        count = 0
        while time.monotonic() < end or not count:
            program = onnxport.ONNXProgram.load(path)  # never an error either: it reads again
            assert which(program(X)[0].numpy()) is not None
            count += 1

    def by_onnxruntime() -> None:
        count = 0
        while time.monotonic() < end or not count:
            try:
                found = computed(path)
            except Exception as error:  # data that were replaced meanwhile are missing; they are never others
                assert "data" in str(error) or "SystemError : 2" in str(error)  # no such file
                continue
            assert found is not None
            count += 1

    forked(lambda: saver((0, 1)), lambda: saver((2, 1, 0)), by_load, by_onnxruntime)
    assert set(os.listdir(tmp_path)) == files_of(path)


def test_a_copy_of_the_model_keeps_its_data(programs: Any, tmp_path: Path) -> None:
    """The user copied the graph alone: what it names isn't removed, nor overwritten."""
    path = tmp_path / "m.onnx"
    programs[0].save(path, external_data=True)
    (tmp_path / "copy.onnx").write_bytes(path.read_bytes())
    for options in ({"external_data": False}, {"external_data": True}, {"external_data": True, "shard_bytes": 17_000}):
        for i in (1, 2):
            programs[i].save(path, **options)
            assert computed(path) == i
            assert computed(tmp_path / "copy.onnx") == 0


def test_data_of_others_stay(programs: Any, tmp_path: Path) -> None:
    names = ("am.onnx.data", "m.onnx.data.bak", "m.onnx.0123.data", "m.onnx_data", "n.onnx.0123456789abcdef.data")
    for name in names:
        (tmp_path / name).write_bytes(b"mine")
    for i in (0, 1, 2, 1):
        programs[i].save(tmp_path / "m.onnx", external_data=True)
        programs[i].save(tmp_path / "m2.onnx", external_data=True)
    for name in names:
        assert (tmp_path / name).read_bytes() == b"mine"


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A lock that is never given back would block for good."""
    signal.alarm(120)
    yield
    signal.alarm(0)
