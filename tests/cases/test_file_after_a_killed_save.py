"""What a killed save leaves is a model; what it leaves beside is removed. Files keep their permissions, and names."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxport
import pytest
import torch
from onnxport_builtin.program import placing

X = torch.randn(1, 64)


def network(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Linear(64, 64).eval()


MODELS = [network(1), network(2)]


@pytest.fixture(scope="module")
def programs() -> list[onnxport.ONNXProgram]:
    return [onnxport.export(model, (X,)) for model in MODELS]


def child(function: Callable[[], object]) -> None:
    """Do something in a process of its own, which may be killed."""
    pid = os.fork()
    if not pid:
        try:
            function()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def killed_save(program: onnxport.ONNXProgram, path: Path, step: int, **options: Any) -> None:
    """A save that is killed behind its rename of this number, or while it writes before the first."""

    def save() -> None:
        replace, done = os.replace, []

        def counted(*names: Any) -> None:
            replace(*names)
            done.append(names)
            if len(done) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = counted  # in a process of its own
        if step == 0:
            placing.Temporary.sync = lambda _self: os.kill(os.getpid(), signal.SIGKILL)
        program.save(path, **options)

    child(save)


@pytest.mark.parametrize("old", [None, {"external_data": True}, {"external_data": False}], ids=("none", "data", "one"))
@pytest.mark.parametrize("step", range(4))
def test_it_can_be_used(old: dict[str, Any] | None, step: int, programs: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    if old is not None:
        programs[0].save(path, **old)
    killed_save(programs[1], path, step, external_data=True)
    if path.exists():
        program = onnxport.ONNXProgram.load(path)
        found = program(X)[0]
        assert [i for i in (0, 1) if torch.allclose(found, MODELS[i](X), atol=1e-5)] == [int(step > 1)]
        onnx.load(path)
        program.save(tmp_path / "again.onnx", external_data=False)
        torch.testing.assert_close(onnxport.ONNXProgram.load(tmp_path / "again.onnx")(X)[0], found)
        (tmp_path / "again.onnx").unlink()
    else:
        assert old is None and step < 2
        with pytest.raises(FileNotFoundError):
            onnxport.ONNXProgram.load(path)
    programs[1].save(path, external_data=True)
    torch.testing.assert_close(onnxport.ONNXProgram.load(path)(X)[0], MODELS[1](X))
    assert len(os.listdir(tmp_path)) == 2 and not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_temporaries_of_others_stay(programs: Any, tmp_path: Path) -> None:
    """Those of savers that are alive, of other models, and what only looks like one."""
    path = tmp_path / "m.onnx"
    left = [".m.onnx.0123456789abcdef.tmp", ".m.onnx.data.0123456789abcdef.tmp", ".m.onnx.data_1.0123456789abcdef.tmp"]
    others = [".n.onnx.0123456789abcdef.tmp", ".m.onnx.tmp", ".m.onnx.bak.0123456789abcdef.tmp", "m.onnx.tmp"]
    for name in (*left, *others):
        (tmp_path / name).write_bytes(b"x")
    read, write = os.pipe()

    def works() -> None:
        import contextlib

        with contextlib.ExitStack() as stack:
            temporary = placing.Temporary(stack, str(tmp_path), "m.onnx", private=False)
            os.write(write, os.path.basename(temporary.path).encode())
            signal.pause()

    pid = os.fork()
    if not pid:
        works()
    alive = os.read(read, 200).decode()
    for program in programs:
        program.save(path, external_data=False)
    assert set(os.listdir(tmp_path)) == {"m.onnx", alive, *others}
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    programs[0].save(path, external_data=False)
    assert set(os.listdir(tmp_path)) == {"m.onnx", *others}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("external", [True, False])
@pytest.mark.parametrize("given", [0o600, 0o640, 0o664, 0o444])
def test_permissions_of_a_replaced_file_stay(given: int, external: bool, programs: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    programs[0].save(path, external_data=external)
    for file in tmp_path.iterdir():
        file.chmod(given)
    for i in (1, 0, 1):
        programs[i].save(path, external_data=external)
        files = list(tmp_path.iterdir())
        assert len(files) == 1 + external
        assert [mode(file) for file in files] == [given] * len(files)


def test_data_are_as_private_as_the_model_that_held_them(programs: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    programs[0].save(path, external_data=False)
    path.chmod(0o600)
    programs[1].save(path, external_data=True)
    assert {mode(file) for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_new_files_follow_the_umask(mask: int, programs: Any, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        programs[0].save(tmp_path / "m.onnx", external_data=True)
    finally:
        os.umask(before)
    assert {mode(file) for file in tmp_path.iterdir()} == {0o666 & ~mask}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_owner_and_group_stay(programs: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    programs[0].save(path, external_data=True)
    for file in tmp_path.iterdir():
        os.chown(file, 1234, 4321)
        file.chmod(0o640)
    programs[1].save(path, external_data=True)
    for file in tmp_path.iterdir():
        assert (file.stat().st_uid, file.stat().st_gid, mode(file)) == (1234, 4321, 0o640)


@pytest.mark.parametrize("external", [True, False])
def test_a_link_to_a_model_stays_one(external: bool, programs: Any, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link, real = tmp_path / "m.onnx", tmp_path / "real" / "other.onnx"
    link.symlink_to("real/other.onnx")
    for i in (0, 1):
        programs[i].save(link, external_data=external)
        assert link.is_symlink() and real.is_file() and not real.is_symlink()
        torch.testing.assert_close(onnxport.ONNXProgram.load(link)(X)[0], MODELS[i](X))
    assert not list(tmp_path.rglob(".*.tmp"))


def test_folders_are_synced(programs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, the names of data, the model, and its name, in this order."""
    events: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def replaced(source: str, target: str) -> None:
        events.append(os.path.basename(target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    programs[0].save(tmp_path / "m.onnx", external_data=True)
    assert events == ["file", "file", "m.onnx.data", "folder", "m.onnx", "folder"]


def test_the_same_model_again_keeps_its_data_file(programs: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    programs[0].save(path, external_data=True)
    number = (tmp_path / "m.onnx.data").stat().st_ino
    for _ in range(2):
        programs[0].save(path, external_data=True)
        assert sorted(os.listdir(tmp_path)) == ["m.onnx", "m.onnx.data"]
        assert (tmp_path / "m.onnx.data").stat().st_ino == number
    programs[1].save(path, external_data=True)
    first = sorted(os.listdir(tmp_path))
    assert len(first) == 2 and first != ["m.onnx", "m.onnx.data"]
    content = path.read_bytes()
    programs[0].save(path, external_data=True)
    programs[1].save(path, external_data=True)
    assert path.read_bytes() == content and sorted(os.listdir(tmp_path)) == first  # named after what they hold


@pytest.mark.parametrize(
    "name", ["m\udcff.onnx", "[red]m.onnx", "\x1b[31mm.onnx", "m|`*.onnx", "m n\n.onnx", "日本.onnx"]
)
def test_names_that_terminals_would_take_for_orders(name: str, programs: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    programs[0].save(path, external_data=False)
    torch.testing.assert_close(onnxport.ONNXProgram.load(path)(X)[0], MODELS[0](X))
    if "\udcff" in name:
        with pytest.raises(onnxport.SaveError, match=r"UTF-8.*external_data=False") as caught:
            programs[0].save(path, external_data=True)
        str(caught.value).encode()
    else:
        programs[1].save(path, external_data=True)
        torch.testing.assert_close(onnxport.ONNXProgram.load(path)(X)[0], MODELS[1](X))
    path.write_bytes(b"damaged")
    with pytest.raises(onnxport.FileError) as damaged:
        onnxport.ONNXProgram.load(path)
    assert "\x1b" not in str(damaged.value)
    str(damaged.value).encode()  # no surrogate
