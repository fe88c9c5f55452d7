"""verify: what passes, what fails, and how it is told."""

from __future__ import annotations

import json
import re
import threading

import onnxport
import pytest
import torch
from graph_support import INT64, Graph
from onnxport.errors import InputError, VerificationError
from onnxport_workbench.verify import TOLERANCES, VerificationResult, compare, tolerance, verify

DYNAMIC = torch.export.Dim.DYNAMIC


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, torch.cat([x, y])


def doubling(factor: float = 2.0, axis: int = 0, dims=(("n", 3), ("m", 3))):
    exported = torch.export.export(
        Double(), (torch.randn(4, 3), torch.randn(5, 3)), dynamic_shapes=({0: DYNAMIC}, {0: DYNAMIC})
    )
    g = Graph()
    x, y = g.input("x", dims[0]), g.input("y", dims[1])
    g.output(g.node("Mul", x, g.weight("two", torch.tensor(factor)), name="doubled", shape=dims[0]))
    g.output(g.node("Concat", x, y, name="joined", shape=["k", 3], axis=axis))
    return g.program(exported)


def test_a_right_model_passes_at_several_shapes() -> None:
    result = verify(doubling())
    assert result.passed and result.checker == "" and result.failures() == []
    labels = [one.label for one in result.comparisons]
    assert labels[0] == "example" and len(labels) == 3
    assert [[out.shape for out in one.outputs] for one in result.comparisons] == [
        [[4, 3], [9, 3]],
        [[9, 3], [21, 3]],
        [[1, 3], [2, 3]],
    ]
    assert "doubled" in result.table() and "onnx.checker: ok" in str(result)
    assert json.loads(json.dumps(result.as_dict()))["passed"] is True
    result.raise_on_failure()


def test_a_wrong_value_is_named() -> None:
    result = verify(doubling(2.01))
    assert not result.passed
    first = result.comparisons[0].outputs
    assert first[0].mismatched == 1.0 and 0.004 < first[0].max_rel < 0.006 and not first[1].problem
    with pytest.raises(VerificationError, match=r"\[example\] output 'doubled': 100.00% of the elements differ"):
        result.raise_on_failure()
    assert verify(doubling(2.01), rtol=0.1, atol=0.1).passed


def test_what_holds_only_at_the_traced_shape_fails() -> None:
    exported = torch.export.export(Double(), (torch.randn(4, 3), torch.randn(5, 3)), dynamic_shapes=({0: DYNAMIC},) * 2)
    g = Graph()
    x, y = g.input("x", ["n", 3]), g.input("y", ["m", 3])
    wide = g.node("Reshape", x, g.weight("shape", torch.tensor([4, 3])), name="wide", shape=[4, 3])
    g.output(g.node("Mul", wide, g.weight("two", torch.tensor(2.0)), name="doubled", shape=[4, 3]))
    g.output(g.node("Concat", x, y, name="joined", shape=["k", 3], axis=0))
    result = verify(g.program(exported))
    assert [one.passed for one in result.comparisons] == [True, False, False]
    assert "Reshape" in result.failures()[0]
    assert "FAILED" in result.table()


def test_shapes_that_torch_refuses_are_skipped() -> None:
    class Picky(torch.nn.Module):
        def forward(self, x):
            return x * 2

    def refuse(x):
        if x.shape[0] != 4:
            raise ValueError("four rows, please")
        return x * 2

    exported = torch.export.export(Picky(), (torch.randn(4, 3),), dynamic_shapes=({0: DYNAMIC},))
    g = Graph()
    g.output(g.node("Add", *[g.input("x", ["n", 3])] * 2, name="y", shape=["n", 3]))
    result = verify(g.program(exported), refuse)
    assert result.passed and [bool(one.skipped) for one in result.comparisons] == [False, True, True, True]
    assert "not run: ValueError: four rows" in result.table()
    result = verify(g.program(exported), refuse, (torch.ones(3, 3),), generate=False)
    assert not result.passed and "did not run" in result.failures()[0]


def test_ranges_and_derived_dimensions() -> None:
    half = torch.export.Dim("half", min=3, max=6)

    class Split(torch.nn.Module):
        def forward(self, x, y, index):
            return (x.reshape(-1, 2) + y.unsqueeze(1))[index]

    exported = torch.export.export(
        Split(),
        (torch.randn(8), torch.randn(4), torch.tensor([3, 0])),
        dynamic_shapes=({0: 2 * half}, {0: half}, {0: DYNAMIC}),
    )
    g = Graph()
    x, y, index = g.input("x", ["2*half"]), g.input("y", ["half"]), g.input("index", ["n"], INT64)
    x = g.node("Reshape", x, g.weight("pairs", torch.tensor([-1, 2])), name="p", shape=["half", 2])
    y = g.node("Unsqueeze", y, g.weight("one", torch.tensor([1])), name="u", shape=["half", 1])
    z = g.node("Add", x, y, name="sum", shape=["half", 2])
    g.output(g.node("Gather", z, index, name="z", shape=["n", 2], axis=0))
    result = verify(g.program(exported))
    assert result.passed
    shapes = [one.outputs[0].shape[0] if one.outputs else one.skipped for one in result.comparisons]
    assert shapes[:2] == [2, 6]
    assert "=6" in result.comparisons[1].label and "=3" in result.comparisons[2].label


def test_files(tmp_path) -> None:
    program = doubling()
    program.save(tmp_path / "m.onnx", external_data=True)
    args = torch.randn(4, 3), torch.randn(5, 3)
    result = verify(tmp_path / "m.onnx", Double(), args)
    assert result.passed and [one.label for one in result.comparisons] == ["example", "n=9, m=12", "n=1, m=1"]
    assert verify(str(tmp_path / "m.onnx"), program.exported_program).passed
    assert verify(tmp_path / "m.onnx", Double(), (), {"y": args[1], "x": args[0]}).passed
    for call, message in [
        (lambda: verify(tmp_path / "m.onnx"), "against a model"),
        (lambda: verify(tmp_path / "m.onnx", Double()), "example inputs are not known"),
    ]:
        with pytest.raises(InputError, match=message):
            call()
    assert not verify(tmp_path / "m.onnx", Double(), args[:1]).passed


def test_invalid_models_are_reported_not_raised() -> None:
    program = doubling(axis=5)
    result = verify(program)
    assert not result.passed and result.checker and result.comparisons[0].error
    assert len(result.failures()) >= 2


def test_number_of_outputs() -> None:
    program = doubling()
    program.model.graph.outputs.pop()
    result = verify(program)
    assert "fewer outputs than the 2" in result.failures()[0]
    program = doubling()
    result = verify(program, lambda x, y: x * 2)
    assert "more outputs than the 1" in result.failures()[0]


def test_other_inputs_are_compared() -> None:
    args = torch.randn(2, 3), torch.randn(7, 3)
    result = verify(doubling(), other_inputs=[(args, None), ((), {"x": args[0], "y": args[1]})], generate=False)
    assert result.passed and [one.label for one in result.comparisons] == ["example", "inputs 1", "inputs 2"]


def test_mutated_buffers_and_inputs_are_compared_and_put_back() -> None:
    class Counter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(2))

        def forward(self, x):
            self.count.add_(1)
            x.mul_(2)
            return x + self.count

    def program(step: float):
        x = torch.ones(2)
        exported = torch.export.export(Counter(), (x,)).run_decompositions({})
        kind, target = "pkg.torch.export.graph_signature.OutputSpec.kind", "OutputSpec.target"
        g = Graph()
        count, x = g.weight("count", exported.state_dict["count"]), g.input("x", [2])
        count = g.node("Add", count, g.weight("step", torch.tensor(step)), name="count_out", shape=[2])
        x = g.node("Add", x, x, name="x_out", shape=[2])
        result = g.node("Add", x, count, name="y", shape=[2])
        for value, (name, of) in zip((result, count, x), (("", ""), ("BUFFER", "count"), ("USER_INPUT", "x"))):
            g.output(value, kind=f"{name}_MUTATION" if name else "USER_OUTPUT")
            value.metadata_props[kind.replace("OutputSpec.kind", target)] = of
        return g.program(exported)

    right = program(1.0)
    for _ in range(2):
        result = verify(right)
        assert result.passed, result.table()
        assert [out.name for out in result.comparisons[0].outputs] == ["y", "count_out", "x_out"]
    assert right.exported_program.state_dict["count"].tolist() == [0, 0]
    assert [line for line in verify(program(2.0)).failures() if "count_out" in line]


def test_none_and_number_outputs() -> None:
    g = Graph()
    x = g.input("x", [2])
    g.output(g.node("Neg", x, name="y", shape=[2]))
    g.output(g.node("Identity", g.weight("seven", torch.tensor(7)), name="n", shape=[], dtype=INT64))
    result = verify(g.program(), lambda x: {"a": -x, "b": None, "n": 7}, (torch.ones(2),))
    assert result.passed, result.table()


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("expected", "actual", "problem"),
    [
        ([1.0, NAN, INF], [1.0, NAN, INF], ""),
        ([1.0, NAN], [1.0, 2.0], "50.00% .* 0 NaN instead of 1"),
        ([1.0, INF], [1.0, -INF], "50.00%"),
        ([1.0, 2.0], [1.0, INF], "1 infinite instead of 0"),
        ([1.0, 1e-9], [1.0, 2e-6], ""),
        ([1.0, 1.0], [1.0, 1.001], "50.00%"),
        ([1e4, 0.1], [1e4, 0.11], ""),
        ([[1.0]], [1.0], r"shape \[1\], expected \[1, 1\]"),
        ([], [], ""),
    ],
)
def test_compare(expected, actual, problem: str) -> None:
    check = compare("y", torch.tensor(expected), torch.tensor(actual))
    assert re.search(problem, check.problem) if problem else not check.problem


def test_compare_dtypes() -> None:
    large = torch.tensor([2**62 + 1, 5])
    assert not compare("y", large, large.clone()).problem
    assert compare("y", large, large - 1).mismatched == 1.0
    assert "dtype torch.int32, expected torch.int64" in compare("y", large, large.int()).problem
    flags = torch.tensor([True, False])
    assert compare("y", flags, ~flags).mismatched == 1.0
    waves = torch.tensor([1 + 1j, 2])
    assert not compare("y", waves, waves + 1e-7).problem
    assert compare("y", waves, waves.conj()).mismatched == 0.5
    for dtype in TOLERANCES:
        values = torch.tensor([1.0, -2.0, 0.5]).to(dtype)
        assert not compare("y", values, values.clone()).problem
        assert compare("y", values, (values.float() * 2).to(dtype)).problem


def test_every_floating_point_dtype_has_a_tolerance() -> None:
    for name in dir(torch):
        dtype = getattr(torch, name)
        if isinstance(dtype, torch.dtype) and (dtype.is_floating_point or dtype.is_complex):
            if "complex32" in str(dtype) or "float4" in str(dtype):
                continue  # torch computes with neither
            values = torch.tensor([1.0, 2.0]).to(dtype)
            assert not compare("y", values, values.clone()).problem
            assert compare("y", values, values[[1, 1]]).problem or tolerance(dtype)[0] >= 0.5


def test_indices_stay_valid_at_generated_sizes() -> None:
    class Rows(torch.nn.Module):
        def forward(self, table: torch.Tensor, index: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return table[index] + x

    args = (torch.randn(6, 2), torch.tensor([5, 3, 0]), torch.randn(2))
    program = onnxport.export(Rows(), args, dynamic_shapes=({0: "rows"}, {0: "n"}, None))
    result = verify(program)
    assert result.passed, result.table()
    assert not any(one.skipped for one in result.comparisons)
    assert [one.label for one in result.comparisons][-1] == "rows=1, n=1, small integers"

    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(50, 4)

        def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
            return self.embedding(ids) * positions[..., None]

    args = (torch.randint(0, 50, (2, 7)), torch.arange(7)[None].expand(2, 7))
    axes = {0: "batch", 1: "length"}
    result = verify(onnxport.export(Embedding(), args, dynamic_shapes=(axes, axes)))
    assert result.passed and [one.label for one in result.comparisons] == [
        "example", "batch=5, length=16", "batch=1, length=1"
    ]  # fmt: skip


def test_derived_and_bounded_dimensions_are_generated_within_their_bounds() -> None:
    half = torch.export.Dim("half", min=2, max=20)

    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.view(-1, 2) * y[:, None]

    program = onnxport.export(Halves(), (torch.randn(8), torch.randn(4)), dynamic_shapes=({0: 2 * half}, {0: half}))
    result = verify(program)
    assert result.passed
    sizes = [one.outputs[0].shape[0] for one in result.comparisons if not one.skipped]
    assert sizes == [4, 9, 2] and [one.label for one in result.comparisons if one.skipped] == ["half=1"]


def test_an_export_that_fails_verification_says_which_output(tmp_path) -> None:
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.sin(), x.cos()

    with pytest.raises(VerificationError, match="output 'cosine'") as caught:
        onnxport.export(
            Two(),
            (torch.randn(4),),
            tmp_path / "two.onnx",
            output_names=["sine", "cosine"],
            custom_translation_table={torch.ops.aten.cos.default: lambda op, self: op.Sin(self)},
            verify=True,
            report=True,
            artifacts_dir=tmp_path,
        )
    assert "output 'sine'" not in str(caught.value) and "find_mismatch" in str(caught.value)
    (report,) = tmp_path.glob("*.json")
    data = json.loads(report.read_text())
    assert not data["succeeded"] and data["verification"]["passed"] is False
    markdown = report.with_suffix(".md").read_text()
    assert "- onnx.checker: ok" in markdown and "- numbers: failed" in markdown
    assert not (tmp_path / "two.onnx").exists()
    assert caught.value.program is not None
    caught.value.program.save(tmp_path / "two.onnx")


class Odd(torch.nn.Module):
    """Branches where torch.export can't see it, and changes itself in each way that a module can."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("total", torch.zeros(()))
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not onnxport.is_in_onnx_export():
            self.calls = self.calls + 1
            self.total += x.sum()
            self.seen.append(len(self.seen))
            return x + 1
        return x + 2


def test_an_export_is_compared_with_the_model_itself() -> None:
    model = Odd().eval()
    buffers = dict(model.named_buffers())
    with pytest.raises(VerificationError, match=r"100\.00% of the elements differ, by 1\.00e"):
        onnxport.export(model, (torch.ones(2),), verify=True)
    assert not model.seen and model.calls is buffers["calls"] and model.total == 0


def test_what_cannot_be_copied_gets_its_buffers_back() -> None:
    model = Odd().eval()
    model.lock = threading.Lock()  # type: ignore[assignment]
    buffers = dict(model.named_buffers())
    program = onnxport.export(model, (torch.ones(2),))
    assert not verify(program, model).passed
    assert model.calls is buffers["calls"] and model.total == 0 and model.calls == 0


def test_an_empty_result_has_not_passed() -> None:
    assert not VerificationResult().passed
