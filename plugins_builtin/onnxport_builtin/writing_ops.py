"""Custom operators that write their arguments, which torch and the core wrap in `auto_functionalized`.

A translation of such an operator returns its results, if it has any, and then the new value of each argument it writes.
"""

from __future__ import annotations

from typing import Any

from onnxport import Unsupported, translation


def _written(target: Any) -> list[str]:
    return [a.name for a in target._schema.arguments if a.alias_info is not None and a.alias_info.is_write]


def _translated(op: Any, target: Any, arguments: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """The operator's own results (one None where it has none), and the new values of what it writes."""
    name = f"{target._schema.name}.{target._overloadname}".removesuffix(".default")
    values = op.translate(name, **arguments)
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    count = len(target._schema.returns)
    present = [name for name in _written(target) if arguments.get(name) is not None]
    if len(values) != count + len(present):
        raise Unsupported(
            f"the translation of {name} gives {len(values)} values; it must give {count} results and then the new "
            f"values of {', '.join(present)}"
        )
    new = dict(zip(present, values[count:]))
    return values[:count] or [None], [new.get(name) for name in _written(target)]


@translation("higher_order::auto_functionalized")
def auto_functionalized(op: Any, target: Any, **arguments: Any) -> Any:
    """The operator's results, then the new value of each argument that it writes."""
    results, written = _translated(op, target, arguments)
    return [*results, *written]


@translation("higher_order::auto_functionalized_v2")
def auto_functionalized_v2(op: Any, target: Any, *, _all_bases: Any = (), **arguments: Any) -> Any:
    """The same, for arguments that are views of tensors in ``_all_bases``, whose new values are the results."""
    bases, views = list(_all_bases), {}
    names = _written(target)
    given = {key: value for key, value in arguments.items() if not any(key.startswith(f"_{name}_") for name in names)}
    for name in names:
        index = arguments.get(f"_{name}_base_index")
        if index is None:
            given[name] = None
            continue
        parts = {
            key.removeprefix(f"_{name}_"): value for key, value in arguments.items() if key.startswith(f"_{name}_")
        }
        views[name] = (index, parts)
        given[name] = _view(op, bases[index], parts)
    results, written = _translated(op, target, given)
    for (index, parts), value in zip(views.values(), (v for v in written if v is not None)):
        bases[index] = _view(op, bases[index], parts, value)
    return [*results, *bases]


def _view(op: Any, base: Any, parts: dict[str, Any], value: Any = None) -> Any:
    """The view of a base, or the base with ``value`` in its place."""
    if "slice_dim" in parts:
        name, rest = "slice", [parts[f"slice_{key}"] for key in ("dim", "start", "end")]
    elif parts.get("size") is not None:
        name, rest = "as_strided", [parts[key] for key in ("size", "stride", "storage_offset")]
    else:
        return base if value is None else value
    if value is None:
        return op.translate("aten::slice.Tensor" if name == "slice" else "aten::as_strided", base, *rest)
    return op.translate(f"aten::{name}_scatter", base, value, *rest)
