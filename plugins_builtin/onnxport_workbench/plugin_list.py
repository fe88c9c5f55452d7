"""What the command line says of plugins without importing torch: the list of a former time, and who may have commands.

To list plugins with their translations and errors, they must be imported, and torch with them, which takes seconds.
Where none has an error, the list is kept beside the bytecode, with what it depends on: Python, the installed
distributions, the choice of plugins, and the source files of onnxport and of the plugins. It is made again when one of
these has changed.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxport
from importlib_metadata import EntryPoint, entry_points
from onnxport.kit import environment_choice

FIELDS = ("name", "distribution", "version", "translations", "error", "warning")
_FILE = Path(importlib.util.cache_from_source(str(Path(__file__).with_name("plugin_list.py")))).with_suffix(".json")
_HOOK = "onnxport_commands"
_INSTALLED = (".dist-info", ".egg-info")


def listed(chosen: Sequence[str] | None, *, fresh: bool = False) -> list[dict[str, Any]]:
    """The plugins with :data:`FIELDS`, those that failed included.

    Args:
        chosen: names of plugins; None for all.
        fresh: import them in any case.

    Raises:
        PluginError: a name that no plugin has.
    """
    stamp = _stamp(chosen)
    kept = {} if fresh else _read()
    if kept.get("stamp") == stamp:
        return kept["plugins"]  # type: ignore[no-any-return]
    from onnxport.kit import load

    loaded = load(chosen or None)
    infos = [*loaded.infos, *(info for info in loaded.failures if info not in loaded.infos)]
    plugins = [{name: getattr(info, name) for name in FIELDS} for info in infos]
    if not any(plugin["error"] or plugin["warning"] for plugin in plugins):
        _write({"stamp": stamp, "plugins": plugins})
    return plugins


def may_have_commands() -> bool:
    """Whether a plugin that takes part may add commands, as its source says; none is imported."""
    chosen = environment_choice()
    entries = (entry for entry in entry_points(group="onnxport") if chosen is None or entry.name in chosen)
    return any(_may_have_commands(entry) for entry in entries)


def _may_have_commands(entry: EntryPoint) -> bool:
    module, _, attribute = entry.value.partition(":")
    source = _source_of(module.strip())
    if attribute or source is None:
        return True  # an object, whose class may be anywhere
    text = source.read_text("utf-8", errors="replace")
    return _HOOK in text or "import *" in text


def _source_of(module: str) -> Path | None:
    """The file of a module, found without importing its package; None where it isn't one of Python's."""
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *inner)
        for each in (path.with_suffix(".py"), path / "__init__.py"):
            if each.is_file():
                return each
    return None


def _stamp(chosen: Sequence[str] | None) -> str:
    """What a list of plugins depends on, as text that can be compared."""
    folders = {Path(onnxport.__path__[0]), *Path(__file__).parent.parent.glob("onnxport_*")}
    entries = []
    for entry in entry_points(group="onnxport"):
        source = _source_of(entry.value.partition(":")[0].strip())
        distribution = entry.dist
        entries.append([entry.name, entry.value, distribution.version if distribution else "", str(source)])
        if source is not None and source.name == "__init__.py":
            folders.add(source.parent)
        elif source is not None:
            entries[-1] += _status(source)
    return json.dumps(
        [
            sys.version,
            sorted(chosen or ()),
            os.environ.get("ONNXPORT_PLUGINS"),
            sorted(entries),
            sorted(_distributions()),
            sorted([str(path), *_status(path)] for folder in folders for path in folder.rglob("*.py")),
        ]
    )


@functools.cache
def _distributions() -> list[str]:
    """The installed distributions with their versions, as their folders are named."""
    found = []
    for folder in dict.fromkeys(sys.path):
        try:
            with os.scandir(folder or ".") as entries:
                found += [
                    f"{folder}/{each.name}" for each in entries if each.name.endswith((".dist-info", ".egg-info"))
                ]
        except OSError:  # an archive, or a folder that isn't there
            found.append(folder)
    return found


def _status(path: Path) -> list[str]:
    status = path.stat()
    return [str(status.st_mtime_ns), str(status.st_size)]


def _read() -> dict[str, Any]:
    try:
        kept = json.loads(_FILE.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _write(data: dict[str, Any]) -> None:
    """Replace the list at once; other processes may be reading or writing it. Where it can't be, it isn't kept."""
    try:
        _FILE.parent.mkdir(exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=_FILE.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(data, file)
        os.replace(temporary, _FILE)
    except OSError:
        return


__all__ = ["FIELDS", "listed", "may_have_commands"]
