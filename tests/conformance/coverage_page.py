"""``docs/coverage.md`` out of what the grid measured: op by op, dtype by dtype, with the translations that serve it."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import known
import onnxruntime
import torch
from cases import DTYPES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coverage.md"
_MODES = ("static", "dynamic")
_SHOWN = 4
Results = Mapping[tuple[str, str, str, int], Any]

_HEAD = """# Operators

Written by `make conformance`; don't edit. Measured on torch's own operator database
(`torch.testing._internal.common_methods_invocations.op_db`, torch {torch}), two samples of each operator and dtype, on
onnxruntime {onnxruntime} (CPU): exported, checked with `onnx.checker`, run, and compared with eager torch.

* *static*: every size is fixed. *dynamic*: every size that `torch.export` leaves open is, and the model is also run at
  another size where the sample's other arguments have a meaning there.
* Cases that eager torch or `torch.export` refuses, or whose capture isn't what the operator does, are not counted;
  neither are dynamic cases whose capture fixed every size.
* Random operators are compared by dtype, shape and statistics; `svd`, `eigh`, `qr` and others by what they promise.
* A complex tensor is a real one with a last axis of 2 in the file, inputs and outputs included.
* float16 and bfloat16 stay what they are in the file. Where onnxruntime's CPU has no kernel for that, the case ran on
  ONNX's reference implementation, and is marked *r*. Where that fails too, bfloat16 ran on onnxruntime with each
  operator in float32 between casts, and is marked *w*; `tests/conformance/reproductions.py` shows where it fails.
"""


def write(results: Results, page: Path = PAGE) -> None:
    """Write the page."""
    versions = {"torch": torch.__version__.split("+")[0], "onnxruntime": onnxruntime.__version__}
    parts = [
        _HEAD.format(**versions),
        *_totals(results),
        *_unreachable(results),
        *_costliest(results),
        *_table(results),
    ]
    page.write_text("\n".join(parts) + "\n")


def _totals(results: Results) -> list[str]:
    lines = [
        "## Totals",
        "",
        "| dtype | static | | dynamic | | at another size |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for dtype in DTYPES:
        cells = []
        for mode in _MODES:
            counted = [o for (_, d, m, _), o in results.items() if (d, m) == (dtype, mode) and o.counts]
            passed = sum(o.kind == "pass" for o in counted)
            cells.append(f"{passed} of {len(counted)} | {_percent(passed, len(counted))}")
        second = sum(bool(o.second) for (_, d, m, _), o in results.items() if (d, m) == (dtype, "dynamic"))
        lines.append(f"| {dtype} | {' | '.join(cells)} | {second} |")
    times = sorted(o.milliseconds for (_, _, m, _), o in results.items() if m == "static" and o.milliseconds)
    if times:
        median, late = times[len(times) // 2], times[int(len(times) * 0.95)]
        lines += [
            "",
            f"The first export of each single-operator program: median {median:.1f} ms, 95th percentile {late:.1f} ms "
            "by the clock, beside other work. `tests/benchmarks/single_ops.py` measures it in process time.",
        ]
    return [*lines, ""]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _unreachable(results: Results) -> list[str]:
    counts: collections.Counter[str] = collections.Counter()
    reasons: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    rows = known.read()
    for key, outcome in results.items():
        row = next((row for row in rows if row.op == key[0] and row.matches(key)), None)
        if row is not None and outcome.kind not in ("pass", "frozen"):
            counts[row.kind] += 1
            reasons[row.kind][row.op] += 1
    lines = ["## What doesn't pass", "", "Case by case in `tests/conformance/known.csv`.", ""]
    lines += ["| class | cases | operators |", "| --- | ---: | --- |"]
    for kind in known.CLASSES:
        most = ", ".join(f"{op} ({n})" for op, n in reasons[kind].most_common(12))
        lines.append(f"| {kind} | {counts[kind]} | {most}{', …' if len(reasons[kind]) > 12 else ''} |")
    return [*lines, ""]


def _costliest(results: Results) -> list[str]:
    nodes: dict[str, tuple[int, str]] = {}
    for (op, dtype, mode, _), outcome in results.items():
        if dtype == "float32" and mode == "static" and outcome.nodes > nodes.get(op, (0, ""))[0]:
            nodes[op] = (outcome.nodes, _served([outcome]))
    worst = sorted(nodes.items(), key=lambda item: -item[1][0])[:10]
    lines = ["## Largest graphs", "", "| operator | nodes | translations |", "| --- | ---: | --- |"]
    return [*lines, *(f"| {op} | {n} | {served} |" for op, (n, served) in worst), ""]


def _table(results: Results) -> list[str]:
    by_op: dict[str, dict[str, list[Any]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for (op, dtype, _, _), outcome in results.items():
        by_op[op][dtype].append(outcome)
    lines = [
        "## Op by op",
        "",
        "Passed of counted, static and dynamic together; *r*, *w*: some were not run by onnxruntime alone; –: none.",
        "",
    ]
    lines += [f"| operator | {' | '.join(DTYPES)} | translations |", f"| --- |{' ---: |' * len(DTYPES)} --- |"]
    for op in sorted(by_op, key=str.lower):
        cells = [_cell(by_op[op].get(dtype, [])) for dtype in DTYPES]
        lines.append(f"| {op} | {' | '.join(cells)} | {_served([o for d in DTYPES for o in by_op[op].get(d, [])])} |")
    return lines


def _cell(outcomes: list[Any]) -> str:
    counted = [o for o in outcomes if o.counts]
    if not counted:
        return "–" if outcomes else ""
    passed = sum(o.kind == "pass" for o in counted)
    runners = [word for word in ("reference", "widened") if any(o.detail.startswith(word) for o in counted)]
    mark = "".join(f" *{word[0]}*" for word in runners)
    return f"{passed}/{len(counted)}{mark}"


def _served(outcomes: list[Any]) -> str:
    """Plugin and functions, the most frequent first; operators folded away while exporting need none."""
    counts: collections.Counter[str] = collections.Counter(name for o in outcomes for name in o.translations)
    by_plugin: dict[str, list[str]] = collections.defaultdict(list)
    for name, _ in counts.most_common():
        plugin, _, function = name.partition(":")
        by_plugin[plugin].append(function.removeprefix("onnxport_builtin.").removeprefix("aten."))
    return "; ".join(
        f"{plugin}: {', '.join(functions[:_SHOWN])}{', …' if len(functions) > _SHOWN else ''}"
        for plugin, functions in by_plugin.items()
    )


__all__ = ["PAGE", "write"]
