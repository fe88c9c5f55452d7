"""Leaves are in the order in which torch.export flattens a call, whatever forward's signature is."""

from __future__ import annotations

import functools
import inspect
from typing import Any, NamedTuple

import onnxport
import pytest
import torch
from support import expect_equal
from torch.export import Dim


class Numbers(torch.nn.Module):
    def forward(self, x, alpha=1.0, **rest):
        return x * alpha + 10 * rest["beta"] + 100 * rest["gamma"]


class Tensors(torch.nn.Module):
    def forward(self, x, scale=None, **rest):
        return x * scale, rest["z"] + 2, rest["w"] + 3


class Kinds(torch.nn.Module):
    def forward(self, ids=None, mask=None, **rest):
        return rest["old"] * 2 + ids + mask


class Nested(torch.nn.Module):
    def forward(self, x, scale=None, **rest):
        return x * scale, rest["z"] + 2, rest["w"]["a"] + 3, rest["w"]["b"][0] - 1


class Defaults(torch.nn.Module):
    def forward(self, a, b=None, c=1.0, d=None):
        y = a * c
        return y if b is None else y + b, y if d is None else y - d


class PositionalOnly(torch.nn.Module):
    def forward(self, x, /, y=None, **rest):
        return x - y + 2 * rest["x"]


class Star(torch.nn.Module):
    def forward(self, a, *more, flag=None, **rest):
        return a + 2 * more[0] - 3 * more[1], flag * 2, rest["q"] - 1


class OnlyKeywords(torch.nn.Module):
    def forward(self, **rest):
        return rest["b"] - rest["a"], rest["c"]["p"] * 2 + rest["c"]["q"]


class Wrapper(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)


def renamed(function: Any) -> Any:
    """A decorator that takes ``old`` for ``new``, which alone the decorated function has."""

    @functools.wraps(function)
    def inner(self, *args, **kwargs):
        if "old" in kwargs:
            kwargs["new"] = kwargs.pop("old")
        return function(self, *args, **kwargs)

    return inner


class Renamed(torch.nn.Module):
    @renamed
    def forward(self, x, new=None, k=2.0):
        return x * k + new


class RenamedBesideOthers(torch.nn.Module):
    @renamed
    def forward(self, x=None, new=None, **rest):
        return x * 2 + new - rest["t"]


def with_a_number(function: Any) -> Any:
    """A decorator that gives the first argument itself."""

    @functools.wraps(function)
    def inner(self, *args, **kwargs):
        return function(self, 3.0, *args, **kwargs)

    return inner


class Injected(torch.nn.Module):
    @with_a_number
    def forward(self, factor, x, y=None):
        return x * factor - y


class Partial(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.forward = functools.partial(self.forward, flag=True)

    def forward(self, x, flag=False, y=None):
        return x + 1 - y if flag else x - 1


class Callable:
    def __call__(self, x, y=None, **rest):
        return x * 2 - y + rest["t"]


class CallableForward(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.forward = Callable()


def tensor(*shape: int) -> torch.Tensor:
    return torch.rand(shape)


class Form(NamedTuple):
    model: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[str]
    shapes: list[Any] = []  # noqa: RUF012


n, k = Dim("n"), Dim("k")
FORMS = {
    "numbers": Form(Numbers(), (tensor(1),), {"alpha": 2.0, "beta": 3.0, "gamma": 4.0}, ["x"]),
    "tensors": Form(
        Tensors(),
        (tensor(3),),
        {"scale": tensor(), "w": tensor(4), "z": tensor(5)},
        ["x", "scale", "w", "z"],
        [
            {"x": {0: n}, "z": {0: k}},
            {"x": {0: "n"}, "scale": None, "rest": {"z": {0: "k"}, "w": None}},
            {"x": {0: "n"}, "rest.z": {0: "k"}},
            ({0: n}, None, {"z": {0: k}, "w": None}),
            ({0: "n"}, None, None, {0: "k"}),
        ],
    ),
    "kinds": Form(
        Kinds(),
        (),
        {"ids": torch.ones(2, 3, dtype=torch.int64), "mask": torch.zeros(2, 3, dtype=torch.int64), "old": tensor(2, 3)},
        ["ids", "mask", "old"],
        [
            {"ids": {0: "n"}, "mask": {0: "n"}, "old": {0: "n"}},
            ({0: n}, {0: n}, {0: n}),
            ({0: n}, {0: n}, {"old": {0: n}}),
        ],
    ),
    "containers": Form(
        Nested(),
        (tensor(3),),
        {"z": tensor(5), "w": {"a": tensor(4), "b": [tensor(2)]}, "scale": tensor()},
        ["x", "z", "w_a", "w_b_0", "scale"],
        [{"rest": {"w": {"a": {0: n}, "b": [{0: k}]}}}, {"w": {"a": {0: "n"}}}, {"w_a": {0: "n"}}],
    ),
    "another order": Form(
        Defaults(), (tensor(2, 3),), {"d": tensor(2, 3), "b": tensor(3)}, ["a", "d", "b"],
        [{"a": {0: n}, "d": {0: n}}, ({0: "n"}, None, {0: "n"})],
    ),
    "None between": Form(
        Defaults(), (tensor(2, 3), None, 2.5), {"d": tensor(2, 3)}, ["a", "d"], [({0: n}, None, None, {0: n})]
    ),
    "positional only": Form(PositionalOnly(), (tensor(3),), {"x": tensor(3), "y": tensor(3)}, ["x_0", "x", "y"]),
    "star": Form(
        Star(),
        (tensor(2), tensor(2), tensor(2)),
        {"q": tensor(4), "flag": tensor(3)},
        ["a", "more_0", "more_1", "q", "flag"],
        [
            {"a": {0: n}, "more": ({0: n}, {0: n}), "rest": {"q": {0: k}}},
            {"a": {0: "n"}, "more": ({0: "n"}, {0: "n"}), "q": {0: "k"}},
            ({0: "n"}, ({0: "n"}, {0: "n"}), None, {"q": {0: "k"}}),
        ],
    ),
    "only keywords": Form(
        OnlyKeywords(),
        (),
        {"b": tensor(2), "c": {"p": tensor(3), "q": tensor(3)}, "a": tensor(2)},
        ["b", "c_p", "c_q", "a"],
        [{"a": {0: n}, "b": {0: n}}, {"rest": {"c": {"p": {0: "n"}, "q": {0: "n"}}}}],
    ),
    "a keyword called as the others": Form(
        OnlyKeywords(),
        (),
        {"b": tensor(2), "c": {"p": tensor(3), "q": tensor(3)}, "a": tensor(2), "rest": tensor(1), "x.y": tensor(1)},
        ["b", "c_p", "c_q", "a", "rest", "x_y"],
        [{"rest": {0: "n"}}, {"rest": {"rest": {0: "n"}}}],
    ),
    "wrapper": Form(
        Wrapper(Tensors()),
        (tensor(3),),
        {"z": tensor(5), "w": tensor(4), "scale": tensor()},
        ["args_0", "z", "w", "scale"],
        [{"args": ({0: n},), "z": {0: k}}, {"args": ({0: "n"},), "kwargs": {"z": {0: "k"}}}],
    ),
    "renamed": Form(Renamed(), (tensor(2),), {"old": tensor(2)}, ["x", "old"], [{"x": {0: n}, "old": {0: n}}]),
    "renamed, by keywords": Form(
        Renamed(), (), {"k": 3.0, "old": tensor(2), "x": tensor(2)}, ["old", "x"], [{"x": {0: "n"}, "old": {0: "n"}}]
    ),
    "renamed, beside others": Form(
        RenamedBesideOthers(),
        (),
        {"t": tensor(2), "old": tensor(2), "x": tensor(2)},
        ["t", "old", "x"],
        [{"x": {0: "n"}, "old": {0: "n"}, "t": {0: "n"}}],
    ),
    "injected": Form(
        Injected(), (tensor(2),), {"y": tensor(2)}, ["args_0", "y"], [({0: "n"}, {0: "n"})]
    ),
    "partial": Form(Partial(), (tensor(2),), {"y": tensor(2)}, ["x", "y"], [{"x": {0: n}, "y": {0: n}}]),
    "no function": Form(
        CallableForward(), (tensor(2),), {"t": tensor(2), "y": tensor(2)}, ["x", "t", "y"],
        [{"x": {0: n}, "y": {0: n}, "t": {0: n}}],
    ),
}  # fmt: skip
CALLS = [(name, shapes) for name, form in FORMS.items() for shapes in (None, *form.shapes)]


def turned(kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(kwargs.items()))


def eager(form: Form) -> tuple[torch.Tensor, ...]:
    found = form.model(*form.args, **form.kwargs)
    return found if isinstance(found, tuple) else (found,)


def expect_all(actual: Any, expected: Any) -> None:
    for got, want in zip(actual, expected, strict=True):
        expect_equal(got, want)


@pytest.mark.parametrize(("name", "shapes"), CALLS, ids=[f"{name}-{shapes}" for name, shapes in CALLS])
def test_values_stay_at_their_names(name, shapes, tmp_path):
    form = FORMS[name]
    before = inspect.signature(form.model.forward)
    program = onnxport.export(form.model.eval(), form.args, kwargs=form.kwargs, dynamic_shapes=shapes)
    assert inspect.signature(form.model.forward) == before
    assert [value.name for value in program.model.graph.inputs] == form.inputs
    leaves = torch.utils._pytree.tree_leaves((form.args, form.kwargs))
    given = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    dynamic = []
    for value, leaf in zip(program.model.graph.inputs, given, strict=True):
        assert value.dtype.name == ("INT64" if leaf.dtype is torch.int64 else "FLOAT")
        sizes = [size if isinstance(size, int) else None for size in value.shape]
        assert all(size in (None, wanted) for size, wanted in zip(sizes, leaf.shape, strict=True))
        dynamic += [str(size) for size in value.shape if not isinstance(size, int)]
    assert bool(dynamic) == (shapes is not None) and set(dynamic) <= {"n", "k"}
    expect_all(program(*form.args, **form.kwargs), eager(form))
    expect_all(program(*form.args, **turned(form.kwargs)), eager(form))
    path = tmp_path / "model.onnx"
    program.save(path)
    loaded = onnxport.ONNXProgram.load(path)
    expect_all(loaded(*form.args, **form.kwargs), eager(form))
    expect_all(loaded(*form.args, **turned(form.kwargs)), eager(form))
    if shapes is (form.shapes or [None])[-1]:
        assert onnxport.verify(program, form.model, form.args, turned(form.kwargs)).passed


#: What torch.export itself can capture and run
PLAIN = [
    "tensors",
    "kinds",
    "containers",
    "another order",
    "None between",
    "star",
    "only keywords",
    "wrapper",
    "partial",
]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "name", [name for name in PLAIN if "renamed" not in name[:8] and name not in ("injected", "no function")]
)
def test_programs_have_their_own_order(name, strict):
    form = FORMS[name]
    exported = torch.export.export(form.model.eval(), form.args, form.kwargs, strict=strict)
    for kwargs in ({}, turned(form.kwargs)):
        program = onnxport.export(exported, form.args if kwargs else (), kwargs=kwargs)
        names = [s.arg.name for s in exported.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
        inputs = [value.name for value in program.model.graph.inputs]
        assert inputs == [name for name in names if name in inputs] and len(inputs) == len(form.inputs)
        expect_all(program(*form.args, **turned(form.kwargs)), eager(form))
    assert onnxport.verify(program).passed


def test_a_program_takes_what_it_was_captured_with():
    exported = torch.export.export(Tensors(), (tensor(3),), {"w": tensor(4), "z": tensor(5), "scale": tensor()})
    whole = {"scale": tensor(), "z": tensor(5), "w": tensor(4), "x": tensor(3)}
    program = onnxport.export(exported, kwargs=whole)
    assert [value.name for value in program.model.graph.inputs] == ["x", "w", "z", "scale"]
    with pytest.raises(onnxport.InputError, match="'scale' missing"):
        onnxport.export(exported, (tensor(3),), kwargs={"w": tensor(4), "z": tensor(5)})
    with pytest.raises(onnxport.InputError, match="'alpha' unknown"):
        onnxport.export(exported, (tensor(3),), kwargs={**whole, "alpha": tensor()})


@pytest.mark.parametrize(
    ("model", "args", "kwargs"),
    [
        (Tensors(), (tensor(3), {"scale": tensor(), "z": tensor(5), "w": tensor(4)}), None),
        (Numbers(), (tensor(1), {"beta": 3.0, "gamma": 4.0}), None),
        (Star(), (tensor(2), tensor(2), tensor(2), {"q": tensor(4), "flag": tensor(3)}), None),
        (OnlyKeywords(), ({"b": tensor(2), "c": {"p": tensor(3), "q": tensor(3)}, "a": tensor(2)},), {}),
    ],
)
def test_a_trailing_dict_is_keywords(model, args, kwargs):
    program = onnxport.export(model.eval(), args, kwargs=kwargs)
    want = model(*args[:-1], **args[-1])
    expect_all(program(*args[:-1], **args[-1]), want if isinstance(want, tuple) else (want,))


class Options(torch.nn.Module):
    def forward(self, x, options: dict[str, torch.Tensor] | None = None, **rest):
        return x if not options else x + options["a"]


def test_a_trailing_dict_for_a_dict_is_none():
    x, a = tensor(3), tensor(3)
    program = onnxport.export(Options().eval(), (x, {"a": a}))
    assert [value.name for value in program.model.graph.inputs] == ["x", "options_a"]
    expect_all(program(x, {"a": a}), [x + a])
    program = onnxport.export(Options().eval(), (x, {"a": a}, {}))  # torch's way to say that the dict is no keywords
    expect_all(program(x, {"a": a}), [x + a])


def test_input_names_and_renamed_axes():
    form = FORMS["tensors"]
    program = onnxport.export(
        form.model.eval(),
        form.args,
        kwargs=form.kwargs,
        input_names=["in", "factor", "second", "first"],
        dynamic_shapes={"in": {0: "n"}, "first": {0: "k"}},
    )
    assert [(v.name, str(v.shape)) for v in program.model.graph.inputs] == [
        ("in", "[n]"),
        ("factor", "[]"),
        ("second", "[4]"),
        ("first", "[k]"),
    ]
    program.rename_axes({"k": "length"})
    assert str(program.model.graph.inputs[3].shape) == "[length]"
    expect_all(program(*form.args, **turned(form.kwargs)), eager(form))


def test_axes_of_keywords():
    form = FORMS["containers"]
    axes = {"w_a": {0: "n"}, "z": [0]}
    with pytest.warns(DeprecationWarning, match="dynamic_axes"):
        program = onnxport.export(form.model.eval(), form.args, kwargs=form.kwargs, dynamic_axes=axes)
    assert [str(v.shape) for v in program.model.graph.inputs] == ["[3]", "[z_dynamic_axes_1]", "[n]", "[2]", "[]"]


def test_inferred_shapes_of_keywords():
    form = FORMS["tensors"]
    longer = {**form.kwargs, "z": tensor(9)}
    args, kwargs, shapes = onnxport.infer_dynamic_shapes(form.model, [(form.args, form.kwargs), (form.args, longer)])
    program = onnxport.export(form.model.eval(), args, kwargs=kwargs, dynamic_shapes=shapes)
    assert [len(v.shape) and isinstance(v.shape[0], int) for v in program.model.graph.inputs] == [True, 0, True, False]
    expect_all(program(*form.args, **form.kwargs), eager(form))


def test_collections_of_shapes():
    x, kwargs = tensor(3), {"scale": tensor(), "w": tensor(4), "z": tensor(5)}
    shapes = torch.export.ShapesCollection()
    shapes[kwargs["z"]] = (Dim.DYNAMIC,)
    program = onnxport.export(Tensors(), (x,), kwargs=kwargs, dynamic_shapes=shapes)
    assert [isinstance(v.shape[0], int) for v in program.model.graph.inputs if len(v.shape)] == [True, True, False]


def test_a_word_of_python_is_refused():
    kwargs = {**FORMS["only keywords"].kwargs, "from": tensor(1)}
    with pytest.raises(onnxport.InputError, match=r"'from'.*Wrap the model"):
        onnxport.export(OnlyKeywords().eval(), (), kwargs=kwargs)


def test_what_forward_does_not_take_is_refused():
    with pytest.raises(onnxport.InputError, match="unexpected keyword argument 'e'"):
        onnxport.export(Defaults().eval(), (tensor(1),), kwargs={"e": tensor(1)})
    with pytest.raises(onnxport.DynamicShapesError, match=r"none of the arguments|has the keys"):
        onnxport.export(
            Tensors(), (tensor(3),), kwargs=FORMS["tensors"].kwargs, dynamic_shapes={"rest": {"y": {0: "n"}}}
        )
