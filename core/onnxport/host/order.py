"""The order in which passes run: those of plugins stand where they say, and no name is there twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from onnxport.errors import PluginError
from onnxport.records.stages import Pass, ProgramPass
from onnxport.vocabulary.provenance import told

_P = TypeVar("_P", Pass, ProgramPass)


def ordered(own: Iterable[_P], added: Iterable[_P]) -> list[_P]:
    """All passes in their order.

    Args:
        own: the built-in ones, in their order.
        added: those of plugins, in the order in which the plugins are called. One with ``before`` stands directly
            before that pass, one with ``after`` behind it, in the order of ``added`` among themselves; one with
            neither stands last.

    Raises:
        PluginError: a name is taken, a place doesn't exist, or places contradict each other; it names the plugin
            and the pass.
    """
    passes = [replace(each, plugin="") for each in own]
    pending = list(added)
    takers: dict[str, _P] = {each.name: each for each in passes}
    for each in pending:
        taken = takers.setdefault(each.name, each)
        if taken is not each:
            owner = f"plugin {taken.plugin!r}" if taken.plugin else "onnxport itself"
            raise PluginError(
                f"{_label(each)} can't be added: {owner} has a pass of this name. Rename it, to {_unique(each)!r} for "
                "example.",
                plugins=[each.plugin],
            )
    for each in pending:
        for place, anchor in (("before", each.before), ("after", each.after)):
            if anchor is not None and anchor not in takers:
                raise PluginError(
                    f"{_label(each)} has {place}={anchor!r}, and there is no pass of that name. "
                    f"There are {', '.join(name for name in takers if name != each.name) or 'no others'}.",
                    plugins=[each.plugin],
                )
    while pending:
        placed = {each.name for each in passes}
        ready = [each for each in pending if {each.before, each.after} <= placed | {None}]
        if not ready:
            plugins = list(dict.fromkeys(each.plugin for each in pending))
            circle = "; ".join(f"{_label(each)} has {_places(each)}" for each in pending)
            raise PluginError(
                f"Passes wait for each other: {circle}. Leave out one of before= and after=.", plugins=plugins
            )
        for each in ready:
            passes.insert(_place(each, passes), each)
            pending.remove(each)
    return passes


def run(each: Pass, subject: Any) -> int:
    """Run one pass; the number of its changes.

    Raises:
        PluginError: the pass of a plugin failed, or returned something else than a number.
    """
    if not each.plugin:
        return each.function(subject)
    try:
        count = each.function(subject)
    except Exception as error:
        raise fault(each, f"failed: {told(error)}") from error
    if count is None:
        return 0
    if not isinstance(count, int):
        raise fault(each, f"returned {count!r}, and not how many changes it made")
    return int(count)


def fault(each: Pass | ProgramPass, what: str) -> PluginError:
    """A mistake of a pass of a plugin."""
    return PluginError(
        f"{_label(each)} {what}. Correct it, or report it to the plugin's authors; plugins=[...] leaves a plugin out.",
        plugins=[each.plugin],
    )


def _place(each: _P, passes: list[_P]) -> int:
    names = [known.name for known in passes]
    first = 0 if each.after is None else names.index(each.after) + 1
    last = len(passes) if each.before is None else names.index(each.before)
    if first > last:
        raise PluginError(
            f"{_label(each)} has {_places(each)}, but {each.before!r} runs before {each.after!r}. Leave one of the "
            "two out.",
            plugins=[each.plugin],
        )
    if each.after is None or each.before is not None:
        return last
    while first < last and passes[first].after == each.after and passes[first].before is None:
        first += 1
    return first


def _label(each: Pass | ProgramPass) -> str:
    return f"The pass {each.name!r} of plugin {each.plugin!r}"


def _places(each: Pass | ProgramPass) -> str:
    given = (("before", each.before), ("after", each.after))
    return " and ".join(f"{place}={anchor!r}" for place, anchor in given if anchor is not None)


def _unique(each: Pass | ProgramPass) -> str:
    return f"{each.plugin}.{each.name.rpartition('.')[2]}"
