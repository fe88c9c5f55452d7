"""Discovery: the built-in plugin, installed ones by their entry points, and what a call chooses of them.

Plugins are loaded once per process for each choice. One that can't be imported, or whose hook
raises, is recorded with its error and skipped; the others, and exports that need them, go on.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import importlib_metadata
import pluggy

from onnxport import hookspecs
from onnxport.errors import PluginError
from onnxport.hookspecs import PROJECT, Container, Pass
from onnxport.registry import BUILTIN_TIER, THIRD_PARTY_TIER, Registry, Resolver, Translation

logger = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "ONNXPORT_PLUGINS"
BUILTIN = "builtin"
# By name: the core holds no operators, and the plugin that does gets no other privilege than to be here.
_BUILTIN_MODULE = "onnxport_builtin"
_KNOWN_PACKS = {"torchvision": "onnxport-torchvision"}
PACKS_GROUP = "onnxport.packs"
"""Entry points by which any distribution tells, without being imported, which pack serves an operator namespace: the
name is the namespace, the value the pack's distribution."""


@dataclass(slots=True)
class PluginInfo:
    """A plugin as ``onnxport plugins`` lists it.

    Attributes:
        name: of its entry point, or ``builtin``.
        distribution: the installed distribution that brought it, if any.
        version: of that distribution.
        translations: how many records it returned.
        error: why it, or one of its hooks, was skipped; empty when all went well.
    """

    name: str
    distribution: str = ""
    version: str = ""
    translations: int = 0
    error: str = ""
    tier: int = field(default=THIRD_PARTY_TIER, repr=False)

    def fail(self, what: str, error: BaseException) -> None:
        """Keep the error, and log it."""
        message = f"{what}: {type(error).__name__}: {error}"
        self.error = f"{self.error}; {message}" if self.error else message
        logger.warning("onnxport plugin %r (%s %s) is skipped: %s", self.name, self.distribution, self.version, message)


class Plugins:
    """The plugins of one choice, loaded.

    Args:
        chosen: names of installed plugins and plugin objects, apart from the built-in; ``None`` for all installed.

    Attributes:
        manager: the pluggy manager that holds them.

    Raises:
        PluginError: a name that no installed plugin bears.
    """

    def __init__(self, chosen: Sequence[object] | None = None) -> None:
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self._infos: list[PluginInfo] = []
        self._info_of: dict[str, PluginInfo] = {}
        self._registries: dict[int, Registry] = {}
        self._returned: dict[str, list[Any]] = {}
        builtin = PluginInfo(BUILTIN, PROJECT, tier=BUILTIN_TIER)
        self._register(import_module(_BUILTIN_MODULE), builtin)
        installed = installed_plugins() if chosen is None or any(isinstance(c, str) for c in chosen) else {}
        for choice in installed if chosen is None else chosen:
            if choice == BUILTIN:
                continue
            if not isinstance(choice, str):
                name = getattr(choice, "__name__", None) or type(choice).__name__
                self._register(choice, PluginInfo(str(name)))
            elif choice in installed:
                self._load(installed[choice])
            else:
                known = ", ".join([BUILTIN, *installed])
                raise PluginError(f"no installed plugin is named {choice!r}; there are: {known}.", plugins=[choice])

    def _load(self, entry_point: importlib_metadata.EntryPoint) -> None:
        distribution = entry_point.dist
        info = PluginInfo(
            entry_point.name,
            distribution.name if distribution else "",
            distribution.version if distribution else "",
        )
        try:
            plugin = entry_point.load()
        except (Exception, SystemExit) as error:  # a pack's import may raise anything; none of it is ours to fail by
            self._keep(info)
            info.fail("import failed", error)
            return
        self._register(plugin, info)

    def _register(self, plugin: object, info: PluginInfo) -> None:
        self._keep(info)
        try:
            self.manager.register(plugin, info.name)
            self._check_hooks(info)
        except (ValueError, pluggy.PluginValidationError) as error:
            self.manager.unregister(name=info.name)
            info.fail("not a valid plugin", error)

    def _check_hooks(self, info: PluginInfo) -> None:
        """Refuse functions marked as hooks whose name no hook has: a misspelt hook would never be called."""
        plugin = self.manager.get_plugin(info.name)
        known = {name for name in vars(hookspecs) if name.startswith("onnxport_")}
        for name in dir(plugin):
            if self.manager.parse_hookimpl_opts(plugin, name) is not None and name not in known:
                raise ValueError(f"no hook is named {name!r}; there are: {', '.join(sorted(known))}")

    def _keep(self, info: PluginInfo) -> None:
        self._infos.append(info)
        self._info_of[info.name] = info

    def _calls(self, hook: str) -> Iterator[tuple[PluginInfo, Callable[..., Any]]]:
        """Each plugin's implementation of a hook, the built-in's first."""
        # pluggy's own call stops at the first exception, so that one plugin would take the others down.
        implementations = {impl.plugin_name: impl for impl in getattr(self.manager.hook, hook).get_hookimpls()}
        for name, info in self._info_of.items():
            if (implementation := implementations.get(name)) is not None:
                yield info, _by_keyword(implementation)

    def _gather(self, hook: str, kind: type, **arguments: Any) -> list[tuple[PluginInfo, list[Any]]]:
        """What a hook's implementations return, each a list of ``kind``; one that fails is recorded."""
        gathered = []
        for info, call in self._calls(hook):
            try:
                items = list(call(**arguments) or ())
                wrong = next((item for item in items if not isinstance(item, kind)), None)
                if wrong is not None:
                    raise TypeError(f"expected {kind.__name__} objects, got {wrong!r}")
            except Exception as error:
                info.fail(f"{hook} failed", error)
            else:
                gathered.append((info, items))
        return gathered

    @functools.cached_property
    def _base(self) -> Registry:
        records: list[Translation] = []
        for info, items in self._gather("onnxport_translations", Translation):
            info.translations = len(items)
            name, tier = info.name, info.tier
            # Not dataclasses.replace: with some thousand records, it would be half of the start-up.
            records.extend(
                Translation(r.target, r.function, r.opset, r.priority, r.complex, name, tier, r.needs_builder)
                for r in items
            )
        decompositions: dict[Any, Callable[..., Any]] = {}
        for info, call in self._calls("onnxport_decompositions"):
            try:
                decompositions.update(call() or {})
            except Exception as error:
                info.fail("onnxport_decompositions failed", error)
        resolvers = [
            Resolver(info.name, info.tier, functools.partial(_resolve, info, call))
            for info, call in self._calls("onnxport_resolve")
        ]
        resolvers.sort(key=lambda resolver: -resolver.tier)
        return Registry(records, resolvers, decompositions)

    @property
    def infos(self) -> list[PluginInfo]:
        """What was loaded, and what failed, in order; with their translations counted."""
        _ = self._base  # compiling counts them
        self._info_of[BUILTIN].version = _own_version()  # reading metadata takes longer than compiling
        return self._infos

    @property
    def names(self) -> list[str]:
        """Names of the plugins that were loaded, without those that failed to import."""
        return [info.name for info in self._infos if self.manager.has_plugin(info.name)]

    @property
    def failures(self) -> list[PluginInfo]:
        """Those that failed, wholly or in a hook."""
        return [info for info in self.infos if info.error]

    def registry(self, opset: int) -> Registry:
        """The translations of these plugins at an opset; compiled once."""
        found = self._registries.get(opset)
        if found is None:
            found = self._registries[opset] = self._base.at_opset(opset)
        return found

    def containers(self) -> Sequence[Container]:
        """Classes that hold tensors, of all plugins."""
        return self._once("onnxport_containers", Container)

    def fx_passes(self) -> Sequence[Pass]:
        """Steps over the FX graph, of all plugins."""
        return self._once("onnxport_fx_passes", Pass)

    def ir_passes(self) -> Sequence[Pass]:
        """Steps over the ONNX model, of all plugins."""
        return self._once("onnxport_ir_passes", Pass)

    def _once(self, hook: str, kind: type) -> Sequence[Any]:
        if hook not in self._returned:
            self._returned[hook] = [item for _, items in self._gather(hook, kind) for item in items]
        return self._returned[hook]

    def patches(self, model: Any) -> list[AbstractContextManager[Any]]:
        """Fresh context managers for one capture of a model."""
        found = self._gather("onnxport_patches", AbstractContextManager, model=model)
        return [manager for _, items in found for manager in items]

    def add_commands(self, app: Any) -> None:
        """Let plugins add commands to the command line's ``typer.Typer``."""
        for info, call in self._calls("onnxport_commands"):
            try:
                call(app=app)
            except Exception as error:
                info.fail("onnxport_commands failed", error)

    def advice(self, target: str) -> str:
        """What could serve an operator that nothing serves: a known pack, or a plugin that failed. Empty if unknown."""
        namespace = target.partition("::")[0]
        for info in self.failures:
            if namespace in (info.name, info.distribution):
                return f"plugin {info.name!r} would serve it, but failed: {info.error}"
        if namespace in installed_plugins() and namespace not in self.names:
            return f"plugin {namespace!r} is installed, but left out by plugins=[...] or {ENVIRONMENT_VARIABLE}"
        named = {entry.name: entry.value for entry in importlib_metadata.entry_points(group=PACKS_GROUP)}
        pack = {**_KNOWN_PACKS, **named}.get(namespace)
        return f"pip install {pack}" if pack and namespace not in self.names else ""


def _by_keyword(implementation: pluggy.HookImpl) -> Callable[..., Any]:
    """Call an implementation with those of a hook's arguments that it declares, as pluggy does."""

    def call(**arguments: Any) -> Any:
        return implementation.function(*(arguments[name] for name in implementation.argnames))

    return call


def _resolve(info: PluginInfo, call: Callable[..., Any], target: object, opset: int) -> Iterable[Translation] | None:
    try:
        records = call(target=target, opset=opset)
        return None if records is None else [replace(record) for record in records]
    except Exception as error:
        info.fail(f"onnxport_resolve failed for {target}", error)
        return None


@functools.cache
def _own_version() -> str:
    try:
        return importlib_metadata.version(PROJECT)
    except importlib_metadata.PackageNotFoundError:  # run from a checkout that isn't installed
        return ""


@functools.cache
def installed_plugins() -> Mapping[str, importlib_metadata.EntryPoint]:
    """Entry points of the group ``onnxport`` by name, not imported."""
    found: dict[str, importlib_metadata.EntryPoint] = {}
    for entry_point in importlib_metadata.entry_points(group=PROJECT):
        if entry_point.name == BUILTIN or entry_point.name in found:
            logger.warning("onnxport plugin name %r is taken; %s is skipped", entry_point.name, entry_point.value)
        else:
            found[entry_point.name] = entry_point
    return found


@functools.cache
def _environment_choice() -> tuple[str, ...] | None:
    """Plugin names of the environment variable; ``None`` when it isn't set. Read once per process."""
    text = os.environ.get(ENVIRONMENT_VARIABLE)
    if text is None:
        return None
    return tuple(name for part in text.strip().strip("()").split(",") if (name := part.strip()))


_loaded: dict[tuple[object, ...] | None, Plugins] = {}
_lock = threading.RLock()


def load(plugins: Sequence[object] | None = None) -> Plugins:
    """The plugins that a call chooses, loaded once per process.

    Args:
        plugins: names of installed plugins, or plugin modules and objects. The built-ins are always
            there: an empty sequence leaves them alone. ``None`` means the names in the environment variable
            ``ONNXPORT_PLUGINS`` (separated by commas; empty for the built-ins alone) or, where that
            isn't set, all installed plugins.

    Raises:
        PluginError: ``plugins`` is no sequence, or a string, or holds a name that no installed plugin bears.
    """
    if isinstance(plugins, str):
        raise PluginError(f"plugins must be a sequence of names, such as plugins=[{plugins!r}], not a string.")
    try:
        chosen = _environment_choice() if plugins is None else tuple(plugins)
        hash(chosen)
    except TypeError:
        chosen = (None,)
    if any(plugin is None or isinstance(plugin, (int, float, complex, bytes)) for plugin in chosen or ()):
        raise PluginError(f"plugins={plugins!r}: give a list of names of plugins, or of plugin modules and objects.")
    with _lock:
        loaded = _loaded.get(chosen)
        if loaded is None:
            loaded = _loaded[chosen] = Plugins(chosen)
        return loaded


def registry_for(plugins: Sequence[object] | None, opset: int) -> Registry:
    """The compiled translations of :func:`load`'s plugins at ``opset``.

    Raises:
        PluginError: as :func:`load`.
    """
    return load(plugins).registry(opset)


def forget() -> None:
    """Drop all loaded plugins and the environment's choice, so that the next use discovers them anew."""
    with _lock:
        _loaded.clear()
        installed_plugins.cache_clear()
        _environment_choice.cache_clear()
