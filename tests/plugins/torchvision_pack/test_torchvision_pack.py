"""How the pack is found, and what happens without it."""

from __future__ import annotations

import onnxport
import pytest
import torch
import torchvision
from onnxport.host import discovery
from onnxport.host.registry import signature_mismatch
from onnxport.records.translations import operator_named

NAMES = ("nms", "roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d")
BOXES = torch.tensor([[0.0, 0, 4, 4], [1, 1, 5, 5]]), torch.tensor([0.5, 0.6])


class Nms(torch.nn.Module):
    def forward(self, boxes, scores):
        return torchvision.ops.nms(boxes, scores, 0.5)


def test_found_by_its_entry_point():
    (info,) = (info for info in discovery.load().infos if info.name == "torchvision")
    assert info.distribution == "onnxport-torchvision"
    assert info.version and not info.error
    assert info.translations == 8


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_schemas(name):
    target = operator_named(f"torchvision::{name}")
    for opset in (18, 22):
        candidates = discovery.load(None).registry(opset).candidates(target)
        assert candidates and candidates[0].plugin == "torchvision"
        assert not any(signature_mismatch(record.function, target) for record in candidates)


def test_nodes_tell_the_pack():
    program = onnxport.export(Nms().eval(), BOXES)
    (node,) = (node for node in program.model.graph if node.op_type == "NonMaxSuppression")
    assert any("torchvision" in str(value) for value in node.metadata_props.values())


def test_refused_without_the_pack():
    with pytest.raises(onnxport.UnsupportedOperatorsError, match="torchvision::nms") as caught:
        onnxport.export(Nms().eval(), BOXES, plugins=())
    assert "plugin 'torchvision' is installed, but left out by plugins=[...]" in str(caught.value)


def test_advice_where_the_pack_is_not_installed(monkeypatch):
    monkeypatch.setattr(discovery, "installed_plugins", dict)
    with pytest.raises(onnxport.UnsupportedOperatorsError, match="pip install onnxport-torchvision"):
        onnxport.export(Nms().eval(), BOXES, plugins=())
