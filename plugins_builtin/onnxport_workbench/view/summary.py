"""Results as short tables in HTML, which notebooks show. Styles come from the notebook's own theme."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from onnxport import CheckResult, MismatchResult, ONNXProgram, VerificationResult
from onnxport.kit import plain

from onnxport_workbench.view.contents import Contents
from onnxport_workbench.view.page import facts_of
from onnxport_workbench.view.reading import contents_of

_MOST_ROWS = 40


def summary(subject: object) -> str | None:
    """A result of onnxport as HTML; None for anything else."""
    if isinstance(subject, ONNXProgram):
        return _of_program(subject)
    if isinstance(subject, VerificationResult):
        return _of_verification(subject)
    if isinstance(subject, MismatchResult):
        return _of_mismatch(subject)
    return _of_check(subject) if isinstance(subject, CheckResult) else None


def _of_program(program: ONNXProgram) -> str:
    contents = contents_of(program.model)
    facts = [[name, text] for name, text in facts_of(program.model, contents) if name != "IR version"]
    rows = [*_values("input", contents, contents.inputs), *_values("output", contents, contents.outputs)]
    note = "onnxport.view(program, 'model.html') writes a page that shows its modules and graph."
    return _block("ONNXProgram", _table(None, facts), _table(("", "name", "type"), rows), _paragraph(note))


def _values(kind: str, contents: Contents, indices: Iterable[int]) -> list[list[str]]:
    return [[kind, contents.values[index].name, contents.values[index].type] for index in indices]


def _of_verification(result: VerificationResult) -> str:
    rows = []
    for one in result.comparisons:
        if one.skipped or one.error:
            rows.append([one.label, "", "", "", f"not run: {one.skipped}" if one.skipped else f"failed: {one.error}"])
        for out in one.outputs:
            told = f"failed: {out.problem}" if out.problem else "ok"
            rows.append([one.label, out.name, f"{out.max_abs:.2e}", f"{out.max_rel:.2e}", told])
    notes = [f"onnx.checker: {result.checker}"] if result.checker else []
    notes += [f"weights: {result.weights.problem}"] if result.weights.problem else []
    title = f"Verification {'passed' if result.passed else 'failed'}"
    return _block(title, _table(("inputs", "output", "max abs", "max rel", "result"), rows), *map(_paragraph, notes))


def _of_mismatch(result: MismatchResult) -> str:
    title = "No mismatch" if result.passed else "Mismatch"
    found = result.mismatch
    if found is None:
        return _block(title, *map(_paragraph, str(result).splitlines()))
    rows = [
        ["value", f"{found.value} of {found.onnx_operator}"],
        ["torch operator", f"{found.operator} (FX node {found.node})"],
        ["module", found.module or "(the root)"],
        ["source", found.source or "unknown"],
        ["translation", f"{found.translation or 'unknown'} (plugin {found.plugin or 'unknown'})"],
        ["difference", f"{found.difference.problem} (max abs {found.difference.max_abs:.2e})"],
    ]
    note = "onnxport.view(program, 'model.html', mismatch=result) writes a page that marks the node."
    return _block(title, _table(None, rows), _paragraph(note))


def _of_check(result: CheckResult) -> str:
    calls = sum(result.operators.values())
    rows = [[refusal.target, str(refusal.count), "; ".join(refusal.reasons)] for refusal in result.refusals]
    title = "Every operator can be translated" if result.passed else "The model can't be exported"
    notes = [f"{calls:,} calls of {len(result.operators):,} operators are translated."]
    notes += [str(conflict) for conflict in result.conflicts]
    if result.missing_kernels:
        notes.append(f"onnxruntime lacks kernels for {len(result.missing_kernels)} operators: print the result.")
    return _block(title, _table(("refused operator", "calls", "reasons"), rows), *map(_paragraph, notes))


def _block(title: str, *parts: str) -> str:
    return f"<div><strong>{_text(title)}</strong>{''.join(parts)}</div>"


def _paragraph(text: str) -> str:
    return f"<div>{_text(text)}</div>"


def _text(text: object) -> str:
    return html.escape(plain(text))


def _table(head: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    top = "" if head is None else f"<thead><tr>{_cells(head, 'th')}</tr></thead>"
    more = len(rows) - _MOST_ROWS
    body = "".join(f"<tr>{_cells(row, 'td')}</tr>" for row in rows[:_MOST_ROWS])
    rest = _paragraph(f"and {more} more") if more > 0 else ""
    return f"<table>{top}<tbody>{body}</tbody></table>{rest}"


def _cells(row: Sequence[str], tag: str) -> str:
    return "".join(f'<{tag} style="text-align:left">{_text(cell)}</{tag}>' for cell in row)
