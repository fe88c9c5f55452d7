"""Lists, dictionaries, tuples and classes of tensors: given, changed in forward, and returned."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict, deque, namedtuple
from typing import Any, NamedTuple

import torch
from torch import nn

from models.structures.structure import BUFFER, INPUT, floats, ints, structure

X, OTHER = floats(4, 6), floats(7, 6)
ROWS = ({0: "rows"},)


@structure([X, X * 2], dynamic=([{0: "rows"}, {0: "rows"}],), other=([OTHER, OTHER - 1],))
def list_appended_and_popped_in_forward(states: list[torch.Tensor]) -> list[torch.Tensor]:
    states.append(states[0] + states[1])
    states.pop(0)
    states.insert(0, states[-1].relu())
    return states


@structure({"x": X}, dynamic=({"x": {0: "rows"}},), other=({"x": OTHER},))
def dictionary_filled_in_forward(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state["y"] = state["x"] * 2
    state.setdefault("z", state["y"].sum(0))
    state.update(x=state.pop("x") - 1)
    return state


@structure({"b": floats(3), "a": floats(3) + 5})
def dictionary_in_unsorted_order(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"z": state["b"] - state["a"], "y": state["a"], "x": state["b"] * 3}


@structure((X, (X[0], [X[:, 0], {"deep": X[:2]}])))
def tuple_of_lists_of_dictionaries(nested: Any) -> Any:
    first, (row, [column, inner]) = nested
    return {"sum": first + row, "parts": (column * 2, [inner["deep"], row.clone()])}


@structure([X, X[0], X[:, :1]])
def list_zipped_and_reduced(tensors: list[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros(4, 6)
    for i, tensor in enumerate(reversed(tensors)):
        total = total + tensor * i
    return total


@structure({"a": X, "b": X.clone()}, mutates={"cache_a": INPUT, "cache_b": INPUT})
def dictionary_of_tensors_written_in_place(cache: dict[str, torch.Tensor]) -> torch.Tensor:
    for key, value in cache.items():
        value[0 if key == "a" else 1].fill_(3)
    cache["a"].add_(cache["b"])
    return cache["a"].sum()


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@structure(Pair(X, X + 1))
def named_tuple_in_and_out(pair: Pair) -> Pair:
    return Pair(right=pair.left * 2, left=pair.right.sum(0))


Box = namedtuple("Box", ["low", "high"])


@structure([Box(X[0], X[1]), Box(X[2], X[3])])
def list_of_named_tuples(boxes: list[Any]) -> list[Any]:
    return [Box(box.high, box.low * 2) for box in boxes]


@structure(OrderedDict(b=X, a=X * 2))
def ordered_dictionary_keeps_its_order(state: OrderedDict[str, torch.Tensor]) -> Any:
    state.move_to_end("b")
    return OrderedDict((key, value + i) for i, (key, value) in enumerate(state.items()))


@structure(deque([X, X * 2, X * 3]))
def deque_rotated(queue: deque[torch.Tensor]) -> torch.Tensor:
    queue.rotate(1)
    queue.append(queue.popleft() + 1)
    return torch.stack(list(queue)).cumsum(0)


@structure(X)
def default_dictionary_grouped_by_key(x: torch.Tensor) -> dict[str, torch.Tensor]:
    groups: dict[str, list[torch.Tensor]] = defaultdict(list)
    for i, row in enumerate(x.unbind(0)):
        groups["even" if i % 2 == 0 else "odd"].append(row)
    return {key: torch.stack(rows) for key, rows in groups.items()}


@dataclasses.dataclass
class Detection:
    boxes: torch.Tensor
    scores: torch.Tensor
    count: int = 0


@structure(X, refused="The model returns the string 'none'")
def string_returned(x: torch.Tensor) -> dict[str, Any]:
    return {"name": "none", "value": x + 1}


@structure(X, dynamic=ROWS, other=(OTHER,))
def dataclass_returned(x: torch.Tensor) -> Detection:
    return Detection(boxes=x[:, :4], scores=x[:, 4].sigmoid(), count=x.shape[0])


@structure(X, dynamic=ROWS, other=(OTHER,))
def nothing_and_numbers_among_the_outputs(x: torch.Tensor) -> tuple[Any, ...]:
    return x + 1, None, 3, [x.shape[0], 2], True


@structure(X, None, 3, True, "mean")
def nothing_numbers_and_strings_among_the_inputs(
    x: torch.Tensor, mask: Any, times: int, flag: bool, how: str
) -> torch.Tensor:
    y = x * times if mask is None else x * mask
    return y.mean(0) if how == "mean" and flag else y.sum(0)


@structure(X, dynamic=ROWS, other=(OTHER,))
def one_tensor_returned_many_times(x: torch.Tensor) -> Any:
    y = x.relu()
    return y, [y, x], {"again": y, "input": x}


@structure(X)
def constants_among_the_outputs(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.arange(3), x * 2, torch.tensor([1.5, 2.5]), torch.eye(2, dtype=torch.bool)


@structure(X)
class ParametersAndBuffersReturned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(floats(6))
        self.register_buffer("table", floats(3, 2))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.weight, x * self.weight, self.table, self.table.t()


@structure(X)
class ModuleListIndexedAndSliced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.heads = nn.ModuleDict({"mean": nn.Linear(6, 2), "scale": nn.Linear(6, 2)})
        self.gains = nn.ParameterList([nn.Parameter(floats(6)), nn.Parameter(floats(6) + 1)])

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        for layer, gain in zip(self.layers[1:3], self.gains):
            x = layer(x) * gain
        return {name: head(self.layers[-1](x)) for name, head in self.heads.items()}


@structure(X)
class OneLayerUnderThreeNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 6)
        self.decoder = self.encoder
        self.head = nn.Linear(6, 6, bias=False)
        self.head.weight = self.encoder.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.decoder(self.encoder(x)))


@structure(X, buffers={"mean": floats(6), "add": floats(6)}, options={"output_names": ["weight", "relu"]})
class NamesOfOperatorsAndOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.Linear(6, 6)
        self.sum = nn.Parameter(floats(6))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x - self.mean).mean(0), (self.relu(x).sum(0) + self.add).relu() * self.sum


@structure(X, buffers={"cache": torch.zeros(2, 6)}, mutates={"cache": BUFFER})
class StateHeldInAPlainObject(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        holder = {"rows": [self.cache[0], self.cache[1]]}
        for row in holder["rows"]:
            row.add_(x.mean(0))
        return self.cache * 2


@structure(X)
def generators_comprehensions_and_star_arguments(x: torch.Tensor) -> torch.Tensor:
    def combine(*parts: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        return torch.cat([*parts, *named.values()], -1)

    pieces = (part * i for i, part in enumerate(x.split(2, 1), 1))
    return combine(*pieces, last=x[:, :1], first=x[:, -1:])


@structure([X, X[:2], X[:3]], dynamic=([{0: "a"}, {0: "b"}, {0: "c"}],), other=([OTHER, X, OTHER[:2]],))
def ragged_list_joined(rows: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    joined = torch.cat(rows)
    lengths = torch.tensor([row.shape[0] for row in rows])
    return joined.mean(0), lengths, torch.stack([row.sum(0) for row in rows])


@structure([X[:2], X, X[:3]])
def padded_sequences(rows: list[torch.Tensor]) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1.0)


@structure(X, ints(1, 0, 3))
def tensors_swapped_between_two_lists(x: torch.Tensor, index: torch.Tensor) -> Any:
    ours, theirs = [x, x[0]], [index, index + 1]
    ours[1], theirs[0] = theirs[0], ours[1]
    return ours[0][ours[1]], theirs
