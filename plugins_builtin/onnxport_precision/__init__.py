"""Half precision: ``export(dtype="float16")`` and ``"bfloat16"``."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from onnxport import hookimpl


class _Deferred:
    """The plans for half precision, imported when a call asks for one."""

    def plan(self, request: Any, opset: int | None, names: Collection[str] | None) -> Any:
        from onnxport_precision.plan import plan_of

        return plan_of(request)


@hookimpl
def onnxport_precisions() -> list[Any]:
    return [_Deferred()]
