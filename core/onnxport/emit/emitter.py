"""Protocols: the builder as its parts see it, and the walk as the builder sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from onnxport.emit.operators import Operators

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import onnx_ir as ir
    import torch.fx

    from onnxport.emit.frame import Frame
    from onnxport.emit.tensor import Tensor
    from onnxport.host.emission import Emission
    from onnxport.host.profiles import Profile


class Walks(Protocol):
    """The walk over an FX graph, as the builder uses it."""

    def inline(self, graph_module: torch.fx.GraphModule, *values: Any) -> list[Any]: ...

    def translate(self, target: str, /, *args: Any, **kwargs: Any) -> Any: ...


class Emitter(Operators, Protocol):
    """The builder, for sizes, local functions and fingerprints: the graphs under construction, and `op.Name(…)`."""

    opset: int
    emission: Emission
    profile: Profile
    node: torch.fx.Node | None
    seed: int | None
    frames: list[Frame]
    domains: dict[str, int]
    functions: dict[tuple[str, str, str], ir.Function]

    @property
    def symbols(self) -> Any: ...

    @property
    def local(self) -> Any: ...

    @property
    def frame(self) -> Frame: ...

    def at(self, node: torch.fx.Node | None) -> AbstractContextManager[None]: ...

    def entered(self, frame: Frame) -> AbstractContextManager[Frame]: ...

    def inline(self, graph_module: torch.fx.GraphModule, *values: Any) -> list[Any]: ...

    def const(self, value: Any, dtype: Any = None) -> Tensor: ...

    def cast(self, value: Any, dtype: Any) -> Tensor: ...

    def tensor(self, value: Any, dtype: Any = None) -> Tensor | None: ...

    def as_complex(self, value: Tensor, shape: Any = None) -> Tensor: ...

    def unique(self, base: str) -> str: ...

    def call(self, domain: str, name: str, *inputs: Any, **options: Any) -> Any: ...
