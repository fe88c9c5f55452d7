"""The families of built-in operators, and the index that spares importing them all.

Importing every family takes a quarter of a second; a model needs a few. What each declares is kept in an index beside
the compiled bytecode, and is made again when a family's source, Python or torch has changed. Where that can't be
written, all families are imported each time.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from onnxport import Deferred, Translation, collect

logger = logging.getLogger(__name__)
_PACKAGE = __name__.rpartition(".")[0]
_FOLDER = Path(__file__).parent


def names() -> Iterator[str]:
    """Names of the modules that hold translations."""
    for module in pkgutil.walk_packages([str(_FOLDER)], f"{_PACKAGE}."):
        if not module.ispkg and module.name != __name__:
            yield module.name


def translations() -> list[Translation]:
    """All records of all families; those that the index knows are imported when they are needed.

    A family that fails to import, as one may with a torch that is newer than it, is logged as an error and left out:
    exports that don't need it go on, as they do when a third party's plugin fails.
    """
    path = Path(importlib.util.cache_from_source(str(_FOLDER / "translations.py"))).with_suffix(".json")
    stamp = _stamp()
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        index = {}
    if index.get("stamp") != stamp:
        index, complete = _read_families(stamp)
        if complete:
            _write(path, index)
    records: list[Translation] = []
    for module, entries in index["families"].items():
        if entries is None:
            records += collect(importlib.import_module(module))
            continue
        records += [
            Translation(target, Deferred(module, owner), opset, priority, bool(is_complex))
            for owner, target, opset, priority, is_complex in entries
        ]
    return records


def _stamp() -> list[Any]:
    """What the index depends on."""
    sources = []
    for folder in (_FOLDER, _FOLDER / "aten"):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    status = entry.stat()
                    sources.append([entry.name, status.st_mtime_ns, status.st_size])
    return [torch.__version__, sorted(sources)]


def _read_families(stamp: list[Any]) -> tuple[dict[str, Any], bool]:
    """Import every family: the index, and whether all of them could be imported.

    A family may declare translations through a function of another, which then owns the records.
    """
    families: dict[str, Any] = {}
    counted: dict[str, int] = {}
    complete = True
    everything = list(names())
    for name in everything:
        try:
            importlib.import_module(name)
        except Exception:
            logger.exception("the built-in operators of %s are missing", name)
            complete = False
            continue
        added = []
        for owner in everything:
            records = collect(sys.modules[owner]) if owner in sys.modules else []
            added += [(owner, record) for record in records[counted.get(owner, 0) :]]
            counted[owner] = len(records)
        if any(not isinstance(record.target, str) for _, record in added):
            families[name] = None  # Python callables have no name to keep: the family is imported each time
        elif added:
            families[name] = [[o, r.target, r.opset, r.priority, int(r.complex)] for o, r in added]
    return {"stamp": stamp, "families": families}, complete


def _write(path: Path, index: dict[str, Any]) -> None:
    """Replace the index at once; other processes may be reading or writing it."""
    try:
        path.parent.mkdir(exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(index, file)
        os.replace(temporary, path)
    except OSError as error:
        logger.debug("the index of built-in operators can't be written: %s", error)
