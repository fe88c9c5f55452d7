"""Results as JSON text."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from typing import Any


class JsonResult:
    """A result that can be given as JSON text. Its class has ``as_dict``."""

    @abstractmethod
    def as_dict(self) -> Any:
        """Give everything as JSON types."""

    def to_json(self) -> str:
        """Give everything as JSON text. NaN and infinities, which JSON lacks, are texts: ``"nan"``, ``"inf"``."""
        return json.dumps(finite(self.as_dict()), indent=2, default=str, allow_nan=False)


def finite(data: Any) -> Any:
    """The data without NaN and infinities, which JSON doesn't have: as text."""
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    return [finite(value) for value in data] if isinstance(data, (list, tuple)) else data


__all__ = ["JsonResult", "finite"]
