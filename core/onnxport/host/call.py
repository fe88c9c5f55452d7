"""The plugins of one call: those that it chose, and its table, a plugin of the highest tier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnxport.errors import TableError
from onnxport.host import hookspecs
from onnxport.host.calls import Hooks
from onnxport.host.checking import CHECKS
from onnxport.host.hookspecs import hookimpl
from onnxport.host.info import PluginInfo
from onnxport.host.table import TABLE
from onnxport.records.emission import Emission
from onnxport.records.profiles import DEFAULT_PROFILE, Profile
from onnxport.records.translations import TABLE_TIER, Translation

if TYPE_CHECKING:
    from onnxport.host.discovery import Plugins


class _Table:
    """The table of a call as a plugin."""

    def __init__(self, records: Sequence[Translation]) -> None:
        self._records = records

    @hookimpl
    def onnxport_translations(self) -> Sequence[Translation]:
        return self._records


class Call:
    """The plugins of one call.

    Args:
        plugins: those that were chosen.
        opset: the target opset.
        table: the records of ``custom_translation_table``.
        prefer: see :meth:`onnxport.host.discovery.Plugins.preferring`.
        profile: the runtime that is written for.
        conversions: what plugins made of ``dtype=`` and ``quantize=``, by parameter; those that are asked.

    Attributes:
        plugins: those that were chosen.
        profile: the runtime that is written for.
        conversions: what is done to the finished model, by parameter.
        emission: what plugins teach the builder.
        table: the records of the table.
        registry: their translations, and those of the table.
        infos: all of them, the table last.

    Raises:
        TableError: a record of the table can't be used.
        InputError, PluginError: ``prefer`` can't be followed.
    """

    def __init__(
        self,
        plugins: Plugins,
        opset: int,
        table: Sequence[Translation] = (),
        prefer: Mapping[Any, Any] | None = None,
        profile: Profile = DEFAULT_PROFILE,
        conversions: Mapping[str, Any] | None = None,
    ) -> None:
        self.plugins = plugins
        self.profile = profile
        self.conversions = conversions or {}
        self.emission = Emission(plugins.items("onnxport_emission"))
        self.registry = plugins.preferring(prefer, opset, profile.name)
        self.table: Sequence[Translation] = table
        self._table: PluginInfo | None = None
        if table:
            self._table = PluginInfo(TABLE, tier=TABLE_TIER)
            hooks = Hooks(hookspecs, CHECKS)
            hooks.register(_Table(table), self._table)
            records = [record for items in hooks.call("onnxport_translations") for record in items]
            if self._table.error:
                raise TableError(f"{TABLE}: {self._table.error}.", parameter=TABLE)
            self._table.translations = len(records)
            self.registry = self.registry.with_table(records)

    @property
    def infos(self) -> list[PluginInfo]:
        """The plugins with their translations counted."""
        return [*self.plugins.infos, *([self._table] if self._table is not None else [])]
