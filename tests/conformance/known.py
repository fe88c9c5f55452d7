"""``known.csv``: the cases that can't pass, each with the class of the reason.

Columns: op, dtype, mode, sample (``*`` for each), class, reason. Classes: ``capture`` (torch.export or eager fails, or
captures something else), ``inexpressible`` (ONNX can't say it), ``onnxruntime`` (its bug or missing kernel; the reason
names a reproduction, as ``reproductions.name``), ``open`` (not done yet). A row holds for each case it matches: when
one of them passes, the row is wrong.
"""

from __future__ import annotations

import collections
import csv
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("known.csv")
CLASSES = ("capture", "inexpressible", "onnxruntime", "open")
_COLUMNS = ("op", "dtype", "mode", "sample", "class", "reason")
Key = tuple[str, str, str, int]


@dataclass(frozen=True)
class Row:
    """One row; ``*`` in dtype, mode or sample stands for each."""

    op: str
    dtype: str
    mode: str
    sample: str
    kind: str
    reason: str

    def matches(self, key: Key) -> bool:
        """Whether the row lists that case."""
        op, dtype, mode, sample = key
        return (
            self.op == op
            and self.dtype in ("*", dtype)
            and self.mode in ("*", mode)
            and self.sample in ("*", str(sample))
        )


def read(path: Path = FILE) -> list[Row]:
    """The rows.

    Raises:
        ValueError: a row of an unknown class or without a reason.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [Row(*(line[column] for column in _COLUMNS)) for line in csv.DictReader(file)]
    for row in rows:
        if row.kind not in CLASSES or not row.reason:
            raise ValueError(f"{path.name}: {row} has no class of {CLASSES}, or no reason")
    return rows


def _is_failure(outcome: Any) -> bool:
    return outcome.kind not in ("pass", "frozen")


def differences(results: Mapping[Key, Any], rows: Iterable[Row] | None = None) -> list[str]:
    """Listed cases that pass, and unlisted ones that fail."""
    by_op: dict[str, list[Row]] = collections.defaultdict(list)
    for row in read() if rows is None else rows:
        by_op[row.op].append(row)
    problems = []
    for key, outcome in results.items():
        row = next((row for row in by_op[key[0]] if row.matches(key)), None)
        name = f"{key[0]} {key[1]} {key[2]} #{key[3]}"
        if row is None and _is_failure(outcome):
            problems.append(f"not in known.csv: {name}: {outcome.kind}: {' '.join(outcome.detail.split())[:300]}")
        elif row is not None and outcome.kind == "pass":
            problems.append(f"known.csv lists {name} as {row.kind}, and it passes: take the row out")
    return problems


def update(results: Mapping[Key, Any], path: Path = FILE) -> None:
    """Rewrite the file: rows of cases that were run and pass go, failures without a row come in as ``open``."""
    old = read(path)
    by_op: dict[str, list[Row]] = collections.defaultdict(list)
    for row in old:
        by_op[row.op].append(row)
    ran: dict[str, dict[Key, Any]] = collections.defaultdict(dict)
    for key, outcome in results.items():
        ran[key[0]][key] = outcome
    rows = [row for row in old if row.op not in ran]
    for op, cases in ran.items():
        rows += _rows_of(op, cases, by_op[op])
        rows += [row for row in by_op[op] if not any(row.matches(key) for key in cases)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(sorted({astuple(row) for row in rows}))


def _rows_of(op: str, cases: Mapping[Key, Any], old: list[Row]) -> list[Row]:
    """The fewest rows that list the failures: of all samples, modes and dtypes where all of them fail alike."""
    reasons: dict[Key, tuple[str, str]] = {}
    for key, outcome in cases.items():
        if not _is_failure(outcome):
            continue
        row = next((row for row in old if row.matches(key)), None)
        if outcome.kind == "capture":
            reasons[key] = ("capture", row.reason if row and row.kind == "capture" else _reason(outcome))
        elif row is not None:
            reasons[key] = (row.kind, row.reason)
        else:
            reasons[key] = ("open", f"{outcome.kind}: {_reason(outcome)}")

    rows: list[Row] = []
    failing = set(reasons)
    for pattern in (
        ("*", "*", "*"),
        ("*", "m", "*"),
        ("d", "*", "*"),
        ("d", "m", "*"),
        ("d", "*", "s"),
        ("d", "m", "s"),
    ):
        for key in [key for key in cases if key in failing]:
            _, dtype, mode, sample = key
            row = Row(
                op,
                dtype if pattern[0] == "d" else "*",
                mode if pattern[1] == "m" else "*",
                str(sample) if pattern[2] == "s" else "*",
                *reasons[key],
            )
            covered = [other for other, outcome in cases.items() if row.matches(other) and outcome.kind != "frozen"]
            if all(other in failing and reasons[other][0] == row.kind for other in covered):
                rows.append(row)
                failing -= set(covered)
    return rows


def _reason(outcome: Any) -> str:
    text = outcome.detail
    if outcome.kind == "refused":
        named = [line.strip() for line in text.splitlines() if line.startswith("  aten") or "reason:" in line]
        text = "; ".join(named[:2]) or text
    return " ".join(text.split("Traceback")[0].split())[:160].strip()


__all__ = ["CLASSES", "FILE", "Row", "differences", "read", "update"]
