"""Names of operators that torch doesn't have, with those that may have been meant."""

from __future__ import annotations

import difflib

import torch
from onnxport.kit import operator_named
from torch._ops import OpOverload

_TORCH = frozenset({"aten", "prims", "quantized", "quantized_decomposed"})
"""Namespaces of torch itself: what isn't in them when they are loaded will never be."""
_HIGHER_ORDER = "higher_order"


def missing_operator(target: str) -> str:
    """The message for a qualified name that no operator in one of torch's namespaces has; else empty.

    Of a namespace whose library isn't loaded nothing can be said.
    """
    namespace, _, name = target.partition("::")
    if namespace == _HIGHER_ORDER:
        known = set(torch._ops._higher_order_ops)
        near = [] if name in known else difflib.get_close_matches(name, known, 1, 0.85)
        return f"torch has no {target}; did you mean {_HIGHER_ORDER}::{near[0]}?" if near else ""
    if namespace not in _TORCH or torch._C._dispatch_has_kernel(target):
        return ""
    overload = operator_named(target)
    if isinstance(overload, OpOverload) and "Tensor" in str(overload._schema):  # known to TorchScript alone
        return ""
    known = {known for known in torch._C._dispatch_get_all_op_names() if known.startswith(f"{namespace}::")}
    packet, _, given = target.partition(".")
    overloads = sorted(known & {packet} | {known for known in known if known.startswith(f"{packet}.")})
    if overloads:
        which = f"no overload {given!r}" if given else "no default overload"
        return f"torch has no {target}: {packet} has {which}; name one of {', '.join(overloads)}"
    packets = {known.partition(".")[0].lower(): known.partition(".")[0] for known in sorted(known, reverse=True)}
    near = difflib.get_close_matches(packet.lower(), packets, 1, 0.7)
    hint = f"; did you mean {packets[near[0]]}?" if near else ""
    return f"torch {torch.__version__} has no operator {target}{hint}" if known else ""
