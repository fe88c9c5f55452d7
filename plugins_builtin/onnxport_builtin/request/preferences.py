"""``prefer=``: which plugin goes first for an operator."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from onnxport import InputError, PluginError
from onnxport.kit import Key, Registry, operator_named, shown, translations

_FORM = "give a dict of plugin names by operators, such as {'aten::gelu': 'mypack'}"


def prefer(registry: Registry, given: Mapping[Any, Any], loaded: Collection[str]) -> Registry:
    """The registry with the caller's preferences; see :meth:`onnxport.host.discovery.Plugins.preferring`."""
    if not isinstance(given, Mapping):
        raise InputError(f"prefer={shown(given)}: {_FORM}.", parameter="prefer")
    preferred: dict[Key, str] = {}
    for target, plugin in given.items():
        if not isinstance(plugin, str):
            raise InputError(f"prefer[{shown(target)}] is {shown(plugin)}: {_FORM}.", parameter="prefer")
        if plugin not in loaded:
            raise PluginError(
                f"prefer[{target!r}] names the plugin {plugin!r}, which doesn't take part; there are: "
                f"{', '.join(loaded)}.",
                plugins=[plugin],
                target=str(target),
            )
        key = _key(registry, target)
        found = registry.collecting().candidates(operator_named(key))
        names = dict.fromkeys(record.plugin for record in found if record.tier < translations.TABLE_TIER)
        if plugin not in names:
            above = any(record.plugin == plugin for record, _ in registry.rejected(key))
            raise PluginError(
                f"prefer[{target!r}]: the plugin {plugin!r} has no translation of {translations.name_of(key)}"
                f"{f' for opset {registry.opset}' if above else ''}; {', '.join(names) or 'no plugin'} has one.",
                plugins=[plugin],
                target=translations.name_of(key),
            )
        preferred[key] = plugin
    return registry.with_preferences(preferred)


def _key(registry: Registry, target: Any) -> Key:
    """The key of an operator that may be given as explanations name it, ``operator.add`` for example."""
    if isinstance(target, str):
        found = registry.find(target)
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(sorted(translations.name_of(key) for key in found))
            raise PluginError(f"prefer[{target!r}] names several operators: name one of {listed}.", target=target)
    return translations.key_of(target)
