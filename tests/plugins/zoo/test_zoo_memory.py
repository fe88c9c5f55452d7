"""What a case is thought to take, what it takes, and what a cluster is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnxport_zoo.cases import Case
from onnxport_zoo.isolation import Task, isolated
from onnxport_zoo.on_ray import more_memory

GIB = 2**30
MODELS = """
import torch
from torch import nn

def small():
    return {"model": nn.Linear(4, 4).eval(), "args": (torch.randn(2, 4),)}

def weights():
    model = nn.Sequential(*(nn.Linear(4096, 4096) for _ in range(8))).eval()  # 512 MiB
    return {"model": model, "args": (torch.randn(2, 4096),), "dynamic_shapes": ({0: "batch"},)}

class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x):
        return self.second(self.first(x).relu()).sigmoid()

def values():
    x = torch.randn(2, 3, 512, 512)  # 64 MiB a value
    return {"model": Images().eval(), "args": (x,), "dynamic_shapes": ({0: "batch"},)}
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "weights", "values"])
def test_an_estimate_is_near_what_a_case_takes(tmp_path: Path, name: str) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    case = Case(f"models.py:{name}", str(tmp_path), latency=False)
    record = isolated(Task(case, "key", None, 16 * GIB))
    assert record["status"] == "passed", record["message"]
    assert 0.9 < record["estimate"] / record["peak"] < 2, (record["estimate"], record["peak"])


@pytest.mark.slow
def test_a_case_that_will_take_more_ends_where_more_can_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    case = Case("models.py:weights", str(tmp_path), latency=False)
    record = isolated(Task(case, "key", None, int(1.6 * GIB), asks=True))
    assert (record["status"], record["stage"]) == ("memory", "translate") and "will take about" in record["message"]
    assert record["peak"] < 1.6 * GIB < record["estimate"]
    assert more_memory(record, int(1.6 * GIB), 64 * GIB) > record["estimate"]


@pytest.mark.parametrize(
    ("record", "limit", "asked"),
    [
        ({"status": "passed"}, 2, 0),
        ({"status": "crashed", "estimate": 9}, 2, 0),
        ({"status": "memory", "estimate": 10}, 2, 11),
        ({"status": "memory", "estimate": 3}, 2, 4),  # it took more than was thought
        ({"status": "memory"}, 3, 6),
        ({"status": "memory", "estimate": 40}, 2, 16),
        ({"status": "memory", "estimate": 40}, 16, 0),  # no machine has more
    ],
)
def test_what_is_asked_for_next(record: dict[str, Any], limit: int, asked: int) -> None:
    assert more_memory(record, limit, 16) == asked
