"""A plugin that was loaded or failed: its name, origin, version and errors."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from onnxport.records.translations import THIRD_PARTY_TIER
from onnxport.text import plain
from onnxport.vocabulary.provenance import told

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class PluginInfo:
    """A plugin as ``onnxport plugins`` lists it.

    Attributes:
        name: of its entry point, or ``builtin``.
        distribution: the installed distribution that brought it, if any.
        version: of that distribution.
        translations: how many records it returned.
        error: why it, or one of its hooks, was skipped; empty when all went well.
        warning: mistakes of it that don't keep it from being used; empty when there are none.
    """

    name: str
    distribution: str = ""
    version: str = ""
    translations: int = 0
    error: str = ""
    tier: int = field(default=THIRD_PARTY_TIER, repr=False)
    warning: str = ""

    @property
    def label(self) -> str:
        """The name, with the distribution that it is from."""
        source = f"{self.distribution} {self.version}".strip()
        return f"{self.name!r} ({source})" if source else repr(self.name)

    def fail(self, what: str, error: BaseException) -> None:
        """Keep the error, and log it; what is known already isn't said again."""
        message = f"{what}: {type(error).__name__}: {error}"
        if message not in self.error:
            self.error = f"{self.error}; {message}" if self.error else message
            logger.warning("onnxport plugin %s is skipped: %s: %s", self.label, what, plain(told(error)))

    def warn(self, message: str) -> None:
        """Keep a mistake, and log it."""
        if message not in self.warning:
            self.warning = f"{self.warning}; {message}" if self.warning else message
            logger.warning("onnxport plugin %s: %s", self.label, plain(message))
