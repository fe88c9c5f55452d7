"""Where users of torch's exporter were hurt, by the public thread that reports it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import onnxport
import pytest
import torch
import torch.nn.functional as F
from promises import promise
from support import as_module, export_and_compare, op_types
from torch import nn

X = torch.randn(2, 3)


@promise("pytorch#166797: batch-norm fusion takes each convolution's own weights, shared ones and equal names included")
def test_fused_weights_are_not_mixed_up() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
            for norm in self.norms:
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]

        def forward(self, x: torch.Tensor) -> Any:
            return [norm(self.conv(x)) for norm in self.norms]

    export_and_compare(Shared(), (torch.randn(1, 3, 6, 6),), rtol=1e-3, atol=1e-4)


@promise("onnxscript#2680: a GRU resets after the linear step, biases included")
def test_gru() -> None:
    gru = nn.GRU(3, 4)
    for bias in (gru.bias_hh_l0, gru.bias_ih_l0):
        nn.init.normal_(bias)
    program = export_and_compare(gru, (torch.randn(5, 2, 3),), rtol=1e-3, atol=1e-5)
    assert op_types(program).count("GRU") == 1


@promise("pytorch#189225, #186146, #186080: masked_scatter and pixel_unshuffle keep torch's order of elements")
def test_orders_of_elements() -> None:
    mask = torch.rand(2, 3) > 0.4
    export_and_compare(lambda x, m, s: x.masked_scatter(m, s), (X, mask, torch.arange(6.0)))
    export_and_compare(lambda x: F.pixel_unshuffle(x, 2), (torch.arange(96.0).reshape(1, 2, 6, 8),))


@promise("pytorch#151582, #148629, #148886, #149065: a dimension asked for stays free; example sizes of 1 freeze none")
def test_dimensions_are_not_frozen() -> None:
    args, other = (torch.randn(1, 3), torch.randn(1, 3)), (torch.randn(5, 3), torch.randn(5, 3))
    shapes = ({0: "batch"}, {0: "batch"})

    class Both(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, y]) * 2

    export_and_compare(Both(), args, dynamic_shapes=shapes, other_args=other)

    class Frozen(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(2, 3) + 1

    with pytest.raises(onnxport.DynamicShapesError, match=r"test_promises_complaints\.py"):
        onnxport.export(Frozen(), (X,), dynamic_shapes=({0: "batch"},))


@promise("pytorch#183439, #135343, onnxscript#1644: all operators that are missing are named at once")
def test_all_missing_operators_are_named() -> None:
    for name in ("one", "two"):
        operator = torch.library.custom_op(f"onnxport_complaints::{name}", lambda x: x.clone(), mutates_args=(),
                                           schema="(Tensor x) -> Tensor")  # fmt: skip
        operator.register_fake(torch.empty_like)
    ops = torch.ops.onnxport_complaints
    with pytest.raises(onnxport.UnsupportedOperatorsError) as caught:
        onnxport.export(as_module(lambda x: ops.two(ops.one(x) + ops.two(x))), (X,))
    found = {refusal.target: refusal.count for refusal in caught.value.refusals}
    assert found == {"onnxport_complaints::one": 1, "onnxport_complaints::two": 2}


@promise("pytorch#150367: a composite operator of the custom table is asked, and not decomposed away")
def test_composites_of_the_table() -> None:
    def hardly(op: Any, input: Any, *rest: Any, **_: Any) -> Any:
        return op.Identity(input)

    table = {torch.ops.aten.layer_norm.default: hardly}
    program = onnxport.export(nn.LayerNorm(3).eval(), (X,), custom_translation_table=table, optimize=False)
    assert op_types(program) == ["Identity"]


@promise("pytorch#168211, #158094, #173076: names given stand, whatever a buffer, an operator or an output is called")
def test_names_collide() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.ones(3))

        def forward(self, add: torch.Tensor, mul: torch.Tensor) -> Any:
            return add.mean() + self.mean, add * mul, add, add

    names = {"input_names": ["mul", "mean_1"], "output_names": ["mean", "add", "same", "again"]}
    program = export_and_compare(Named(), (X, X + 1), **names)
    graph = program.model.graph
    assert [value.name for value in graph.inputs] == names["input_names"]
    assert [value.name for value in graph.outputs] == names["output_names"]
    program.apply_weights({"mean": torch.full((3,), 5.0)})  # its own name, whatever it is called in the file
    torch.testing.assert_close(program(X, X)[0], X.mean() + torch.full((3,), 5.0))


@promise("pytorch#166001, #143124, #140748: dynamic_shapes by renamed inputs, lists and optionals that are left out")
def test_dynamic_shapes_of_renamed_inputs() -> None:
    class Optional(nn.Module):
        def forward(self, xs: list[torch.Tensor], mask: torch.Tensor | None = None, y: Any = None) -> torch.Tensor:
            return xs[0] + xs[1] + y if mask is None else xs[0] * mask

    def inputs(batch: int) -> Any:
        return {"xs": [torch.randn(batch, 3)] * 2, "y": torch.randn(batch, 3)}

    shapes = {"left": {0: "batch"}, "right": {0: "batch"}, "third": {0: "batch"}}
    program = export_and_compare(Optional(), (), inputs(2), dynamic_shapes=shapes, other_kwargs=inputs(5),
                                 input_names=["left", "right", "third"])  # fmt: skip
    assert [str(value.shape) for value in program.model.graph.inputs] == ["[batch,3]"] * 3


@dataclasses.dataclass
class Config:
    image: torch.Tensor
    scale: float = 2.0


class Pair(NamedTuple):
    left: torch.Tensor
    right: Any = None


@promise("pytorch#155862, #152465, #142161: dataclasses, named tuples and caches go in and come out")
def test_containers() -> None:
    class Uses(nn.Module):
        def forward(self, config: Config, pair: Pair) -> Any:
            return {"sum": config.image * config.scale + pair.left, "pair": Pair(pair.left, config.image)}

    program = export_and_compare(Uses(), (Config(X), Pair(X + 1)))
    assert [value.name for value in program.model.graph.inputs] == ["config_image", "pair_left"]


@promise("pytorch#126339, #184872, #193192, #191855: an RNN is one operator, with a free time axis and batch")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.RNN])
def test_recurrent(kind: Any) -> None:
    program = export_and_compare(
        kind(3, 4, batch_first=True), (torch.randn(2, 5, 3),), dynamic_shapes=({0: "batch", 1: "time"},),
        other_args=(torch.randn(4, 9, 3),), rtol=1e-3, atol=1e-5,
    )  # fmt: skip
    assert op_types(program).count(kind.__name__) == 1


@promise("pytorch#111186, #61263: one storage is one initializer, and no weight is copied")
def test_ties() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, i: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(i)) + self.embed.weight.sum()

    model = Tied()
    program = export_and_compare(model, (torch.tensor([1, 2]),), optimize=False)
    weights = [value.const_value for value in program.model.graph.initializers.values()]
    shared = [weight for weight in weights if getattr(weight, "source", None)]
    assert [weight.raw.data_ptr() for weight in shared] == [model.embed.weight.data_ptr()]  # type: ignore[union-attr]


@promise("pytorch#192040: the while_loop of torch's documentation")
def test_while_loop() -> None:
    def forward(iter: torch.Tensor, x: torch.Tensor) -> Any:
        return torch._higher_order_ops.while_loop(
            lambda iter, x: iter.sum() < 10, lambda iter, x: (iter + 1, x.sin()), (iter, x)
        )

    export_and_compare(forward, (torch.zeros(1, dtype=torch.int64), X))


@promise("pytorch#162726, #151703, #136089, onnxscript#2146: an error names the line of the model, and its own cause")
def test_errors_name_the_line() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x @ x  # of 2 x 3 each

    with pytest.raises(onnxport.CaptureError, match=r"test_promises_complaints\.py:\d+") as caught:
        onnxport.export(as_module(forward), (X,))
    assert caught.value.__cause__ is not None


@promise("pytorch#113444, #135014, #107588, #147854: complex tensors, stft and istft")
def test_complex() -> None:
    def forward(x: torch.Tensor) -> Any:
        spectrum = torch.stft(x, 8, window=torch.hann_window(8), return_complex=True)
        return spectrum * 1j, torch.istft(spectrum * 2, 8, window=torch.hann_window(8))

    export_and_compare(forward, (torch.randn(1, 32),), rtol=1e-3, atol=1e-4)


@promise("pytorch#126269, #126479: save writes one file, unless it is asked for two or the model is too large for one")
def test_no_unexpected_files(tmp_path: Path) -> None:
    onnxport.export(nn.Linear(64, 64).eval(), (torch.randn(1, 64),)).save(tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@promise("pytorch#156673, #136179: None and Python numbers are accepted and baked in, or inputs where asked")
def test_numbers() -> None:
    class Numbers(nn.Module):
        def forward(self, x: torch.Tensor, none: Any, n: int, factor: float) -> torch.Tensor:
            return x * factor + n

    program = export_and_compare(Numbers(), (X, None, 2, 0.5))
    assert [value.name for value in program.model.graph.inputs] == ["x"]
    shapes = {"x": None, "none": None, "n": torch.export.Dim.DYNAMIC, "factor": None}
    program = onnxport.export(Numbers(), (X, None, 4, 0.5), dynamic_shapes=shapes)
    assert [value.name for value in program.model.graph.inputs] == ["x", "n"]
    torch.testing.assert_close(program(X, None, 9, 0.5)[0], X * 0.5 + 9)


@promise("pytorch#108179: no path of the machine is in the file")
def test_no_local_paths() -> None:
    text = str(onnxport.export(nn.TransformerEncoderLayer(8, 2, 16).eval(), (torch.randn(2, 3, 8),)).model_proto)
    for folder in (str(Path(__file__).parent), str(Path(torch.__file__).parent), str(Path.home())):
        assert f"{folder}/" not in text


@promise("pytorch#154319: modules as ONNX local functions")
def test_functions() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    program = export_and_compare(model, (X,), functions=[nn.Linear])
    assert len(program.model.functions) >= 1
