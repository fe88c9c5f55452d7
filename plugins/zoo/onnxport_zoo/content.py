"""What tells whether a case is still the same: digests of its model's source, and versions of what exports it."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import importlib_metadata
import onnxport

from onnxport_zoo.cases import Case

LIBRARIES = ("torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")
FORMAT = 1  # of results: a change makes old ones stale


def digest_of(value: Any) -> str:
    """A digest of what JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def digest_of_files(paths: Iterable[Path]) -> str:
    """A digest of the bytes of files."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        digest.update(b"\0")
    return digest.hexdigest()


@functools.cache
def _source(path: Path) -> str:
    """A digest of a module's file, or of all code of a package's folder."""
    found = [*path.rglob("*.py"), *path.rglob("*.json")] if path.is_dir() else [path]
    files = sorted(each for each in found if each.parent.name != "__pycache__")  # where lists of plugins are kept too
    return digest_of_files(files)


def source_of(module: str) -> str:
    """A digest of the code of a module's top-level package; empty where there is none."""
    top = module.partition(".")[0]
    loaded = sys.modules.get(top)
    try:
        spec = loaded.__spec__ if loaded is not None else importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ""
    if spec is None or not spec.origin or not Path(spec.origin).is_file():
        return ""
    origin = Path(spec.origin)
    return _source(origin.parent if origin.stem == "__init__" else origin)


@functools.cache
def versions() -> dict[str, str]:
    """Of Python, of the libraries, and of onnxport and its packs, whose code counts too."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    found |= {name: version_of(name) for name in LIBRARIES}
    packs = {entry.module.partition(".")[0] for entry in importlib_metadata.entry_points(group="onnxport")}
    return found | {name: source_of(name)[:16] for name in sorted({"onnxport", "onnxport_zoo", *_builtin(), *packs})}


def _builtin() -> list[str]:
    """The packages of the plugins that come with onnxport, which lie side by side."""
    workbench = sys.modules[onnxport.verify.__module__.partition(".")[0]]
    home = Path(str(workbench.__file__)).parent.parent
    return [path.parent.name for path in home.glob("onnxport_*/__init__.py")]


def version_of(distribution: str) -> str:
    """The installed version; empty where there is none."""
    try:
        return str(importlib_metadata.version(distribution))
    except importlib_metadata.PackageNotFoundError:
        return ""


def content_of(case: Case) -> dict[str, str]:
    """What the model of a case is made of, by digests and versions."""
    folder = Path(case.folder)
    found = {each: digest_of_files(_files(folder, each)) for each in case.depends}
    if case.model.endswith(".pt2"):
        path = folder / case.model
        return found | {"file": _source(path) if path.is_file() else ""}
    resolver = case.resolver
    if case.place:
        found |= _source_at(case.place.rpartition(":")[0], folder)
    if resolver is not None:
        return found | {name: version_of(name) for name in resolver.distributions}
    return found | _source_at(case.model.rpartition(":")[0], folder)


def _source_at(module: str, folder: Path) -> dict[str, str]:
    """The code of ``file.py`` or of a module, which may be one of a folder."""
    path = folder / module
    if module.endswith(".py"):
        return {"source": _source(path) if path.is_file() else ""}
    local = folder / module.partition(".")[0]
    for candidate in (local, local.with_suffix(".py")):
        if candidate.exists():
            return {"source": _source(candidate)}
    return {"source": source_of(module)}


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def key_of(case: Case) -> str:
    """What a case's result is stored under: settings, content and versions. Limits aren't part of it."""
    return digest_of([FORMAT, case.settings(), content_of(case), versions()])


def verification_key(case: Case, written: str) -> str:
    """What a verification is stored under: the bytes of the file, the model, and what compares them.

    Files are the same bytes every time, so a newer onnxport that writes these bytes needs no second verification.
    """
    compared = {name: version_of(name) for name in ("torch", "onnx", "onnxruntime", "numpy")}
    verifier = source_of(onnxport.verify.__module__)
    return digest_of([FORMAT, written, content_of(case), case.model, case.dtype, dict(case.verify), compared, verifier])
