"""Captures: what must stay dynamic does, what can't be captured says why, and nothing is left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import warnings

import onnxport
import pytest
import torch
from onnxport import hookimpl, is_in_onnx_export
from onnxport.errors import CaptureError, DynamicShapesError
from onnxport.host.discovery import load
from onnxport_builtin.attempts.capture import capture
from onnxport_builtin.attempts.contract import check_dynamic
from onnxport_builtin.request.arguments import prepare
from torch.export import Dim
from torch.onnx import is_in_onnx_export as imported_early

rand = torch.rand


class Lambda(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


class Two(Lambda):
    def forward(self, x, y):
        return self.function(x, y)


class One(Lambda):
    def forward(self, x):
        return self.function(x)


def captured(model, args, shapes=None, plugins=(), **options):
    request = prepare(model.eval(), args, dynamic_shapes=shapes)
    found = capture(model, request, load(plugins), **options)
    return found.program, found.interface, request


def shapes_of(program):
    return [tuple(n.meta["val"].shape) for n in program.graph.nodes if n.op == "placeholder"]


def dims(program):
    return [[getattr(getattr(d, "node", None), "expr", d) for d in shape] for shape in shapes_of(program)]


def targets(program):
    return [str(n.target) for n in program.graph.nodes if n.op == "call_function"]


# Dimensions stay free


@pytest.mark.parametrize("size", [0, 1, 2, 4])
@pytest.mark.parametrize("spec", ["b", Dim("b"), Dim.DYNAMIC, Dim("b", min=1, max=16), Dim("b", min=0)])
def test_any_example_size_leaves_a_dim_free(size, spec):
    x = rand(size, 3)
    program, interface, request = captured(torch.nn.Linear(3, 2), (x,), ({0: spec},))
    assert len(program.range_constraints) == 1
    assert list(interface.dim_names.values()) == ["input_dim_0" if spec is Dim.DYNAMIC else "b"]
    assert request.args[0] is x and program.example_inputs[0][0] is x
    program.module()(rand(9, 3))


def test_equal_names_of_size_one_change_together():
    program, interface, _ = captured(Two(torch.add), (rand(1, 3), rand(1, 3)), ({0: "b"}, {0: "b"}))
    assert len(program.range_constraints) == 1
    assert list(interface.dim_names.values()) == ["b"]


def test_unnamed_dims_of_size_one_change_together():
    program, _, _ = captured(Two(torch.add), (rand(1, 3), rand(1, 3)), ({0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}))
    assert len(program.range_constraints) == 1


def test_different_names_of_size_one_that_the_model_ties():
    with pytest.warns(UserWarning, match=r"'a' and 'b' equal.*same"):
        program, interface, _ = _tied()
    assert len(program.range_constraints) == 1
    assert [leaf.axes for leaf in interface.inputs] == [{0: "a"}, {0: "b"}]


def _tied():
    def same(x, y):
        return x + y  # same

    return captured(Two(same), (rand(4, 3), rand(4, 3)), ({0: "a"}, {0: "b"}))


def test_sums_of_sizes_are_kept():
    def attend(tokens, past, mask):
        keys = torch.cat([past, tokens.float()], 1)
        return keys * mask

    class Step(torch.nn.Module):
        def forward(self, tokens, past, mask):
            return attend(tokens, past, mask)

    shapes = ({0: "batch", 1: "seq"}, {0: "batch", 1: "past"}, {0: "batch", 1: "total"})
    args = (torch.zeros(1, 1, dtype=torch.int64), rand(1, 5), rand(1, 6))
    program, interface, _ = captured(Step(), args, shapes)
    assert sorted(set(interface.dim_names.values()) - {"total"}) == ["batch", "past", "seq"]
    program.module()(torch.zeros(3, 2, dtype=torch.int64), rand(3, 7), rand(3, 9))
    expression = ({0: "batch", 1: "seq"}, {0: "batch", 1: "past"}, {0: "batch", 1: "past + seq"})
    program, interface, _ = captured(Step(), args, expression)
    assert sorted(interface.dim_names.values())[:1] == ["batch"]
    assert interface.inputs[2].axes == {0: "batch", 1: "past + seq"}


def test_a_model_that_needs_the_example_size_is_captured_without_changing_it():
    # 1, 2 and 3 rows are all that it takes, so that no other size can stand in
    def rows(x):
        torch._check(x.shape[0] <= 3)
        return x * 2

    program, _, _ = captured(One(rows), (rand(1, 3),), ({0: "rows"},))
    assert len(program.range_constraints) == 1


@pytest.mark.parametrize("spec", [("a", "b"), (Dim("a"), Dim("b"))])
def test_equal_sizes_do_not_tie_dims(spec):
    def compare(x, y):
        return (x[: y.shape[0]] if x.shape[0] != y.shape[0] else x).sum() + y

    program, interface, _ = captured(Two(compare), (rand(4, 3), rand(4, 3)), ({0: spec[0]}, {0: spec[1]}))
    assert sorted(interface.dim_names.values()) == ["a", "b"]
    assert len({str(d[0]) for d in dims(program)}) == 2


def test_square_inputs_are_not_tied():
    def pad(x):
        return x.transpose(2, 3) if x.shape[2] == x.shape[3] else x

    program, interface, _ = captured(One(pad), (rand(1, 3, 8, 8),), ({0: "n", 2: "h", 3: "w"},))
    assert sorted(interface.dim_names.values()) == ["h", "n", "w"]
    assert len(program.range_constraints) == 3


def test_different_dims_that_the_model_ties_are_an_error():
    with pytest.raises(DynamicShapesError, match="'a' and 'b' equal"):
        captured(Two(lambda x, y: x + y), (rand(4, 3), rand(4, 3)), ({0: Dim("a")}, {0: Dim("b")}))


@pytest.mark.parametrize("spec", ["b", Dim("b"), Dim.DYNAMIC])
@pytest.mark.parametrize("size", [1, 4])
def test_a_frozen_dim_is_an_error_with_its_line(spec, size):
    def freeze(x):
        y = x + 1
        return y.reshape(size, 3)  # here

    with pytest.raises(DynamicShapesError) as caught:
        captured(One(freeze), (rand(size, 3),), ({0: spec},))
    message = str(caught.value)
    assert f"{__file__}:" in message and "# here" in message
    assert "axis 0 of x" in message and (spec is Dim.DYNAMIC or "'b'" in message)


def test_all_frozen_dims_are_named():
    def freeze(x, y):
        return x.reshape(4, 3), y.reshape(5, 2)

    with pytest.raises(DynamicShapesError, match=r"(?s)axis 0 of x \('a'\).*axis 1 of y \('c'\)"):
        captured(Two(freeze), (rand(4, 3), rand(5, 2)), ({0: "a"}, {1: "c"}))


def test_auto_may_become_static():
    program, _, _ = captured(One(lambda x: x.reshape(4, 3)), (rand(4, 3),), ({0: Dim.AUTO},))
    assert dims(program) == [[4, 3]]


def test_ranges():
    table = torch.arange(512.0)

    def positions(x):
        return x + table[: x.shape[1]].expand(x.shape)

    _, interface, _ = captured(One(positions), (rand(2, 7),), ({0: "b", 1: "s"},))
    assert set(interface.dim_names.values()) == {"b", "s"}
    program, _, _ = captured(One(positions), (rand(2, 7),), ({0: Dim("b"), 1: Dim("s", min=3, max=100)},))
    assert any(r.upper == 100 and r.lower == 3 for r in program.range_constraints.values())
    with pytest.raises(DynamicShapesError, match=r"1024.*512|512.*1024"):
        captured(One(positions), (rand(2, 7),), ({0: Dim("b"), 1: Dim("s", max=1024)},))


def test_a_dim_without_bounds_takes_the_models():
    table = torch.arange(512.0)

    def positions(x):
        torch._check(x.shape[1] <= 512)
        return x + table[: x.shape[1]].expand(x.shape)

    with pytest.warns(UserWarning, match="s <= 512"):
        _, interface, _ = captured(One(positions), (rand(2, 7),), ({1: Dim("s")},))
    assert list(interface.dim_names.values()) == ["s"]


def test_derived_dims_that_do_not_hold_are_an_error():
    d = Dim("d")
    with pytest.raises(DynamicShapesError):
        captured(Two(lambda x, y: x + y[:-4]), (rand(4), rand(8)), ({0: d}, {0: 2 * d}))


def test_additional_inputs_are_held_to():
    more = torch.export.AdditionalInputs()
    more.add((rand(6, 3),))
    program, _, _ = captured(torch.nn.Linear(3, 2), (rand(4, 3),), more)
    assert len(program.range_constraints) == 1


def test_specs_of_torch_pass_through():
    spec = pytest.importorskip("torch.fx.experimental.dynamic_spec")
    shapes = spec.ShapesSpec(params=spec.ParamsSpec({"input": spec.TensorSpec([spec.ShapeVar("b"), None])}))
    program, _, _ = captured(torch.nn.Linear(3, 2), (rand(4, 3),), shapes)
    assert len(program.range_constraints) == 1


def test_check_dynamic_of_any_program():
    program = torch.export.export(torch.nn.Linear(3, 2), (rand(4, 3),))
    request = prepare(torch.nn.Linear(3, 2).eval(), (rand(4, 3),), dynamic_shapes=({0: "b"},))
    with pytest.raises(DynamicShapesError, match=r"axis 0 of input \('b'\) is always 4"):
        check_dynamic(program, request)


class Twice(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.arange(3.0))

    def forward(self, x, y):
        return x * 2 - y * self.scale


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("dim", [None, "batch"])
def test_one_tensor_for_two_inputs(own, dim):
    model = Twice()
    example = model.scale if own else rand(4, 3)
    axes = None if dim is None or own else ({0: dim}, {0: dim})
    program = onnxport.export(model.eval(), (example, example), dynamic_shapes=axes)
    x, y = torch.rand_like(example), torch.rand_like(example)
    torch.testing.assert_close(program(x, y)[0], model(x, y))
    assert onnxport.verify(program).passed


# Failures


def test_data_dependent_branches():
    def branch(x):
        if x.sum() > 0:
            return x
        return x + 1

    with pytest.raises(CaptureError, match=r"torch\.cond") as caught:
        captured(One(branch), (rand(3),))
    assert "if x.sum() > 0" in str(caught.value) and __file__ in str(caught.value)
    assert [attempt.name for attempt in caught.value.attempts] == ["non-strict"]  # a strict one can't follow it either
    assert all("if x.sum() > 0" in place for place in (caught.value.line, *(a.line for a in caught.value.attempts)))
    assert caught.value.attempts[0].error.startswith(type(caught.value.__cause__).__name__)


def test_a_size_of_one_that_is_broadcast_cannot_be_dynamic():
    class Sum(torch.nn.Module):
        def forward(self, x, y):
            return x + y

    with pytest.raises(CaptureError, match=r"'c' got another size .*Where the model broadcasts a size of 1, leave"):
        captured(Sum(), (rand(2, 3), rand(1, 3)), ({0: "b"}, {0: "c"}))


class Talkative(torch.nn.Module):
    def __init__(self, branches):
        super().__init__()
        self.branches, self.lstm = branches, torch.nn.LSTM(3, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.linear = torch.nn.utils.weight_norm(torch.nn.Linear(2, 2))

    def forward(self, x):
        warnings.warn("the model's own", stacklevel=2)
        if self.branches and x.sum() > 0:
            return x
        return self.linear(self.lstm(x)[0])


@pytest.mark.parametrize("branches", [False, True])
def test_what_callers_can_do_nothing_about_is_not_said(branches, capfd, caplog):
    fails = pytest.raises(CaptureError) if branches else contextlib.nullcontext()
    with pytest.warns(UserWarning) as told, fails:
        captured(Talkative(branches), (rand(4, 3),))
    assert {str(one.message) for one in told} == {"the model's own"}
    assert "GraphModule" not in capfd.readouterr().err and "Unable to find" not in caplog.text
    assert not hasattr(torch.export._trace, "print")


def test_errors_of_the_forward_itself():
    with pytest.raises(CaptureError, match="Run model") as caught:
        captured(torch.nn.Linear(3, 2), (rand(4, 5),))
    assert "non-strict" in str(caught.value) and "strict" in str(caught.value)


def test_unknown_outputs():
    class Odd:
        pass

    with pytest.raises(CaptureError, match="Container"):
        captured(One(lambda x: Odd()), (rand(3),))


def test_strict_is_tried_after_non_strict():
    calls = []

    def odd(x):
        calls.append(1)
        if not torch.compiler.is_dynamo_compiling() and not calls:
            return x
        return x * 2

    program, _, _ = captured(One(odd), (rand(3),))
    assert targets(program) == ["aten.mul.Tensor"]


# What captures look like


def test_dataclasses_as_inputs_and_outputs():
    @dataclasses.dataclass
    class Out:
        a: torch.Tensor
        b: torch.Tensor | None = None

    program, interface, _ = captured(One(lambda x: Out(x + 1)), (rand(3),))
    assert interface.outputs == ["a", ""]
    assert isinstance(program.module()(rand(3)), Out)


def test_no_grad_regions_leave_no_subgraphs():
    def region(x):
        with torch.no_grad():
            y = x * 2
        return y + 1

    program, _, _ = captured(One(region), (rand(3),))
    assert targets(program) == ["aten.mul.Tensor", "aten.add.Tensor"]


@pytest.mark.parametrize("ask", [lambda: torch.onnx.is_in_onnx_export(), imported_early, is_in_onnx_export])
def test_models_see_that_they_are_exported(ask):
    def look(x):
        return x + 1 if ask() else x * 2

    program, _, _ = captured(One(look), (rand(3),))
    assert targets(program) == ["aten.add.Tensor"]
    assert not ask() and torch.onnx.is_in_onnx_export is imported_early


def test_strict_captures_see_it_too(monkeypatch):
    real = torch.export.export

    def only_strict(*args, strict=False, **kwargs):
        if not strict:
            raise RuntimeError("not this way")
        return real(*args, strict=True, **kwargs)

    monkeypatch.setattr(torch.export, "export", only_strict)
    program, _, _ = captured(One(lambda x: x + 1 if torch.onnx.is_in_onnx_export() else x * 2), (rand(3),))
    assert targets(program) == ["aten.add.Tensor"]


def test_other_threads_are_not_exporting():
    seen = []

    def look(x):
        thread = threading.Thread(target=lambda: seen.append(torch.onnx.is_in_onnx_export()))
        thread.start()
        thread.join()
        return x + 1

    captured(One(look), (rand(3),))
    assert seen and not any(seen)


def test_patches_are_active_during_the_capture_only():
    state = []

    @contextlib.contextmanager
    def patch():
        state.append("on")
        try:
            yield
        finally:
            state.append("off")

    class Patching:
        @hookimpl
        def onnxport_patches(self):
            return [patch()]

    model = One(lambda x: x + 1 if state == ["on"] else x * 2)
    program, _, _ = captured(model, (rand(3),), plugins=[Patching()])
    assert targets(program) == ["aten.add.Tensor"] and state == ["on", "off"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_nothing_is_left_behind(error):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.1))

        def forward(self, x):
            self.inner.train()
            self.inner(x)
            raise error("stop")

    model = Model().eval()
    weights = {name: id(value) for name, value in model.named_parameters()}
    with pytest.raises(CaptureError if error is ValueError else error):
        captured(model, (rand(2, 3),))
    assert not any(module.training for module in model.modules())
    assert torch.is_grad_enabled() and not torch.onnx.is_in_onnx_export() and not torch.compiler.is_compiling()
    assert weights == {name: id(value) for name, value in model.named_parameters()}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert type(torch.ones(2) + 1) is torch.Tensor


def test_a_program_is_taken_as_it_is():
    program = torch.export.export(torch.nn.Linear(3, 2), (rand(4, 3),))
    assert capture(program, prepare(program)).program is program


def test_strides_of_an_enlarged_example():
    x = rand(1, 3, 8, 8).to(memory_format=torch.channels_last)
    program, _, _ = captured(torch.nn.Conv2d(3, 4, 3), (x,), ({0: "n"},))
    node = next(n for n in program.graph.nodes if n.op == "placeholder" and n.name == "input")
    assert node.meta["val"].is_contiguous(memory_format=torch.channels_last)


def test_fake_inputs_are_enlarged_too():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model, x = torch.nn.Linear(3, 2), rand(1, 3)
        program, _, _ = captured(model, (x,), ({0: "n"},))
    assert len(program.range_constraints) == 1


def test_the_log_says_what_is_tried(caplog):
    with caplog.at_level("INFO", logger="onnxport"):
        captured(torch.nn.Linear(3, 2), (rand(1, 3),), ({0: "n"},))
    assert "non-strict (example sizes n -> 5)" in caplog.text


def test_captures_are_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        program = captured(torch.nn.Linear(3, 2), (rand(1, 3),), ({0: "n"},))[0]
    assert program.graph.nodes


def test_threads_capture_what_they_capture_alone():
    alone = [str(captured(torch.nn.Linear(3, n), (rand(1, 3),), ({0: "n"},))[0].graph) for n in range(1, 4)]
    found = {}

    def work(n):
        found[n] = str(captured(torch.nn.Linear(3, n), (rand(1, 3),), ({0: "n"},))[0].graph)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(1, 4)] == alone
    assert torch.onnx.is_in_onnx_export is imported_early and not imported_early()
