"""Records, keys, ranking, binding and explanation."""

from __future__ import annotations

import math
import operator
import types

import pytest
import torch
from onnxport import OnnxExporterError, PluginConflictError, PluginError, Unsupported, collect, translation
from onnxport.host.registry import Registry, bind, signature_mismatch
from onnxport.records.translations import (
    BUILTIN_TIER,
    TABLE_TIER,
    THIRD_PARTY_TIER,
    Resolver,
    Translation,
    key_of,
    name_of,
)
from onnxport_workbench.explaining import explain

ADD = torch.ops.aten.add.Tensor
GELU = torch.ops.aten.gelu.default


def add(op, self, other, *, alpha=1):
    """Adds."""
    return op.Add(self, other)


def other_add(op, self, other, *, alpha=1):
    return op.Add(other, self)


def record(target="aten::add.Tensor", function=add, plugin="p", tier=THIRD_PARTY_TIER, **options):
    return Translation(target, function, plugin=plugin, tier=tier, **options)


@pytest.mark.parametrize(
    ("target", "key"),
    [
        (ADD, "aten::add.Tensor"),
        (GELU, "aten::gelu"),
        ("aten::gelu.default", "aten::gelu"),
        ("aten::add.Tensor", "aten::add.Tensor"),
        (torch.ops.higher_order.cond, "higher_order::cond"),
        (operator.add, operator.add),
        (torch.sym_max, torch.sym_max),
    ],
)
def test_key(target, key):
    assert key_of(target) == key


@pytest.mark.parametrize("target", ["add", "::add", "aten::", "aten::add.", 3, None])
def test_key_refuses(target):
    with pytest.raises(PluginError):
        key_of(target)


def test_packet_is_told_which_overloads():
    with pytest.raises(OnnxExporterError, match=r"aten\.add\.Tensor"):
        key_of(torch.ops.aten.add)


def test_names():
    assert name_of(operator.add) == "operator.add"
    assert name_of(math.ceil) == "math.ceil"
    assert name_of(GELU) == "aten::gelu"


def test_translation_keeps_the_function():
    module = types.ModuleType("family")
    source = (
        "from onnxport import translation\n"
        "def make(name):\n"
        "    @translation(name, opset=20, priority=3, complex=True)\n"
        "    def f(op, self): return self\n"
        "    return f\n"
        "for name in ('aten::sin', 'aten::cos'):\n"
        "    make(name)\n"
        "@translation('aten::tan')\n"
        "@translation('aten::tanh')\n"
        "def tan(op, self): return self\n"
    )
    exec(source, vars(module))
    records = collect(module)
    assert [r.target for r in records] == ["aten::sin", "aten::cos", "aten::tanh", "aten::tan"]
    assert (records[0].opset, records[0].priority, records[0].complex) == (20, 3, True)
    assert module.tan(None, 5) == 5
    assert [r.target for r in collect(module.tan)] == ["aten::tanh", "aten::tan"]
    assert collect(types.ModuleType("empty")) == []


def test_translation_needs_targets_and_functions():
    with pytest.raises(PluginError, match="target"):
        translation()
    with pytest.raises(PluginError, match="functions"):
        translation("aten::sin")(len)


def test_ranking_is_tier_then_priority_then_opset():
    records = [
        record(tier=BUILTIN_TIER, opset=18),
        record(tier=BUILTIN_TIER, opset=20),
        record(tier=BUILTIN_TIER, opset=18, priority=1),
        record(tier=THIRD_PARTY_TIER, opset=18),
        record(tier=THIRD_PARTY_TIER, opset=23),
    ]
    registry = Registry(records, opset=20)
    assert [r.rank for r in registry.candidates(ADD)] == [
        (1, False, 0, 18),
        (0, False, 1, 18),
        (0, False, 0, 20),
        (0, False, 0, 18),
    ]
    assert registry.at_opset(23).candidates(ADD)[0].opset == 23
    assert registry.why_not(ADD) == [f"{records[4]}: needs opset 23, the target is 20"]
    assert registry.why_not(GELU) == []
    assert len(registry) == 5
    assert ADD in registry and GELU not in registry


def test_table_goes_first_and_leaves_the_registry_alone():
    registry = Registry([record(priority=5)])
    table = [record(function=other_add, plugin="table", tier=TABLE_TIER), record(target=operator.add)]
    layered = registry.with_table(table)
    assert [r.function for r in layered.candidates(ADD)] == [other_add, add]
    assert layered.candidates(operator.add)[0].tier == TABLE_TIER
    assert [r.function for r in registry.candidates(ADD)] == [add]
    assert registry.candidates(operator.add) == ()


def test_conflicts_name_both_plugins():
    registry = Registry([record(plugin="one"), record(plugin="two", function=other_add), record("aten::sin")])
    assert registry.candidates(torch.ops.aten.sin.default)
    with pytest.raises(PluginConflictError, match=r"aten::add\.Tensor.*'one'.*'two'"):
        registry.candidates(ADD)


def test_real_and_complex_variants_do_not_conflict():
    registry = Registry([record(complex=True, function=other_add), record()])
    assert [r.complex for r in registry.candidates(ADD)] == [False, True]


def test_no_conflict_above_the_opset():
    registry = Registry([record(opset=21), record(opset=21, plugin="two")], opset=20)
    assert registry.candidates(ADD) == ()
    with pytest.raises(PluginConflictError):
        registry.at_opset(21).candidates(ADD)


def test_resolvers_are_asked_once_for_unknown_targets():
    asked = []

    def resolve(target, opset):
        asked.append((target, opset))
        return [Translation("x::y", add)] if target is GELU else None

    registry = Registry([record()], [Resolver("whole", THIRD_PARTY_TIER, resolve)], opset=19)
    assert registry.candidates(ADD)[0].plugin == "p"
    for _ in range(2):
        (found,) = registry.candidates(GELU)
    assert (found.plugin, found.target) == ("whole", "aten::gelu")
    assert asked == [(GELU, 19)]


def test_bind_by_schema_names_with_defaults():
    assert bind(record(), ADD, (1, 2), {}) == ((), {"self": 1, "other": 2, "alpha": 1})
    assert bind(record(), ADD, (1,), {"other": 3, "alpha": 4}) == ((), {"self": 1, "other": 3, "alpha": 4})
    assert bind(record(), operator.add, (1, 2), {}) == ((1, 2), {})


def test_bind_tolerates_arguments_that_newer_torch_added():
    def old(op, self, other):
        return self

    assert bind(record(function=old), ADD, (1, 2), {}) == ((), {"self": 1, "other": 2})
    with pytest.raises(Unsupported, match="alpha=2"):
        bind(record(function=old), ADD, (1, 2), {"alpha": 2})


def test_signature_mismatch():
    assert signature_mismatch(add, ADD) == ""
    assert signature_mismatch(lambda op, self, **_: self, ADD) == ""
    assert "alpha" in signature_mismatch(lambda op, self, other: self, ADD)
    assert "beta" in signature_mismatch(lambda op, self, other, alpha, beta: self, ADD)


def test_explain():
    registry = Registry(
        [record(), record(opset=22), record(operator.add), record("aten::add.Scalar")],
        decompositions={ADD: other_add},
    )
    told = explain(registry, "aten::add.Tensor")
    assert (told.target, [r.opset for r in told.candidates]) == ("aten::add.Tensor", [18])
    assert told.rejected[0][1] == "needs opset 22, the target is 18"
    assert told.decomposition.endswith("other_add")
    assert explain(registry, "operator.add").candidates[0].target is operator.add
    assert explain(registry, ADD).candidates == told.candidates
    told = explain(registry, "aten::add")
    assert not told.candidates
    assert "aten::add.Scalar, aten::add.Tensor" in told.hints[0]
    assert [each.target for each in told.overloads] == ["aten::add.Scalar", "aten::add.Tensor"]
    told = explain(registry, "add")
    assert len(told.overloads) == 2 and told.hints[1] == "others of that name: operator.add"
    with pytest.raises(PluginError, match="Did you mean"):
        explain(registry, "addd")


def test_location_has_no_machine_path():
    assert record().location.startswith("test_registry.py:") or record().location.endswith(
        f"core/test_registry.py:{add.__code__.co_firstlineno}"
    )
    assert not record().location.startswith("/")
