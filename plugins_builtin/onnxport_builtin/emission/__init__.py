"""What the builder is taught: ONNX operators and their older forms, sizes, and mistakes of translations."""

from __future__ import annotations

from typing import Any

from onnxport.kit import Explanation, NodeCheck, SizeText, Widening

from onnxport_builtin.emission import dimension_text, explanations, forms, results, sizes, widening


def _node_checks(op: Any) -> Any:
    from onnxport_builtin.emission.node_checks import NodeChecks  # what only models with third parties need

    return NodeChecks(op)


def records() -> list[Any]:
    """All records."""
    return [
        *results.records(),
        *forms.FORMS,
        *sizes.records(),
        SizeText(dimension_text.text_of),
        Widening(widening.wider_types),
        NodeCheck(_node_checks),
        Explanation(explanations.explained),
    ]
