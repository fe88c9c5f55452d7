"""What a caller gives -> a request, and a program's final names."""

from __future__ import annotations

import collections
import dataclasses
import warnings
from typing import Any, NamedTuple

import pytest
import torch
from onnxport.errors import DynamicShapesError, InputError, NamesError
from onnxport.host.discovery import load
from onnxport.records.stages import Container
from onnxport_builtin.attempts.capture import capture
from onnxport_builtin.request.arguments import prepare
from torch.export import Dim

rand = torch.rand


class Add(torch.nn.Module):
    def forward(self, x, y):
        return x + y


class Nested(torch.nn.Module):
    def forward(self, x, d, items):
        return torch.cat([x, d["a"], items[0]], 1)


class Variadic(torch.nn.Module):
    def forward(self, x, *args, k=None, **kw):
        return x + args[0] + kw["z"]


class Point(NamedTuple):
    a: Any
    b: Any


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any = None


class Lambda(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def nested(size=4):
    return rand(size, 2), {"a": rand(size, 2)}, [rand(size, 2)]


def captured(model, args=(), kwargs=None, **options):
    options.setdefault("containers", load(()).containers())
    request = prepare(model.eval(), args, kwargs, **options)
    found = capture(model, request, load(()))
    return request, found.program, found.interface


def inputs(interface):
    return {leaf.name: leaf.axes for leaf in interface.inputs if leaf.name}


# Arguments


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: x, "wrap it"),
        (torch.nn.Linear, "not an instance"),
        (42, "a int"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_model_is_refused_with_advice(model, message):
    with pytest.raises(InputError, match=message):
        prepare(model, (rand(2),))


def test_scripted_modules_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(torch.nn.ReLU())
    with pytest.raises(InputError, match="TorchScript"):
        prepare(scripted, (rand(2),))


@pytest.mark.parametrize("args", [rand(2), (rand(2),), [rand(2)]])
def test_args_become_a_tuple(args):
    request = prepare(torch.nn.ReLU().eval(), args)
    assert type(request.args) is tuple and len(request.args) == 1


def test_a_mapping_as_args_is_refused():
    with pytest.raises(InputError, match="kwargs"):
        prepare(torch.nn.ReLU().eval(), {"input": rand(2)})


def test_kwargs_must_be_a_mapping_of_strings():
    with pytest.raises(InputError, match="give a dict"):
        prepare(torch.nn.ReLU().eval(), (), [rand(2)])
    with pytest.raises(InputError, match="strings"):
        prepare(torch.nn.ReLU().eval(), (), {1: rand(2)})


def test_a_trailing_dict_is_an_argument_unless_it_names_parameters():
    request = prepare(Lambda(lambda d: d["a"]).eval(), ({"a": rand(2)},))
    assert [leaf.path for leaf in request.leaves] == ["x.a"]
    request = prepare(Add().eval(), (rand(2), {"y": rand(2)}))
    assert request.kwargs.keys() == {"y"} and len(request.args) == 1


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"z": 2}), ((1, 2), {"x": 3})])
def test_inputs_that_forward_does_not_accept(args, kwargs):
    with pytest.raises(InputError, match=r"forward\(x, y\)"):
        prepare(Add().eval(), args, kwargs)


def test_unknown_containers_are_named():
    class Odd:
        pass

    with pytest.raises(InputError, match=r"x\.a is a Odd.*Container"):
        prepare(Lambda(lambda d: d["b"]).eval(), ({"a": Odd(), "b": rand(2)},))


def test_training_mode_warns_only_where_it_matters():
    with pytest.warns(UserWarning, match=r"Dropout.*eval\(\)"):
        prepare(torch.nn.Sequential(torch.nn.Dropout(0.5)), (rand(2),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.0)), (rand(2),))


def test_leaves_have_readable_paths():
    value = {
        "a": [rand(1), (rand(1), None)],
        "b": collections.OrderedDict(c=3),
        "p": Point(rand(1), "s"),
        "q": Pair(rand(1)),
    }
    request = prepare(Lambda(lambda d: d["a"][0]).eval(), (value,))
    assert [leaf.path for leaf in request.leaves] == [
        "x.a.0",
        "x.a.1.0",
        "x.a.1.1",
        "x.b.c",
        "x.p.a",
        "x.p.b",
        "x.q.left",
        "x.q.right",
    ]


def test_keywords_stay_in_the_order_of_the_call():
    request = prepare(Add().eval(), (), {"y": rand(1), "x": rand(1)})
    assert list(request.kwargs) == ["y", "x"]
    assert [leaf.path for leaf in request.leaves] == ["y", "x"]


def test_containers_of_plugins():
    class State:
        def __init__(self, h, c):
            self.h, self.c = h, c

    container = Container(
        State, lambda s: ([s.h, s.c], None), lambda v, _: State(*v), names=lambda _: ["hidden", "cell"]
    )
    model = Lambda(lambda s: State(s.h + 1, s.c))
    request, _, interface = captured(model, (State(rand(2), rand(2)),), containers=[container])
    assert [leaf.path for leaf in request.leaves] == ["x.hidden", "x.cell"]
    assert interface.outputs == ["hidden", "cell"]


# dynamic_shapes

NESTED_FORMS = [
    {"x": {0: "b"}, "d": {"a": {0: "b"}}, "items": [{0: "b"}]},
    ({0: "b"}, {"a": {0: "b"}}, [{0: "b"}]),
    [("b", None), {"a": ("b", 2)}, [["b", Dim.STATIC]]],
    ({0: "b"}, {"a": {0: "b"}}, ({0: "b"},)),
    {"x": {-2: "b"}, "d": {"a": {0: "b"}}, "items": {0: "b"}},
    {"x": {0: "b"}, "d.a": {0: "b"}, "items.0": {0: "b"}},
    {"x": {0: "b"}, "d_a": {0: "b"}, "items_0": {0: "b"}},
    {"x": {0: Dim("b")}, "d": {"a": {0: Dim("b")}}, "items": [{0: Dim("b")}]},
    {
        "x": {0: Dim("b", min=2, max=64)},
        "d": {"a": {0: Dim("b", min=2, max=64)}},
        "items": [{0: Dim("b", min=2, max=64)}],
    },
]


@pytest.mark.parametrize("shapes", NESTED_FORMS)
def test_forms_of_dynamic_shapes(shapes):
    request, program, interface = captured(Nested(), nested(), dynamic_shapes=shapes)
    assert set(interface.dim_names.values()) == {"b"}
    assert [leaf.axes for leaf in interface.inputs] == [{0: "b"}] * 3
    assert len(program.range_constraints) >= 1
    assert {path: list(axes) for path, axes in request.requested.items()} == {"x": [0], "d.a": [0], "items.0": [0]}


def test_keys_may_be_names_of_the_file():
    _, _, interface = captured(
        Nested(),
        nested(),
        input_names=["first", "second", "third"],
        dynamic_shapes={"first": {0: "n"}, "second": {0: "n"}, "third": {0: "n"}},
    )
    assert inputs(interface) == {"first": {0: "n"}, "second": {0: "n"}, "third": {0: "n"}}


def test_partial_dicts_leave_the_rest_static():
    request, program, _ = captured(Nested(), nested(), dynamic_shapes={"d": {"a": {1: "w"}}})
    assert request.dynamic_shapes == {"x": None, "d": {"a": {1: Dim.AUTO}}, "items": [None]}
    assert len(program.range_constraints) == 1


@pytest.mark.parametrize(
    "shapes",
    [
        {"x": {0: "b"}, "args": [{0: "b"}], "kw": {"z": {0: "b"}}},
        {"x": {0: "b"}, "args": ({0: "b"},), "z": {0: "b"}},
        ({0: "b"}, [{0: "b"}], {"z": {0: "b"}}),
    ],
)
def test_variadic_forwards(shapes):
    _, _, interface = captured(Variadic(), (rand(4, 3), rand(4, 3)), {"z": rand(4, 3)}, dynamic_shapes=shapes)
    assert [leaf.path for leaf in interface.inputs] == ["x", "args.0", "kw.z"]
    assert [leaf.axes for leaf in interface.inputs] == [{0: "b"}] * 3


def test_omitted_and_none_optionals_count():
    class Optional(torch.nn.Module):
        def forward(self, x, a=None, b=None):
            return x if b is None else x + b

    for shapes in (
        ({0: "n"}, None, {0: "n"}),
        {"x": {0: "n"}, "b": {0: "n"}},
        {"x": {0: "n"}, "a": None, "b": {0: "n"}},
    ):
        _, _, interface = captured(Optional(), (rand(3), None, rand(3)), dynamic_shapes=shapes)
        assert [leaf.kind for leaf in interface.inputs] == ["tensor", "baked", "tensor"]
    _, _, interface = captured(Optional(), (rand(3),), {"b": rand(3)}, dynamic_shapes={"x": {0: "n"}, "b": {0: "n"}})
    assert list(inputs(interface)) == ["x", "b"]
    captured(Optional(), (rand(3),), dynamic_shapes=({0: "n"}, None, None))


def test_builders_of_torch_export():
    x, y = rand(4, 3), rand(4, 3)
    shapes = torch.export.ShapesCollection()
    shapes[x] = {0: "rows"}
    shapes[y] = {0: "rows"}
    _, _, interface = captured(Add(), (x, y), dynamic_shapes=shapes)
    assert set(interface.dim_names.values()) == {"rows"}
    more = torch.export.AdditionalInputs()
    more.add((rand(6, 3), rand(6, 3)))
    _, program, _ = captured(Add(), (x, y), dynamic_shapes=more)
    assert len(program.range_constraints) == 1


def test_derived_dims_and_expressions():
    class Join(torch.nn.Module):
        def forward(self, x, y):
            return torch.cat([x, x]) + y

    d = Dim("d", min=2, max=50)
    for of_x, of_y, written in ((d, 2 * d, "2*d"), ("d", "2*d", "2*d"), ("d", "d + d", "d + d")):
        _, _, interface = captured(Join(), (rand(3, 2), rand(6, 2)), dynamic_shapes=({0: of_x}, {0: of_y}))
        assert list(interface.dim_names.values()) == ["d", written]

    class Half(torch.nn.Module):
        def forward(self, y):
            return y.reshape(2, -1)

    _, _, interface = captured(Half(), (rand(6),), dynamic_shapes=({0: 2 * Dim("d")},))
    assert interface.inputs[0].axes == {0: "2*d"} and "d" in interface.dim_names.values()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"nope": {0: "b"}}, "'nope', which is none of the arguments x, d, items"),
        (({0: "b"}, None), "2 entries for 3 arguments"),
        (({0: "b"}, None, None, {0: "b"}), "4 entries for 3 arguments"),
        ({"d": {"b": {0: "b"}}}, r"keys \['b'\], but it has \['a'\]"),
        ({"items": [None, {0: "b"}]}, "items has 2 entries"),
        ({"items": "b"}, "items is 'b'"),
        ({"x": ("b",)}, "has 1 axes, but the tensor has 2"),
        ({"x": {2: "b"}}, "names axis 2"),
        ({"x": {"0": "b"}}, "names axis '0'"),
        ({"x": {0: 5}}, "axis 0 of x is 5, but it is 4"),
        ({"x": {0: 1.5}}, "1.5, a float"),
        ({"x": {0: ""}}, "an empty name"),
        ({"x": Dim.DYNAMIC}, "give {axis: name}"),
        ("b", "dynamic_shapes is a str"),
        ({"x": {0: "b", 1: "b"}}, "'b' is 4 at axis 0 of x but 2 at axis 1 of x"),
        ({"x": {0: "b", 1: "3*b"}}, "Axis 1 of x is 2 in the example, which is not"),
        ({"x": {0: Dim("b", max=3)}}, "ends at 3"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(DynamicShapesError, match=message) as caught:
        prepare(Nested().eval(), nested(), dynamic_shapes=shapes)
    assert "d.a: float32[4, 2]" in str(caught.value)


def test_constants_can_not_be_dynamic():
    with pytest.raises(DynamicShapesError, match="constant 'a'"):
        prepare(Add().eval(), (rand(3), "a"), dynamic_shapes=({0: "b"}, "s"))


# dynamic_axes


def test_dynamic_axes_are_converted_and_warn():
    with pytest.warns(DeprecationWarning, match="dynamic_shapes"):
        _, _, interface = captured(
            Add(),
            (rand(4, 3), rand(4, 3)),
            input_names=["a", "b"],
            output_names=["sum"],
            dynamic_axes={"a": {0: "batch"}, "b": {0: "batch"}, "sum": [0]},
        )
    assert inputs(interface) == {"a": {0: "batch"}, "b": {0: "batch"}}
    assert interface.output_axes == {0: {0: "sum_dynamic_axes_1"}}
    assert set(interface.dim_names.values()) == {"batch"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_lists_of_axes_get_names():
    _, _, interface = captured(Add(), (rand(4, 3), rand(4, 3)), dynamic_axes={"x": [0, 1], "y": [0, 1]})
    assert inputs(interface) == {
        "x": {0: "x_dynamic_axes_1", 1: "x_dynamic_axes_2"},
        "y": {0: "y_dynamic_axes_1", 1: "y_dynamic_axes_2"},
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("axes", [{"nope": [0]}, {"x": 3}, {"x": {"a": "b"}}, [1], {"x": {7: "n"}}])
def test_axes_that_do_not_fit(axes):
    with pytest.raises(DynamicShapesError):
        captured(Add(), (rand(4), rand(4)), dynamic_axes=axes)


# Numbers and constants


def test_numbers_are_baked_in_and_listed():
    class Options(torch.nn.Module):
        def forward(self, x, n, s="a", flag=True, f=1.5):
            return x * n + f

    _, _, interface = captured(Options(), (rand(3), 2), {"flag": False, "f": 0.5})
    assert [(leaf.path, leaf.kind, leaf.value) for leaf in interface.baked] == [
        ("n", "baked", 2),
        ("flag", "baked", False),
        ("f", "baked", 0.5),
    ]
    assert list(inputs(interface)) == ["x"]


@pytest.mark.parametrize("spec", [Dim.DYNAMIC, Dim.AUTO, "n"])
@pytest.mark.parametrize("value", [1, 3])
def test_an_int_becomes_an_input(spec, value):
    class Repeat(torch.nn.Module):
        def forward(self, x, n):
            return x.repeat(n, 1)

    _, program, interface = captured(Repeat(), (rand(2, 3), value), dynamic_shapes={"n": spec})
    assert [(leaf.name, leaf.kind) for leaf in interface.inputs] == [("x", "tensor"), ("n", "number")]
    assert "n" in interface.dim_names.values()
    assert program.example_inputs[0][1] == value


def test_a_float_becomes_an_input():
    class Scale(torch.nn.Module):
        def forward(self, x, f):
            return x * f

    request, _, interface = captured(Scale(), (rand(2, 3), 0.5), dynamic_shapes={"f": Dim.DYNAMIC})
    assert [(leaf.name, leaf.kind) for leaf in interface.inputs] == [("x", "tensor"), ("f", "tensor")]
    assert request.args[1] == 0.5


# Names


def test_input_names_cover_the_first_inputs():
    _, _, interface = captured(Nested(), nested(), input_names=["one"])
    assert list(inputs(interface)) == ["one", "d_a", "items_0"]


def test_input_names_may_count_constants_too():
    class Options(torch.nn.Module):
        def forward(self, x, n, y=None):
            return x * n

    _, _, interface = captured(Options(), (rand(3), 2, rand(3)), input_names=["a", "b", "c"])
    assert list(inputs(interface)) == ["a", "c"]


@pytest.mark.parametrize("names", [["a", "b", "c", "d"], ["a", "a"], "abc", [1], [""], 5])
def test_bad_input_names(names):
    with pytest.raises(NamesError):
        prepare(Nested().eval(), nested(), input_names=names)


def test_too_many_names_list_the_leaves():
    with pytest.raises(NamesError, match=r"3 inputs:\n    x: float32\[4, 2\]\n    d\.a"):
        prepare(Nested().eval(), nested(), input_names=["a"] + [f"n{i}" for i in range(5)])


@pytest.mark.parametrize("names", [["a", "b"], ["a", "a"], [None]])
def test_bad_output_names(names):
    with pytest.raises(NamesError):
        captured(Add(), (rand(2), rand(2)), output_names=names)


def test_outputs_have_readable_names():
    model = Lambda(lambda x: {"logits": x + 1, "cache": [(x + 2, x + 3)], "none": None, "n": 3})
    _, _, interface = captured(model, (rand(2),))
    assert interface.outputs == ["logits", "cache_0_0", "cache_0_1", "", "n"]
    _, _, interface = captured(Lambda(lambda x: (x + 1, Pair(x * 2, Point(x * 3, x * 4)))), (rand(2),))
    assert interface.outputs == ["add", "left", "right_a", "right_b"]


def test_flat_outputs_keep_the_names_of_the_graph():
    _, _, interface = captured(Lambda(lambda x: (x + 1, x * 2)), (rand(2),))
    assert interface.outputs == ["add", "mul"]


def test_output_names_skip_none():
    model = Lambda(lambda x: (x + 1, None, x * 2))
    _, _, interface = captured(model, (rand(2),), output_names=["a", "b"])
    assert interface.outputs == ["a", "", "b"]
    _, _, interface = captured(model, (rand(2),), output_names=["a", "none", "b"])
    assert interface.outputs == ["a", "", "b"]


def test_an_output_that_is_an_input_or_returned_twice():
    _, _, interface = captured(Lambda(lambda x: (x, x + 1, x)), (rand(2),))
    assert len(set(interface.outputs) | {"x"}) == 4


def test_names_given_win_over_defaults():
    _, _, interface = captured(Add(), (rand(2), rand(2)), input_names=["add"])
    assert list(inputs(interface)) == ["add", "y"] and interface.outputs == ["add_out"]
    with pytest.warns(UserWarning, match="'x_1'"):
        _, _, interface = captured(Add(), (rand(2), rand(2)), output_names=["x"])
    assert interface.outputs == ["x"] and list(inputs(interface)) == ["x_1", "y"]
    with pytest.raises(NamesError, match="both"):
        captured(Add(), (rand(2), rand(2)), input_names=["a"], output_names=["a"])


def test_unnamed_dimensions_are_called_after_their_input():
    _, _, interface = captured(Add(), (rand(4, 3), rand(4, 3)), dynamic_shapes=({0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}))
    assert list(interface.dim_names.values()) == ["x_dim_0"]


# Exported programs


def test_a_program_brings_its_own_inputs():
    program = torch.export.export(Nested(), nested())
    request = prepare(program, input_names=["a"])
    interface = capture(program, request, load(())).interface
    assert list(inputs(interface)) == ["a", "d_a", "items_0"]
    assert [leaf.path for leaf in request.leaves] == ["x", "d.a", "items.0"]


def test_a_program_without_examples():
    program = torch.export.export(Add(), (rand(2), rand(2)))
    program.example_inputs = None
    request = prepare(program)
    assert list(inputs(capture(program, request).interface)) == ["x", "y"]


def test_dims_of_a_program_can_be_named_but_not_freed():
    program = torch.export.export(Add(), (rand(4), rand(4)), dynamic_shapes=({0: Dim.AUTO}, {0: Dim.AUTO}))
    request = prepare(program, dynamic_shapes=({0: "n"}, {0: "n"}))
    assert list(capture(program, request, load(())).interface.dim_names.values()) == ["n"]
    static = torch.export.export(Add(), (rand(4), rand(4)))
    with pytest.raises(DynamicShapesError, match="always 4"):
        capture(static, prepare(static, dynamic_shapes=({0: "n"}, {0: "n"})))


# Caches of transformers


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.mark.usefixtures("unregistered_caches")
def test_caches_have_readable_leaves(transformers):
    cache = transformers.DynamicCache()
    for layer in range(2):
        cache.update(rand(2, 2, 3, 4), rand(2, 2, 3, 4), layer)

    class Model(torch.nn.Module):
        def forward(self, x, past):
            past.update(x, x, 0)
            return {"past": past}

    paths = ["past.0.key", "past.0.value", "past.1.key", "past.1.value"]
    one = {0: "batch", 2: "past"}
    forms = [one, [one] * 4, [[one] * 2, [one] * 2], [{"key": one, "value": one}] * 2]
    for form in forms:
        request, _, interface = captured(
            Model(), (rand(2, 2, 1, 4), cache), dynamic_shapes={"x": {0: "batch"}, "past": form}
        )
        assert [leaf.path for leaf in request.leaves] == ["x", *paths]
        assert interface.outputs == [path.replace(".", "_") + "_out" for path in paths]
        assert [leaf.axes for leaf in interface.inputs[1:]] == [one] * 4


def test_caches_that_transformers_registered(transformers, unregistered_caches):
    """Its exporters register caches as a flat list of tensors: names and dynamic_shapes are the same all the same."""
    exporter_dynamo = pytest.importorskip("transformers.exporters.exporter_dynamo")
    exporter_dynamo.register_pytree_node(transformers.DynamicCache)
    cache = transformers.DynamicCache()
    for layer in range(2):
        cache.update(rand(2, 2, 3, 4), rand(2, 2, 3, 4), layer)
    one = {2: "past"}
    model = Lambda(lambda c: c.layers[0].keys + c.layers[1].values)
    for form in (one, [one] * 4, [[one] * 2] * 2, [{"key": one, "value": one}] * 2):
        request, _, interface = captured(model, (cache,), dynamic_shapes=(form,))
        assert [leaf.path for leaf in request.leaves] == ["x.0.key", "x.0.value", "x.1.key", "x.1.value"]
        assert [leaf.axes for leaf in interface.inputs] == [one] * 4


def test_encoder_decoder_caches(transformers):
    caches = []
    for _ in range(2):
        cache = transformers.DynamicCache()
        cache.update(rand(2, 2, 3, 4), rand(2, 2, 3, 4), 0)
        caches.append(cache)
    model = Lambda(lambda c: c.self_attention_cache.layers[0].keys + c.cross_attention_cache.layers[0].values)
    request, program, _ = captured(model, (transformers.EncoderDecoderCache(*caches),))
    assert [leaf.path for leaf in request.leaves] == [
        f"x.{kind}_attention_cache.0.{name}" for kind in ("self", "cross") for name in ("key", "value")
    ]
    assert program.module()(*request.args).shape == (2, 2, 3, 4)


def test_attributes_of_a_cache_of_any_kind_come_back_after_a_save(transformers, unregistered_caches):
    """Each kind of value that a cache may hold, through torch's JSON."""
    cache = transformers.DynamicCache()
    cache.update(rand(2, 2, 3, 4), rand(2, 2, 3, 4), 0)
    own = {
        "number": 3,
        "text": "eager",
        "nothing": None,
        "steps": [1, (2.5, rand(2))],
        "by_name": {"a": rand(3), 4: "four"},
        "kind": torch.bfloat16,
        "place": torch.device("cpu"),
        "maker": torch.nn.Linear,
        "_number_tensor": torch.tensor(3),
    }
    vars(cache.layers[0]).update(own)
    captured(Lambda(lambda c: c.layers[0].keys), (cache,))  # registers the class
    leaves, spec = torch.utils._pytree.tree_flatten(cache)
    spec = torch.utils._pytree.treespec_loads(torch.utils._pytree.treespec_dumps(spec))
    layer = torch.utils._pytree.tree_unflatten(leaves, spec).layers[0]
    assert type(layer) is type(cache.layers[0])
    steps, by_name = own.pop("steps"), own.pop("by_name")
    assert {name: vars(layer)[name] for name in own} == own
    assert layer.steps[0] == 1 and isinstance(layer.steps[1], tuple) and layer.steps[1][0] == 2.5
    assert torch.equal(layer.steps[1][1], steps[1][1])
    assert list(layer.by_name) == ["a", 4] and layer.by_name[4] == "four"
    assert torch.equal(layer.by_name["a"], by_name["a"])
    assert torch.equal(layer.keys, cache.layers[0].keys)
