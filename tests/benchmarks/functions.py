"""Functions against depth, and what a node costs in a function or a control-flow body.

``python tests/benchmarks/functions.py [--torch] [--nodes]``: a Llama of hidden size 64 with 6 to 48 layers, exported
inline and with its decoder layer as a function, from one captured program. Times are CPU seconds of the faster of two
exports; sizes are of the file without weights. With ``--torch``, torch's exporter runs beside it (minutes).

What a node costs is the least CPU time of rounds in each of which every kind is exported once, so that what else runs
on the machine slows them alike. ``--nodes`` measures this alone.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from typing import Any

import onnxport
import torch
from export_time import torch_export
from subjects import captured, llama
from torch import nn

STEPS = 200
ROUNDS = 15


def cpu(function: Callable[[], Any], repeat: int = 2) -> tuple[float, Any]:
    """CPU seconds of the fastest of ``repeat`` calls, and its result."""
    best, result = float("inf"), None
    for _ in range(repeat):
        result = None
        start = time.process_time()
        result = function()
        best = min(best, time.process_time() - start)
    return best, result


def kilobytes(program: Any) -> float:
    """Size of the file without weights."""
    buffer = io.BytesIO()
    program.save(buffer, include_initializers=False)
    return len(buffer.getvalue()) / 1e3


def nodes(program: Any) -> int:
    """Nodes of the file: of the graph, its subgraphs and its functions."""
    return sum(1 for graph in (program.model.graph, *program.model.functions.values()) for _ in graph.all_nodes())


def depth(with_torch: bool) -> None:
    """The curves over the number of layers."""
    header = "layers  capture s | inline: s  nodes      KB | functions: s  nodes      KB"
    print(header + (" | torch: s  nodes      KB" if with_torch else ""))
    for layers in (2, 6, 12, 24, 48):
        subject = llama(layers)
        capture_seconds, program = cpu(lambda subject=subject: captured(subject), repeat=1)
        line = f"{layers:6} {capture_seconds:10.2f}"
        for functions in ((), ("LlamaDecoderLayer",)):
            seconds, made = cpu(lambda program=program, names=functions: onnxport.export(program, functions=names))
            line += f" | {seconds:{12 if functions else 9}.3f} {nodes(made):6} {kilobytes(made):7.1f}"
        if with_torch:
            seconds, made = cpu(lambda program=program: torch_export(program), repeat=1)
            line += f" | {seconds:8.2f} {nodes(made):6} {kilobytes(made):7.1f}"
        if layers > 2:  # the first warms up
            print(line, flush=True)


def _steps(x: torch.Tensor) -> torch.Tensor:
    for i in range(STEPS // 4):
        x = torch.relu(torch.sin(x) * (i + 1.5) + x)
    return x


class Straight(nn.Module):
    """The steps, in the graph."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _steps(_steps(x))


class Branches(nn.Module):
    """The steps in each of two branches."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, _steps, lambda x: _steps(x) + 1, (x,))


class Loop(nn.Module):
    """The steps, twice, in the body of a loop."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = torch.tensor(0)
        return torch._higher_order_ops.while_loop(
            lambda i, x: i < 3, lambda i, x: (i + 1, _steps(_steps(x))), (count, x)
        )[1]


class Body(nn.Module):
    """The steps, twice, to be a function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _steps(_steps(x))


class Calls(nn.Module):
    """One call of a function."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def per_node() -> None:
    """Export time per ONNX node, by where the nodes are."""
    print(f"\n{2 * STEPS} operators in            nodes  export ms  us a node  of a graph's node")
    x = (torch.randn(3, 4),)
    kinds: dict[str, tuple[nn.Module, tuple[str, ...]]] = {
        "the graph": (Straight(), ()),
        "two branches": (Branches(), ()),
        "a loop's body": (Loop(), ()),
        "a function": (Calls(), ("Body",)),
    }
    programs = {name: torch.export.export(model, x) for name, (model, _) in kinds.items()}
    best: dict[str, tuple[float, int]] = {}
    for _ in range(ROUNDS):
        for name, (_, functions) in kinds.items():
            seconds, made = cpu(lambda name=name, names=functions: onnxport.export(programs[name], functions=names), 1)
            best[name] = min(best.get(name, (seconds, 0))[0], seconds), nodes(made)
    first = best["the graph"][0] / best["the graph"][1]
    for name, (seconds, count) in best.items():
        each = seconds / count
        print(f"{name:26} {count:6} {seconds * 1e3:10.1f} {each * 1e6:10.1f} {each / first:10.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--nodes", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.nodes:
        depth(options.torch)
    per_node()


if __name__ == "__main__":
    with torch.no_grad():
        sys.exit(main())
