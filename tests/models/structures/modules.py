"""Modules that are more than a forward: hooks, parametrizations, plain attributes, state that torch.export sees."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from models.structures.structure import BUFFER, INPUT, floats, ints, structure

X, OTHER = floats(4, 6), floats(7, 6)
ROWS = ({0: "rows"},)
MANY: dict[str, Any] = {"dynamic": ROWS, "other": (OTHER,)}


@structure(X, **MANY)
class ForwardHooksThatWrite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.layer.register_forward_pre_hook(lambda _module, args: (args[0] * 2,))
        self.layer.register_forward_hook(lambda _module, _args, output: output.add_(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@structure(X, **MANY)
class WeightNormByHook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.weight_norm(nn.Linear(6, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@structure(X, **MANY)
class OrthogonalAndSymmetricParametrizations(nn.Module):
    class Symmetric(nn.Module):
        def forward(self, w: torch.Tensor) -> torch.Tensor:
            return w.triu() + w.triu(1).mT

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        nn.utils.parametrize.register_parametrization(self.a, "weight", self.Symmetric())
        nn.utils.parametrizations.spectral_norm(self.b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


@structure(X, **MANY)
class PrunedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)
        prune.l1_unstructured(self.layer, "weight", 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@structure(X, **MANY)
class PythonCounterInForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * 2


@structure(X, warns="self.last was assigned during export")
class TensorKeptAsAPlainAttribute(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.last + x[0]
        return x + self.last


@structure(X, mutates={"last": BUFFER})
class PlainTensorAttributeWrittenInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last.add_(x[0])
        return x + self.last


@structure(X, dynamic=ROWS, other=(OTHER,), buffers={"history": floats(2, 6)}, mutates={"history": BUFFER})
class BufferThatGrows(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.history = torch.cat([self.history, x])
        return self.history.mean(0)


@structure(X, refused="b_first shares the memory of b_table")
class BufferThatIsAViewOfAnother(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", floats(4, 6))
        self.register_buffer("first", self.table[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.table.add_(x)
        return self.first * 2


@structure(X, **MANY)
class TransposedTiedWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(6, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.encode(x).relu_(), self.encode.weight.t())


@structure(X, mutates={"weight": "PARAMETER_MUTATION"})
class SliceOfAParameterWritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(floats(6, 6), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.weight[1:3].zero_()
        self.weight.diagonal().fill_(1)
        return x @ self.weight


@structure(X, X[0])
def inputs_that_are_views_of_one_tensor_read(x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    return x + row


@structure(floats(2, 3, 4, 5), dynamic=({0: "batch"},), other=(floats(3, 3, 4, 5),))
def channels_last_tensors_written(x: torch.Tensor) -> torch.Tensor:
    y = x.to(memory_format=torch.channels_last)
    y = y.clone()
    y.permute(0, 2, 3, 1)[..., 0].add_(1)
    z = y.contiguous()
    z.mul_(2)
    return y + z.contiguous(memory_format=torch.channels_last)


@structure(X, **MANY)
def data_of_a_temporary_written(x: torch.Tensor) -> torch.Tensor:
    y = x * 1
    y.data.add_(1)
    return y


@structure(X, **MANY)
def detached_tensors_written(x: torch.Tensor) -> torch.Tensor:
    y = x * 1
    y.detach()[0].zero_()
    y.detach_().add_(1)
    return y


@structure(X, floats(6).abs(), ints(0, 2, 2), mutates={"x": INPUT})
def rarer_in_place_operators(x: torch.Tensor, p: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    x.put_(index, p[:3])
    x.index_reduce_(0, index, x[:3].clone(), "amax")
    x.scatter_(1, index[None], 2.5)
    x.renorm_(2, 0, 3.0)
    x.clamp_(min=-p).addcdiv_(p, p + 1, value=0.5).nan_to_num_().heaviside_(p)
    return x.cumsum_(1).round_(decimals=1)


@structure(X, **MANY)
def views_turned_in_place(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    z = y.unsqueeze_(0).transpose_(1, 2).squeeze_(0)
    z[0].mul_(2)
    return z.swapaxes_(0, 1) + x


@structure(X, **MANY)
class SequentialOfInPlaceActivations(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        kinds = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.SiLU, nn.Mish, nn.LeakyReLU, nn.ELU, nn.Threshold)
        options = [(0.1, 0.2) if kind is nn.Threshold else () for kind in kinds]
        self.layers = nn.Sequential(
            *(kind(*o, inplace=True) for kind, o in zip(kinds, options)), nn.Dropout(inplace=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x * 3)


@structure(X, **MANY)
class ResidualWithAnInPlaceBranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        skip = y
        y = F.relu(y, inplace=True)
        y += x
        return y + skip


@structure(floats(2, 3, 8, 8), dynamic=({0: "batch"},), other=(floats(3, 3, 8, 8),), training=True,
           mutates={f"norm.{n}": BUFFER for n in ("running_mean", "running_var", "num_batches_tracked")})  # fmt: skip
class ConvolutionAndBatchNormInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu_()


@structure(X, **MANY)
class ClassThatOverridesOperators(nn.Module):
    class Scaled:
        def __init__(self, value: torch.Tensor) -> None:
            self.value = value

        def __matmul__(self, other: Any) -> Any:
            return type(self)(self.value @ other.value)

        def __iadd__(self, other: float) -> Any:
            self.value += other
            return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.Scaled(x) @ self.Scaled(x.t().clone())
        y += 1.5
        return y.value


@structure(X, **MANY)
class TransposedModuleOfModules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Transformer(6, 2, 1, 1, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x[None], x[None] * 0.5)
