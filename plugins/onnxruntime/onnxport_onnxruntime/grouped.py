"""Mixtures of experts in the standard: tokens sorted by expert, and a product of each expert's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxport import DataType, Tensor

if TYPE_CHECKING:
    from onnxport import Builder


@dataclass(frozen=True)
class Mixture:
    """What decides how the results of experts are put together; see ``operators.mixture``."""

    count: int
    is_normalized: bool
    alpha: float
    beta: float
    limit: float | None

    def products(
        self,
        op: Builder,
        x: Tensor,
        logits: Tensor,
        up: Tensor,
        up_bias: Tensor | None,
        down: Tensor,
        down_bias: Tensor | None,
        is_interleaved: bool,
    ) -> Tensor:
        """The nodes of a mixture: stacks are (E, K, N)."""
        experts, width = logits.shape[1], x.shape[1]
        weights, ids = self._choice(op, logits)
        flat = op.Reshape(ids, [-1])
        total = op.Shape(flat)
        sorted_ids, order = op.TopK(flat, total, largest=0, outputs=2)
        rows = op.Gather(x, op.Div(order, op.const(self.count, DataType.INT64)))
        ranks = op.const([[i] for i in range(experts)], DataType.INT64)
        ends = op.ReduceSum(op.cast(op.LessOrEqual(op.Unsqueeze(flat, [0]), ranks), DataType.INT64), [1], keepdims=0)

        def product(rows: Tensor, stack: Tensor, bias: Tensor | None) -> Tensor:
            rows = op.Reshape(rows, op.sizes([-1, stack.shape[1]]))  # its rank decides whether weights can be rounded
            result = op.translate("transformers::grouped_mm_fallback", rows, stack, ends)
            return result if bias is None else op.Add(result, op.Gather(bias, sorted_ids))

        results = product(
            self._gated(op, product(rows, up, up_bias), up.shape[2] // 2 if is_interleaved else None), down, down_bias
        )
        results = op.Mul(results, op.Unsqueeze(op.Gather(op.Reshape(weights, [-1]), order), [1]))
        _, back = op.TopK(order, total, largest=0, outputs=2)
        apart = op.Reshape(op.Gather(results, back), op.sizes([-1, self.count, width]))
        return op.ReduceSum(apart, [1], keepdims=0)

    def _choice(self, op: Builder, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The weights (T, k) of the chosen experts, and their ids."""
        best, ids = op.TopK(logits if self.is_normalized else op.Softmax(logits, axis=-1), [self.count], outputs=2)
        return (op.Softmax(best, axis=-1) if self.is_normalized else best), ids

    def _gated(self, op: Builder, both: Tensor, turns: Any) -> Tensor:
        """(T * k, I) of the gates and what they are multiplied with, which take turns so often, or are two halves."""
        if turns is not None:
            apart = op.Reshape(both, op.sizes([-1, turns, 2]))
            gate, other = (op.Gather(apart, i, axis=2) for i in range(2))
        else:
            gate, other = op.Split(both, axis=1, outputs=2, **({"num_outputs": 2} if op.opset >= 18 else {}))
        if self.limit is not None:
            gate = op.Min(gate, self.limit)
            other = op.Clip(other, -self.limit, self.limit)
        scaled: Any = gate if self.alpha == 1 else op.Mul(gate, self.alpha)
        other = other if self.beta == 0 else op.Add(other, self.beta)
        return op.Mul(op.Mul(gate, op.Sigmoid(scaled)), other)
