"""Protocols: the builder as its parts see it, and the walk as the builder sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from onnxport.emit.operators import Operators

if TYPE_CHECKING:
    import torch.fx

    from onnxport.emit.frame import Frame
    from onnxport.emit.tensor import Tensor
    from onnxport.records.emission import Emission
    from onnxport.records.profiles import Profile


class Walks(Protocol):
    """The walk over an FX graph, as the builder uses it."""

    def inline(self, graph_module: torch.fx.GraphModule, *values: Any) -> list[Any]: ...

    def translate(self, target: str, /, *args: Any, **kwargs: Any) -> Any: ...


class Emitter(Operators, Protocol):
    """The builder, for sizes and domains: the graphs under construction, and `op.Name(…)`."""

    opset: int
    emission: Emission
    profile: Profile
    frames: list[Frame]
    domains: dict[str, int]

    @property
    def frame(self) -> Frame: ...

    def const(self, value: Any, dtype: Any = None) -> Tensor: ...

    def cast(self, value: Any, dtype: Any) -> Tensor: ...

    def unique(self, base: str) -> str: ...
