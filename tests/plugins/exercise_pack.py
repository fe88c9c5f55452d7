"""Run inside the environment where the pack is installed, or no longer is; prints JSON.

``python exercise_pack.py pack`` exports the pack's operator and the one that it overrides;
``python exercise_pack.py builtin`` only the latter.
"""

from __future__ import annotations

import json
import sys

import onnxport
import torch
from onnxport.host.discovery import load


class Relu(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


class Scaled(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.ops.demo.scaled_add(x, y, 0.5)


def run(model: torch.nn.Module, *args: torch.Tensor) -> dict[str, object]:
    program = onnxport.export(model.eval(), args)
    expected = model(*args)
    (got,) = program(*args)
    torch.testing.assert_close(torch.as_tensor(got), expected)
    return {"nodes": [node.op_type for node in program.model.graph]}


def main(what: str) -> None:
    torch.set_num_threads(1)
    x = torch.randn(2, 3)
    relu = load(None).registry(18).candidates(torch.ops.aten.relu.default)
    result = {"relu": run(Relu(), x), "plugins": [record.plugin for record in relu]}
    if what == "pack":
        if "onnxport_demo_pack.ops" in sys.modules:
            raise RuntimeError("loading the plugin imported the operator's library")
        import onnxport_demo_pack.ops  # noqa: F401 - defines the operator

        result["scaled"] = run(Scaled(), x, torch.randn(2, 3))
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
