"""The domains whose operators a model has: one version of each."""

from __future__ import annotations

from reprlib import repr as brief
from typing import TYPE_CHECKING, Any

from onnxport.emit.graphs import nodes_of
from onnxport.emit.schemas import OpSpec, missing, spec_of

if TYPE_CHECKING:
    from onnxport.emit.emitter import Emitter


def require(op: Emitter, domain: Any, version: Any = None, operator: str = "") -> tuple[str, OpSpec | None]:
    """Note that the model has operators of a domain.

    Args:
        op: the builder.
        domain: its name.
        version: of the domain; None for the one that the model has, or 1.
        operator: one of them.

    Returns:
        The name under which the domain is imported, and what onnx knows of the operator, if anything.

    Raises:
        TypeError: the domain is no string.
        ValueError: the version is no positive int, or the model has another one.
        AttributeError, Unsupported: it is ONNX's own domain, which has no such operator at the target opset.
    """
    if not isinstance(domain, str):
        raise TypeError(f"the domain is {brief(domain)}, it must be a string such as 'com.microsoft'")
    if version is not None and (type(version) is not int or version < 1):
        raise ValueError(f"the version of the domain {domain!r} is {brief(version)}, it must be a positive int")
    name = "" if domain == "ai.onnx" else domain
    imported = op.domains.get(name)
    if imported is None:
        op.frame.remember(op.domains, name, version or op.profile.domains.get(name, 1))
    elif version not in (None, imported):
        raise ValueError(
            f"version {version} of the domain {domain or 'ai.onnx'!r} is asked for, but {_owner(op, name)} has version "
            f"{imported} of it, and a file has one version of each domain: use version {imported}"
        )
    spec = spec_of(operator, op.domains[name], name)
    if not name and operator and spec is None:
        raise missing(operator, op.opset)
    return name, spec


def _owner(op: Emitter, domain: str) -> str:
    """The owner of the version of a domain that the model has, for a message."""
    if not domain:
        return f"the target opset {op.opset}"
    nodes = (node for frame in op.frames for node in nodes_of(frame.nodes) if node.domain == domain)
    node = next(nodes, None)
    origin = getattr(node, "origin", None)
    return "the model" if node is None or origin is None else f"the node {node.op_type} of {origin.function_name}"
