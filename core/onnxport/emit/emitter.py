"""What the parts of the builder use of it, so that none of them imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from onnxport.emit.operators import Operators

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch.fx

    from onnxport.emit.scopes import Scope
    from onnxport.emit.tensor import Tensor
    from onnxport.host.profiles import Profile


class Emitter(Operators, Protocol):
    """The builder, for sizes, local functions and fingerprints: the graphs under construction, and `op.Name(…)`."""

    opset: int
    profile: Profile
    node: torch.fx.Node | None
    seed: int | None
    scopes: list[Scope]
    domains: dict[str, int]
    functions: dict[tuple[str, str, str], ir.Function]
    complex_tensors: list[Tensor]
    initializers: dict[str, Tensor]
    constants: dict[Any, Tensor]
    taken: dict[str, int]
    root: str | None
    within: Any
    inline: Any

    @property
    def symbols(self) -> Any: ...

    @property
    def local(self) -> Any: ...

    @property
    def scope(self) -> Scope: ...

    def const(self, value: Any, dtype: Any = None) -> Tensor: ...

    def cast(self, value: Any, dtype: Any) -> Tensor: ...

    def tensor(self, value: Any, dtype: Any = None) -> Tensor | None: ...

    def as_complex(self, value: Tensor, shape: Any = None) -> Tensor: ...

    def unique(self, base: str) -> str: ...

    def call(self, domain: str, name: str, *inputs: Any, **options: Any) -> Any: ...
