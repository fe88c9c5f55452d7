"""``len(tensor)`` in forward: a dynamic size stays one, in the usual capture."""

from __future__ import annotations

import builtins

import onnxport
import pytest
import torch
from support import export_and_compare, run_model


class Rows(torch.nn.Module):
    def forward(self, x):
        count = len(x)
        return x.reshape(count, -1) / len([x, x]), torch.arange(count)


def test_len_of_a_tensor_is_its_dynamic_size(caplog):
    with caplog.at_level("INFO", logger="onnxport"):
        export_and_compare(
            Rows(), (torch.rand(2, 3, 4),), dynamic_shapes=({0: "rows"},), other_args=(torch.rand(5, 3, 4),)
        )
    assert [record.message for record in caplog.records if "strict" in record.message] == [
        "capture: torch.export, non-strict"
    ]


class OwnLength:
    def __len__(self):
        return 7


def test_other_lengths_are_what_they_were():
    class Model(torch.nn.Module):
        def forward(self, x):
            return x * len("abc") + len(OwnLength())

    program = onnxport.export(Model(), (torch.ones(2),))
    assert run_model(program, (torch.ones(2),))[0].tolist() == [10.0, 10.0]
    assert "len" not in globals()
    assert len is builtins.len
    with pytest.raises(onnxport.CaptureError, match="0-d tensor"):
        onnxport.export(Rows(), (torch.tensor(1.0),))
