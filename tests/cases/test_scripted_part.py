"""Parts of a model that come as TorchScript: scripted, traced, frozen and loaded modules, methods, and functions.

TorchScript reads the annotations: they are no strings here.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import onnxport
import pytest
import torch
from support import expect_equal, flat_tensors
from torch import nn


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        yield


class Holder(nn.Module):
    def __init__(self, part: Any) -> None:
        super().__init__()
        self.part = part

    def forward(self, x):
        return self.part(x)


def scaled(x: torch.Tensor, n: int = 2):
    if x.shape[0] > 100:
        return x
    return x.view(x.shape[0], -1) * n


class Flow(nn.Module):
    """Branches, loops, lists, dicts, strings, optional values, attributes, methods."""

    factor: int

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.factor, self.names, self.weights = nn.Linear(4, 4), 3, ["a", "bc"], {"x": 1.5}
        self.register_buffer("shift", torch.ones(4))
        self.plain = torch.arange(4.0)

    def several(self, x: torch.Tensor, flag: int | None = None) -> list[torch.Tensor]:
        out: list[torch.Tensor] = []
        for i in range(self.factor):
            out.append(torch.nn.functional.relu(self.layer(x)) + i)
        if flag is not None:
            out.append(x * flag)
        return out

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        out = torch.stack(self.several(x, 2), 0).sum(0)
        if y is None:
            y = out.new_zeros(out.shape, dtype=torch.float64)
        assert x.dim() == 2, f"rank {x.dim()}"
        half = out.shape[0] // 2
        for name in self.names:
            out = out + len(name)
        count = 0
        while count < 3 and x.size(1) == 4:
            count += 1
            out[:, 0] += count
        columns = torch.jit.annotate(list[int], [])
        for i in range(0, x.size(1), 2):
            columns += [i]
        picked = out[:, torch.tensor(columns)]
        return out[:half] + self.shift * self.weights["x"], {
            "y": y + self.plain,
            "sizes": torch.tensor([half, x.size(0)]),
            "picked": picked.to(torch.float64),
        }


class Sizes(nn.Module):
    """What a trace makes tensors of: arithmetic on sizes."""

    def forward(self, x):
        rows, columns = x.shape
        half = rows // 2
        y = x.view(rows, columns // 2, 2).permute(0, 2, 1).reshape(rows * 2, -1)
        return y[:half], torch.arange(rows), x.new_zeros(rows + 1, columns), y.expand(rows * 2, columns // 2), x / rows


class Function(nn.Module):
    def forward(self, x):
        return scripted_function(x, 3) + 1


class Methods(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.layers, self.k = nn.Linear(4, 4), nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]), 3

    @torch.jit.export
    def encode(self, x: torch.Tensor, n: int = 2) -> torch.Tensor:
        return self.layer(x) * n

    def forward(self, x):
        return x


class Caller(Holder):
    """Python around a scripted module: another method, attributes, submodules."""

    def forward(self, x):
        y = self.part.encode(x, n=4) + self.part.k
        for layer in self.part.layers:
            y = layer(y)
        return y + self.part.layer(x) + self.part.layers[0].weight.sum()


class Listed(nn.Module):
    def __init__(self, part: Any) -> None:
        super().__init__()
        self.parts = [part]  # which is no submodule

    def forward(self, x):
        return self.parts[0](x)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return x + self.count


class Recurrent(nn.Module):
    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x[None])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.layer = nn.MultiheadAttention(4, 2), nn.TransformerEncoderLayer(4, 2, 8)

    def forward(self, x):
        return self.layer(self.attention(x, x, x)[0])


class Blocks(nn.Module):
    def forward(self, x):
        with torch.no_grad():
            y = x * 2
        first, second = y.split(2, 1)
        return torch.cat([first, y.chunk(2, 1)[0]], 1), y.to(dtype=torch.float16), second.reshape(-1).topk(2)[0]


class Old(torch.jit.ScriptModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    @torch.jit.script_method
    def forward(self, x):
        return self.layer(x) + x.size(0)


scripted_function = torch.jit.script(scaled)


def loaded(script: Any) -> Any:
    file = io.BytesIO()
    torch.jit.save(script, file)
    file.seek(0)
    return torch.jit.load(file)


def script(module: nn.Module) -> Any:
    return torch.jit.script(module.eval())


def traced(module: nn.Module) -> Any:
    return torch.jit.trace(module.eval(), torch.randn(4, 4))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "sequential": lambda: Holder(script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))),
    "flow": lambda: Holder(script(Flow())),
    "loaded flow": lambda: Holder(loaded(script(Flow()))),
    "traced": lambda: Holder(traced(nn.Sequential(nn.Linear(4, 4), nn.Flatten()))),
    "traced sizes": lambda: Holder(traced(Sizes())),
    "loaded trace": lambda: Holder(loaded(traced(Sizes()))),
    "function": Function,
    "nested": lambda: nn.Sequential(script(nn.Linear(4, 4)), nn.Sequential(nn.GELU(), script(nn.LayerNorm(4)))),
    "shared": lambda: (lambda part: nn.Sequential(part, part))(script(nn.Linear(4, 4))),
    "tied": lambda: Holder(loaded(script(Tied()))),
    "frozen": lambda: Holder(torch.jit.freeze(script(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))))),
    "methods": lambda: Caller(script(Methods())),
    "listed": lambda: Listed(script(nn.Linear(4, 4))),
    "lstm": lambda: Holder(script(Recurrent(nn.LSTM(4, 5)))),
    "gru": lambda: Holder(loaded(script(Recurrent(nn.GRU(4, 5))))),
    "attention": lambda: Holder(script(Attention())),
    "blocks": lambda: Holder(script(Blocks())),
    "script module class": lambda: Holder(Old()),
}


@pytest.mark.parametrize("name", MODELS)
def test_equals_eager_at_another_size(name: str) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name]().eval(), torch.randn(6, 4)
    modules = dict(model.named_modules())
    program = onnxport.export(model, (torch.randn(4, 4),), dynamic_shapes=({0: "n"},))
    assert dict(model.named_modules()) == modules
    for got, wanted in zip(program(x), flat_tensors(model(x)), strict=True):
        expect_equal(got, wanted.detach())
    if name in (
        "sequential",
        "loaded flow",
        "methods",
        "tied",
    ):  # weights keep their names, and tied ones are stored once
        names = {name for name in program.model.graph.initializers if name in dict(model.named_parameters())}
        assert len(names) == len({parameter.data_ptr() for parameter in model.parameters()})


def test_a_buffer_that_it_changes_is_an_output() -> None:
    program = onnxport.export(Holder(script(Counter())), (torch.zeros(2),))
    assert [tensor.tolist() for tensor in program.run((torch.zeros(2),))] == [[1, 1], [1]]


def test_verified_and_checked() -> None:
    model = Holder(script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))).eval()
    program = onnxport.export(model, (torch.randn(2, 4),), dynamic_shapes=({0: "n"},), verify=True)
    assert onnxport.verify(program, model, (torch.randn(3, 4),)).passed
    assert onnxport.check(model, (torch.randn(2, 4),)).passed


class Unknown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.jit.wait(torch.jit.fork(torch.relu, x))


def test_what_cannot_be_run_is_named() -> None:
    with pytest.raises(onnxport.CaptureError, match=r"return self\.part\(x\)[\s\S]*prim::fork[\s\S]*nn\.Module"):
        onnxport.export(Holder(script(Unknown())), (torch.randn(2, 4),))
