"""torch.export takes states of a scan that begin with one tensor for one state: its program computes something else."""

from __future__ import annotations

from typing import Any

import onnxport
import pytest
import torch
from support import export_and_compare
from torch._higher_order_ops import scan


class Scan(torch.nn.Module):
    """Two or three states, of which some begin with one tensor, or with the tensor that is scanned."""

    def __init__(self, begin: Any) -> None:
        super().__init__()
        self.begin = begin

    def forward(self, x: torch.Tensor) -> Any:
        def step(states: Any, token: torch.Tensor) -> Any:
            first, second, third = states
            first = first + token.sum()
            second = second * 2 + first
            third = third - second
            return (first.clone(), second.clone(), third.clone()), first + second * third

        states, results = scan(step, self.begin(x), x)
        return results, *states


@pytest.mark.parametrize(
    "begin",
    [
        lambda x: (torch.zeros_like(x[0]),) * 3,
        lambda x: (lambda z: (z, z + 1, z))(torch.zeros_like(x[0])),
        lambda x: (lambda z: (z, z[:], z.view(-1)))(torch.ones_like(x[0])),
        lambda x: (x, x, torch.zeros_like(x)),
    ],
    ids=["one tensor", "two of three", "views", "what is scanned"],
)
def test_states_stay_apart(begin: Any) -> None:
    export_and_compare(Scan(begin), (torch.arange(6.0).reshape(3, 2),))


def test_a_program_in_which_torch_made_two_states_one_is_refused() -> None:
    def step(states: Any, token: torch.Tensor) -> Any:
        first, second = states
        return (first + token, second * token), first - second

    class Scan(torch.nn.Module):
        def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> Any:
            return scan(step, (x, x), tokens)

    program = torch.export.export(Scan(), (torch.ones(2), torch.ones(3, 2)), strict=True)
    with pytest.raises(onnxport.OnnxExporterError, match=r"two states of the scan begin with one tensor.*clone"):
        onnxport.export(program)
