"""A save that is killed, or that the system refuses, leaves the old model or the new one, each with its own weights."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxport
import onnxruntime
import pytest
import torch
from onnxport_builtin.program import placing
from torch import nn

X = torch.randn(2, 24)
EVENTS = ("open", "os.rename", "os.remove", "fcntl.flock")


def model_of(seed: int, layers: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(24, 24) for _ in range(layers))).eval()


OLD, NEW = model_of(1), model_of(2, layers=4)


@pytest.fixture(scope="module")
def programs() -> tuple[onnxport.ONNXProgram, onnxport.ONNXProgram]:
    return onnxport.export(OLD, (X,)), onnxport.export(NEW, (X,))


def computes(path: Path) -> nn.Module | None:
    """Which model the file computes; None if there is no file."""
    if not path.exists():
        return None
    (result,) = onnxruntime.InferenceSession(path).run(None, {"input": X.numpy()})
    for model in (OLD, NEW):
        if np.allclose(result, model(X).detach().numpy(), rtol=1e-4, atol=1e-5):
            return model
    raise AssertionError("the file computes neither the old model nor the new one")


def killed(save: Callable[[], None], step: int) -> bool:
    """Do `save` in a process that SIGKILLs itself before its step of this number; whether it came to that."""
    child = os.fork()
    if child == 0:
        steps = 0

        def count(event: str, _args: Any) -> None:
            nonlocal steps
            if event in EVENTS:
                if steps == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                steps += 1

        status = 1
        try:
            sys.addaudithook(count)
            save()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


KINDS: dict[str, dict[str, Any] | None] = {
    "nothing": None,
    "a file": {"external_data": False},
    "two files": {"external_data": True},
    "shards": {"external_data": True, "shard_bytes": 5000},
}


def of_the_model(path: Path) -> set[str]:
    """The names of a model's files: its own, and those of the data that it names."""
    proto = onnx.load(path, load_external_data=False)
    entries = [entry for tensor in proto.graph.initializer for entry in tensor.external_data]
    return {path.name, *(entry.value for entry in entries if entry.key == "location")}


@pytest.mark.parametrize(("old", "new"), [(old, new) for old in KINDS for new in KINDS if new != "nothing"])
def test_killed_at_every_step(old: str, new: str, programs: Any, tmp_path: Path) -> None:
    first, second = programs

    def save() -> None:
        second.save(path, **KINDS[new])  # type: ignore[arg-type]

    outcomes, step = [], 0
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        path = folder / "model.onnx"
        if KINDS[old] is not None:
            first.save(path, **KINDS[old])  # type: ignore[arg-type]
        alive = not killed(save, step)
        outcomes.append(computes(path))
        if alive:
            onnx.checker.check_model(str(path), full_check=True)
            break
        step += 1
    for number in range(step):  # the next save takes away what a killed one left
        killed_at = tmp_path / str(number) / "model.onnx"
        second.save(killed_at, **KINDS[new])  # type: ignore[arg-type]
        assert computes(killed_at) is NEW
        # what nothing tells from a file of the user's stays: the first data of all, whose model was never put beside
        # them, or was replaced by one without data
        plain = {f"model.onnx.data{suffix}" for suffix in ("", "_1", "_2")}
        told = set() if old != "nothing" and new != "a file" else plain
        assert set(os.listdir(killed_at.parent)) - told <= of_the_model(killed_at)
    assert outcomes[0] is (None if KINDS[old] is None else OLD)
    assert outcomes[-1] is NEW
    turning = outcomes.index(NEW)
    assert all(outcome is NEW for outcome in outcomes[turning:])
    assert set(os.listdir(folder)) == of_the_model(path)  # the one that wasn't killed left nothing else


@pytest.mark.parametrize("old", KINDS)
def test_refused_at_every_step(old: str, programs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the file system, and Ctrl-C, at each rename."""
    first, second = programs
    for step in range(6):
        for error in (OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()):
            path = tmp_path / f"{step}{type(error).__name__}" / "model.onnx"
            path.parent.mkdir()
            if KINDS[old] is not None:
                first.save(path, **KINDS[old])  # type: ignore[arg-type]
            before = sorted(os.listdir(path.parent))
            steps = 0
            original = os.replace

            def fail_once(*args: Any, original: Any = original, error: Any = error, step: int = step) -> None:
                nonlocal steps
                steps += 1
                if steps == step + 1:
                    raise error
                original(*args)

            failed: BaseException | None = None
            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", fail_once)
                try:
                    second.save(path, external_data=True, shard_bytes=5000)
                except (onnxport.SaveError, KeyboardInterrupt) as caught:
                    failed = caught
            found = computes(path)
            if failed is None:
                assert found is NEW
            else:
                assert found is (None if KINDS[old] is None else OLD)
                assert sorted(os.listdir(path.parent)) == before


@pytest.mark.parametrize("external_data", [True, False])
def test_a_full_disk(external_data: bool, programs: Any, tmp_path: Path) -> None:
    """The system refuses to write on, at different places of the files."""
    first, second = programs
    path = tmp_path / "model.onnx"
    first.save(path, external_data=external_data)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for limit in (0, 100, 2000, 5000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
            with pytest.raises(onnxport.SaveError, match="Cannot save"):
                second.save(path, external_data=external_data)
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert computes(path) is OLD


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_errors_of_the_system_say_what_to_do(
    code: int, programs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = programs
    first.save(tmp_path / "model.onnx", external_data=True)

    def refuse(*_args: Any, **_options: Any) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(placing, "Temporary", refuse)
    with pytest.raises(onnxport.SaveError, match=r"(free space|elsewhere|choose another folder)") as caught:
        second.save(tmp_path / "model.onnx", external_data=True)
    assert caught.value.__cause__.errno == code  # type: ignore[union-attr]
    assert computes(tmp_path / "model.onnx") is OLD


def test_a_folder_that_is_read_only(programs: Any) -> None:
    """By a user who may not write there: root may write anywhere, so a child process becomes somebody else."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs[0].save(folder / "model.onnx", external_data=True)
        folder.chmod(0o555)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if os.geteuid() == 0:
                    os.setuid(65534)
                programs[1].save(folder / "model.onnx", external_data=True)
            except onnxport.SaveError as error:
                status = 0 if "no permission to write: choose another folder" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        folder.chmod(0o755)
        assert computes(folder / "model.onnx") is OLD
        assert set(os.listdir(folder)) == {"model.onnx", "model.onnx.data"}


def test_saved_twice_gives_the_same_bytes(programs: Any, tmp_path: Path) -> None:
    _, program = programs
    contents = []
    for _ in range(3):
        program.save(tmp_path / "model.onnx", external_data=True)
        contents.append({name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)})
    assert set(contents[0]) == {"model.onnx", "model.onnx.data"}
    assert contents[0] == contents[1] == contents[2]


def test_a_loaded_model_is_saved_over_its_own_files(programs: Any, tmp_path: Path) -> None:
    _, program = programs
    path = tmp_path / "model.onnx"
    program.save(path, external_data=True)
    loaded = onnxport.ONNXProgram.load(path)
    loaded.save(path, external_data=True, shard_bytes=3000)
    assert computes(path) is NEW
    loaded.save(path, external_data=False)
    assert computes(path) is NEW


def test_saves_at_the_same_time_do_not_mix(programs: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    programs[0].save(path, external_data=True)

    def save(program: onnxport.ONNXProgram) -> None:
        for _ in range(10):
            program.save(path, external_data=True)

    threads = [threading.Thread(target=save, args=(program,)) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert computes(path) in (OLD, NEW)
    assert set(os.listdir(tmp_path)) == of_the_model(path)


def test_shards(programs: Any, tmp_path: Path) -> None:
    _, program = programs
    path = tmp_path / "model.onnx"
    program.save(path, external_data=True, shard_bytes=5000)
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "model.onnx.data", "model.onnx.data_1"]
    assert all((tmp_path / name).stat().st_size <= 5000 for name in os.listdir(tmp_path) if "data" in name)
    assert computes(path) is NEW
    torch.testing.assert_close(onnxport.ONNXProgram.load(path)(X)[0], NEW(X))
    program.save(path, external_data=True, shard_bytes=1)  # a weight is never split
    assert len(os.listdir(tmp_path)) == 5
    for wrong in (0, -1, 2.5, "1GB"):
        with pytest.raises(onnxport.InputError, match="shard_bytes"):
            program.save(path, shard_bytes=wrong)


def test_weights_are_aligned_for_memory_mapping(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(512, 600), nn.Linear(600, 513)).eval()  # over 1 MiB each
    path = tmp_path / "model.onnx"
    onnxport.export(model, (torch.randn(1, 512),), path)
    proto = onnx.load(path, load_external_data=False)
    places = {t.name: {e.key: e.value for e in t.external_data} for t in proto.graph.initializer if t.external_data}
    for name, weight in model.state_dict().items():
        offset = int(places[name]["offset"])
        assert offset % (64 * 1024 if weight.nbytes >= 2**20 else 64) == 0
        mapped = np.memmap(path.with_suffix(".onnx.data"), np.float32, "r", offset, tuple(weight.shape))
        np.testing.assert_array_equal(mapped, weight.numpy())


@pytest.mark.slow
@pytest.mark.grid  # it writes 2.4 GB
def test_files_over_two_gib(tmp_path: Path) -> None:
    """External data by size; the weights are views of a few zeros, and the file is as long as they say."""
    model = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(3))).eval()
    program = onnxport.export(model, (torch.randn(1, 16),))
    size = 200 * 2**20
    for value in program.model.graph.initializers.values():
        big = torch.zeros(1).expand(size)  # 800 MiB of float32 that take no memory
        value.const_value, value.shape = onnxport_tensor(big, value.name), None
    program.save(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size == 3 * 4 * size > 2**31
    assert (tmp_path / "model.onnx").stat().st_size < 10_000
    places = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.initializer[-1].external_data
    assert {e.key: e.value for e in places}["offset"] == str(2 * 4 * size)
    with pytest.raises(onnxport.SaveError, match="external_data=True"):
        program.save(tmp_path / "model.onnx", external_data=False)


def onnxport_tensor(tensor: torch.Tensor, name: str | None) -> Any:
    from onnxport.emit.weights import TorchTensor

    return TorchTensor(tensor, name)
