"""Discovery: the built-in plugin, installed ones by their entry points, and what a call chooses of them.

Plugins are loaded once per process for each choice. One that can't be imported, or whose hook raises, is recorded and
skipped. One that was asked for, and can't be imported or has no valid hooks, is an error.
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

import importlib_metadata
import pluggy

from onnxport.errors import PluginError
from onnxport.host import checking, hookspecs, order
from onnxport.host.calls import Hooks
from onnxport.host.checking import Patch
from onnxport.host.hookspecs import PROJECT
from onnxport.host.info import PluginInfo
from onnxport.host.packs import ENVIRONMENT_VARIABLE, environment_choice, version_of
from onnxport.host.registry import Registry
from onnxport.records import profiles
from onnxport.records.profiles import STANDARD, Profile
from onnxport.records.semantics import Semantics
from onnxport.records.stages import Container, Pass, ProgramPass
from onnxport.records.translations import BUILTIN_TIER, THIRD_PARTY_TIER, Resolver, Translation
from onnxport.vocabulary.checks import listed, shown
from onnxport.vocabulary.packages import BUILTIN_PACKAGE, STAGE_PACKAGES
from onnxport.vocabulary.patching import Replacement
from onnxport.vocabulary.provenance import told

logger = logging.getLogger(__name__)

BUILTIN = "builtin"


class Plugins:
    """The plugins of one choice, loaded.

    Args:
        chosen: names of installed plugins and plugin objects, apart from the built-in, in the order in which they are
            preferred where they are of equal rank; ``None`` for all installed, of which none is preferred.

    Attributes:
        hooks: their hooks; ``hooks.manager`` is the pluggy manager that holds them.

    Raises:
        PluginError: a name that no installed plugin has; or one of those that were asked for can't be loaded.
    """

    def __init__(self, chosen: Sequence[object] | None = None) -> None:
        self.hooks = Hooks(hookspecs, checking.CHECKS)
        self._infos: list[PluginInfo] = []
        self._stages: list[PluginInfo] = []
        self._info_of: dict[str, PluginInfo] = {}
        self._registries: dict[tuple[int, str], Registry] = {}
        self._returned: dict[str, list[Any]] = {}
        self._positions: dict[str, int] = {}
        self._register_builtins()
        installed = installed_plugins() if chosen is None or any(isinstance(c, str) for c in chosen) else {}
        if chosen is None:
            for entry_point in reversed(list(installed.values())):  # pluggy calls what was registered last first
                self._load(entry_point)
        else:
            self._load_chosen(chosen, installed)
        self._infos[1:] = self._infos[:0:-1]

    def _register_builtins(self) -> None:
        """The built-ins; an export can do without those for stages, but not without operators.

        Raises:
            PluginError: the plugin that has the operators isn't installed.
        """
        for package in (BUILTIN_PACKAGE, *STAGE_PACKAGES):
            try:
                plugin = import_module(package)
            except ModuleNotFoundError as error:
                if error.name != package:
                    raise
                if package == BUILTIN_PACKAGE:
                    raise PluginError(
                        f"{package}, the plugin that has the operators, isn't installed: install onnxport again.",
                        plugins=[BUILTIN],
                    ) from error
                continue
            if package == BUILTIN_PACKAGE:
                self._register(plugin, PluginInfo(BUILTIN, PROJECT, tier=BUILTIN_TIER))
            else:
                self._stages.append(PluginInfo(package, PROJECT, tier=BUILTIN_TIER))
                self.hooks.register(plugin, self._stages[-1])

    @property
    def manager(self) -> pluggy.PluginManager:
        """The pluggy manager that holds the plugins."""
        return self.hooks.manager

    def _load_chosen(self, chosen: Sequence[object], installed: Mapping[str, importlib_metadata.EntryPoint]) -> None:
        """Load what was asked for: none of it can be left out in silence."""
        named = {choice for choice in chosen if isinstance(choice, str)} | {BUILTIN}
        plugins: dict[str, object] = {}
        for choice in chosen:
            if isinstance(choice, str):
                if choice != BUILTIN and choice not in installed:
                    known = ", ".join([BUILTIN, *installed])
                    raise PluginError(
                        f"no installed plugin is named {choice!r}; there are: {known}. Name one of these.",
                        plugins=[choice],
                    )
                plugins[choice] = choice
            elif not any(choice is other for other in plugins.values()):
                base = str(getattr(choice, "__name__", None) or type(choice).__name__)
                numbers = itertools.count(2)
                name = base
                while name in plugins or name in named:  # objects of one class
                    name = f"{base}_{next(numbers)}"
                plugins[name] = choice
        plugins.pop(BUILTIN, None)
        for name, choice in reversed(plugins.items()):
            if isinstance(choice, str):
                self._load(installed[choice], is_required=True)
            else:
                self._register(choice, PluginInfo(name), is_required=True)
        self._positions = {name: position for position, name in enumerate(plugins)}

    def _load(self, entry_point: importlib_metadata.EntryPoint, *, is_required: bool = False) -> None:
        distribution = entry_point.dist
        info = PluginInfo(
            entry_point.name,
            distribution.name if distribution else "",
            distribution.version if distribution else "",
        )
        try:
            plugin = entry_point.load()
        except (Exception, SystemExit) as error:  # a pack's import may raise anything; none of it is ours to fail by
            if is_required:
                raise PluginError(
                    f"The plugin {info.label} can't be imported: {told(error)}. Fix or update it, "
                    f"or leave it out of plugins=[...] and {ENVIRONMENT_VARIABLE}.",
                    plugins=[info.name],
                ) from error
            self._keep(info)
            info.fail("import failed", error)
            return
        self._register(plugin, info, is_required=is_required)

    def _register(self, plugin: object, info: PluginInfo, *, is_required: bool = False) -> None:
        self._keep(info)
        try:
            self.hooks.register(plugin, info)
        except PluginError as error:
            if is_required:
                raise PluginError(
                    f"The plugin {info.label} can't be used: {error}. Correct its hooks, or leave it out of "
                    f"plugins=[...] and {ENVIRONMENT_VARIABLE}.",
                    plugins=[info.name],
                ) from error.__cause__
            info.fail("not a valid plugin", error.__cause__ or error)

    def _keep(self, info: PluginInfo) -> None:
        self._infos.append(info)
        self._info_of[info.name] = info

    @functools.cached_property
    def _base(self) -> Registry:
        records = [record for items in self.hooks.call("onnxport_translations") for record in items]
        for name, count in Counter(record.plugin for record in records).items():
            self._info_of[name].translations = count
        for record in records:
            is_foreign = record.tier and isinstance(record.target, str)
            if is_foreign and (wrong := self.act("missing_operator", record.target)):
                self._info_of[record.plugin].warn(f"{record.function_name} translates no operator: {wrong}")
        decompositions: dict[Any, Callable[..., Any]] = {}
        for found in reversed(self.hooks.call("onnxport_decompositions")):
            decompositions.update(found)
        asks = self.manager.hook.onnxport_resolve.get_hookimpls()
        resolvers = [Resolver("", THIRD_PARTY_TIER, self._resolve)] if asks else []
        return Registry(records, resolvers, decompositions, positions=self._positions)

    def _resolve(self, target: object, opset: int) -> Iterable[Translation] | None:
        return self.hooks.call("onnxport_resolve", target=target, opset=opset)  # type: ignore[no-any-return]

    def adapt(self, function: object) -> Translation | None:
        """A function of a table that isn't written for ``op``, as a translation; None where no plugin knows it."""
        return self.hooks.call("onnxport_adapt", function=function)  # type: ignore[no-any-return]

    @property
    def infos(self) -> list[PluginInfo]:
        """The plugins that were loaded or failed, in order, with the number of their translations."""
        _ = self._base  # compiling counts them
        self._info_of[BUILTIN].version = version_of(PROJECT)  # reading metadata takes longer than compiling
        return self._infos

    @property
    def names(self) -> list[str]:
        """Names of the plugins that were loaded, without those that failed to import."""
        return [info.name for info in self._infos if self.manager.has_plugin(info.name)]

    @property
    def failures(self) -> list[PluginInfo]:
        """Those that failed, wholly or in a hook; built-in plugins for stages by their packages."""
        return [info for info in (*self.infos, *self._stages) if info.error]

    def registry(self, opset: int, profile: str = STANDARD) -> Registry:
        """The translations of these plugins at an opset, for files of a profile; compiled once."""
        found = self._registries.get((opset, profile))
        if found is None:
            base = self._base if profile == STANDARD else self._base.for_profile(profile)
            found = self._registries[opset, profile] = base.at_opset(opset)
        return found

    def preferring(self, prefer: Mapping[Any, Any] | None, opset: int, profile: str = STANDARD) -> Registry:
        """The translations at an opset, with the caller's choice among plugins of equal rank.

        Args:
            prefer: the name of a plugin by operator: by qualified name, ``OpOverload`` or Python callable.

        Raises:
            InputError: ``prefer`` is no dict of such.
            PluginError: a plugin that isn't loaded, or that has no translation of the operator.
        """
        registry = self.registry(opset, profile)
        return registry if prefer is None else self.act("prefer", registry, prefer, self._info_of)

    def profiles(self) -> Mapping[str, Profile]:
        """Runtimes that files can be written for, of all plugins, by name.

        Raises:
            PluginError: two have one name.
        """
        return profiles.by_name(self.items("onnxport_profiles"))

    def containers(self) -> Sequence[Container]:
        """Classes that hold tensors, of all plugins."""
        return self.items("onnxport_containers")

    @functools.cached_property
    def semantics(self) -> Semantics:
        """What operators do besides computing, by all plugins; the first that says it of one is taken."""
        return Semantics(self.items("onnxport_semantics"))

    def program_passes(self) -> Sequence[ProgramPass]:
        """Steps over the captured program, of all plugins, in their order.

        Raises:
            PluginError: one of them can't be placed.
        """
        return self._ordered("onnxport_program_passes")

    def fx_passes(self, profile: str = STANDARD) -> Sequence[Pass]:
        """Steps over the FX graph, of all plugins, for files of a profile, in their order.

        Raises:
            PluginError: one of them can't be placed.
        """
        return self._ordered("onnxport_fx_passes", profile)

    def ir_passes(self, profile: str = STANDARD) -> Sequence[Pass]:
        """Steps over the ONNX model, of all plugins, for files of a profile, in their order.

        Raises:
            PluginError: one of them can't be placed.
        """
        return self._ordered("onnxport_ir_passes", profile)

    def required_passes(self, profile: str = STANDARD) -> Sequence[Pass]:
        """The passes that a model needs even if it isn't optimized. The places of the others aren't checked."""
        return [each for each in self._fitting("onnxport_ir_passes", profile) if each.is_required]

    def _fitting(self, hook: str, profile: str) -> list[Any]:
        return [each for each in self.items(hook) if profiles.is_for(each.profile, profile)]

    def _ordered(self, hook: str, profile: str | None = None) -> Sequence[Any]:
        found = self.items(hook) if profile is None else self._fitting(hook, profile)
        own = [each for each in found if each.plugin == BUILTIN]
        return order.ordered(own, [each for each in found if each.plugin != BUILTIN])

    def items(self, hook: str) -> Sequence[Any]:
        """What a hook such as ``onnxport_verify`` gives, of all plugins, the built-ins' last. It is called once."""
        if hook not in self._returned:
            self._returned[hook] = [item for items in self.hooks.call(hook) for item in items]
        return self._returned[hook]

    def act(self, name: str, *arguments: Any, **options: Any) -> Any:
        """What the first plugin that does so makes of an action; see :data:`onnxport.records.stages.ACTIONS`.

        Raises:
            PluginError: none does.
        """
        for action in self.items("onnxport_actions"):
            if action.name == name and (result := action.function(*arguments, **options)) is not NotImplemented:
                return result
        raise PluginError(f"No plugin does {name!r} (hook onnxport_actions): `onnxport plugins` tells why.")

    def patches(self, model: Any) -> list[Patch]:
        """Fresh context managers for one capture of a model, the built-ins' first: the innermost see a call first."""
        found = self.hooks.call("onnxport_patches", model=model)
        return [manager for items in reversed(found) for manager in items]

    def replacements(self, model: Any) -> list[Replacement]:
        """What is replaced of libraries while a model is captured, in the order in which it is."""
        records = (patch.record for patch in self.patches(model))
        return [record for record in records if record is not None and record.is_needed]

    def add_commands(self, app: Any) -> None:
        """Let plugins add commands to the command line's ``typer.Typer``."""
        self.hooks.call("onnxport_commands", app=app)

    def advice(self, subject: str | Exception, place: str = "") -> str:
        """What to do about a refusal, as plugins say; empty where none does.

        Args:
            subject: the name of an operator that nothing serves, or the error of a capture.
            place: the model's line, where it is known.
        """
        told: str = self.hooks.call("onnxport_advice", subject=subject, place=place) or ""
        return told or (self._servant(subject) if isinstance(subject, str) else "")

    def _servant(self, target: str) -> str:
        """Advice for an operator that nothing serves: a known pack, or a plugin that failed. Empty if there is none."""
        namespace = target.partition("::")[0]
        for info in self.failures:
            if namespace in (info.name, info.distribution):
                return f"plugin {info.name!r} would serve it, but failed: {info.error}"
        if namespace in installed_plugins() and namespace not in self.names:
            return f"plugin {namespace!r} is installed, but left out by plugins=[...] or {ENVIRONMENT_VARIABLE}"
        pack = self.act("advertised", namespace)
        return f"pip install {pack}" if pack and namespace not in self.names else ""


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


class _Same:
    """A plugin object as a key: plugins are told by what they are, not by what they compare equal to."""

    def __init__(self, plugin: object) -> None:
        self.plugin = plugin

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.plugin is self.plugin

    def __hash__(self) -> int:
        return id(self.plugin)


_loaded: dict[tuple[object, ...] | None, Plugins] = {}
_lock = threading.RLock()


def load(plugins: Iterable[object] | None = None) -> Plugins:
    """The plugins that a call chooses, loaded once per process.

    Args:
        plugins: names of installed plugins, or plugin modules and objects. The built-ins are always
            there: an empty sequence leaves them alone. ``None`` means the names in the environment variable
            ``ONNXPORT_PLUGINS`` (separated by commas; empty for the built-ins alone) or, where that
            isn't set, all installed plugins.

    Raises:
        PluginError: ``plugins`` is no sequence, or a string, or holds a name that no installed plugin has, or one
            of them can't be imported or has no valid hooks.
    """
    if isinstance(plugins, str):
        raise PluginError(f"plugins must be a sequence of names, such as plugins=[{plugins!r}], not a string.")
    given = () if plugins is None else listed(plugins)
    if given is None or any(each is None or isinstance(each, (int, float, complex, bytes)) for each in given):
        raise PluginError(
            f"plugins={shown(plugins)}: give a list of names of plugins, or of plugin modules and objects."
        )
    chosen = environment_choice() if plugins is None else tuple(given)
    key = None if chosen is None else tuple(c if isinstance(c, str) else _Same(c) for c in chosen)
    with _lock:
        loaded = _loaded.get(key)
        if loaded is None:
            loaded = _loaded[key] = Plugins(chosen)
        return loaded


def forget() -> None:
    """Drop all loaded plugins and the environment's choice, so that the next use discovers them again."""
    with _lock:
        _loaded.clear()
        installed_plugins.cache_clear()
        environment_choice.cache_clear()
