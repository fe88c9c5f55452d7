"""Equations of sizes that sympy can't solve, such as ``x/8 == 4*(x/4//8)``: they are no reason for a capture to fail.

At the end of a capture torch 2.14 solves what the model asks of each size, to tell which sizes are static or bounded.
Where it meets an equation with a floor in it, it ends with sympy's NotImplementedError. The equation is a condition of
the program all the same: it holds of the example, and the export tells it as a limit on the sizes. The replacement
lasts while an export captures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from onnxport.kit import Replacement
from torch.fx.experimental import symbolic_shapes


def unsolved_equations() -> Iterator[Replacement]:
    """While any thread is in it, torch's solver goes on with the other sizes."""
    solver = getattr(symbolic_shapes, "DimConstraints", None)
    if hasattr(solver, "solve"):
        yield Replacement(solver, "solve", _going_on)


def _going_on(original: Callable[..., Any]) -> Callable[..., Any]:
    def solve(self: Any, *args: Any, **kwargs: Any) -> Any:
        while True:
            waiting = len(self._symbols_with_equalities)
            try:
                return original(self, *args, **kwargs)
            except NotImplementedError:
                if len(self._symbols_with_equalities) >= waiting:  # each round takes a size off the list
                    raise

    return solve
