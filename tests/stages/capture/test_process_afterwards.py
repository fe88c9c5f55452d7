"""An export leaves the process as it was: what torch remembers of its functions are the functions themselves."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import torch
import onnxport
import torch._dynamo  # which replaces manual_seed itself

class Model(torch.nn.Module):
    def forward(self, x):
        with torch.device("cpu"):
            ends = torch.linspace(0, 1, x.shape[0])
        return ends + torch.tensor([x.shape[0]]) + torch.arange(x.shape[0]) + torch.zeros(1)

functions = {name: getattr(torch, name) for name in dir(torch) if callable(getattr(torch, name))}
onnxport.export(Model(), (torch.ones(4),), dynamic_shapes=({0: "n"},), verbose=False)
changed = [name for name, function in functions.items() if getattr(torch, name) is not function]
assert not changed, changed

with torch.device("meta"):
    for made in (torch.randn(3), torch.linspace(0, 1, 3), torch.arange(3), torch.tensor(1), torch.eye(2)):
        assert made.device.type == "meta", made

class Seen(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        seen.append(torch.overrides.resolve_name(function))
        return function(*args, **(kwargs or {}))

seen = []
with Seen():
    torch.linspace(0, 1, 3), torch.arange(3)
assert seen == ["torch.linspace", "torch.arange"], seen

scripted = torch.jit.CompilationUnit("def f(n: int):\\n    return torch.linspace(0, 1, n) + torch.arange(n)\\n").f
assert scripted(3).shape == (3,)
"""


def test_torch_knows_its_functions_after_an_export() -> None:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
