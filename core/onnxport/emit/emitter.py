"""What the parts of the builder use of it, so that none of them imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch.fx

    from onnxport.emit.scopes import Scope
    from onnxport.emit.tensor import Tensor
    from onnxport.host.profiles import Profile


class Emitter(Protocol):
    """The builder, for sizes, local functions and fingerprints: the graphs under construction, and `op.Name(…)`."""

    opset: int
    node: torch.fx.Node | None
    seed: int | None
    profile: Profile
    scopes: list[Scope]
    initializers: dict[str, Tensor]
    constants: dict[Any, Tensor]
    taken: dict[str, int]
    within: Any
    root: str | None

    @property
    def scope(self) -> Scope: ...

    def __getattr__(self, name: str) -> Any: ...
